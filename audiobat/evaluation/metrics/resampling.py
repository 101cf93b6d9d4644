"""How sure a number is: its values in resamples and halves of the test clips, and p values of comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from audiobat.errors import AudiobatError

CHUNK = 4_000_000  # counts held at once: 32 MB
LEVELS = torch.tensor([0.025, 0.975], dtype=torch.float64)


def bootstrap_values(
    metric: Callable[[Tensor], Tensor], n: int | Sequence[int], samples: int = 1000, seed: int = 0
) -> Tensor:
    """`metric` in each resample of the test clips, [samples] in float64; (n, samples, seed) fix the resamples.

    Args:
        metric: counts [R, n] (float64) of the clips in R resamples to values [R]; or several metrics, to [R, m].
        n: test clips; or those of each fold, one after the other, which are then resampled within their fold.
        samples: resamples, drawn with replacement.
        seed: of their draws.

    Raises:
        AudiobatError: there are no clips, in all or in a fold.
    """

    def with_replacement(rows: int, size: int, generator: torch.Generator) -> Tensor:
        drawn = torch.randint(size, (rows, size), generator=generator)
        counts = torch.zeros(rows, size, dtype=torch.float64)
        return counts.scatter_add_(1, drawn, torch.ones_like(counts))

    return _resampled(metric, n, samples, seed, with_replacement)


def half_sample_values(
    metric: Callable[[Tensor], Tensor], n: int | Sequence[int], samples: int = 1000, seed: int = 0
) -> Tensor:
    """`metric` on random halves of the test clips, in float64: a coin decides on each clip.

    Arguments and errors as of `bootstrap_values`.
    """

    def by_coin(rows: int, size: int, generator: torch.Generator) -> Tensor:
        return torch.randint(2, (rows, size), generator=generator).double()

    return _resampled(metric, n, samples, seed, by_coin)


def _resampled(
    metric: Callable[[Tensor], Tensor],
    n: int | Sequence[int],
    samples: int,
    seed: int,
    draw: Callable[[int, int, torch.Generator], Tensor],
) -> Tensor:
    """`metric` of as many draws, each (resamples, clips of a fold, generator) to counts, a chunk of them at a time."""
    sizes = [n] if isinstance(n, int) else list(n)
    if not sizes or min(sizes) < 1:
        raise AudiobatError("There are no test clips to resample: check the table's split column.")
    generator = torch.Generator().manual_seed(seed)
    step = max(1, CHUNK // sum(sizes))
    values = []
    for start in range(0, samples, step):
        folds = [draw(min(step, samples - start), size, generator) for size in sizes]
        values.append(metric(torch.cat(folds, dim=1)).double())
    return torch.cat(values)


def interval_of_difference(difference: float, resampled: Tensor) -> tuple[float, float, float]:
    """Low and high end of the 95% basic bootstrap interval of a difference, and the two-sided p that it is 0.

    Both models are measured in the same resamples, so what they share cancels. The interval is the percentiles of the
    resampled differences [R] mirrored at the difference. p is the level at which the interval just touches 0: twice the
    share of resamples that lie beyond the difference by at least its distance from 0, with one added to both counts so
    that p is never 0. Resamples that are NaN are left out; without any left, all three are NaN.
    """
    strayed = resampled[~resampled.isnan()] - difference
    if not len(strayed) or math.isnan(difference):
        return math.nan, math.nan, math.nan
    down, up = strayed.quantile(LEVELS).tolist()
    beyond = int((strayed <= difference).sum() if difference < 0 else (strayed >= difference).sum())
    return difference - up, difference - down, min(1.0, 2 * (beyond + 1) / (len(strayed) + 1))


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
