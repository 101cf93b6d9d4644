"""Truth and predictions to counts at each level: clips, segments, events by overlap, by onset, by onset and offset.

Counts are kept by unit of resampling and class, [U, C, 4]: true ones that are found, true ones, predicted ones that are
right, predicted ones. Where hits are one-to-one, or a cell is a yes or a no, as many are found as are right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from audiobat.errors import AudiobatError
from audiobat.evaluation.detections.conventions import Convention
from audiobat.evaluation.detections.event_list import Bools, EventList, Floats, Scores, Whole, overlapping_pairs
from audiobat.evaluation.detections.matching import hit_events, match, substitutions
from audiobat.evaluation.detections.units import Units

CELLS = 1 << 24  # of segments and classes held at once: 16 MB for each byte of a cell
MOST_SEGMENTS = 50_000_000  # of all recordings
FOUND, TRUTH, RIGHT, PREDICTED = range(4)
SURE = 1.0  # score of a detection that has none


class Rows:
    """Scored predictions, or true ones with the score at which they are found: what a threshold keeps or drops."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._parts: list[tuple[Whole, Floats | Scores, Whole, Bools]] = []  # each sorted by class
        self.add(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool))

    def add(self, label: Whole, score: Floats | Scores, unit: Whole, right: Bools) -> Rows:
        """Add rows in any order, [n] each; returns these rows."""
        order = np.argsort(label, kind="stable")
        offsets = np.searchsorted(label[order], np.arange(self._classes + 1))
        self._parts.append((offsets, score[order], unit[order], right[order]))
        return self

    def of(self, label: int) -> tuple[Floats, Whole, Bools]:
        """Scores, units and whether they are right of the rows of a class."""
        own = [slice(offsets[label], offsets[label + 1]) for offsets, *_ in self._parts]
        score = np.concatenate([part[1][cut] for part, cut in zip(self._parts, own, strict=True)])
        unit = np.concatenate([part[2][cut] for part, cut in zip(self._parts, own, strict=True)])
        right = np.concatenate([part[3][cut] for part, cut in zip(self._parts, own, strict=True)])
        return score.astype(np.float64), unit.astype(np.int64), right

    @property
    def scores(self) -> list[Floats | Scores]:
        """All scores, in parts."""
        return [score for _, score, _, _ in self._parts]


@dataclass(eq=False)
class Level:
    """The counts of one level, and its scored rows."""

    name: str
    counts: Floats  # [U, C, 4]
    by_recording: Floats  # [R, 4]
    substitutions: Floats | None  # [U] a miss and a false alarm that are one error; None: the level has no error rate
    rows: Rows | None  # of predictions; None: they have no scores
    found: Rows | None = None  # of the true ones that are found; None: the rows that are right


