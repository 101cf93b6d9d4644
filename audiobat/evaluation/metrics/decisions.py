"""Scores and labels to metrics of yes or no: F1 at a threshold, the best threshold, accuracy."""

from __future__ import annotations

import torch
from torch import Tensor

from audiobat.errors import AudiobatError
from audiobat.evaluation.metrics.inputs import check_finite, falling_order, weights_of

ROUNDING = 1e-9  # F1 values that differ by less are equal but for rounding


def f1_macro(scores: Tensor, targets: Tensor, counts: Tensor | None = None) -> Tensor:
    """Mean F1 over classes at a probability of 0.5, [] or [R], of logits and 0/1 targets [n, C].

    A probability of exactly 0.5 is a no; a class neither present nor predicted counts 0, as in the paper's tables.
    """
    check_finite(scores)
    return _f1(scores.sigmoid().round().bool(), targets, counts)  # round: half to even, so 0.5 to 0


def f1_at(scores: Tensor, targets: Tensor, threshold: float, counts: Tensor | None = None) -> Tensor:
    """Mean F1 over classes, [] or [R], of scores and 0/1 targets [n, C], where a score above `threshold` is a yes."""
    check_finite(scores)
    return _f1(scores.double() > threshold, targets, counts)


def best_threshold(scores: Tensor, targets: Tensor) -> float:
    """The one threshold of all classes with the highest `f1_at`, for scores [n, C] that trained the head, not test it.

    It lies midway between the lowest score that is a yes and the highest that is a no. Of thresholds that are equally
    good the highest is taken, which predicts the fewest classes. Every distinct score is tried, in one pass over the
    scores from the highest down: lowering the threshold past a score changes the F1 of its class alone. Takes 60 bytes
    a score.

    Raises:
        AudiobatError: no scores, or one that is not finite.
    """
    check_finite(scores)
    if not scores.numel():
        raise AudiobatError("There are no training scores to choose a threshold from: check the table's split column.")
    order = falling_order(scores.T.double())  # [C, n], each class by itself
    falling = scores.T.double().gather(1, order)
    hits = targets.T.gather(1, order).double()
    yes = torch.arange(1, len(scores) + 1)
    f1 = 2 * hits.cumsum(1) / (yes + hits.sum(1, keepdim=True))  # [C, n] of a class, if its k highest scores are a yes
    gains = f1.diff(dim=1, prepend=f1.new_zeros(len(f1), 1))
    order = falling_order(falling.flatten())  # [C * n], all classes together
    falling = falling.flatten()[order]
    macro = gains.flatten()[order].cumsum(0) / len(f1)  # mean F1 with the threshold just below each score
    last = falling.diff(append=falling.new_full((1,), -torch.inf)) < 0  # equal scores are all a yes, or none is
    distinct, macro = falling[last], macro[last]
    best = int((macro >= macro.max() - ROUNDING).int().argmax())  # the first of equals, so the highest score
    lowest_yes = float(distinct[best])
    highest_no = float(distinct[best + 1]) if best + 1 < len(distinct) else lowest_yes - 2
    middle = (lowest_yes + highest_no) / 2
    return middle if middle < lowest_yes else highest_no  # no number lies between two neighbouring floats


def accuracy(scores: Tensor, labels: Tensor, counts: Tensor | None = None) -> Tensor:
    """Share of clips whose greatest score [n, C] is at their label [n]: [] or [R]."""
    check_finite(scores)
    weights = weights_of(counts, len(scores))
    greatest = torch.from_numpy(scores.numpy().argmax(-1))  # twice as fast as torch's
    return weights @ (greatest == labels).double() / weights.sum(-1)


def _f1(predicted: Tensor, targets: Tensor, counts: Tensor | None) -> Tensor:
    """Mean over classes, [] or [R], of 2 TP / (2 TP + FP + FN), from bool predictions and 0/1 targets [n, C]."""
    weights = weights_of(counts, len(predicted))
    actual = targets.bool()
    hits = weights @ (predicted & actual).double()  # [C] or [R, C]
    either = weights @ predicted.double() + weights @ actual.double()
    return (2 * hits / either.clamp_min(1)).mean(-1)
