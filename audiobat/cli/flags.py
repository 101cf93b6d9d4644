"""A verb's dataclass and its config to flags; a command line to the values given, as text, and to what they mean."""

from __future__ import annotations

import dataclasses
from argparse import SUPPRESS
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser

from audiobat.cli.verbs import KINDS, VERBS, Verb
from audiobat.config.field_help import help_of
from audiobat.config.recipes import parse_yaml, recipe_names
from audiobat.errors import AudiobatError, did_you_mean

ARGUMENTS, FLAGS = ("arguments", ""), ("flags", "")  # groups of help


@dataclass(frozen=True)
class Option:
    """One flag or argument: its type, its default, its line of help, and the group under which help shows it."""

    name: str
    hint: Any
    default: Any
    help: str = ""
    group: tuple[str, str] = FLAGS  # title and line
    words: bool = False  # whether it takes all words up to the next flag

    @property
    def positional(self) -> bool:
        """Whether its place tells it, not a flag."""
        return self.group == ARGUMENTS

    @property
    def is_switch(self) -> bool:
        """Whether it is a flag without a value."""
        return self.hint is bool and "." not in self.name

    @property
    def shown_name(self) -> str:
        """As help shows it: `--dry-run`, or `SOURCE` of what is given by its place."""
        return self.name.upper() if self.positional else spell(self.name)

    @property
    def usage(self) -> str:
        """An argument as the line of usage shows it: `SOURCE`, `[OUT]`, `RECORDS ...`."""
        name = self.shown_name + (" ..." if is_list(self.hint) else "")
        return name if self.default is dataclasses.MISSING else f"[{name}]"


def options(verb: type[Verb]) -> dict[str, Option]:
    """All a verb takes, by name: its own fields, --config, the shortcuts, and the config's fields."""
    hints = get_type_hints(verb)
    found = [
        Option(
            f.name,
            hints[f.name],
            f.default,
            f.metadata["help"],
            ARGUMENTS if "positional" in f.metadata else FLAGS,
            "words" in f.metadata,
        )
        for f in dataclasses.fields(verb)
        if f.name != "config"
    ]
    config_class = config_of(verb)
    if config_class:
        names = ", ".join(recipe_names(KINDS.get(config_class)))
        found.append(
            Option(
                "config", str, dataclasses.MISSING, f"a recipe ({names}) or the path of a YAML file of config fields"
            )
        )
        fields = {option.name: option for option in config_options(config_class)}
        for name, path in verb.shortcuts.items():
            found.append(dataclasses.replace(fields[path], name=name, help=f"same as --{path}", group=FLAGS))
        found.extend(fields.values())
    return {option.name: option for option in found}


def config_options(config_class: type, prefix: str = "", group: tuple[str, str] = ("config", "")) -> Iterator[Option]:
    """Every field of a config dataclass, nested ones as `encoder.depth`; mappings are for recipes alone."""
    hints = get_type_hints(config_class)
    for f in dataclasses.fields(config_class):
        hint = hints[f.name]
        if dataclasses.is_dataclass(hint):
            path = prefix + f.name
            yield from config_options(hint, f"{path}.", (path, hint.__doc__ or ""))  # type: ignore[arg-type]
        elif get_origin(hint) is not Mapping:
            yield Option(prefix + f.name, hint, f.default, help_of(config_class, f.name), group)


def config_of(verb: type[Verb]) -> type | None:
    """The config class of a verb that has one."""
    hint: type | None = get_type_hints(verb).get("config")
    return hint


def build_parser(name: str) -> ArgumentParser:
    """The parser of verb `name`; it keeps values as text, so that one place, `from_dict`, judges flags and recipes."""
    known = options(VERBS[name])
    places = [option.usage for option in known.values() if option.positional]
    parser = ArgumentParser(
        prog=f"audiobat {name}",
        usage=" ".join(["audiobat", name, *places, "[--flag value ...]"]),
        description=VERBS[name].__doc__,
        exit_on_error=False,
        allow_abbrev=False,
    )
    groups: dict[tuple[str, str], Any] = {}
    for option in known.values():
        group = groups.get(option.group) or groups.setdefault(option.group, parser.add_argument_group(*option.group))
        told = option.help.replace("%", "%%") or "default: %(default)s"
        names: dict[str, Any] = {"dest": flat(option.name), "help": told}
        if option.positional:
            many = "*" if is_list(option.hint) else "?"
            group.add_argument(option.name, metavar=option.shown_name, nargs=many, default=SUPPRESS, help=option.help)
        elif option.is_switch:
            group.add_argument(spell(option.name), action="store_true", **names)
        elif option.words:
            group.add_argument(spell(option.name), metavar="STR", nargs="+", default=SUPPRESS, **names)
        elif option.default is dataclasses.MISSING:
            group.add_argument(spell(option.name), metavar=type_name(option.hint), default=SUPPRESS, **names)
        else:
            names["default"] = shown(option.default)
            group.add_argument(spell(option.name), metavar=type_name(option.hint), **names)
    return parser


