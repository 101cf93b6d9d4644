"""Any function of two columns, such as a rank correlation, as a metric of clips that count several times or not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Column = NDArray[np.float64]


def by_repeating(
    function: Callable[[Column, Column], float], truth: Column, found: Column
) -> Callable[[Tensor | None], Tensor]:
    """`function(truth, found)` of columns [n] as a metric: counts [R, n] repeat their rows, and give [R].

    NaN for a resample without two different true values, in which neither a correlation nor R2 is defined.
    """

    def metric(counts: Tensor | None) -> Tensor:
        if counts is None:
            return torch.tensor(function(truth, found), dtype=torch.float64)
        values = []
        for row in counts.long().numpy():
            rows = np.repeat(np.arange(len(truth)), row)
            defined = len(rows) and np.ptp(truth[rows]) > 0
            values.append(function(truth[rows], found[rows]) if defined else math.nan)
        return torch.tensor(values, dtype=torch.float64)

    return metric
