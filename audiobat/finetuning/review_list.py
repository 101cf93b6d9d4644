"""Which windows a person has heard, or is to hear: lists that the next step of the loop reads.

review.json: of each clip that `predict --review` cut out, the window that it was. windows.csv, in a release: the
windows that its head was taught, about which nobody need be asked again.

A row of a table beside the clips says what the model takes a clip for, behind a question mark. Whoever hears the clip
puts what it is in place of that, or removes the row: a clip with a question mark has not been heard yet.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from audiobat.data.csv_text import csv_text, unescape
from audiobat.engine.files import read_json, write_atomic
from audiobat.errors import AudiobatError

NAME = "review.json"
TAUGHT = "windows.csv"
QUESTION = "?"  # how the label of a clip that nobody has heard yet begins


class ReviewClip(NamedTuple):
    """A clip and the window that it is: the recording's name in the data, and seconds into it."""

    clip: str
    path: str
    start: float
    end: float


def read_review(folder: str | Path) -> list[ReviewClip]:
    """The clips of a review; none if the folder is of something else.

    Raises:
        AudiobatError: the list is damaged.
    """
    file = Path(folder) / NAME
    if not file.is_file():
        return []
    hint = "make the review anew, or copy it again"
    clips = read_json(file, hint).get("clips", ())
    try:
        return [ReviewClip(str(clip), str(path), float(start), float(end)) for clip, path, start, end in clips]
    except (TypeError, ValueError) as error:
        raise AudiobatError(f"{file} is no list of clips ({error}): {hint}.") from None


def write_review(folder: Path, clips: Iterable[ReviewClip]) -> None:
    """Write the list, whole or not at all."""
    write_atomic(folder / NAME, json.dumps({"clips": [list(clip) for clip in clips]}, indent=1))


def list_of_taught(windows: Iterable[tuple[str, float, float]]) -> dict[str, bytes]:
    """The file of a release that lists windows, path, start and end in seconds."""
    return {TAUGHT: csv_text([("path", "start", "end"), *windows]).encode()}


def read_taught(release: Path) -> list[tuple[str, float]]:
    """Path and start of the windows that a release's head was taught; none if it was not taught windows."""
    if not (release / TAUGHT).is_file():
        return []
    try:
        with (release / TAUGHT).open(newline="", encoding="utf-8") as file:
            return [(unescape(row["path"]), float(row["start"])) for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError) as error:
        raise AudiobatError(f"{release / TAUGHT} is no list of windows ({error}): make the release anew.") from None
