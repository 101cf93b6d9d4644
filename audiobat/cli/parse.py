"""A command line to the arguments of a verb's function: flags over the recipe of --config over the defaults.

argparse splits the words and prints help. It knows no types, so that `audiobat.config.plain` alone judges values, in
the same sentences for flags and for recipes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, replace
from typing import Any, Literal, NoReturn, get_args, get_origin

from audiobat.cli.flags import Flag, flags_of
from audiobat.cli.verbs import VERBS, Fields, Verb
from audiobat.config import from_dict
from audiobat.config.checks import is_union
from audiobat.config.plain import checked, nest
from audiobat.config.recipes import check_recipe, load_recipe, merge, parse_yaml, with_warmup
from audiobat.config.user_files import is_user_class
from audiobat.errors import STOPPED, AudiobatError, did_you_mean

GRID_HELP = "--grid.FIELD A,B,... makes a run for each value of any setting, and compares them."
STOPPED_HELP = (
    f"SIGTERM, SIGINT, SIGUSR1 and SIGHUP end it with exit code {STOPPED}: the same command goes on from there."
)


def parse(name: str, argv: Sequence[str]) -> dict[str, Any]:
    """The arguments for the function of verb `name`.

    Raises AudiobatError for an unknown or missing flag, an unknown recipe or field, or a bad value.
    """
    verb = VERBS[name]
    recipe_name, recipe, kinds = choices_first(name, argv)
    flags = flags_of(name, kinds)
    grids = grid_flags(flags) if verb.grids else {}
    given = flags_given(name, flags | grids, argv)
    arguments: dict[str, Any] = {}
    changes = Fields()
    for flag in flags.values():
        if flag.field is not None and flag.name in given:
            changes = merge(changes, nest(flag.field, given[flag.name]))
        elif flag.field is None and flag.name != "config":
            if flag.name not in given and flag.default is MISSING:
                raise AudiobatError(f"audiobat {name} needs {flag.shown}: {flag.help}.")
            arguments[flag.name] = given.get(flag.name, flag.default)
    if grid := {flag.field: with_nulls(given[flag.name]) for flag in grids.values() if flag.name in given}:
        arguments["grid"] = grid
    if verb.config is not None:
        below = merge(verb.preset(arguments, merge(recipe, changes)), recipe)
        config = merge(recipe, with_warmup(verb.config, below, changes))
        arguments["config"] = build_config(verb, verb.config, arguments, config, recipe, recipe_name)
    return arguments


def choices_first(name: str, argv: Sequence[str]) -> tuple[str | None, Fields, dict[str, object]]:
    """What decides which flags there are: the recipe's name, its fields, and the kinds that it or a flag chooses."""
    early = [flag for flag in flags_of(name).values() if flag.decides_flags]
    given = vars(build_parser(name, early).parse_known_args(argv)[0])
    recipe_name, recipe = given.pop("config", None), Fields()
    if recipe_name is not None and VERBS[name].config is not None:
        check_recipe(recipe_name, VERBS[name].recipes)
        recipe = VERBS[name].taken(load_recipe(recipe_name))
    kinds: dict[str, object] = {}
    for flag in early:
        group, _, field = flag.name.rpartition(".")
        fields = recipe.get(group) if group else recipe
        if isinstance(fields, Mapping) and field in fields:
            kinds[flag.name] = fields[field]
    return recipe_name, recipe, kinds | given


def flags_given(name: str, flags: dict[str, Flag], argv: Sequence[str]) -> dict[str, Any]:
    """The values that a command line gives, by the name of their flag."""
    by_spelling = {spelling(flag.shown): flag for flag in flags.values()}
    words = []
    for word in argv:
        flag_word, equals, value = word.partition("=")
        if flag_word.startswith("--"):
            if spelling(flag_word) not in by_spelling:
                heads = [kind for word in argv for kind in word.split("=")[-1].split(",") if is_user_class(kind)]
                hint = flag_hint(flag_word, [flag.shown for flag in flags.values()])
                if heads and "heads" in flags and flag_word.startswith("--head."):
                    hint = f" (for a setting of {heads[0]} give --head.kind {heads[0]}, too)"
                task = flag_word.removeprefix("--by_task.").partition(".")[0]
                if flag_word.startswith("--by_task.") and not any(f.startswith(f"by_task.{task}.") for f in flags):
                    hint = f" (a setting of the task {task}, which --tasks must name)"
                raise AudiobatError(
                    f"audiobat {name} has no flag {flag_word}{hint}: `audiobat {name} --help-all` lists them."
                )
            word = by_spelling[spelling(flag_word)].shown + equals + value
        words.append(word)
    found, left = build_parser(name, flags.values()).parse_known_intermixed_args(words)
    if left:
        takes = " ".join(usage(flag) for flag in flags.values() if flag.by_place)
        hint = f"it takes {takes} and flags" if takes else "all that it takes are flags, such as --device cpu"
        raise AudiobatError(f"audiobat {name} cannot place {left[0]!r}: {hint}; `audiobat {name} --help` lists them.")
    return {flag_name: typed(flags[flag_name], value) for flag_name, value in vars(found).items()}


def spelling(flag_word: str) -> str:
    """A flag as compared: - and _ are the same."""
    return "--" + flag_word.removeprefix("--").replace("_", "-")


def flag_hint(flag_word: str, known: Sequence[str]) -> str:
    """Which flag may have been meant by one that does not exist."""
    bare = flag_word.removeprefix("--")
    if bare.upper() in known:
        return f" (write {bare.upper()} without --)"
    same_end = [shown for shown in known if shown.endswith(f".{bare}")]
    return f" (did you mean {' or '.join(same_end)}?)" if same_end else did_you_mean(flag_word, known)


