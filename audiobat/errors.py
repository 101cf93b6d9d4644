"""The one error that users see: a sentence that says what is wrong, where, and the hint; words for it; exit codes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Exit codes: a user's mistake; done, but more than 5% of the files cannot be read; another rank is lost (EX_UNAVAILABLE
# of sysexits.h); stopped by a signal, try again (EX_TEMPFAIL); Ctrl-C.
REFUSED, SKIPPED, LOST, STOPPED, INTERRUPTED = 2, 3, 69, 75, 130


class Incomplete(UserWarning):
    """A table is made, but lacks more of the files than may be chance: more than 5% cannot be read."""


class AudiobatError(ValueError):
    """A user's mistake or bad input; the command line prints its sentence without a traceback."""


class Stopped(KeyboardInterrupt):
    """A signal ended the work before it was done. What is done is kept: the same command goes on from there.

    The command line ends with exit code 75, which says "try again". Its text is empty where the user was told before.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `' (did you mean X?)'` for the known word closest to `word`, or an empty string."""
    close = difflib.get_close_matches(word[:100], list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def name_some(names: Iterable[str], most: int = 10) -> str:
    """The names in a line; of more than `most` the first ones, and how many there are besides."""
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(count: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def reason_of(error: BaseException) -> str:
    """What another library raised, for a sentence: its class, and up to 300 letters of its text without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
