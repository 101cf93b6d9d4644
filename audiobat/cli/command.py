"""The command `audiobat VERB --flags`: flags over a recipe over the defaults become arguments of `audiobat.VERB`."""

from __future__ import annotations

import errno
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import audiobat
from audiobat.cli.parse import help_text, parse
from audiobat.cli.verbs import VERBS
from audiobat.config.user_files import errors_of_user_code
from audiobat.engine.files import FULL, full_disk
from audiobat.engine.signals import raised
from audiobat.errors import (
    INTERRUPTED,
    LOST,
    REFUSED,
    SKIPPED,
    STOPPED,
    AudiobatError,
    Incomplete,
    Stopped,
    did_you_mean,
)

CODES = (
    f"Exit codes: 0 done; {REFUSED} a mistake, in one sentence; {SKIPPED} done, but more than 5% of "
    f"the files cannot be read and are listed in OUT.skipped.csv; {LOST} another rank of the job is lost, and "
    f"{STOPPED} stopped by a signal: the same command goes on; {INTERRUPTED} Ctrl-C."
)
WRITING = (*FULL, errno.EPIPE)  # errors of writing, which name no file
ROOM = "make room there and run the same command again"
FOLDER = "a file is where a folder should be, so remove it or give another --out"
RIGHTS = "look who may read and write there"
HINTS = {
    **dict.fromkeys(FULL, ROOM),
    **{errno.EEXIST: FOLDER, errno.ENOTDIR: FOLDER},
    **{errno.EACCES: RIGHTS, errno.EPERM: RIGHTS, errno.EROFS: "it can be read only, so give another --out"},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code, one of CODES."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        with errors_of_user_code(), plain_warnings():
            return run(args)
    except AudiobatError as error:
        return fail(str(error))
    except Exception as error:
        if (sentence := sentence_of(error, *args[:1])) is None:
            raise  # a defect of the program, whose traceback is of use
        return fail(sentence)
    except Stopped as stop:
        if str(stop):  # empty: the user was told before
            print(f"audiobat: {stop}", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        print("audiobat: stopped.", file=sys.stderr)
        return INTERRUPTED


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show what this package warns of as a sentence, without the line of code that warns."""
    shown, package = warnings.formatwarning, Path(audiobat.__file__).parent

    def plain(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        is_ours = Path(filename).is_relative_to(package)
        return f"audiobat: {message}\n" if is_ours else shown(message, category, filename, lineno, line)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = shown


def sentence_of(error: Exception, name: str = "") -> str | None:
    """What to tell of an error that is the machine's: it refuses a file or memory, or has killed a worker."""
    from audiobat.data.loader import lost_worker  # torch is imported by now
    from audiobat.engine.memory import ran_out

    refused = full_disk(error) or error
    if isinstance(refused, OSError) and (refused.filename is not None or refused.errno in WRITING):
        hint = f": {HINTS[refused.errno]}" if refused.errno in HINTS else ""
        return f"{refused.filename or 'Writing failed'}: {refused.strerror}{hint}."
    if isinstance(error, RuntimeError) and (sentence := lost_worker(error)):
        return sentence
    if what := ran_out(error):
        sizes = VERBS[name].sizes if name in VERBS else ""
        return f"{what}: {f'lower {sizes}' if sizes else 'end other programs'}."
    return None


def fail(sentence: str) -> int:
    """Print one sentence to stderr and return the exit code of a mistake."""
    print(f"audiobat: {' '.join(sentence.split())}", file=sys.stderr)
    return REFUSED


def run(argv: list[str]) -> int:
    """Print help, or parse `argv` and call the verb's function; torch is imported no earlier than by that call.

    Returns the exit code of work that is done: 0, or SKIPPED.
    """
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        print(overview())
    elif name in ("-V", "--version"):
        print(f"audiobat {audiobat.__version__}")
    elif name not in VERBS:
        raise AudiobatError(f"No verb {name!r}{did_you_mean(name, VERBS)}: choose one of {', '.join(VERBS)}.")
    elif {"-h", "--help", "--help-all"} & set(argv[1:]):
        print(help_text(name, argv[1:]), end="")
    else:
        arguments = parse(name, argv[1:])
        if arguments.get("out") is not None:
            arguments["out"] = Path(arguments["out"])
        with raised() if VERBS[name].resumes else nullcontext(), heard(Incomplete) as lacking:
            if values := arguments.pop("grid", None):
                audiobat.grid(name, values, **arguments)
            else:
                getattr(audiobat, name)(**arguments)
        return SKIPPED if lacking else 0
    return 0


@contextmanager
def heard(category: type[Warning]) -> Iterator[list[str]]:
    """The warnings of one kind, which are shown as all others are."""
    found: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", category)
        show = warnings.showwarning

        def note(message: Warning | str, kind: type[Warning], *where: Any) -> None:
            if issubclass(kind, category):
                found.append(str(message))
            show(message, kind, *where)

        warnings.showwarning = note  # type: ignore[assignment]  # its other arguments are passed on
        yield found


def overview() -> str:
    """Every verb with its line."""
    columns = shutil.get_terminal_size().columns
    verbs = [
        textwrap.fill(f"  {name:<13}{verb.summary}", columns, subsequent_indent=" " * 15)
        for name, verb in VERBS.items()
    ]
    usage, end = "usage: audiobat VERB [--flag value ...]", "audiobat VERB --help lists the flags of a verb."
    return "\n".join([usage, "", *verbs, "", end, CODES])
