"""The counts of a level to precision, recall, F1 and error rate with 95% intervals, in all and class by class.

Micro values are of all classes' counts together; macro values are means over classes. An interval comes from random
halves of the units (`metrics.half_sample_interval`), that of an error rate, which may exceed 1, from resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audiobat.evaluation.detections.conventions import Convention
from audiobat.evaluation.detections.event_list import Bools, Floats, Whole
from audiobat.evaluation.detections.levels import FOUND, PREDICTED, RIGHT, TRUTH, Level
from audiobat.evaluation.metrics import (
    bootstrap_values,
    half_sample_interval,
    half_sample_values,
    interval_of_difference,
)
from audiobat.evaluation.record import Metric

MICRO = "of all classes' counts together"
HALVES = 500  # random halves of the units behind an interval
PARTS = ("f1", "precision", "recall")


@dataclass(frozen=True)
class Value:
    """A number with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassCounts:
    """A class at one level."""

    truth: int
    predicted: int
    found: int  # of the true ones
    right: int  # of the predicted ones
    f1: Value
    precision: Value
    recall: Value
    average_precision: Value | None = None  # None: predictions have no scores


def ratios(counts: Floats, convention: Convention) -> Floats:
    """F1, precision and recall [..., 3] of counts [..., 4].

    Without true ones recall and F1 are NaN. Without predicted ones precision is the convention's `silent`, or NaN if
    there are no true ones either.
    """
    found, truth, right, predicted = (counts[..., column] for column in (FOUND, TRUTH, RIGHT, PREDICTED))
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = found / truth
        silent = np.where(truth > 0, convention.silent, np.nan)
        precision = np.where(predicted > 0, right / predicted, silent)
        f1 = np.where(precision + recall == 0, 0.0, 2 * precision * recall / (precision + recall))
    return np.stack([f1, precision, recall], axis=-1)


def macro(values: Floats, counted: Bools) -> Floats:
    """Mean [..., 3] of ratios [..., C, 3] over the counted classes [C] that have a value; NaN if none has."""
    return mean_of_known(values[..., counted, :], -2)


def mean_of_known(values: Floats, axis: int) -> Floats:
    """Mean over an axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(axis) / known.sum(axis))


def error_rate(counts: Floats, substitutions: Floats, convention: Convention) -> Floats:
    """Substitutions, deletions and insertions per true one, [...], of counts [..., C, 4] and substitutions [...]."""
    total = counts.sum(-2)
    truth = total[..., TRUTH]
    errors = truth - total[..., FOUND] + total[..., PREDICTED] - total[..., RIGHT] - substitutions
    least = convention.least
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(truth > 0, errors / truth, errors / least))


def counted_classes(level: Level, convention: Convention) -> Bools:
    """The classes that means over classes take in, [C]: by our convention those that truth has."""
    truth = level.counts[..., TRUTH].sum(0) > 0
    return np.ones_like(truth) if convention.every_class else truth


def mean_over(convention: Convention) -> str:
    """What a mean over classes takes in, in words."""
    return f"mean over the classes that {'have a value' if convention.every_class else 'truth has'}"


def units_behind(counts: Floats) -> Whole:
    """Units that have something to count, at least 1: of all classes, twice (micro, macro), then of each: [2 + C]."""
    there = counts.sum(-1) > 0  # [U, C]
    every = there.any(1).sum()
    return np.asarray(np.maximum(1, np.concatenate([[every, every], there.sum(0)])))


def measure(
    level: Level, convention: Convention, seed: int
) -> tuple[dict[str, Metric], list[tuple[Value, Value, Value]]]:
    """The metrics of a level by name, and F1, precision and recall of each class."""
    units, classes, _ = level.counts.shape
    flat = level.counts.reshape(units, -1)
    counted = counted_classes(level, convention)

    def all_ratios(counts: Tensor) -> Tensor:
        """Micro, macro and the classes' ratios, [R, (2 + C) * 3], of counts [R, U]."""
        drawn = (counts.numpy() @ flat).reshape(len(counts), classes, 4)
        each = ratios(drawn, convention)
        micro, mean = ratios(drawn.sum(1), convention), macro(each, counted)
        return torch.from_numpy(np.concatenate([micro[:, None], mean[:, None], each], 1).reshape(len(counts), -1))

    whole = all_ratios(torch.ones(1, units, dtype=torch.float64))[0]
    halves = half_sample_values(all_ratios, units, HALVES, seed)
    behind = np.repeat(units_behind(level.counts), len(PARTS))
    found = [
        Value(value, *half_sample_interval(value, value, halves[:, i], int(behind[i])))
        for i, value in enumerate(whole.tolist())
    ]
    metrics = {
        f"{part}_{kind}": Metric(v.value, v.low, v.high, f"{part}, {words}", interval="halves")
        for kind, words, values in (("micro", MICRO, found[:3]), ("macro", mean_over(convention), found[3:6]))
        for part, v in zip(PARTS, values, strict=True)
    }
    if level.substitutions is not None:
        metrics["error_rate"] = _error_rate(level, convention, seed)
    each = [(found[i], found[i + 1], found[i + 2]) for i in range(6, len(found), 3)]
    return metrics, each


def _error_rate(level: Level, convention: Convention, seed: int) -> Metric:
    """Errors in each true one, with the basic bootstrap interval over units."""
    swapped = level.substitutions
    assert swapped is not None
    flat = level.counts.sum(1)  # [U, 4]

    def rate(counts: Tensor) -> Tensor:
        drawn = (counts.numpy() @ flat)[:, None]
        return torch.from_numpy(error_rate(drawn, counts.numpy() @ swapped, convention))

    value = float(rate(torch.ones(1, len(flat), dtype=torch.float64)))
    low, high, _ = interval_of_difference(value, bootstrap_values(rate, len(flat), seed=seed))
    definition = "substitutions, deletions and insertions in each true one; a substitution is a miss and a false alarm"
    return Metric(value, max(low, 0.0), high, definition, interval="bootstrap")
