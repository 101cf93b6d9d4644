"""One annotation of a recording, and how its times are read from text: seconds, or the sentence that refuses them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from audiobat.errors import AudiobatError


class Row(NamedTuple):
    """An event in a recording; the fields are what every form of annotations comes to."""

    file: str  # the recording, as the table names it; empty: the one that the table lies beside
    onset: float  # seconds from the recording's start
    offset: float
    label: str
    score: float = math.nan  # NaN: it has none
    line: int = 0  # of the file that holds it, from 1; for messages


class Annotations(NamedTuple):
    """What one file of annotations holds."""

    path: Path
    form: str  # the program whose form it is, for messages
    rows: list[Row]
    files: tuple[str, ...] = ()  # recordings that it names, those without events too


def parse_seconds(path: Path, line: int, name: str, text: str) -> float:
    """Seconds from a cell; AudiobatError if it is no number, or one with a decimal comma."""
    if (seconds := number_of(text)) is not None:
        return seconds
    if not text.strip():
        raise AudiobatError(f"{path}, row {line}: {name} is empty: every event needs both its times, or no row at all.")
    hint = "give a number of seconds"
    if "," in text:
        hint = "write decimals with a point, such as 1.25: set the program that saves it to English numbers"
    raise AudiobatError(f"{path}, row {line}: {name} is {text.strip()!r}: {hint}.")


def parse_score(path: Path, line: int, name: str, text: str) -> float:
    """A score from a cell, NaN from an empty one; AudiobatError if it is no number."""
    if not text.strip():
        return math.nan
    if (score := number_of(text)) is None:
        raise AudiobatError(f"{path}, row {line}: {name} is {text.strip()!r}: give a number, or leave it empty.")
    return score


def number_of(text: str) -> float | None:
    """The finite number that a cell holds; None: it holds none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def check_span(path: Path, line: int, onset: float, offset: float) -> None:
    """Raise an AudiobatError unless the onset is 0 or more, and the offset lies behind it."""
    if onset < 0:
        raise AudiobatError(
            f"{path}, row {line}: an event begins {-onset:g} s before its recording: give 0 or a later time."
        )
    if offset <= onset:
        what = "has no length" if offset == onset else "ends before it begins"
        raise AudiobatError(
            f"{path}, row {line}: the event from {onset:g} s to {offset:g} s {what}: give it the span of its sound."
        )
