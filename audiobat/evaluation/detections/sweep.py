"""Kept scores of recordings, one at a time, to what every level has at every threshold.

Clips and segments take the highest score in them. Events are made anew at each threshold, and matched anew.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from audiobat.evaluation.detections.align import Pair
from audiobat.evaluation.detections.conventions import Convention
from audiobat.evaluation.detections.curves import Curve, make_curve
from audiobat.evaluation.detections.decode import highest
from audiobat.evaluation.detections.event_list import Bools, EventList, Floats, Scores, Whole
from audiobat.evaluation.detections.levels import (
    CELLS,
    FOUND,
    PREDICTED,
    RIGHT,
    TRUTH,
    Level,
    Rows,
    segments_in,
    touch,
    touched_segments,
)
from audiobat.evaluation.detections.matching import hit_events, match
from audiobat.evaluation.detections.measures import counted_classes
from audiobat.evaluation.detections.units import Units

THRESHOLDS = np.arange(1, 20) / 20  # at which events are made
EVENT_LEVELS = ("overlap", "onset", "event")


class Sweep:
    """Takes the scores of recordings; what it gathers belongs to the pair's recordings and classes."""

    def __init__(
        self,
        pair: Pair,
        lengths: Floats,
        units: Units,
        whole: Units,
        convention: Convention,
        events_at: Callable[[Scores, Floats, float], EventList],
    ) -> None:
        """
        Args:
            pair: the truth.
            lengths: [R] seconds that are evaluated of each recording.
            units: of segments.
            whole: of recordings.
            convention: collars.
            events_at: scores [T, C], spans [T, 2] and a threshold to the events of a recording.
        """
        self._pair, self._units, self._whole = pair, units, whole
        self._number = segments_in(lengths, convention)
        self._convention, self._events_at = convention, events_at
        classes = len(pair.classes)
        self.clips, self.segments = Rows(classes), Rows(classes)
        self.truth_scores = np.full(len(pair.truth), -np.inf)  # [T] the highest of its label while a true event lasts
        self._counts = {name: np.zeros((classes, len(THRESHOLDS), 4)) for name in EVENT_LEVELS}
        self._order = np.argsort(pair.truth.recording, kind="stable")
        self._starts = np.searchsorted(pair.truth.recording[self._order], np.arange(len(pair.keys) + 1))

    def add(self, recording: int, scores: Scores, spans: Floats) -> None:
        """Take the scores [T, C] of a recording's frames or windows, and their spans [T, 2]."""
        own = self._order[self._starts[recording] : self._starts[recording + 1]]
        theirs = self._pair.truth
        zeros = np.zeros(len(own), np.int64)
        truth = EventList(zeros, theirs.label[own], theirs.onset[own], theirs.offset[own])
        self.truth_scores[own] = highest(scores, spans, truth.onset, truth.offset)[np.arange(len(own)), truth.label]
        step, number, classes = self._convention.segment_seconds, int(self._number[recording]), scores.shape[1]
        touched = touched_segments(truth, number, classes, self._convention)
        height = max(1, CELLS // max(1, classes))
        for begin in range(0, number, height):
            begins: Floats = np.arange(begin, min(begin + height, number)) * np.float64(step)
            best = highest(scores, spans, begins, begins + step)
            unit = self._units.of(np.full(len(begins), recording), begins)
            self._add_cells(self.segments, best, touched[begin : begin + height], unit)
        true = np.zeros((1, len(self._pair.classes)), bool)
        true[0, truth.label] = True
        whole = highest(scores, spans, np.zeros(1), np.full(1, np.inf))
        self._add_cells(self.clips, whole, true, self._whole.of(np.array([recording]), np.zeros(1)))
        self._add_events(truth, scores, spans)

    def _add_cells(self, rows: Rows, scores: Scores, true: Bools, unit: Whole) -> None:
        """Add every cell [S, C] that has a score; `unit` is that of each segment [S]."""
        label, at = np.nonzero((scores > -np.inf).T)
        rows.add(label, scores[at, label], unit[at].astype(np.int16), true[at, label])

    def _add_events(self, truth: EventList, scores: Scores, spans: Floats) -> None:
        for at, threshold in enumerate(THRESHOLDS.tolist()):
            found = self._events_at(scores, spans, threshold)
            touched = touch(truth, found)
            self._count("overlap", at, truth, found, touched.detected, touched.right)
            for name in ("onset", "event"):
                matched = match(truth, found, self._convention, offsets=name == "event")
                self._count(name, at, truth, found, hit_events(matched, len(truth)), matched >= 0)

    def _count(self, name: str, at: int, truth: EventList, found: EventList, detected: Bools, right: Bools) -> None:
        counts = self._counts[name][:, at]
        for column, labels in (
            (FOUND, truth.label[detected]),
            (PREDICTED, found.label),
            (RIGHT, found.label[right]),
        ):
            counts[:, column] += np.bincount(labels, minlength=len(counts))

    def of(self, level: Level) -> Curve | None:
        """Give a level of clips or segments the rows with all scores; of one of events return the curve."""
        if level.name in ("clip", "segment"):
            level.rows = self.clips if level.name == "clip" else self.segments
            return None
        level.rows = None
        counts, convention = self._counts[level.name], self._convention
        counts[..., TRUTH] = level.counts[..., TRUTH].sum(0)[:, None]  # also where there are no scores
        return make_curve(THRESHOLDS, counts, counted_classes(level, convention), convention)
