"""The one error that users see: a sentence that says what is wrong, where, and the hint."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AudiobatError(ValueError):
    """A user's mistake or bad input; the command line prints its sentence without a traceback."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `' (did you mean X?)'` for the known word closest to `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
