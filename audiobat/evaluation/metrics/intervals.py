"""A share of clips, or a metric's values on halves of the test clips, to a 95% interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from audiobat.errors import AudiobatError

NORMAL = 1.959964  # standard deviations to either side that hold 95% of a normal distribution
ROUNDING = 1e-9  # values on halves that are no further apart than this differ by rounding alone


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95% interval of a share of n clips ("Probable inference", 1927); it lies within 0 to 1."""
    ratio = NORMAL**2 / n
    middle = (share + ratio / 2) / (1 + ratio)
    margin = math.sqrt(ratio * (share * (1 - share) + ratio / 4)) / (1 + ratio)
    return max(middle - margin, 0.0), min(middle + margin, 1.0)


def clips_behind(sizes: Sequence[int]) -> float:
    """Clips whose share is as sure as the mean over K folds of shares of so many clips each: K^2 / sum(1 / size).

    These are all clips, where folds are of equal size.

    Raises AudiobatError for a fold without clips, or none at all.
    """
    if not sizes or min(sizes) < 1:
        raise AudiobatError("There are no test clips to measure: check the table's split column.")
    return len(sizes) ** 2 / sum(1 / size for size in sizes)


def half_sample_interval(value: float, estimate: float, halves: Tensor, clips: float) -> tuple[float, float]:
    """95% interval of a metric between 0 and 1, from its values on random halves of the test clips [R].

    The mean over a random half of the clips strays from that over all of them as far as the latter strays from the
    truth, and a half holds no clip twice, as a resample does. So the spread of the halves is that of the metric; the
    share of clips that would spread as much about the halves' mean gives the interval its form (Wilson's).

    The halves' mean less `estimate` is the bias that halving adds, near to that which `estimate` still has. As it is
    known only roughly, the interval reaches from the estimate without this bias to the estimate as it is.

    Args:
        value: the metric on all clips; the interval is stretched to hold it.
        estimate: of the metric on endless clips: the value, or the value less a bias that is known.
        halves: `estimate` on halves of the clips; NaN, where it is undefined, is left out.
        clips: test clips. Where all halves agree, as they do on a head that is always right, they tell no spread: then
            the metric is as sure as a share of so many clips.
    """
    known = halves[~halves.isnan()]
    if not len(known) or math.isnan(value):
        return math.nan, math.nan
    mean, variance = float(known.mean()), float(known.var(correction=0))
    low, high = sorted((estimate, min(max(2 * estimate - mean, 0.0), 1.0)))
    n = mean * (1 - mean) / variance if variance > ROUNDING**2 else clips
    return min(wilson(low, n)[0], value), max(wilson(high, n)[1], value)


def symmetric_interval(value: float, halves: Tensor) -> tuple[float, float]:
    """95% interval of a metric that is no share, such as a correlation: as far to either side as halves [R] stray.

    NaN among the halves, where the metric is undefined, is left out; with fewer than two left both ends are NaN.
    """
    known = halves[~halves.isnan()]
    margin = NORMAL * float(known.std()) if len(known) > 1 else math.nan
    return value - margin, value + margin