def flags_given(name: str, argv: list[str]) -> dict[str, Any]:
    """The flags on the command line and their values as text (True for a switch), and the arguments beside them."""
    known = options(VERBS[name])
    flags = {plain(spell(option.name)): option for option in known.values() if not option.positional}
    spelled: list[str] = []
    words: list[str] = []
    tokens = deque(argv)
    while tokens:
        token = tokens.popleft()
        word, equals, value = token.partition("=")
        if not word.startswith("--"):
            words.append(token)
            continue
        if plain(word) not in flags:
            raise AudiobatError(
                f"audiobat {name} has no flag {word}{flag_hint(word, known)}: `audiobat {name} --help` lists them."
            )
        option = flags[plain(word)]
        if option.words:
            taken = [value] if equals else []
            while tokens and not tokens[0].startswith("--"):
                taken.append(tokens.popleft())
            spelled.extend([spell(option.name), *taken])
            continue
        spelled.append(spell(option.name) + equals + value)
        if not equals and not option.is_switch:
            spelled.extend([tokens.popleft()] if tokens else [])
    try:
        namespace = build_parser(name).parse_args(spelled, defaults=False)
    except ArgumentError as error:
        raise AudiobatError(f"audiobat {name}: {error}.") from None
    names = {flat(option.name): option.name for option in flags.values()}
    given = {names[dest]: value for dest, value in namespace.items() if dest in names}
    return given | places_taken(name, [option for option in known.values() if option.positional], words)


def places_taken(name: str, arguments: list[Option], words: list[str]) -> dict[str, Any]:
    """The words beside the flags, each to the argument of its place; one that takes many takes all that are left."""
    given: dict[str, Any] = {}
    left = list(words)
    for option in arguments:
        if left:
            given[option.name] = left if is_list(option.hint) else left.pop(0)
            left = [] if is_list(option.hint) else left
    if left:
        takes = " ".join(option.usage for option in arguments)
        hint = f"it takes {takes} and flags" if arguments else "all that it takes are flags, such as --device cpu"
        raise AudiobatError(f"audiobat {name} cannot place {left[0]!r}: {hint}; `audiobat {name} --help` lists them.")
    return given


def flag_hint(word: str, known: dict[str, Option]) -> str:
    """What may have been meant by a flag that there is not."""
    spellings = [option.shown_name for option in known.values()]
    if word[2:].upper() in spellings:
        return f" (write {word[2:].upper()} without --)"
    same_end = [spelling for spelling in spellings if spelling.endswith(f".{word[2:]}")]
    return f" (did you mean {' or '.join(same_end)}?)" if same_end else did_you_mean(word, spellings)


def flat(name: str) -> str:
    """Where the parser keeps a flag: with a dot, --data.workers would take the place of --data, or give its own up."""
    return name.replace(".", "/")


def spell(name: str) -> str:
    """A flag as help shows it: `--dry-run`, but a nested config field as in YAML, `--encoder.mlp_ratio`."""
    return "--" + (name if "." in name else name.replace("_", "-"))


def plain(word: str) -> str:
    """A flag as compared: - and _ are the same."""
    return word[2:].replace("_", "-")


def shown(default: Any) -> str:
    """A default as one would type it."""
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    return str(list(default)) if isinstance(default, tuple) else str(default)


def type_name(hint: Any) -> str:
    """The type of a flag as help shows it, such as `INT`, `FLOAT|NULL` or `{vit,cnn}`."""
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, get_args(hint))) + "}"
    if is_list(hint):
        return f"{type_name(get_args(hint)[0])},..."
    if get_origin(hint) is tuple:
        return "[" + ",".join(map(type_name, get_args(hint))) + "]"
    arms = get_args(hint) or (hint,)
    return "|".join("NULL" if arm is type(None) else arm.__name__.upper() for arm in arms)


def is_list(hint: Any) -> bool:
    """Whether a field takes any number of values: tuple[X, ...]."""
    return get_origin(hint) is tuple and get_args(hint)[-1] is Ellipsis


def typed(option: Option, text: Any) -> Any:
    """The value of a flag: text where text is asked for, else what YAML makes of it."""
    arms = get_args(option.hint) or (option.hint,)
    if option.words or (option.positional and is_list(option.hint)):
        return text
    if is_list(option.hint):  # cgp,linear is as good as [cgp, linear]
        return parse_yaml(text if text.startswith("[") else f"[{text}]", spell(option.name))
    if type(None) in arms and text == "null":
        return None
    if text is True or str in arms or get_origin(option.hint) is Literal:
        return text
    return parse_yaml(text, spell(option.name))


def nest(path: str, value: Any) -> dict[str, Any]:
    """`encoder.depth`, 6 to {"encoder": {"depth": 6}}."""
    for name in reversed(path.split(".")):
        value = {name: value}
    nested: dict[str, Any] = value
    return nested
