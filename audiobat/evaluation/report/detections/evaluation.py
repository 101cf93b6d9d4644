"""The folder that `audiobat evaluate` wrote, read: evaluation.json, and the events of both sides from events.csv."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from audiobat.data.csv_text import unescape
from audiobat.engine.files import read_json
from audiobat.errors import AudiobatError
from audiobat.evaluation.detections.result import FORMAT, JSON
from audiobat.evaluation.report.listening.clips import file_beside

EVENTS = "events.csv"
BY_OVERLAP = "overlap"  # the level at which events are called missed and wrong


class Event(NamedTuple):
    """An event of the truth or of the predictions."""

    start: float  # seconds
    end: float
    label: str
    score: float | None
    is_truth: bool
    is_right: bool  # found, or right: it shares time with one of its label on the other side


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was evaluated."""

    folder: Path
    plain: Mapping[str, Any]  # the content of evaluation.json
    events: Mapping[str, list[Event]]  # by recording; empty where labels have no times

    @property
    def name(self) -> str:
        """Of the predictions, for headings."""
        return Path(str(self.plain["predictions"])).name

    def file(self, name: str) -> Path:
        """A file of the folder that evaluation.json names.

        Raises:
            AudiobatError: a name that leads out of the folder.
        """
        return file_beside(self.folder / JSON, name)


def evaluation_folder(source: Path) -> Path | None:
    """The folder, if `source` is that of an evaluation, or its evaluation.json; else None."""
    if source.name == JSON:
        return source.parent
    return source if (source / JSON).is_file() else None


def read_evaluation(folder: Path) -> Evaluation:
    """Read a folder.

    Raises:
        AudiobatError: a file that is missing or damaged.
    """
    plain = read_json(folder / JSON, "evaluate again")
    if plain.get("format") != FORMAT:
        raise AudiobatError(f"{folder / JSON} is no evaluation of format {FORMAT}: evaluate again with this version.")
    path = folder / EVENTS
    events = defaultdict(list)
    try:
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    events[unescape(row["file"])].append(event_of(row))
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise AudiobatError(f"{path} is no list of events ({error}): evaluate again.") from None
    return Evaluation(folder, plain, dict(events))


def event_of(row: Mapping[str, str]) -> Event:
    """A line of events.csv."""
    score = float(row["score"]) if row["score"] else None
    right = row["result"] in ("found", "right")
    return Event(float(row["start"]), float(row["end"]), unescape(row["label"]), score, row["side"] == "truth", right)
