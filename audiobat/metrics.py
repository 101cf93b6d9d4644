"""Scores and labels to average precision, macro F1 and accuracy; a bootstrap over test clips to their 95% intervals.

Every metric takes `counts`, how often each clip stands in a resample: [n], or [R, n] for R resamples at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from audiobat.errors import AudiobatError

CHUNK = 4_000_000  # counts held at once by the bootstrap: 32 MB


class AveragePrecision:
    """Average precision per class with clips sorted once, so that many resamples are cheap.

    AP = sum of precision at each positive, weighted by its share of the positives, which is the step integral
    sum (R_n - R_{n-1}) P_n. Clips of equal score share one threshold, as in scikit-learn.
    """

    def __init__(self, scores: Tensor, targets: Tensor) -> None:
        """Take scores and 0/1 targets [n, C]; scores that are not finite raise AudiobatError."""
        _check_finite(scores)
        self._classes = [_rank(s, t) for s, t in zip(scores.T, targets.T.bool(), strict=True)]
        self._clips = len(scores)

    def __call__(self, counts: Tensor | None = None) -> Tensor:
        """AP [C] or [R, C]; NaN for classes without positives."""
        weights = _weights(counts, self._clips).movedim(-1, 0).contiguous()  # [n] or [n, R]: one row a clip
        return torch.stack([_weighted_ap(weights, *ranked) for ranked in self._classes], dim=-1)


def average_precision(scores: Tensor, targets: Tensor, counts: Tensor | None = None) -> Tensor:
    """AP per class, [C] or [R, C], of scores and 0/1 targets [n, C]; NaN for classes without positives."""
    return AveragePrecision(scores, targets)(counts)


def macro_map(ap: Tensor) -> Tensor:
    """Mean of AP [..., C] over all classes, an absent one counting 0 as scikit-learn has it."""
    return ap.nan_to_num(nan=0.0).mean(-1)


def macro_map_present(ap: Tensor) -> Tensor:
    """Mean of AP [..., C] over the classes that have positives; NaN if none has."""
    return ap.nanmean(-1)


def f1_macro(scores: Tensor, targets: Tensor, counts: Tensor | None = None) -> Tensor:
    """Mean F1 over classes at a probability of 0.5, [] or [R], of logits and 0/1 targets [n, C].

    A probability of exactly 0.5 is a no; a class neither present nor predicted counts 0 (Section 5's protocol).
    """
    _check_finite(scores)
    weights = _weights(counts, len(scores))
    predicted, actual = scores.sigmoid().round().double(), targets.double()  # round: half to even, so 0.5 to 0
    hits = weights @ (predicted * actual)  # [C] or [R, C]
    f1 = 2 * hits / (weights @ (predicted + actual)).clamp_min(1)
    return f1.mean(-1)


def accuracy(scores: Tensor, labels: Tensor, counts: Tensor | None = None) -> Tensor:
    """Share of clips whose greatest score [n, C] is at their label [n]: [] or [R]."""
    _check_finite(scores)
    weights = _weights(counts, len(scores))
    return weights @ (scores.argmax(-1) == labels).double() / weights.sum(-1)


def bootstrap(metric: Callable[[Tensor], Tensor], n: int, samples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95% percentile interval of `metric` over resamples of n test clips, drawn with replacement.

    `metric` turns counts [R, n] (float64) into values [R]. Resamples where it is NaN are left out. Average
    precision leans upwards under resampling, as copies of a clip rank together: its interval sits high.
    """
    if n < 1:
        raise AudiobatError("There are no test clips to resample: check the table's split column.")
    generator = torch.Generator().manual_seed(seed)
    values = []
    step = max(1, CHUNK // n)
    for start in range(0, samples, step):
        rows = min(step, samples - start)
        drawn = torch.randint(n, (rows, n), generator=generator)
        counts = torch.zeros(rows, n, dtype=torch.float64)
        values.append(metric(counts.scatter_add_(1, drawn, torch.ones_like(counts))).double())
    low, high = torch.cat(values).nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _rank(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One class: clips by falling score, its positives, and where the tie of each positive ends among both."""
    falling, order = scores.sort(descending=True)
    _, tie, sizes = falling.unique_consecutive(return_inverse=True, return_counts=True)
    hits = positive[order]
    last = (sizes.cumsum(0) - 1)[tie[hits]]  # [P] places in `order`
    return order, order[hits], last, hits.cumsum(0)[last] - 1


def _weighted_ap(weights: Tensor, order: Tensor, positives: Tensor, last: Tensor, last_positive: Tensor) -> Tensor:
    """AP of one class from weights [n] or [n, R]: a scalar or [R]."""
    share = weights[positives]  # [P, ...]
    above = weights[order].cumsum(0)[last]  # clips at or above the threshold
    hits = share.cumsum(0)[last_positive]
    return (share * hits / above.clamp_min(1)).sum(0) / share.sum(0)


def _weights(counts: Tensor | None, clips: int) -> Tensor:
    return torch.ones(clips, dtype=torch.float64) if counts is None else counts.double()


def _check_finite(scores: Tensor) -> None:
    if not scores.isfinite().all():
        raise AudiobatError("The scores hold NaN or infinity: the head diverged, lower train.lr.")
