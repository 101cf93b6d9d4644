"""The flags of a verb, from what is written once: the arguments of its function, and the fields of its config.

The functions import torch, and help must not wait for that. So their sources are read, not imported: names, types and
defaults from the signature, help from the docstring's `Args`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import audiobat
from audiobat.cli.verbs import VERBS
from audiobat.config.field_help import caption_of, help_of
from audiobat.config.plain import changed
from audiobat.config.recipes import recipe_names
from audiobat.config.registry import choices, config_class_of, kinds, seam_of
from audiobat.config.user_files import is_user_class

PACKAGE = Path(audiobat.__file__).parent
USER_CLASS = "FILE.py:CLASS"  # among the choices of a kind: a class of the user's own
WIDEST_TYPE = 40  # characters; a longer list of choices goes into the text of the help
NOTHING: Mapping[str, Any] = MappingProxyType({})
ARGUMENT_LINE = re.compile(r"^    (\w+): (.+(?:\n     +.+)*)", re.MULTILINE)  # and the lines that continue it


@dataclass(frozen=True)
class Flag:
    """A flag of a verb, or an argument that is given by its place."""

    name: str  # dry_run; or encoder.depth, as in YAML, for a field of the config
    hint: Any  # its type: tuple[X, ...] for values as in YAML, list[str] for words as the shell splits them
    default: Any  # MISSING where it must be given
    help: str
    field: str | None = None  # the config field that it sets; None: it is an argument of the function
    group: str = "flags"  # the title under which help lists it, and after `: ` a caption

    @property
    def by_place(self) -> bool:
        """Whether its place tells it, with no flag."""
        return self.group == "arguments"

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value."""
        return self.hint is bool and "." not in self.name

    @property
    def is_kind(self) -> bool:
        """Whether it chooses the kind of a seam, and with it a config class that may have more fields."""
        return USER_CLASS in get_args(self.hint)

    @property
    def decides_flags(self) -> bool:
        """Whether its value adds flags: --config, a kind, or a list of kinds."""
        return self.is_kind or self.name in ("config", "tasks")

    @property
    def takes_words(self) -> bool:
        """Whether it takes every word up to the next flag."""
        return any(get_origin(arm) is list for arm in (self.hint, *get_args(self.hint)))

    @property
    def shown(self) -> str:
        """As help writes it: `--dry-run`, or `SOURCE` of an argument that is given by its place."""
        return self.name.upper() if self.by_place else as_flag(self.name)

    @property
    def type_name(self) -> str:
        """Its type as help writes it."""
        if self.name == "config":
            return "NAME|PATH"
        name = "WORD" if self.takes_words else type_name(self.hint)
        return name if len(name) <= WIDEST_TYPE else "NAME"

    @property
    def text(self) -> str:
        """Its line of help."""
        choices = f"one of {', '.join(get_args(self.hint))}" if self.type_name == "NAME" else ""
        text = "; ".join(filter(None, (self.help, choices)))
        if self.default is MISSING:
            return f"{text} (required)"
        plain = self.is_switch or self.by_place or self.takes_words or self.name == "config"
        return text if plain else f"{text} (default: {as_typed(self.default)})".lstrip()


def flags_of(name: str, chosen: Mapping[str, object] = NOTHING) -> dict[str, Flag]:
    """By name: the arguments of verb `name`, --config, the shortcuts to config fields, and all config fields.

    `chosen` holds kinds, such as {"frontend.kind": "pcen.py:PCEN"}, whose own settings are fields too.
    """
    verb = VERBS[name]
    home = PACKAGE.joinpath(*audiobat.HOMES[name].split(".")[1:]).with_suffix(".py")
    flags = sorted(function_flags(name, home.read_text(encoding="utf-8")), key=lambda flag: not flag.by_place)
    if verb.config is not None:
        recipes = f"a recipe ({', '.join(recipe_names(verb.recipes))})" if verb.recipes else "any recipe"
        flags.append(Flag("config", str, None, f"{recipes}, or a YAML file of config fields"))
        fields = {flag.name: flag for flag in config_flags(verb.config, chosen)}
        for shortcut, path in verb.shortcuts.items():
            text = f"{fields[path].help}; the same as --{path}".removeprefix("; ")
            flags.append(dataclasses.replace(fields[path], name=shortcut, help=text, group="flags"))
        flags.extend(fields.values())
    return {flag.name: flag for flag in flags}


def function_flags(name: str, source: str) -> Iterator[Flag]:
    """A flag for each argument of the function `name` in the text of a module, all but its config."""
    node = next(node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == name)
    node.body = node.body[:1]  # with signature and docstring alone, the function can be run without torch
    node.decorator_list, node.returns = [], None
    exec(compile(ast.Module([node], []), name, "exec", dont_inherit=True), {}, namespace := Types())
    function = namespace[name]
    section = (inspect.getdoc(function) or "").partition("\nArgs:\n")[2].partition("\n\n")[0]
    texts = {argument: " ".join(text.split()) for argument, text in ARGUMENT_LINE.findall(section)}
    shown = {argument: argument.upper() if argument in VERBS[name].places else as_flag(argument) for argument in texts}
    for argument in inspect.signature(function).parameters.values():
        if argument.name != "config":
            default = MISSING if argument.default is argument.empty else argument.default
            yield Flag(
                argument.name,
                argument.annotation,
                VERBS[name].defaults.get(argument.name, default),
                as_help(texts[argument.name], shown),
                group="arguments" if argument.name in VERBS[name].places else "flags",
            )


