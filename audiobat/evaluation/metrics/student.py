"""Student's t: the 95% interval of a mean over seeds, and how many pairs a difference needs to be found."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

LEVEL = 0.975  # of t on one side, for 95% on both
POWER = 0.8  # the chance with which a difference that is there should be found
NODES = 200  # of the integral over the spread that a sample finds
REACH = 10.0  # standard deviations on both sides: beyond lies less than a float64 can tell
BISECTIONS = 60  # halve an interval until it is as narrow as floats are


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of values that chance scatters normally, and its 95% interval; of one value both ends are NaN."""
    mean, n = statistics.fmean(values), len(values)
    half = t_quantile(n - 1) * statistics.stdev(values) / math.sqrt(n) if n > 1 else math.nan
    return mean, mean - half, mean + half


def t_below(t: float, df: int, shift: float = 0.0) -> float:
    """The probability that noncentral t of `df` degrees of freedom is below `t`.

    It is (z + shift) / s of a standard normal z and s, the root of a chi-squared over its `df` degrees of freedom, so
    that the probability is the mean of the normal's at t * s - shift over the density of s.
    """
    spread = 1 / math.sqrt(2 * df)  # of s, about
    low, high = max(0.0, 1 - REACH * spread), 1 + REACH * spread * math.sqrt(2)
    nodes, weights = gauss()
    s = (low + high) / 2 + (high - low) / 2 * nodes
    log_density = math.log(2) + df / 2 * math.log(df / 2) - math.lgamma(df / 2) + (df - 1) * np.log(s) - df / 2 * s**2
    below = torch.special.ndtr(torch.from_numpy(t * s - shift)).numpy()
    return float((np.exp(log_density) * below * weights).sum() * (high - low) / 2)


@lru_cache
def gauss() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights of Gauss and Legendre's rule from -1 to 1."""
    return np.polynomial.legendre.leggauss(NODES)


@lru_cache
def t_quantile(df: int) -> float:
    """What |t| of `df` degrees of freedom stays below in 95% of all samples: 12.7 for 1, 4.30 for 2, 1.96 for many."""
    return bisect(lambda t: t_below(t, df) < LEVEL, 0.0, 20.0)


def paired_power(effect: float, pairs: int) -> float:
    """The chance that a paired t test at 5% finds a mean difference of `effect` standard deviations of a pair's."""
    limit, shift = t_quantile(pairs - 1), abs(effect) * math.sqrt(pairs)
    return 1 - t_below(limit, pairs - 1, shift) + t_below(-limit, pairs - 1, shift)


def pairs_needed(difference: float, deviation: float) -> int:
    """How many pairs find a mean `difference` (not 0) in 80% of all cases, where a pair's strays by `deviation`."""
    effect = abs(difference) / max(deviation, 1e-9)
    pairs = max(2, int((2.8 / effect) ** 2))  # a normal's; t needs as many or more
    while paired_power(effect, pairs) < POWER:
        pairs += 1
    return pairs


def difference_found(pairs: int, deviation: float) -> float:
    """The mean difference that so many `pairs`, two at least, find in 80% of all cases: `pairs_needed` turned round."""
    return deviation * bisect(lambda effect: paired_power(effect, pairs) < POWER, 0.0, 100.0)


def bisect(is_below: Callable[[float], bool], low: float, high: float) -> float:
    """The number between `low` and `high` from which on `is_below` is no longer true."""
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2
