"""p values of many comparisons, corrected for their number (Holm); p of paired values over data sets (Wilcoxon)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction of m p values for their number, in the order given; a NaN stays NaN and does not count.

    The k-th smallest (k = 0 ...) becomes (m - k) times itself, at most 1 and at least its predecessor.
    """
    order = sorted((i for i in range(len(p)) if not math.isnan(p[i])), key=lambda i: p[i])
    corrected = [math.nan] * len(p)
    before = 0.0
    for k, i in enumerate(order):
        before = corrected[i] = max(before, min(1.0, (len(order) - k) * p[i]))
    return corrected


def wilcoxon(differences: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that paired differences are symmetric about 0.

    Differences of 0 are left out and equal sizes share their mean rank. The distribution of the rank sum is exact: each
    difference is as likely to be positive as negative. 1 if no difference is left.
    """
    kept = np.asarray([d for d in differences if d != 0], dtype=np.float64)
    _, place, shared = np.unique(np.abs(kept), return_inverse=True, return_counts=True)
    ranks = (2 * shared.cumsum() - shared + 1)[place]  # doubled, so that a shared mean rank is a whole number
    ways = np.ones(1)  # share of the sign patterns with each sum of positive (doubled) ranks
    for rank in ranks.tolist():
        longer = np.zeros(len(ways) + rank)
        longer[: len(ways)] += ways / 2
        longer[rank:] += ways / 2
        ways = longer
    total = int(ranks[kept > 0].sum())
    return min(1.0, 2 * float(min(ways[: total + 1].sum(), ways[total:].sum())))
