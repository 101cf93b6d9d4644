"""Scores of clips or frames, ranked once, to average precision and AUC of each class under many resamples.

Rows of equal score share one threshold, as in scikit-learn. Precision and recall matter only at thresholds where a
class has a positive, so one pass sums the counts of the rows between two such thresholds, for all classes and a batch
of resamples at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from audiobat.evaluation.metrics.inputs import check_finite, falling_order, weights_of

BATCH = 64  # resamples summed at once: their counts of 19,000 clips fit a core's cache
BLOCK = 2**22  # scores sorted at once: 0.2 GB
TINY = 1e-9  # in place of 0 in a denominator whose numerator is 0, too
EXACT = 2**24  # float32 holds every whole number up to it


@dataclass(frozen=True)
class _Cuts:
    """Weights under R resamples at the G thresholds that have positives, classes one after the other.

    They are large, and made for one metric, which computes in place: new memory takes longer than the arithmetic.
    """

    share: Tensor  # [G, R] positives at the threshold
    hits: Tensor  # [G, R] positives at or above it
    reached: Tensor  # [G, R] rows at or above it
    positives: Tensor  # [C, R] of each class


class Ranking:
    """Rows (clips, or frames of clips) of each class by falling score.

    Args:
        scores: [n, C]; AudiobatError if one is not finite.
        targets: 0/1 [n, C].
        clips: [n] the clip of each row, counted from 0, whose count is the row's; None: every row is a clip.
    """

    def __init__(self, scores: Tensor, targets: Tensor, clips: Tensor | None = None) -> None:
        check_finite(scores)
        rows, self._classes = scores.shape
        self._clips = torch.arange(rows) if clips is None else clips
        step = max(1, BLOCK // max(rows, 1))
        blocks = [
            _rank(s.T, t.T.bool(), self._clips)
            for s, t in zip(scores.split(step, dim=1), targets.split(step, dim=1), strict=True)
        ]
        self._falling, stretches, self._positives, ties, thresholds = (
            torch.cat(part) for part in zip(*blocks, strict=True)
        )
        self._stretches = _offsets(stretches)  # [2G + 1] in falling: where a threshold's rows begin, where they end
        self._ties = _offsets(ties)  # [G + 1] in positives: where those of a threshold begin
        self._thresholds = _offsets(thresholds)  # [C + 1] where those of a class begin
        self._used = thresholds.nonzero()[:, 0]  # classes with thresholds
        self._begins = self._thresholds[self._used]  # the first of each

    def average_precision(self, counts: Tensor | None = None) -> Tensor:
        """AP [C] or [R, C], the step integral sum (R_n - R_{n-1}) P_n; NaN for classes without positives."""

        def ap(cuts: _Cuts, weights: Tensor) -> Tensor:
            precision = cuts.hits.div_(cuts.reached.clamp_min_(1))
            return self._by_class(precision.mul_(cuts.share)) / cuts.positives

        return self._resample(ap, counts)

    def corrected_precision(self, counts: Tensor | None = None) -> Tensor:
        """AP [C] or [R, C] less most of what few positives add to it: about what endless clips would give.

        The share of positives found at a positive's threshold lies, on average, in the middle of the step that it
        makes, so here it counts itself by half. And the number b of negatives above it varies from sample to sample,
        which lifts the mean of hits / (hits + b), to first order by as much as 1 - precision more negatives lower it.
        """

        def ap(cuts: _Cuts, weights: Tensor) -> Tensor:
            negatives = cuts.reached.sub_(cuts.hits)
            hits = cuts.hits.sub_(cuts.share, alpha=0.5)
            found = (hits + negatives).clamp_min_(TINY)  # 0 where no clip of the class so far is in the resample
            precision = hits.div_(negatives.div_(found).add_(found))
            return self._by_class(precision.mul_(cuts.share)) / cuts.positives

        return self._resample(ap, counts)

    def auc(self, counts: Tensor | None = None) -> Tensor:
        """Area under the ROC curve, [C] or [R, C]; a tie counts half, a class without positives or negatives NaN."""

        def area(cuts: _Cuts, weights: Tensor) -> Tensor:
            negatives = weights[self._clips].sum(0) - cuts.positives
            level = _sums(as_table(weights), self._falling, self._stretches)[1::2]  # [G, R] rows at the threshold
            ties = level.sub_(cuts.share).div_(2)
            over = cuts.reached.sub_(cuts.hits).sub_(ties)  # negatives at or above the threshold, ties half
            return 1 - self._by_class(over.mul_(cuts.share)) / (cuts.positives * negatives)

        return self._resample(area, counts)

    def _resample(self, measure: Callable[[_Cuts, Tensor], Tensor], counts: Tensor | None) -> Tensor:
        """`measure` for counts [n] or [R, n], a batch of resamples at a time: [C] or [R, C]."""
        clips = int(self._clips.max()) + 1 if len(self._clips) else 0
        weights = weights_of(counts, clips)
        batches = [part.T.contiguous() for part in torch.atleast_2d(weights).split(BATCH)]  # [n, R]
        measured = torch.cat([measure(self._cut(batch), batch) for batch in batches], dim=1)
        return measured.T.reshape(*weights.shape[:-1], self._classes)

    def _cut(self, weights: Tensor) -> _Cuts:
        """Sums of weights [n, R] at every threshold."""
        table = as_table(weights)
        share = _sums(table, self._positives, self._ties)
        positives = self._by_class(share)
        reached = _sums(table, self._falling, self._stretches[::2])  # since the threshold before
        self._cumulate(reached, self._by_class(reached))
        hits = share.clone()
        self._cumulate(hits, positives)
        return _Cuts(share, hits, reached, positives)

    def _cumulate(self, values: Tensor, totals: Tensor) -> None:
        """Turn values [G, R] into running sums that begin anew with each class; `totals` [C, R] are those of classes.

        The total of a class is taken away where the next one begins. All are whole numbers, so that nothing is lost.
        """
        values[self._begins[1:]] -= totals[self._used[:-1]]
        values.cumsum_(0)

    def _by_class(self, values: Tensor) -> Tensor:
        """Values [G, R] summed to [C, R]."""
        return _sums(values, torch.arange(len(values)), self._thresholds)


def average_precision(scores: Tensor, targets: Tensor, counts: Tensor | None = None) -> Tensor:
    """AP per class, [C] or [R, C], of scores and 0/1 targets [n, C]; NaN for classes without positives."""
    return Ranking(scores, targets).average_precision(counts)


def rank_micro(scores: Tensor, targets: Tensor, clips: Tensor | None = None) -> Ranking:
    """All classes' scores [n, C] as one class, so that its AP is the micro average; clips [n] as in `Ranking`."""
    rows = torch.arange(len(scores)) if clips is None else clips
    columns = scores.shape[1]
    return Ranking(scores.reshape(-1, 1), targets.reshape(-1, 1), rows.repeat_interleave(columns))


