"""Systems on many data sets: their ranks, whether these differ by more than chance, and by how much two must (Demsar).

J. Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from audiobat.errors import AudiobatError

ALPHA = 0.05
NODES = 4096  # of the integral over the normal density
REACH = 10.0  # standard deviations on both sides: beyond lies less than a float64 can tell
BISECTIONS = 60  # halve an interval until it is as narrow as floats are


@dataclass(frozen=True)
class Friedman:
    """The test that k systems are alike over n data sets."""

    statistic: float  # chi-squared of k - 1 degrees of freedom, corrected for ties
    p: float
    kendall_w: float  # how far the data sets agree on the order: 0 not at all, 1 wholly


def ranks_of(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks of values [n, k] within each data set, 1 for the highest; equal values share the mean of their ranks."""
    above = (values[:, None, :] > values[:, :, None]).sum(2)  # [n, k] values that are higher
    equal = (values[:, None, :] == values[:, :, None]).sum(2)  # itself among them
    shared: NDArray[np.float64] = above + (equal + 1) / 2
    return shared


def friedman(ranks: NDArray[np.float64]) -> Friedman:
    """Friedman's test of the ranks [n, k] of k systems on n data sets; NaN where all are equal everywhere.

    The p value takes the statistic for chi-squared, which with few data sets or systems makes it larger than it should
    be. AudiobatError for fewer than three systems or two data sets.
    """
    n, k = ranks.shape
    if n < 2 or k < 3:
        raise AudiobatError(f"Friedman's test needs 3 systems on 2 data sets or more: there are {k} on {n}.")
    strayed = ranks - (k + 1) / 2
    spread = float((strayed**2).sum())  # n k (k^2 - 1) / 12 without ties
    if spread == 0:
        return Friedman(math.nan, math.nan, math.nan)
    statistic = (k - 1) * float((strayed.sum(0) ** 2).sum()) / spread
    half = torch.tensor([(k - 1) / 2, statistic / 2], dtype=torch.float64)
    return Friedman(statistic, float(torch.special.gammaincc(half[0], half[1])), statistic / (n * (k - 1)))


def critical_difference(systems: int, data_sets: int) -> float:
    """How far apart two of k systems' mean ranks over n data sets must be, for Nemenyi's test at 5%."""
    k, n = systems, data_sets
    return studentized_range(1 - ALPHA, k) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))


def studentized_range(level: float, k: int) -> float:
    """The quantile of the range of k independent standard normal values."""
    z = torch.linspace(-REACH, REACH, NODES, dtype=torch.float64)
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)

    def below(width: float) -> float:
        """The chance that all values lie within `width` above the least of them, wherever that is."""
        inside = (torch.special.ndtr(z + width) - torch.special.ndtr(z)) ** (k - 1)
        return k * float(torch.trapezoid(density * inside, z))

    low, high = 0.0, 2 * REACH
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < level else (low, middle)
    return (low + high) / 2


def groups_alike(mean_ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """The first and last place of each longest run of systems whose mean ranks, rising, differ by no more than that."""
    found: list[tuple[int, int]] = []
    for first, lowest in enumerate(mean_ranks):
        last = max(place for place, rank in enumerate(mean_ranks) if rank - lowest <= difference)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