def clip_level(truth: EventList, found: EventList, units: Units, recordings: int, classes: int) -> Level:
    """Whether a recording has an event of a label anywhere; its score is the highest of its detections."""
    scores = _scores_of(found)
    true = np.unique(truth.recording * classes + truth.label)
    order = np.argsort(-scores, kind="stable")
    predicted, first = np.unique((found.recording * classes + found.label)[order], return_index=True)
    right = np.isin(predicted, true)
    counts, by_recording = _empty(units, recordings, classes)
    for cells, column in ((true, TRUTH), (predicted, PREDICTED), (predicted[right], RIGHT), (predicted[right], FOUND)):
        recording, label = cells // classes, cells % classes
        _add(counts[..., column], by_recording[:, column], units.of(recording, np.zeros(len(cells))), label, recording)
    unit = units.of(predicted // classes, np.zeros(len(predicted)))
    rows = Rows(classes).add(predicted % classes, scores[order][first], unit, right)
    return Level("clip", counts, by_recording, None, None if found.score is None else rows)


def segment_level(
    truth: EventList, found: EventList, lengths: Floats, units: Units, classes: int, convention: Convention
) -> Level:
    """Whether a segment of `segment_seconds` is touched by an event of a label; its score is the highest of them."""
    counts, by_recording = _empty(units, len(lengths), classes)
    substituted = np.zeros(units.count)
    rows = None if found.score is None else Rows(classes)
    step = convention.segment_seconds
    number = segments_in(lengths, convention)
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
        if rows is not None:
            label, at = np.nonzero(predicted.T)
            rows.add(label, score[at, label], unit[at], right[at, label])
    return Level("segment", counts, by_recording, substituted, rows)


def matched_level(
    name: str, truth: EventList, found: EventList, units: Units, recordings: int, classes: int, convention: Convention
) -> Level:
    """One-to-one hits by onset (`onset`), or by onset and offset (`event`)."""
    offsets = name == "event"
    matched = match(truth, found, convention, offsets=offsets)
    hit = matched >= 0
    detected = hit_events(matched, len(truth))
    unit = units.of(found.recording, found.onset)
    unit[hit] = units.of(truth.recording, truth.onset)[matched[hit]]  # a hit counts where the true event begins
    counts, by_recording = _count(truth, found, detected, hit, unit, units, recordings, classes)
    if found.score is not None:  # which of the largest matchings it is decides on substitutions: the one without scores
        matched = match(truth, replace(found, score=None), convention, offsets=offsets)
    swapped = substitutions(truth, found, matched, convention, offsets=offsets)
    places = units.of(truth.recording[swapped], truth.onset[swapped])
    substituted = np.bincount(places, minlength=units.count).astype(np.float64)
    rows = None if found.score is None else Rows(classes).add(found.label, found.score, unit, hit)
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
        return Level("overlap", counts, by_recording, None, None)
    best = np.full(len(truth), -np.inf)
    np.maximum.at(best, touched.event, found.score[touched.detection])
    own = units.of(truth.recording, truth.onset)
    kept = touched.detected
    rows = Rows(classes).add(found.label, found.score, unit, touched.right)
    found_rows = Rows(classes).add(truth.label[kept], best[kept], own[kept], kept[kept])
    return Level("overlap", counts, by_recording, None, rows, found_rows)


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
        own_label, recording = events.label[chosen], events.recording[chosen]
        _add(counts[..., column], by_recording[:, column], place[chosen], own_label, recording)
    return counts, by_recording


def _add(counts: Floats, by_recording: Floats, unit: Whole, label: Whole, recording: Whole) -> None:
    """Count each cell or event in its unit and class, [U, C], and in its recording, [R]."""
    np.add.at(counts, (unit, label), 1)
    np.add.at(by_recording, recording, 1)


def _empty(units: Units, recordings: int, classes: int) -> tuple[Floats, Floats]:
    return np.zeros((units.count, classes, 4)), np.zeros((recordings, 4))


def _scores_of(found: EventList) -> Floats:
    return np.full(len(found), SURE) if found.score is None else found.score


def _down(seconds: Floats, convention: Convention) -> Floats:
    """The segment in which each time lies."""
    step = convention.segment_seconds
    return np.floor(seconds * 1 / step + convention.slack / step)  # as sed_eval computes it, but for the slack


def segments_in(lengths: Floats, convention: Convention) -> Whole:
    """The segments of each recording, [R].

    Raises:
        AudiobatError: more than memory holds.
    """
    number = np.maximum(segments_begun(lengths, convention), 0).astype(np.int64)
    if number.sum() > MOST_SEGMENTS:
        raise AudiobatError(
            f"The recordings have {number.sum():,} segments of {convention.segment_seconds:g} s: raise "
            "--segment-seconds, and look whether the times are in seconds."
        )
    return number


def segments_begun(seconds: Floats, convention: Convention) -> Floats:
    """How many segments have begun by each time."""
    step = convention.segment_seconds
    return np.ceil(seconds * 1 / step - convention.slack / step)


def _spans(events: EventList, starts: Whole, number: Whole, convention: Convention) -> tuple[Whole, Whole]:
    """The first row of each event, and the row behind its last one; rows are segments of recording after recording."""
    own, most = starts[events.recording], number[events.recording]
    first = np.clip(_down(events.onset, convention), 0, most).astype(np.int64)
    last = np.clip(segments_begun(events.offset, convention), 0, most).astype(np.int64)
    return own + first, own + last


def touched_segments(events: EventList, number: int, classes: int, convention: Convention) -> Bools:
    """Which of the first segments of a recording its events touch, [number, C]."""
    touched = np.zeros((number, classes), bool)
    spans = _spans(events, np.zeros(1, np.int64), np.array([number]), convention)
    at, label, _ = _cells(spans, events.label, 0, number)
    touched[at, label] = True
    return touched


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