class Types(dict[str, Any]):
    """The names in a signature: those of types; Path, and classes whose objects only Python can pass, are text here."""

    def __init__(self) -> None:
        super().__init__(bool=bool, int=int, float=float, Literal=Literal, tuple=tuple, Sequence=list, Iterable=list)

    def __missing__(self, name: str) -> Any:
        return str


def as_help(text: str, shown: Mapping[str, str]) -> str:
    """A line of a docstring in the words of the command line: `out` and `config.lr` are flags, and None is null."""

    def spelled(found: re.Match[str]) -> str:
        name = found[1].removeprefix("config.")
        return as_flag(name) if name != found[1] else shown.get(name, name)

    return re.sub(r"`([^`]+)`", spelled, text).replace("None", "null").rstrip(".")


def config_flags(
    config_class: Any, chosen: Mapping[str, object], prefix: str = "", defaults: Mapping[str, Any] = NOTHING
) -> Iterator[Flag]:
    """A flag for each field of a config dataclass, `encoder.depth` for nested ones; mappings are left to YAML.

    But the settings of the built-in kinds that a field such as `tasks` lists are flags: `by_task.kshot.shots`.

    `defaults` has those that are not the class's own: the head of a fine-tuning is linear.
    """
    hints = get_type_hints(config_class)
    for f in dataclasses.fields(config_class):
        hint, path = hints[f.name], prefix + f.name
        if dataclasses.is_dataclass(hint):
            inside = defaults.get(f.name) or defaults_of(f, path, chosen)
            yield from config_flags(class_chosen(hint, path, chosen), chosen, f"{path}.", inside)
        elif "settings_of" in f.metadata:
            listed, base = f.metadata["settings_of"]
            seam, kind_name = seam_of(base) or ("", "")
            for kind in [kind for kind in words_of(chosen.get(listed, ())) if kind in kinds(seam)]:
                own_flags = config_flags(config_class_of(base, kind), chosen, f"{path}.{kind}.")
                yield from (flag for flag in own_flags if not flag.name.endswith(f".{kind_name}"))
        elif get_origin(hint) is not Mapping:
            group = f"{prefix.rstrip('.') or 'config'}: {caption_of(config_class)}"
            names = choices(config_class, f.name)
            own: Any = Literal[(*names, USER_CLASS)] if names else hint
            yield Flag(path, own, defaults.get(f.name, f.default), help_of(config_class, f.name), path, group)


def defaults_of(group: dataclasses.Field[Any], path: str, chosen: Mapping[str, object]) -> Mapping[str, Any]:
    """The fields that a group's default sets otherwise than its class does; none where another kind is chosen."""
    default = group.default_factory() if callable(group.default_factory) else group.default
    _, field = seam_of(type(default)) or ("", "")
    other_kind = field and chosen.get(f"{path}.{field}", getattr(default, field)) != getattr(default, field)
    return NOTHING if other_kind or not dataclasses.is_dataclass(default) else changed(default)


def class_chosen(config_class: Any, path: str, chosen: Mapping[str, object]) -> Any:
    """The config class of the kind that is chosen for the group at `path`; an unknown kind is left to `from_dict`."""
    seam, field = seam_of(config_class) or ("", "")
    kind = chosen.get(f"{path}.{field}")
    known = isinstance(kind, str) and seam and (is_user_class(kind) or kind in kinds(seam))
    return config_class_of(config_class, str(kind)) if known else config_class


def words_of(value: object) -> list[str]:
    """The words of a list, as a recipe has it or as a flag spells it."""
    words = value.split(",") if isinstance(value, str) else value
    return [str(word).strip() for word in words] if isinstance(words, list | tuple) else []


def as_flag(name: str) -> str:
    """`--dry-run` of dry_run; but a nested config field keeps its name in YAML, `--encoder.mlp_ratio`."""
    return "--" + (name if "." in name else name.replace("_", "-"))


def type_name(hint: Any) -> str:
    """A type as help writes it, such as `INT`, `FLOAT|NULL`, `INT,...` or `{vit,cnn}`."""
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, get_args(hint))) + "}"
    if get_origin(hint) is tuple:
        return ",".join("..." if arm is Ellipsis else type_name(arm) for arm in get_args(hint))
    if arms := get_args(hint):
        return "|".join(map(type_name, arms))
    return "NULL" if hint is type(None) else hint.__name__.upper()


def as_typed(default: Any) -> str:
    """A default as a user would type it."""
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    return ",".join(map(str, default)) or "none" if isinstance(default, tuple | list) else str(default)
