"""An evaluation as one object, and as `evaluation.json`, which pages draw from.

The fields of the file, with null where a number is not defined; numbers with an interval are {value, low, high}:

    format          "audiobat-evaluation-1"
    predictions, truth   paths, as they were given
    convention      its name, and every collar and rule that it has
    threshold       what --threshold said, or null
    classes         [C] names, sorted
    recordings      evaluated, seconds; silent (names of those without a detection), left_out (names that only
                    predictions have); events: truth, predicted
    only_predicted, only_true   {label: events} of labels that the other side never has
    notes           sentences on what was odd
    intervals       what is resampled (`unit`), and how many there are (`units`); at the level `clip` always recordings
    levels          {name: level} of clip, segment, overlap, onset, event; a level has
        definition  in words
        metrics     {f1_micro, precision_micro, recall_micro, f1_macro, ..., error_rate, map: {value, low, high,
                    definition, sd, interval}}
        per_class   {label: {truth, predicted, found, right, f1, precision, recall, average_precision}}; the last four
                    have intervals; found counts true ones, right predicted ones, which differ at `overlap` alone
        curve       null, or {thresholds [B], micro, macro, classes: {label: ...}}, where each of micro, macro and a
                    class is {f1 [B], precision [B], recall [B]}; a prediction counts if its score lies above
    thresholds      {label: that of the highest F1 of segments, or of clips where there are no times}, of labels whose
                    predictions have scores and are right anywhere; `predict --threshold` and `export --thresholds`
                    take the file for them
    per_recording   [{file, audio (path or null), seconds, levels: {name: {truth, predicted, found, right, f1,
                    precision, recall}}}]
    confusion       {labels: [C + 1], counts: [C + 1][C + 1]} true label by predicted label, of events by overlap; the
                    last label, "background", is no event
    errors          the worst misses and false alarms, by overlap, worst first, at most so many of each kind as --clips
                    says: [{kind: "miss" or "false alarm", file, start, end, label, score, confused_with, clip,
                    clip_start}]; clip is a path below the folder, or null where there is no sound; clip_start the
                    second of the recording at which it begins

Beside it lie `events.csv`, every event of both sides with what became of it, `errors.csv`, all misses and false alarms,
`per_class.csv`, `per_recording.csv`, and the folder `clips/`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audiobat.data.csv_text import csv_text
from audiobat.engine.files import write_atomic
from audiobat.evaluation.detections.align import Pair
from audiobat.evaluation.detections.confusion import Confusion
from audiobat.evaluation.detections.conventions import Convention
from audiobat.evaluation.detections.curves import Curve
from audiobat.evaluation.detections.event_list import Floats
from audiobat.evaluation.detections.levels import FOUND, PREDICTED, RIGHT, TRUTH, Touch
from audiobat.evaluation.detections.measures import PARTS, ClassCounts, ratios
from audiobat.evaluation.metrics import middle_of_best
from audiobat.evaluation.record import Metric, without_nan

FORMAT = "audiobat-evaluation-1"
JSON = "evaluation.json"
BACKGROUND = "background"
EVENT_COLUMNS = ("file", "start", "end", "label", "score", "side", "result", "confused_with")


@dataclass(frozen=True, eq=False)
class LevelResult:
    """One level's numbers."""

    definition: str
    metrics: dict[str, Metric]
    per_class: dict[str, ClassCounts]
    by_recording: Floats  # [R, 4]
    curve: Curve | None


@dataclass(frozen=True)
class ErrorEvent:
    """A miss or a false alarm."""

    kind: str  # miss, false alarm
    file: str
    start: float
    end: float
    label: str
    score: float | None
    confused_with: str | None
    clip: str | None = None
    clip_start: float | None = None


ERROR_COLUMNS = tuple(field.name for field in dataclasses.fields(ErrorEvent))


@dataclass(frozen=True, eq=False)
class DetectionResult:
    """All numbers of one evaluation."""

    predictions: str
    truth: str
    convention: Convention
    threshold: str | None
    pair: Pair
    seconds: Floats  # [R]
    audio: list[str | None]  # [R] paths of the recordings that are here
    notes: list[str]
    unit: str
    units: int
    levels: dict[str, LevelResult]
    touched: Touch | None  # None: there are no times
    confusion: Confusion | None
    errors: list[ErrorEvent] = field(default_factory=list)  # all; those with clips come first

    def plain(self, shown: int) -> dict[str, Any]:
        """The content of evaluation.json, with so many errors of each kind."""
        pair = self.pair
        here = set(np.unique(pair.found.recording).tolist())
        return {
            "format": FORMAT,
            "predictions": self.predictions,
            "truth": self.truth,
            "convention": dataclasses.asdict(self.convention),
            "threshold": self.threshold,
            "classes": pair.classes,
            "recordings": {
                "evaluated": len(pair.keys),
                "seconds": float(self.seconds.sum()),
                "silent": [key for i, key in enumerate(pair.keys) if i not in here],
                "left_out": pair.left_out,
            },
            "events": {"truth": len(pair.truth), "predicted": len(pair.found)},
            "only_predicted": pair.only_predicted,
            "only_true": pair.only_true,
            "notes": self.notes,
            "intervals": {"unit": self.unit, "units": self.units},
            "levels": {name: _plain_level(level, pair.classes) for name, level in self.levels.items()},
            "thresholds": self._thresholds(),
            "per_recording": list(self._recordings()),
            "confusion": self._confusion(),
            "errors": [dataclasses.asdict(error) for error in first_of_each(self.errors, shown)],
        }

    def _confusion(self) -> dict[str, Any] | None:
        if self.confusion is None:
            return None
        return {"labels": [*self.pair.classes, BACKGROUND], "counts": self.confusion.counts.tolist()}

    def _thresholds(self) -> dict[str, float]:
        level = self.levels.get("segment", self.levels["clip"])
        if level.curve is None:
            return {}
        f1 = np.nan_to_num(level.curve.classes[..., PARTS.index("f1")])  # [C, B]
        best = level.curve.thresholds[middle_of_best(torch.from_numpy(f1)).numpy()]
        return {self.pair.classes[c]: float(best[c]) for c in np.flatnonzero(f1.max(1) > 0).tolist()}

    def _recordings(self) -> Iterator[dict[str, Any]]:
        shares = {name: ratios(level.by_recording, self.convention) for name, level in self.levels.items()}
        for i, key in enumerate(self.pair.keys):
            levels = {}
            for name, level in self.levels.items():
                counts = {part: int(level.by_recording[i, column]) for part, column in COUNTS.items()}
                levels[name] = counts | dict(zip(PARTS, shares[name][i].tolist(), strict=True))
            yield {"file": key, "audio": self.audio[i], "seconds": float(self.seconds[i]), "levels": levels}


