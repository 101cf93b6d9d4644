"""Configs to plain nested dicts, for YAML and JSON, and back; a kind with settings of its own brings its own class.

In: a config dataclass, or nested dicts. Out: the other. A value has one of the types that `checked` lists.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from audiobat.config.checks import LARGEST, check, check_one_of
from audiobat.config.registry import check_kind, find, has_own_config, seam_of
from audiobat.config.user_files import is_user_class, place_of
from audiobat.errors import AudiobatError, did_you_mean

T = TypeVar("T")
OWN_TYPES = "int, float, bool, str, X | None, tuple[X, ...] or Literal[...]"  # of the fields of a user's Config


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


def from_dict(cls: type[T], values: object, where: str = "") -> T:
    """Build the config class `cls` from plain nested dicts; a field that is left out keeps its default.

    `where` is the dotted name of the group, for errors. Raises AudiobatError for an unknown field, with the closest
    known name, and for a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise AudiobatError(f"{where or cls.__name__} is {values!r}: give its fields by name.")
    seam = seam_of(cls)
    if seam is not None and isinstance(values.get(seam[1]), str):
        cls = config_class_of(cls, values[seam[1]])  # a kind may have settings of its own
    hints = get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    kwargs: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{where}.{name}" if where else str(name)
        if name not in known:
            raise AudiobatError(f"Unknown field {path}{did_you_mean(str(name), known)}.")
        kwargs[name] = checked(hints[name], value, path)
    return cls(**kwargs)


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


def is_union(hint: Any) -> bool:
    """Whether a type is `X | None`, or `Optional[X]`, which is the same."""
    return get_origin(hint) in (UnionType, Union)


def config_class_of(config_class: type[T], kind: str) -> type[T]:
    """The class that holds the settings of `kind`: its own `Config`, a subclass of `config_class`, or that itself.

    A built-in kind without a `Config` is not imported for this, which would take torch with it.

    Raises:
        AudiobatError: an unknown kind; a `Config` that is no frozen dataclass, or whose fields YAML could not keep.
    """
    seam = seam_of(config_class)
    assert seam is not None
    check_kind(seam[0], kind, ".".join(seam))
    if not has_own_config(seam[0], kind):
        return config_class
    found: type[T] = getattr(find(seam[0], kind), "Config", config_class)
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
        _check_own_fields(found, base)
    return found


def _check_own_fields(found: type[Any], base: type[Any]) -> None:
    """Check that each field of a user's Config has a type that YAML can keep, and a default of this type."""
    try:
        hints = get_type_hints(found)
    except (NameError, TypeError) as error:  # of an annotation in quotes
        raise AudiobatError(f"{place_of(found)}: a type in {found.__qualname__} is unknown ({error}).") from None
    inherited = base.__dataclass_fields__
    for f in dataclasses.fields(found):
        if f is inherited.get(f.name):
            continue
        make = f.default_factory
        default = make() if make is not dataclasses.MISSING else f.default
        hint = hints[f.name]
        try:
            fits = _is_own_type(hint) and (checked(hint, default, f.name), True)[1]
        except AudiobatError:
            fits = False
        if not fits:
            shown = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
            given = "no default" if default is dataclasses.MISSING else f"the default {default!r}"
            raise AudiobatError(
                f"{place_of(found, f.name)}: {found.__qualname__}.{f.name} is {shown} with {given}: use {OWN_TYPES}, "
                "and a default of that type."
            )


def _is_own_type(hint: Any) -> bool:
    """Whether `hint` is one of OWN_TYPES."""
    args = get_args(hint)
    if is_union(hint):
        return len(args) == 2 and NoneType in args and all(arm is NoneType or _is_own_type(arm) for arm in args)
    if get_origin(hint) is tuple:
        return bool(args) and all(_is_own_type(arm) for arm in args if arm is not Ellipsis)
    return hint in (int, float, bool, str) or get_origin(hint) is Literal
