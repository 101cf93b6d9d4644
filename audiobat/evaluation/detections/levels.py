"""Truth and predictions to counts at each level: clips, segments, events by overlap, by onset, by onset and offset.

Counts are kept by unit of resampling and class, [U, C, 4]: true ones that are found, true ones, predicted ones that are
right, predicted ones. Where hits are one-to-one, or a cell is a yes or a no, as many are found as are right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audiobat.errors import AudiobatError
from audiobat.evaluation.detections.conventions import Convention
from audiobat.evaluation.detections.event_list import Bools, EventList, Floats, Whole, overlapping_pairs
from audiobat.evaluation.detections.matching import match, substitutions
from audiobat.evaluation.detections.units import Units

CELLS = 1 << 24  # of segments and classes held at once: 16 MB for each byte of a cell
MOST_SEGMENTS = 50_000_000  # of all recordings
FOUND, TRUTH, RIGHT, PREDICTED = range(4)
SURE = 1.0  # score of a detection that has none


@dataclass(frozen=True, eq=False)
class Rows:
    """Scored rows, class after class: whatever a threshold may keep or drop."""

    offsets: Whole  # [C + 1] where those of a class begin
    score: NDArray[np.floating]  # [n]
    unit: NDArray[np.integer]  # [n]
    right: Bools  # [n]

    def of(self, label: int) -> tuple[Floats, Whole, Bools]:
        """Scores, units and whether they are right of the rows of a class."""
        own = slice(self.offsets[label], self.offsets[label + 1])
        return self.score[own].astype(np.float64), self.unit[own].astype(np.int64), self.right[own]


@dataclass(eq=False)
class Level:
    """The counts of one level, and its scored rows."""

    name: str
    counts: Floats  # [U, C, 4]
    by_recording: Floats  # [R, 4]
    substitutions: Floats | None  # [U] a miss and a false alarm that are one error; None: the level has no error rate
    rows: list[Rows]  # of predictions; none where they have no scores
    found: list[Rows] | None = None  # of the true ones, each with the score at which it is found; None: the right rows


def sort_rows(label: Whole, score: Floats, unit: Whole, right: Bools, classes: int) -> Rows:
    """Rows in any order as `Rows`."""
    order = np.argsort(label, kind="stable")
    offsets = np.searchsorted(label[order], np.arange(classes + 1))
    return Rows(offsets, score[order], unit[order], right[order])


def clip_level(truth: EventList, found: EventList, units: Units, recordings: int, classes: int) -> Level:
    """Whether a recording has an event of a label anywhere; its score is the highest of its detections."""
    scores = _scores_of(found)
    true = np.unique(truth.recording * classes + truth.label)
    order = np.argsort(-scores, kind="stable")
    predicted, first = np.unique((found.recording * classes + found.label)[order], return_index=True)
    right = np.isin(predicted, true)
    counts, by_recording = _empty(units, recordings, classes)
    for cells, column in ((true, TRUTH), (predicted, PREDICTED), (predicted[right], RIGHT), (predicted[right], FOUND)):
        unit = units.of(cells // classes, np.zeros(len(cells)))
        np.add.at(counts, (unit, cells % classes, column), 1)
        np.add.at(by_recording, (cells // classes, column), 1)
    unit = units.of(predicted // classes, np.zeros(len(predicted)))
    rows = [sort_rows(predicted % classes, scores[order][first], unit, right, classes)]
    return Level("clip", counts, by_recording, None, rows if found.score is not None else [])


def segment_level(
    truth: EventList, found: EventList, lengths: Floats, units: Units, classes: int, convention: Convention
) -> Level:
    """Whether a segment of `segment_seconds` is touched by an event of a label; its score is the highest of them."""
    counts, by_recording = _empty(units, len(lengths), classes)
    substituted = np.zeros(units.count)
    rows = []
    step = convention.segment_seconds
    number = np.maximum(_up(lengths, convention), 0).astype(np.int64)  # [R] segments
    if number.sum() > MOST_SEGMENTS:
        raise AudiobatError(
            f"The recordings have {number.sum():,} segments of {step:g} s: raise --segment-seconds, and look whether "
            "the times are in seconds."
        )
    starts = np.cumsum(number) - number
    scores = _scores_of(found)
    order = np.argsort(scores, kind="stable")  # of events in one cell the last one written counts
    true_spans = _spans(truth, starts, number, convention)
    found_spans = _spans(found.take(order), starts, number, convention)
    height = max(1, CELLS // max(1, classes))
    for begin in range(0, int(number.sum()), height):
        end = min(begin + height, int(number.sum()))
        true = np.zeros((end - begin, classes), bool)
        at, label, _ = _cells(true_spans, truth.label, begin, end)
        true[at, label] = True
        score = np.full((end - begin, classes), -np.inf)
        at, label, which = _cells(found_spans, found.label[order], begin, end)
        score[at, label] = scores[order][which]
        predicted = score > -np.inf
        recording = np.searchsorted(starts, np.arange(begin, end), side="right") - 1
        seconds = (np.arange(begin, end) - starts[recording]) * step
        unit = units.of(recording, seconds)
        right = true & predicted
        for cells, columns in ((right, (FOUND, RIGHT)), (true, (TRUTH,)), (predicted, (PREDICTED,))):
            added = _sum_by(unit, cells)
            each = np.bincount(recording, cells.sum(1), minlength=len(lengths))
            for column in columns:
                counts[added[0], :, column] += added[1]
                by_recording[:, column] += each
        swapped = np.minimum(true.sum(1), predicted.sum(1)) - right.sum(1)
        substituted += np.bincount(unit, swapped, minlength=units.count)
        if found.score is not None:
            label, at = np.nonzero(predicted.T)
            rows.append(sort_rows(label, score[at, label], unit[at], right[at, label], classes))
    return Level("segment", counts, by_recording, substituted, rows)


def matched_level(
    name: str, truth: EventList, found: EventList, units: Units, recordings: int, classes: int, convention: Convention
) -> Level:
    """One-to-one hits by onset (`onset`), or by onset and offset (`event`)."""
    offsets = name == "event"
    matched = match(truth, found, convention, offsets=offsets)
    hit = matched >= 0
    detected = np.zeros(len(truth), bool)
    detected[matched[hit]] = True
    unit = units.of(found.recording, found.onset)
    unit[hit] = units.of(truth.recording, truth.onset)[matched[hit]]  # a hit counts where the true event begins
    counts, by_recording = _count(truth, found, detected, hit, unit, units, recordings, classes)
    swapped = substitutions(truth, found, matched, convention, offsets=offsets)
    substituted = np.bincount(units.of(truth.recording[swapped], truth.onset[swapped]), minlength=units.count).astype(
        np.float64
    )
    rows = [] if found.score is None else [sort_rows(found.label, found.score, unit, hit, classes)]
    return Level(name, counts, by_recording, substituted, rows)


@dataclass(frozen=True, eq=False)
class Touch:
    """Which events share time with one of the same label in the same recording."""

    event: Whole  # [P] the pairs: of the truth
    detection: Whole  # [P] and of the predictions
    detected: Bools  # [T] whether a true event is touched
    right: Bools  # [E] whether a detection touches one


def touch(truth: EventList, found: EventList) -> Touch:
    """All pairs of a true event and a detection of its label that share time."""
    event, detection = overlapping_pairs(truth, found, same_label=True)
    detected, right = np.zeros(len(truth), bool), np.zeros(len(found), bool)
    detected[event], right[detection] = True, True
    return Touch(event, detection, detected, right)


def overlap_level(
    truth: EventList, found: EventList, touched: Touch, units: Units, recordings: int, classes: int
) -> Level:
    """A detection is right if it shares time with a true event of its label, which then is found: many to many."""
    unit = units.of(found.recording, found.onset)
    counts, by_recording = _count(truth, found, touched.detected, touched.right, unit, units, recordings, classes)
    if found.score is None:
        return Level("overlap", counts, by_recording, None, [])
    best = np.full(len(truth), -np.inf)
    np.maximum.at(best, touched.event, found.score[touched.detection])
    own = units.of(truth.recording, truth.onset)
    kept = touched.detected
    found_rows = sort_rows(truth.label[kept], best[kept], own[kept], kept[kept], classes)
    rows = sort_rows(found.label, found.score, unit, touched.right, classes)
    return Level("overlap", counts, by_recording, None, [rows], [found_rows])


def _count(
    truth: EventList,
    found: EventList,
    detected: Bools,
    right: Bools,
    unit: Whole,
    units: Units,
    recordings: int,
    classes: int,
) -> tuple[Floats, Floats]:
    """Counts [U, C, 4] and [R, 4] of events; detections lie in `unit`, [E]."""
    counts, by_recording = _empty(units, recordings, classes)
    own = units.of(truth.recording, truth.onset)
    for column, events, place, chosen in (
        (TRUTH, truth, own, np.ones(len(truth), bool)),
        (FOUND, truth, own, detected),
        (PREDICTED, found, unit, np.ones(len(found), bool)),
        (RIGHT, found, unit, right),
    ):
        np.add.at(counts, (place[chosen], events.label[chosen], column), 1)
        np.add.at(by_recording, (events.recording[chosen], column), 1)
    return counts, by_recording


def _empty(units: Units, recordings: int, classes: int) -> tuple[Floats, Floats]:
    return np.zeros((units.count, classes, 4)), np.zeros((recordings, 4))


def _scores_of(found: EventList) -> Floats:
    return np.full(len(found), SURE) if found.score is None else found.score


def _down(seconds: Floats, convention: Convention) -> Floats:
    """The segment in which each time lies."""
    step = convention.segment_seconds
    return np.floor(seconds * 1 / step + convention.slack / step)  # as sed_eval computes it, but for the slack


def _up(seconds: Floats, convention: Convention) -> Floats:
    """Segments that have begun by each time."""
    step = convention.segment_seconds
    return np.ceil(seconds * 1 / step - convention.slack / step)


def _spans(events: EventList, starts: Whole, number: Whole, convention: Convention) -> tuple[Whole, Whole]:
    """The first row of each event, and the row behind its last one; rows are segments of recording after recording."""
    own, most = starts[events.recording], number[events.recording]
    first = np.clip(_down(events.onset, convention), 0, most).astype(np.int64)
    last = np.clip(_up(events.offset, convention), 0, most).astype(np.int64)
    return own + first, own + last


def _cells(spans: tuple[Whole, Whole], label: Whole, begin: int, end: int) -> tuple[Whole, Whole, Whole]:
    """Row less `begin`, label and event of each cell that events touch between two rows."""
    first, last = np.maximum(spans[0], begin), np.minimum(spans[1], end)
    chosen = np.flatnonzero(last > first)
    counts = (last - first)[chosen]
    which = np.repeat(chosen, counts)
    at = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts) + first[which] - begin
    return at, label[which], which


def _sum_by(unit: Whole, cells: Bools) -> tuple[Whole, Floats]:
    """The units in ascending rows [n], each once, and the sums of their cells [n, C]."""
    begins = np.flatnonzero(np.diff(unit, prepend=-1))
    return unit[begins], np.add.reduceat(cells, begins, axis=0, dtype=np.float64)
