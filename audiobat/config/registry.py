"""The seams: parts that a researcher replaces without changing the package. In: a seam and a kind. Out: a class.

A seam is a folder of the package that holds one file for each kind: `decoder.kind: vit` is the one class with a `build`
in `pretraining/decoders/vit.py`. A class of a user's own is `my_file.py:MyDecoder`, the path relative to the current
folder. So a new kind is one new file. To list the kinds imports none of them, which keeps `--help` fast.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from audiobat.config.checks import check
from audiobat.config.own_fields import check_own_fields
from audiobat.config.user_files import find_in_file, is_user_class, place_of, split_name
from audiobat.errors import AudiobatError, did_you_mean

PACKAGE = Path(__file__).parents[1]
ROOT = "audiobat."  # of the dotted names of its modules
C = TypeVar("C")


@dataclass(frozen=True)
class Seam:
    """Where the kinds of a seam are, and what each must have; docs/variants.md explains every method."""

    folder: str  # below the package
    methods: tuple[str, ...]  # which a class of this seam defines
    shared: tuple[str, ...] = ("base",)  # files of the folder that are no kinds


SEAMS = {
    "frontend": Seam("audio/frontends", ("build", "frame_counts", "forward"), ("base", "filter_bank")),
    "head": Seam("models/heads", ("build", "forward"), ("fused_extremes", "pooling", "base")),
    "mask": Seam("pretraining/masks", ("build", "draw")),
    "decoder": Seam("pretraining/decoders", ("build", "forward")),
    "target": Seam("pretraining/targets", ("build", "forward"), ("base", "teacher")),
    "objective": Seam("pretraining/objectives", ("build", "forward"), ("base", "statistics")),
    "task": Seam("probing/tasks", ("build", "measure")),
}


def kinds(seam: str) -> list[str]:
    """The names of the built-in kinds of a seam, in alphabetical order; nothing is imported."""
    files = (PACKAGE / SEAMS[seam].folder).glob("*.py")
    return sorted({file.stem for file in files} - {"__init__", *SEAMS[seam].shared})


def find(seam: str, kind: str) -> type[Any]:
    """The class of a kind: a built-in one by its name, or a user's own by `FILE.py:CLASS`.

    Raises:
        AudiobatError: an unknown kind, a file or class that is missing, a class that lacks a method of its seam.
    """
    if is_user_class(kind):
        return _check_methods(seam, kind, find_in_file(*split_name(kind)))
    check_kind(seam, kind)
    module = importlib.import_module(f"{ROOT}{SEAMS[seam].folder.replace('/', '.')}.{kind}")
    own = [found for found in vars(module).values() if getattr(found, "__module__", None) == module.__name__]
    classes = [found for found in own if isinstance(found, type) and hasattr(found, "build")]
    if len(classes) != 1:
        raise AudiobatError(f"{module.__file__} has {len(classes)} classes with a `build`: a kind is exactly one.")
    return _check_methods(seam, kind, classes[0])


def class_for(config: object) -> type[Any]:
    """The class of the kind that the config of a seam chooses, such as `class_for(pretrain_config.decoder)`.

    Raises:
        AudiobatError: as for `find`; a config of another class than the kind's own `Config`.
    """
    seam = seam_of(type(config))
    assert seam is not None, config
    kind = getattr(config, seam[1])
    found = find(seam[0], kind)
    wanted = getattr(found, "Config", object)
    if not isinstance(config, wanted):
        raise AudiobatError(
            f"{seam[0]}.{seam[1]} {kind} has settings of its own, which this {type(config).__name__} lacks: make the "
            "config from a recipe, flags or audiobat.config.from_dict."
        )
    return found


def check_kind(seam: str, kind: str, where: str | None = None, others: tuple[str, ...] = ()) -> None:
    """Raise an AudiobatError that lists the kinds unless `kind` is one of them or has the form FILE.py:CLASS.

    `where` names the setting in the sentence; None: SEAM.kind. `others` are words that the setting takes besides.
    """
    if not is_user_class(kind):
        known = (*others, *kinds(seam))
        if kind not in known:
            hint = f"choose one of {', '.join(known)}{did_you_mean(str(kind), known)}, or your own as FILE.py:CLASS"
            check(False, where or f"{seam}.kind", kind, hint)


def kind_field(seam: str, default: str) -> Any:
    """The field of a config dataclass that names the kind of a seam."""
    return dataclasses.field(default=default, metadata={"seam": seam})


def kinds_field(listed: str, config_class: type) -> Any:
    """The field of a config dataclass that maps kinds of the seam of `config_class`, which `listed` names, to fields.

    The settings of the kinds that are listed are flags, too.
    """
    return dataclasses.field(default_factory=dict, metadata={"settings_of": (listed, config_class)})


def seam_of(config_class: type) -> tuple[str, str] | None:
    """The seam whose kind a config class chooses, and the name of the field that does; None for other classes."""
    if not dataclasses.is_dataclass(config_class):
        return None
    return next(((f.metadata["seam"], f.name) for f in dataclasses.fields(config_class) if "seam" in f.metadata), None)


def choices(config_class: type, field: str) -> list[str]:
    """The built-in kinds that a field of a config class can name, for help; empty for a field of another sort."""
    seam = seam_of(config_class)
    return kinds(seam[0]) if seam is not None and seam[1] == field else []


def config_class_of(config_class: type[C], kind: str) -> type[C]:
    """The class that holds the settings of `kind`: its own `Config`, a subclass of `config_class`, or that itself.

    A built-in kind without a `Config` is not imported for this, which would take torch with it.

    Raises:
        AudiobatError: an unknown kind; a `Config` that is no frozen dataclass, or whose fields YAML could not keep.
    """
    seam = seam_of(config_class)
    assert seam is not None
    check_kind(seam[0], kind, ".".join(seam))
    if not is_user_class(kind):
        source = (PACKAGE / SEAMS[seam[0]].folder / f"{kind}.py").read_text(encoding="utf-8")
        if not re.search(r"^    class Config\b", source, re.MULTILINE):
            return config_class
    found: type[C] = getattr(find(seam[0], kind), "Config", config_class)
    base = [base for base in config_class.__mro__ if seam_of(base)][-1]  # that of the seam
    # A subclass of a dataclass is one by inheritance: without @dataclass its own fields would not be settings.
    decorated = isinstance(found, type) and "__dataclass_fields__" in vars(found)
    if not (decorated and issubclass(found, base)):
        where = f"{place_of(found)}: {found.__qualname__}" if isinstance(found, type) else f"{kind}: its Config"
        raise AudiobatError(
            f"{where} is no frozen dataclass that subclasses {base.__name__}: write @dataclass(frozen=True) above "
            f"class Config({base.__name__})."
        )
    if is_user_class(kind):
        check_own_fields(found, base)
    return found


def _check_methods(seam: str, kind: str, found: Any) -> type[Any]:
    """`found`, if it is a class that defines all methods of its seam."""
    a_seam = f"an {seam}" if seam == "objective" else f"a {seam}"
    if not isinstance(found, type):
        raise AudiobatError(f"{kind} is a {type(found).__name__}: {a_seam} is a class.")
    wanted = SEAMS[seam].methods
    missing = [name for name in wanted if not _defines(found, name)]
    missing += sorted(getattr(found, "__abstractmethods__", set()) - set(missing))
    if missing:
        where = f"{place_of(found)}: " if is_user_class(kind) else ""
        raise AudiobatError(
            f"{where}{found.__name__} lacks {', '.join(missing)}: {a_seam} defines {', '.join(wanted)} "
            "(see docs/variants.md)."
        )
    return found


def _defines(found: type[Any], name: str) -> bool:
    """Whether a class has a method of its own, not torch's placeholder for `forward`."""
    method = getattr(found, name, None)
    return callable(method) and "unimplemented" not in getattr(method, "__name__", "")
