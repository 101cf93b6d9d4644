"""The fields of a user's own `Config`: of types that YAML can keep, with defaults of these types.

In: a `Config` of a class in a user's file, and the config class of its seam. A run whose config YAML does not give back
could be neither resumed nor loaded, so that this is checked when the class is found.
"""

from __future__ import annotations

import dataclasses
import math
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from audiobat.config.checks import LARGEST, is_union
from audiobat.config.user_files import place_of
from audiobat.errors import AudiobatError

TYPES = "int, float, bool, str, X | None, tuple[X, ...] or Literal[...]"


def check_own_fields(found: type[Any], base: type[Any]) -> None:
    """Raise an AudiobatError for the first field that `found` adds to `base` with another type or default."""
    try:
        hints = get_type_hints(found)
    except (NameError, TypeError) as error:  # of an annotation in quotes
        raise AudiobatError(f"{place_of(found)}: {found.__qualname__} has an unknown type ({error}).") from None
    inherited = base.__dataclass_fields__
    for f in dataclasses.fields(found):
        if f is inherited.get(f.name):
            continue
        make, hint = f.default_factory, hints[f.name]
        default = f.default if make is dataclasses.MISSING else make()
        if not (is_permitted(hint) and fits(hint, default)):
            shown = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
            given = "no default" if default is dataclasses.MISSING else f"the default {default!r}"
            raise AudiobatError(
                f"{place_of(found, f.name)}: {found.__qualname__}.{f.name} is {shown} with {given}: use {TYPES}, "
                "and a default of that type."
            )


def is_permitted(hint: Any) -> bool:
    """Whether a type is one of TYPES."""
    args = get_args(hint)
    if is_union(hint):
        return len(args) == 2 and NoneType in args and all(arm is NoneType or is_permitted(arm) for arm in args)
    if get_origin(hint) is tuple:
        return all(arm is Ellipsis or is_permitted(arm) for arm in args)
    return hint in (int, float, bool, str) or get_origin(hint) is Literal


def fits(hint: Any, value: object) -> bool:
    """Whether a value is of a permitted type; a whole number is a float, too."""
    args = get_args(hint)
    if is_union(hint):
        return value is None or any(fits(arm, value) for arm in args if arm is not NoneType)
    if get_origin(hint) is Literal:
        return value in args
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return False
        arms = args[:1] * len(value) if args[-1] is Ellipsis else args
        return len(arms) == len(value) and all(map(fits, arms, value))
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    return type(value) is hint and not (hint is int and abs(value) > LARGEST)  # type: ignore[arg-type]
