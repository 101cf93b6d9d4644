"""Configs to plain nested dicts, for YAML and JSON, and back; a kind with settings of its own brings its own class.

In: a config dataclass, or nested dicts. Out: the other. A value has one of the types that `checked` lists.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

from audiobat.config.checks import LARGEST, check, check_one_of, hints_of, is_union, shortened
from audiobat.config.registry import config_class_of, seam_of
from audiobat.errors import AudiobatError, did_you_mean

T = TypeVar("T")

# Fields of older versions, which changed no result, and what has taken their place. Runs of then name them all.
MOVED = {"objective.chunk": "train.accumulate", "objective.compile": "train.compile"}


def to_dict(config: object) -> dict[str, Any]:
    """A config dataclass as plain nested dicts and lists, ready for YAML or JSON."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    """The value of a field with dicts and lists in place of dataclasses, mappings and tuples."""
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by their dotted names, such as `encoder.depth`."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def nest(name: str, value: Any) -> dict[str, Any]:
    """`encoder.depth`, 6 to {"encoder": {"depth": 6}}."""
    for part in reversed(name.split(".")):
        value = {part: value}
    nested: dict[str, Any] = value
    return nested


def from_dict(cls: type[T], values: object, where: str = "") -> T:
    """Build the config class `cls` from plain nested dicts; a field that is left out keeps its default.

    A group given in part keeps the rest of its own default, such as fine-tuning's linear head, unless it names another
    kind. `where` is the dotted name of the group, for errors. Raises AudiobatError for an unknown field, with the
    closest known name, and for a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise AudiobatError(f"{where or cls.__name__} is {shortened(repr(values))}: give its fields by name.")
    seam = seam_of(cls)
    if seam is not None and isinstance(values.get(seam[1]), str):
        cls = config_class_of(cls, values[seam[1]])  # a kind may have settings of its own
    hints = hints_of(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    kwargs: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{where}.{name}" if where else str(name)
        if name not in known and path in MOVED:
            check(value in (None, "auto"), path, value, f"it is {MOVED[path]} now")
            continue
        if name not in known:
            raise AudiobatError(f"Unknown field {shortened(path)}{did_you_mean(str(name), known)}.")
        kwargs[name] = checked(hints[name], over_default(known[name], value), path)
    return cls(**kwargs)


def over_default(field: dataclasses.Field[Any], value: Any) -> Any:
    """A group's value over the default of the field that holds the group; any other value as it is."""
    default = field.default_factory() if callable(field.default_factory) else field.default
    if not isinstance(value, Mapping) or not dataclasses.is_dataclass(default):
        return value
    seam = seam_of(type(default))
    if seam is not None and value.get(seam[1], getattr(default, seam[1])) != getattr(default, seam[1]):
        return value
    return merged_over(changed(default), value)


def changed(config: object) -> dict[str, Any]:
    """The fields of a config that are not its class's defaults; others may follow from these."""
    pairs = zip(to_dict(config).items(), to_dict(type(config)()).values(), strict=True)
    return {name: value for (name, value), default in pairs if value != default}


def merged_over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested fields with `changes` on top, group by group."""
    groups = {
        name: merged_over(base[name], value)
        for name, value in changes.items()
        if isinstance(value, Mapping) and isinstance(base.get(name), Mapping)
    }
    return {**base, **changes, **groups}


def checked(hint: Any, value: Any, path: str) -> Any:
    """The value for a field of type `hint`, from what YAML or a flag gives; an AudiobatError if it is of another type.

    A type is a dataclass, a tuple, a mapping, a Literal, `X | None`, `Any`, or one of str, bool, int and float.
    """
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, path)  # type: ignore[arg-type]
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        check_one_of(args, path, value)
        return value
    if is_union(hint):
        inner = next(a for a in args if a is not NoneType)
        return None if value is None else checked(inner, value, path)
    if origin is Mapping:
        check(isinstance(value, Mapping), path, value, "give values by name")
        return {str(name): checked(args[1], v, f"{path}.{name}") for name, v in value.items()}
    if hint is Any:
        return value
    if origin is tuple:
        if args[-1] is Ellipsis:
            check(isinstance(value, list | tuple), path, value, "give a list")
            return tuple(checked(args[0], v, path) for v in value)
        check(isinstance(value, list | tuple) and len(value) == len(args), path, value, f"give {len(args)} values")
        return tuple(checked(a, v, path) for a, v in zip(args, value, strict=True))
    if hint is float and type(value) is int:  # 1 for 1.0; a bool is an int, too, and no number here
        return float(value)
    check(type(value) is hint, path, value, f"it must be of type {hint.__name__}")
    if hint is int:
        check(abs(value) <= LARGEST, path, value, "use less than 2^63")
    if hint is float:
        check(math.isfinite(value), path, value, "it must be finite")
    return value