def macro_map_present(ap: Tensor) -> Tensor:
    """Mean of AP [..., C] over the classes that have positives (BirdSet's cmAP); NaN if none has."""
    return ap.nanmean(-1)


def macro_map_frequent(ap: Tensor, targets: Tensor, positives: int = 5) -> Tensor:
    """Mean of AP [..., C] over the classes with so many positives among the targets [n, C] (BirdSet's cmAP5)."""
    return ap[..., targets.bool().sum(0) >= positives].nanmean(-1)


def d_prime(area: Tensor) -> Tensor:
    """Distance, in standard deviations, of two normal distributions whose AUC is `area`: sqrt(2) * ndtri(area).

    It rises with the area, so its interval is that of the area, mapped: at an area of 1 it is infinite.
    """
    separation: Tensor = torch.special.ndtri(area)
    return math.sqrt(2) * separation


def _rank(scores: Tensor, targets: Tensor, clips: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Scores and targets of some classes [c, n] to the clips of their rows by falling score, and to where each lies.

    Returns:
        The clips of all rows down to a class's last threshold with a positive; the lengths [2G] of stretches of them,
        between two thresholds and at one in turn; the clips of the positives; how many [G] share a threshold; and how
        many thresholds [c] a class has.
    """
    classes, rows = scores.shape
    order = falling_order(scores)
    falling = scores.gather(1, order)
    hit = targets.gather(1, order)
    first = torch.ones_like(hit)  # [c, n] whether a row is the first with its score
    first[:, 1:] = falling[:, 1:] != falling[:, :-1]
    distinct = first.flatten().cumsum(0)  # [c * n] number of each row's distinct score
    used, ties = distinct[hit.flatten()].unique_consecutive(return_counts=True)  # [G]
    starts, ends = torch.searchsorted(distinct, used), torch.searchsorted(distinct, used, right=True)
    owner = starts // max(rows, 1)
    reach = torch.zeros(classes, dtype=torch.long).scatter_reduce(0, owner, ends - owner * rows, "amax")
    kept = torch.arange(rows) < reach[:, None]  # [c, n]
    moved = owner * rows - _offsets(reach)[owner]  # rows of earlier classes that are not kept
    edges = torch.stack([starts - moved, ends - moved], dim=1).flatten()
    lengths = edges.diff(prepend=edges.new_zeros(1))
    return clips[order[kept]], lengths, clips[order[hit]], ties, owner.bincount(minlength=classes)


def as_table(weights: Tensor) -> Tensor:
    """Weights [n, R] as float32 where that holds all sums of them."""
    return weights.float() if weights.sum(0).max() < EXACT else weights


def _offsets(lengths: Tensor) -> Tensor:
    """Lengths [K] to where each begins and the last one ends: [K + 1]."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def _sums(table: Tensor, rows: Tensor, offsets: Tensor) -> Tensor:
    """Sums of stretches of `rows` of the table [n, R]: [K, R] in float64."""
    return embedding_bag(rows, table, offsets, mode="sum", include_last_offset=True).double()
