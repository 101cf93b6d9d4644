"""The registry of an exported file: it holds the frontend and the head of the model beside it, and no other kind.

`bundle` puts these functions in the place of those of their names in `config/registry.py`, which look kinds up in the
package and in users' files. The exported file ends with the entries of `KINDS`.
"""

from __future__ import annotations

from typing import Any, TypeVar

from audiobat.config.registry import seam_of
from audiobat.errors import AudiobatError

C = TypeVar("C")
KINDS: dict[tuple[str, str], type[Any]] = {}  # seam and kind, as config.json names it, to the class


def find(seam: str, kind: str) -> type[Any]:
    """The class of a kind; AudiobatError if it did not come with this file."""
    if (seam, kind) not in KINDS:
        known = ", ".join(name for at, name in KINDS if at == seam)
        raise AudiobatError(f"{seam}.kind is {kind!r}, but this file has the code of {known or 'none'} only.")
    return KINDS[seam, kind]


def check_kind(seam: str, kind: str, where: str | None = None) -> None:
    """Nothing: a config may name any kind, such as the default one, until `find` is asked for its class."""


def config_class_of(config_class: type[C], kind: str) -> type[C]:
    """The class that holds the settings of `kind`: its own `Config`, or `config_class`."""
    seam = seam_of(config_class)
    assert seam is not None
    found: type[C] = getattr(KINDS.get((seam[0], kind)), "Config", config_class)
    return found