COUNTS = {"truth": TRUTH, "predicted": PREDICTED, "found": FOUND, "right": RIGHT}


def first_of_each(errors: Sequence[ErrorEvent], most: int) -> list[ErrorEvent]:
    """The first errors of each kind."""
    left = {"miss": most, "false alarm": most}
    kept = []
    for error in errors:
        if left[error.kind] > 0:
            left[error.kind] -= 1
            kept.append(error)
    return kept


def write_result(result: DetectionResult, folder: Path, shown: int) -> None:
    """Write evaluation.json and the tables beside it into `folder`."""
    text = json.dumps(without_nan(result.plain(shown)), ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(folder / JSON, text)
    write_atomic(folder / "per_class.csv", csv_text(per_class_rows(result)))
    write_atomic(folder / "per_recording.csv", csv_text(per_recording_rows(result)))
    if result.touched is not None:
        rows = ([getattr(error, name) for name in ERROR_COLUMNS] for error in result.errors)
        write_atomic(folder / "errors.csv", csv_text([ERROR_COLUMNS, *rows]))
        write_atomic(folder / "events.csv", csv_text([EVENT_COLUMNS, *event_rows(result)]))


def per_class_rows(result: DetectionResult) -> Iterator[Sequence[object]]:
    """A row for each level and class."""
    spans = [f"{part}{end}" for part in (*PARTS, "average_precision") for end in ("", "_low", "_high")]
    yield ["level", "label", *COUNTS, *spans]
    for name, level in result.levels.items():
        for label, own in level.per_class.items():
            values = [getattr(own, part) for part in (*PARTS, "average_precision")]
            cells = [_cell(getattr(v, end, None)) for v in values for end in ("value", "low", "high")]
            yield [name, label, *(getattr(own, part) for part in COUNTS), *cells]


def per_recording_rows(result: DetectionResult) -> Iterator[Sequence[object]]:
    """A row for each level and recording."""
    yield ["level", "file", "seconds", *COUNTS, *PARTS]
    for name, level in result.levels.items():
        shares = ratios(level.by_recording, result.convention)
        for i, key in enumerate(result.pair.keys):
            counts = [int(level.by_recording[i, column]) for column in COUNTS.values()]
            yield [name, key, _cell(result.seconds[i]), *counts, *map(_cell, shares[i])]


def event_rows(result: DetectionResult) -> Iterator[Sequence[object]]:
    """Every event of both sides, by recording and time, with what became of it."""
    pair, touched, confusion = result.pair, result.touched, result.confusion
    assert touched is not None
    assert confusion is not None
    sides = (
        ("truth", pair.truth, touched.detected, ("missed", "found"), confusion.taken_for),
        ("predicted", pair.found, touched.right, ("wrong", "right"), confusion.really),
    )
    rows: list[tuple[int, float, float, int, float | None, str, str, int]] = []
    for side, events, good, words, other in sides:
        scores = [None] * len(events) if events.score is None else events.score.tolist()
        columns = (events.recording, events.onset, events.offset, events.label, good, other)
        for *place, fine, o, score in zip(*(column.tolist() for column in columns), scores, strict=True):
            rows.append((*place, score, side, words[fine], o))
    rows.sort(key=lambda row: row[:4])
    for recording, start, end, label, score, side, became, o in rows:
        where = (pair.keys[recording], _cell(start), _cell(end), pair.classes[label])
        yield [*where, _cell(score), side, became, None if o < 0 else pair.classes[o]]


def _plain_level(level: LevelResult, classes: Sequence[str]) -> dict[str, Any]:
    curve = level.curve
    return {
        "definition": level.definition,
        "metrics": {name: dataclasses.asdict(metric) for name, metric in level.metrics.items()},
        "per_class": {label: dataclasses.asdict(own) for label, own in level.per_class.items()},
        "curve": None
        if curve is None
        else {
            "thresholds": curve.thresholds.tolist(),
            "micro": _parts(curve.micro),
            "macro": _parts(curve.macro),
            "classes": {label: _parts(own) for label, own in zip(classes, curve.classes, strict=True)},
        },
    }


def _parts(values: Floats) -> dict[str, list[float]]:
    """[B, 3] by name."""
    return {part: np.round(values[:, i], 6).tolist() for i, part in enumerate(PARTS)}


def _cell(value: float | None) -> object:
    """A number with six digits; empty where there is none."""
    return None if value is None or not math.isfinite(value) else round(float(value), 6)
