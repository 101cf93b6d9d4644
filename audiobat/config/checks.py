"""Checks of settings: each raises one sentence that names the field, its value and the hint."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from audiobat.errors import AudiobatError, did_you_mean

LARGEST = 2**63 - 1  # the largest whole number that torch takes
LONGEST_NUMBER = 40  # characters of a number in a file: more could neither be computed with nor printed
DEEPEST = 50  # levels of lists and groups in a file
LONGEST_SHOWN = 200  # characters of a value in a sentence


def check(condition: bool, name: str, value: object, hint: str) -> None:
    """Raise an AudiobatError with the field `name`, its value and the hint, unless `condition` holds."""
    if not condition:
        raise AudiobatError(f"{name} is {shortened(repr(value))}: {hint}.")


def shortened(text: str) -> str:
    """A text for a sentence: its middle is left out if it is long."""
    half = LONGEST_SHOWN // 2
    return text if len(text) <= LONGEST_SHOWN else f"{text[:half]} ... {text[-half:]}"


def check_choice(owner: object, name: str) -> None:
    """Check that the Literal field `name` of `owner` holds one of its choices."""
    check_one_of(get_args(hints_of(type(owner))[name]), f"{type(owner).__name__}.{name}", getattr(owner, name))


def check_one_of(choices: tuple[Any, ...], name: str, value: object) -> None:
    """Check that the field `name` holds one of its choices."""
    if value not in choices:
        hint = did_you_mean(str(value), choices)
        check(False, name, value, f"choose one of {', '.join(map(str, choices))}{hint}")


def hints_of(cls: type) -> dict[str, Any]:
    """The types of a config class's fields, resolved once: a probe of many heads makes thousands of configs."""
    return _resolved(cls)


# mypy takes the __hash__ of a class for that of its objects, and not every time.
_resolved = cast(Callable[[type], dict[str, Any]], lru_cache(get_type_hints))


def is_deep(value: object) -> bool:
    """Whether lists and groups of plain values lie within one another deeper than any that a program writes."""
    level = [value]
    for _ in range(DEEPEST):
        inner = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        level = [part for parts in inner for part in parts]
    return bool(level)


def is_union(hint: Any) -> bool:
    """Whether a type is `X | None`, or `Optional[X]`, which is the same."""
    return get_origin(hint) in (UnionType, Union)


def warmup_hint(name: str, steps: int, steps_name: str = "train.steps") -> str:
    """The hint for a warm-up, the field `name`, that is no shorter than the training, the field `steps_name`."""
    share = "for a tenth" if steps >= 10 else "for none"
    return f"it must end before {steps_name} {steps}: set it too, --{name} {steps // 10} {share}"
