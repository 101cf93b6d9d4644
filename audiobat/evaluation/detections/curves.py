"""The scored rows of a level to average precision and to precision, recall and F1 at every threshold.

A prediction counts at a threshold if its score lies above it. Average precision is the step integral
sum (R_n - R_(n-1)) P_n over the distinct scores; what no prediction reaches is never found, and adds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from audiobat.evaluation.detections.conventions import Convention
from audiobat.evaluation.detections.event_list import Bools, Floats, Whole
from audiobat.evaluation.detections.levels import FOUND, PREDICTED, RIGHT, TRUTH, Level, Rows
from audiobat.evaluation.detections.measures import (
    HALVES,
    Value,
    counted_classes,
    macro,
    mean_of_known,
    ratios,
    units_behind,
)
from audiobat.evaluation.metrics import half_sample_interval, half_sample_values
from audiobat.evaluation.record import Metric

FINE = np.array([0.0, 0.001, 0.002, 0.005, *(np.arange(1, 100) / 100), 0.995, 0.998, 0.999])  # for scores from 0 to 1
STEPS = 100  # thresholds for scores of another range: that many of their quantiles
DEFINITION = (
    "average precision (step integral; what no prediction reaches adds nothing), mean over the classes that truth has"
)


@dataclass(frozen=True, eq=False)
class Curve:
    """F1, precision and recall at B thresholds."""

    thresholds: Floats  # [B] rising
    micro: Floats  # [B, 3]
    macro: Floats  # [B, 3]
    classes: Floats  # [C, B, 3]


def thresholds_of(rows: Rows) -> Floats:
    """Rising thresholds that show how the scores of rows decide."""
    if all(not len(part) or (part.min() >= 0 and part.max() <= 1) for part in rows.scores):
        return FINE
    return np.unique(np.quantile(np.concatenate(rows.scores), np.arange(STEPS) / STEPS))


def average_precision(predicted: Floats, right: Bools, found: Floats, truth: float) -> float:
    """Average precision of one class; NaN without true ones.

    Args:
        predicted: [n] scores of its predictions.
        right: [n] whether each is right.
        found: [k] scores at which its true ones are found, those that are.
        truth: how many true ones there are.
    """
    if not truth:
        return float("nan")
    order = np.argsort(-predicted, kind="stable")
    scores = predicted[order]
    last = np.diff(scores, append=-np.inf) < 0  # rows of equal score are all above a threshold, or none is
    precision = np.cumsum(right[order])[last] / (np.flatnonzero(last) + 1)
    recall = np.searchsorted(np.sort(-found), -scores[last], side="right") / truth
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def curve_of(level: Level, rows: Rows, convention: Convention, seed: int) -> tuple[Curve, Metric, list[Value]]:
    """The curve of a level, and average precision: its mean over classes, and of each class."""
    units, classes, _ = level.counts.shape
    thresholds = thresholds_of(rows)
    truth = level.counts[..., TRUTH]  # [U, C]
    above = np.zeros((classes, len(thresholds), 4))
    above[..., TRUTH] = truth.sum(0)[:, None]
    values, halves = np.full(classes, np.nan), np.full((HALVES, classes), np.nan)
    drawn = half_sample_values(lambda counts: counts, units, HALVES, seed).numpy()  # [HALVES, U], for every class
    for label in range(classes):
        score, unit, right = rows.of(label)
        found, own, _ = (score[right], unit[right], right) if level.found is None else level.found.of(label)
        hists = [
            _above(score, unit, thresholds, units),
            _above(score[right], unit[right], thresholds, units),
            _above(found, own, thresholds, units),
        ]
        for column, hist in zip((PREDICTED, RIGHT, FOUND), hists, strict=True):
            above[label, :, column] = hist.sum(0)[1:]
        values[label] = average_precision(score, right, found, truth[:, label].sum())
        if truth[:, label].any():
            halves[:, label] = _precision_of_halves(hists, truth[:, label], drawn)
    mean = float(mean_of_known(values, 0))
    _, every, *behind = units_behind(level.counts).tolist()
    low, high = half_sample_interval(mean, mean, torch.from_numpy(mean_of_known(halves, 1)), every)
    own_values = [
        Value(v, *half_sample_interval(v, v, torch.from_numpy(halves[:, c].copy()), behind[c]))
        for c, v in enumerate(values.tolist())
    ]
    curve = make_curve(thresholds, above, counted_classes(level, convention), convention)
    return curve, Metric(mean, low, high, DEFINITION, interval="halves"), own_values


def make_curve(thresholds: Floats, above: Floats, counted: Bools, convention: Convention) -> Curve:
    """The curve of counts [C, B, 4] of what lies above each threshold; means are over the counted classes [C]."""
    each = ratios(above, convention)  # [C, B, 3]
    return Curve(thresholds, ratios(above.sum(0), convention), macro(each.swapaxes(0, 1), counted), each)


def _above(score: Floats, unit: Whole, thresholds: Floats, units: int) -> Floats:
    """Rows of each unit in all, and with a score above each threshold: [U, 1 + B]."""
    bins = len(thresholds) + 1
    place = np.searchsorted(thresholds, score, side="left")  # how many thresholds lie below
    hist = np.bincount(unit * bins + place, minlength=units * bins).reshape(units, bins)
    return hist[:, ::-1].cumsum(1)[:, ::-1].astype(np.float64)


def _precision_of_halves(hists: list[Floats], truth: Floats, drawn: Floats) -> Floats:
    """Average precision of a class on halves of the units [HALVES, U], from its rows above each threshold: [HALVES]."""
    predicted, right, found = (drawn @ hist for hist in hists)  # [HALVES, 1 + B]
    with np.errstate(invalid="ignore", divide="ignore"):
        steps = -np.diff(found, append=0.0) / (drawn @ truth)[:, None]
        return np.asarray(np.where(steps > 0, steps * right / predicted, 0 * steps).sum(1))
