"""The command `audiobat VERB --flags`: flags over a recipe over the defaults become the arguments of a verb's function.

A verb is one dataclass of `verbs.py`, and the public function of its name: `audiobat.VERB`.
"""

from __future__ import annotations

import dataclasses
import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import audiobat
from audiobat import __version__
from audiobat.cli.flags import build_parser, config_of, flags_given, nest, options, typed
from audiobat.cli.verbs import KINDS, VERBS, Verb
from audiobat.config import from_dict
from audiobat.config.recipes import check_recipe, load_recipe, merge
from audiobat.errors import AudiobatError, did_you_mean

WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EPIPE)  # errors of writing, which name no file
ROOM = "make room there and run the same command again"
FOLDER = "a file is where a folder should be, so remove it or give another --out"
RIGHTS = "look who may read and write there"
HINTS = {
    **{errno.ENOSPC: ROOM, errno.EDQUOT: ROOM, errno.EFBIG: ROOM},
    **{errno.EEXIST: FOLDER, errno.ENOTDIR: FOLDER},
    **{errno.EACCES: RIGHTS, errno.EPERM: RIGHTS, errno.EROFS: "it can be read only, so give another --out"},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code: 0, 2 for a user's mistake, 130 after Ctrl-C."""
    try:
        run(list(sys.argv[1:] if argv is None else argv))
    except AudiobatError as error:
        return fail(str(error))
    except OSError as error:
        if error.filename is None and error.errno not in WRITING:
            raise
        hint = f": {HINTS[error.errno]}" if error.errno in HINTS else ""
        return fail(f"{error.filename or 'Writing failed'}: {error.strerror}{hint}.")
    except RuntimeError as error:
        from audiobat.data.loader import lost_worker  # torch is there by now

        if (sentence := lost_worker(error)) is None:
            raise
        return fail(sentence)
    except KeyboardInterrupt:
        print("audiobat: stopped.", file=sys.stderr)
        return 130
    return 0


def fail(sentence: str) -> int:
    """Print one sentence to stderr and return the exit code 2."""
    print(f"audiobat: {' '.join(sentence.split())}", file=sys.stderr)
    return 2


def run(argv: list[str]) -> None:
    """Parse `argv`, then import and call the verb's function; torch is imported no earlier."""
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        print(overview())
    elif name in ("-V", "--version"):
        print(f"audiobat {__version__}")
    elif name not in VERBS:
        raise AudiobatError(f"No verb {name!r}{did_you_mean(name, VERBS)}: choose one of {', '.join(VERBS)}.")
    elif {"-h", "--help"} & set(argv[1:]):
        build_parser(name).print_help()
    else:
        verb = parse(name, argv[1:])
        arguments = {f.name: getattr(verb, f.name) for f in dataclasses.fields(verb)}
        if arguments.get("out") is not None:
            arguments["out"] = Path(arguments["out"])
        getattr(audiobat, name)(**arguments)


def overview() -> str:
    """Every verb with its line."""
    verbs = [f"  {name:<10}{verb.__doc__}" for name, verb in VERBS.items()]
    end = "audiobat VERB --help lists the flags of a verb."
    return "\n".join(["usage: audiobat VERB [--flag value ...]", "", *verbs, "", end])


def parse(name: str, argv: list[str]) -> Verb:
    """Fill the dataclass of verb `name` from its defaults, the recipe of --config and the flags: the last one wins.

    Raises AudiobatError for an unknown or missing flag, an unknown recipe or field, or a bad value.
    """
    verb = VERBS[name]
    known = options(verb)
    given = flags_given(name, argv)
    own: dict[str, Any] = {}
    recipe_name = given.pop("config", None)
    recipe = read_recipe(verb, recipe_name) if recipe_name is not None else {}
    config = recipe
    for flag_name, text in given.items():
        field_path = verb.shortcuts.get(flag_name, flag_name)
        value = typed(known[flag_name], text)
        if flag_name in {f.name for f in dataclasses.fields(verb)}:
            own[flag_name] = value
        else:
            config = merge(config, nest(field_path, value))
    for f in dataclasses.fields(verb):
        if f.name not in own and f.default is f.default_factory is dataclasses.MISSING:
            wanted = known[f.name].shown_name
            raise AudiobatError(f"audiobat {name} needs {wanted}: {f.metadata['help']}.")
    parsed = from_dict(verb, own)
    config_class = config_of(verb)
    if config_class is None:
        return parsed
    try:
        built: Any = from_dict(config_class, merge(verb.base(own, config), config))
    except AudiobatError as error:
        mistaken = str(error) == complaint(config_class, merge(verb.base(own, recipe), recipe))
        raise AudiobatError(f"{recipe_name}: {error}" if mistaken and recipe else str(error)) from None
    return dataclasses.replace(parsed, config=built)  # type: ignore[call-arg]


def read_recipe(verb: type[Verb], name: str) -> dict[str, Any]:
    """The fields that the verb takes of a recipe of its kind."""
    check_recipe(name, KINDS.get(config_of(verb)))
    return verb.taken(load_recipe(name))


def complaint(config_class: type, fields: dict[str, Any]) -> str:
    """What is wrong with these fields, nothing else being said."""
    try:
        from_dict(config_class, fields)
    except AudiobatError as error:
        return str(error)
    return ""
