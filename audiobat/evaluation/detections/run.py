"""Aligned events to every number: all levels, their curves, the confusion matrix, misses and false alarms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from audiobat.evaluation.detections.align import Pair
from audiobat.evaluation.detections.confusion import Confusion, confuse, worst
from audiobat.evaluation.detections.conventions import Convention
from audiobat.evaluation.detections.curves import Curve, curve_of
from audiobat.evaluation.detections.event_list import Floats
from audiobat.evaluation.detections.levels import (
    FOUND,
    PREDICTED,
    RIGHT,
    TRUTH,
    Level,
    Touch,
    clip_level,
    matched_level,
    overlap_level,
    segment_level,
    touch,
)
from audiobat.evaluation.detections.measures import ClassCounts, Value, measure
from audiobat.evaluation.detections.result import DetectionResult, ErrorEvent, LevelResult
from audiobat.evaluation.detections.sweep import Sweep
from audiobat.evaluation.detections.units import Units, units_of


def evaluate_pair(
    pair: Pair,
    lengths: Floats,
    convention: Convention,
    seed: int,
    *,
    sweep: Sweep | None,
    predictions: str,
    truth: str,
    threshold: str | None,
    audio: list[str | None],
    notes: list[str],
) -> DetectionResult:
    """Every number of a pair.

    Args:
        pair: the events of both sides.
        lengths: [R] seconds that are evaluated of each recording.
        convention: what counts as right.
        seed: of the resamples behind intervals.
        sweep: the scores of all thresholds; None: those of the detections are all there are.
        predictions, truth, threshold, audio, notes: as the result keeps them.
    """
    if sweep is not None:
        pair = replace(pair, truth=replace(pair.truth, score=sweep.truth_scores))
    units = units_of(lengths)
    touched = touch(pair.truth, pair.found) if pair.timed else None
    confusion = None if touched is None else confuse(pair.truth, pair.found, touched, len(pair.classes))
    levels = {}
    for level in all_levels(pair, lengths, units, convention, touched):
        curve = None if sweep is None else sweep.of(level)
        levels[level.name] = level_result(level, pair.classes, convention, seed, curve)
    return DetectionResult(
        predictions,
        truth,
        convention,
        threshold,
        pair,
        lengths,
        audio,
        notes,
        units.name,
        units.count,
        levels,
        touched,
        confusion,
        [] if touched is None or confusion is None else errors_of(pair, touched, confusion),
    )


def all_levels(pair: Pair, lengths: Floats, units: Units, convention: Convention, touched: Touch | None) -> list[Level]:
    """The counts of every level that the times of both sides allow."""
    truth, found, classes, recordings = pair.truth, pair.found, len(pair.classes), len(pair.keys)
    levels = [clip_level(truth, found, units_of(lengths, whole=True), recordings, classes)]
    if touched is None:
        return levels
    levels.append(segment_level(truth, found, lengths, units, classes, convention))
    levels.append(overlap_level(truth, found, touched, units, recordings, classes))
    levels += [matched_level(name, truth, found, units, recordings, classes, convention) for name in ("onset", "event")]
    return levels


def level_result(
    level: Level, classes: list[str], convention: Convention, seed: int, curve: Curve | None = None
) -> LevelResult:
    """A level's numbers with their intervals; `curve` is that of a level whose rows have no scores."""
    metrics, values = measure(level, convention, seed)
    precisions: list[Value | None] = [None] * len(classes)
    if level.rows is not None:
        curve, metrics["map"], precisions[:] = curve_of(level, level.rows, convention, seed)
    per_class = {}
    for c, label in enumerate(classes):
        truth, predicted, found, right = (int(level.counts[:, c, i].sum()) for i in (TRUTH, PREDICTED, FOUND, RIGHT))
        f1, precision, recall = values[c]
        per_class[label] = ClassCounts(truth, predicted, found, right, f1, precision, recall, precisions[c])
    return LevelResult(definition(level.name, convention), metrics, per_class, level.by_recording, curve)


def definition(name: str, convention: Convention) -> str:
    """What counts at a level, in words."""
    c = convention
    offset = f"at most {c.offset_collar:g} s or {c.offset_share:.0%} of the true event's length apart"
    return {
        "clip": "a label holds in a recording",
        "segment": f"a label holds in a segment of {c.segment_seconds:g} s, which one of its events touches",
        "overlap": "a detection shares time with a true event of its label; many to many",
        "onset": f"one-to-one hits of the same label, onsets at most {c.onset_collar:g} s apart",
        "event": f"one-to-one hits of the same label, onsets at most {c.onset_collar:g} s and offsets {offset}",
    }[name]


def errors_of(pair: Pair, touched: Touch, confusion: Confusion) -> list[ErrorEvent]:
    """All misses and then all false alarms, worst first.

    The worst false alarm is the one with the highest score, the worst miss the one whose label scored lowest while it
    lasted; without scores it is the longest.
    """
    truth, found = pair.truth, pair.found
    sides = (
        ("miss", truth, ~touched.detected, confusion.taken_for, -1),
        ("false alarm", found, ~touched.right, confusion.really, 1),
    )
    errors = []
    for kind, events, wrong, other, sign in sides:
        badness = events.offset - events.onset if events.score is None else sign * events.score
        for i in worst(events, wrong, badness).tolist():
            score = None if events.score is None or np.isinf(events.score[i]) else float(events.score[i])
            span = float(events.onset[i]), float(events.offset[i])
            another = None if other[i] < 0 else pair.classes[int(other[i])]
            file, label = pair.keys[int(events.recording[i])], pair.classes[int(events.label[i])]
            errors.append(ErrorEvent(kind, file, *span, label, score, another))
    return errors


def known_lengths(pair: Pair, seconds: Floats, convention: Convention) -> Floats:
    """Seconds that are evaluated of each recording: to its end, or to the last offset of either side.

    Args:
        pair: the events.
        seconds: [R] lengths; NaN: not known.
        convention: whether known lengths count.
    """
    last = np.zeros(len(pair.keys))
    for events in (pair.truth, pair.found):
        np.maximum.at(last, events.recording, events.offset)
    return np.where(np.isnan(seconds) | (not convention.to_end), last, seconds)


def behind_end(pair: Pair, lengths: Floats) -> tuple[int, int]:
    """How many true events and detections begin behind the end of their recording; lengths [R] may be NaN: unknown."""
    truth, found = (int((side.onset >= lengths[side.recording]).sum()) for side in (pair.truth, pair.found))
    return truth, found


def doubled(pair: Pair) -> int:
    """How many true events begin while another one of the same label and recording lasts."""
    truth = pair.truth
    order = np.lexsort((truth.onset, truth.label, truth.recording))
    count, before, latest = 0, (-1, -1), -math.inf
    for recording, label, onset, offset in zip(
        *(column[order].tolist() for column in (truth.recording, truth.label, truth.onset, truth.offset)), strict=True
    ):
        if (recording, label) != before:
            before, latest = (recording, label), -math.inf
        count += onset < latest
        latest = max(latest, offset)
    return count