def typed(flag: Flag, text: Any) -> Any:
    """The value of a flag: text where its type takes text, else what YAML reads."""
    if flag.takes_words:
        return tuple(text)
    if flag.is_switch:
        return True
    arms = get_args(flag.hint) if is_union(flag.hint) else (flag.hint,)
    value: Any = text
    if get_origin(flag.hint) is tuple and get_args(flag.hint)[0] is str and not text.startswith("["):
        value = [word.strip() for word in text.split(",")]  # text: a label may be called no, 007 or null
    elif get_origin(flag.hint) is tuple:  # 1,2 is as good as [1, 2]
        value = parse_yaml(text if text.startswith("[") else f"[{text}]", flag.shown)
    elif type(None) in arms and text == "null":
        value = None
    elif str not in arms and get_origin(flag.hint) is not Literal:
        value = parse_yaml(text, flag.shown)
    return value if flag.field else checked(flag.hint, value, flag.name)  # a config judges its own fields


def grid_flags(flags: Mapping[str, Flag]) -> dict[str, Flag]:
    """A flag `--grid.FIELD` for each field of the config, which takes several values."""
    found = {}
    for flag in flags.values():
        if flag.field == flag.name:
            arms = get_args(flag.hint) if is_union(flag.hint) else (flag.hint,)
            is_text = str in arms or get_origin(flag.hint) is Literal
            hint: Any = tuple[str, ...] if is_text else tuple[Any, ...]
            found[f"grid.{flag.name}"] = replace(flag, name=f"grid.{flag.name}", hint=hint, group="grid")
    return found


def with_nulls(values: Iterable[Any]) -> list[Any]:
    """The values of a grid, with None for the word null."""
    return [None if value == "null" else value for value in values]


def build_config(
    verb: Verb, config_class: type, arguments: Fields, config: Fields, recipe: Fields, recipe_name: str | None
) -> Any:
    """The config from its fields; an error of the recipe itself begins with its name."""
    try:
        return from_dict(config_class, merge(verb.preset(arguments, config), config))
    except AudiobatError as error:
        sentence = str(error)
    try:
        from_dict(config_class, merge(verb.preset(arguments, recipe), recipe))
    except AudiobatError as error:
        if recipe and str(error) == sentence:
            sentence = f"{recipe_name}: {sentence}"
    raise AudiobatError(sentence)


class Parser(argparse.ArgumentParser):
    """argparse that answers an error with one sentence, where it would print the usage and exit."""

    def error(self, message: str) -> NoReturn:
        """Raise an AudiobatError."""
        raise AudiobatError(f"{self.prog}: {message}.")


def build_parser(name: str, flags: Iterable[Flag], end: str = "") -> Parser:
    """The parser of verb `name` for these flags; what is not given is left out of what it parses."""
    parser = Parser(
        prog=f"audiobat {name}",
        usage=" ".join(["audiobat", name, *(usage(flag) for flag in flags if flag.by_place), "[--flag value ...]"]),
        description=VERBS[name].summary,
        epilog=end,
        argument_default=argparse.SUPPRESS,
        add_help=False,
        allow_abbrev=False,  # --enc would become another flag's when a field is added
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30),
    )
    groups: dict[str, Any] = {}
    for flag in flags:
        title, _, caption = flag.group.partition(": ")
        group = groups.get(title) or groups.setdefault(title, parser.add_argument_group(title, caption or None))
        text = flag.text.replace("%", "%%")
        if flag.by_place:  # `?` also where it is required: `parse` says what is missing
            group.add_argument(flag.name, metavar=flag.shown, nargs="*" if flag.takes_words else "?", help=text)
        elif flag.is_switch:
            group.add_argument(flag.shown, dest=flag.name, action="store_true", help=text)
        else:
            nargs = "+" if flag.takes_words else None
            group.add_argument(flag.shown, dest=flag.name, metavar=flag.type_name, nargs=nargs, help=text)
    return parser


def usage(flag: Flag) -> str:
    """An argument as the line of usage writes it: `SOURCE`, `[OUT]`, `RECORDS ...`."""
    text = flag.shown + (" ..." if flag.takes_words else "")
    return text if flag.default is MISSING else f"[{text}]"


def help_text(name: str, argv: Sequence[str]) -> str:
    """The help of a verb: the flags that most users need and those of kinds in `argv`; with --help-all every one."""
    if VERBS[name].config is None:
        shown, end = list(flags_of(name).values()), ""
    elif "--help-all" in argv:
        shown, end = list(flags_of(name, choices_first(name, argv)[2]).values()), ""
    else:
        flags = flags_of(name, choices_first(name, argv)[2])
        settings = [replace(flags[field], group="settings") for field in VERBS[name].settings]
        own = [flags[field] for field in flags.keys() - flags_of(name).keys()]  # of the kinds in `argv`
        shown = [flag for flag in flags.values() if flag.group in ("arguments", "flags")] + settings
        shown += sorted(own, key=list(flags.values()).index)
        end = (
            f"{len(flags) - len(shown)} more settings, and what each group is for: audiobat {name} --help-all. "
            "Any setting can stand in a YAML file for --config."
        )
    if VERBS[name].grids:
        end += " " * bool(end) + GRID_HELP
    if VERBS[name].resumes:
        end += " " * bool(end) + STOPPED_HELP
    parser = build_parser(name, shown, end)
    parser.add_argument("-h", "--help", action="store_true", help="show these flags; --help-all: every flag")
    return parser.format_help()
