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

    NaN without two different true values, where neither a correlation nor R2 is defined.
    """

    def value(rows: NDArray[np.int64]) -> float:
        defined = len(rows) and np.ptp(truth[rows]) > 0
        return function(truth[rows], found[rows]) if defined else math.nan

    def metric(counts: Tensor | None) -> Tensor:
        places = np.arange(len(truth))
        each = [places] if counts is None else [np.repeat(places, row) for row in counts.long().numpy()]
        values = torch.tensor([value(rows) for rows in each], dtype=torch.float64)
        return values[0] if counts is None else values

    return metric
