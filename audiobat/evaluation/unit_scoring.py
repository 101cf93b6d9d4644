"""What a task measured of its test units, queries, pairs of clips or clips, to metrics with 95% intervals.

In: for each fold, metrics as functions of how often each unit counts. Out: their means over folds, with intervals from
random halves of the units. Units of one group, such as clips of one recording, are drawn together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiobat.evaluation.metrics import clips_behind, half_sample_interval, half_sample_values, symmetric_interval
from audiobat.evaluation.record import Metric, Values
from audiobat.evaluation.scoring import HALVES, Measure

COUNTS = 4_000_000  # counts of units, or of rows of scores, held at once: 32 MB


@dataclass(frozen=True, eq=False)
class UnitOutputs:
    """What a task measured in one fold."""

    units: int  # n
    measures: Mapping[str, Measure]  # metrics by name, the main one first
    definitions: Mapping[str, str]  # of each, in words
    values: Values | None = None  # for paired comparisons; None: the main metric is no function of single units
    groups: NDArray[np.str_] | None = None  # [n] units of one group are drawn together; None, or one group: each alone.
    # [n, 2]: a unit counts as often as its two groups do, multiplied: a pair of clips is there where both clips are
    # Of metrics that are no shares, from 0 to 1, of endless units: intervals are symmetric, and end with the range.
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    lower: Collection[str] = ()  # the metrics of which less is better
    gate: Tensor | None = None  # [L] share of each block in what the task read, if it learnt one
    listing: Sequence[Sequence[str]] = ()  # rows of a table for people, names of its columns first

    def numbers(self) -> dict[str, float]:
        """Every metric."""
        return {name: float(measure(None)) for name, measure in self.measures.items()}

    def group_numbers(self) -> Tensor:
        """The group [n], or groups [n, 2], of each unit, counted from 0."""
        if self.groups is None or len(np.unique(self.groups)) == 1:
            return torch.arange(self.units)
        return torch.from_numpy(np.unique(self.groups, return_inverse=True)[1].reshape(self.groups.shape))


def mean_of(values: NDArray[np.float64]) -> Measure:
    """The measure that is the mean of a value [n] of each unit."""
    each = torch.from_numpy(values).double()

    def mean(counts: Tensor | None) -> Tensor:
        return each.mean() if counts is None else (counts @ each) / counts.sum(-1)

    return mean


def evaluate_units(folds: Sequence[UnitOutputs], seed: int) -> dict[str, Metric]:
    """Metrics, the mean over folds of each, with 95% intervals from random halves of the groups of units."""
    groups = [fold.group_numbers() for fold in folds]
    sizes = [int(own.max()) + 1 for own in groups]
    step = max(1, COUNTS // sum(fold.units for fold in folds))
    metrics = {}
    for name, definition in folds[0].definitions.items():
        each = torch.stack([fold.measures[name](None) for fold in folds]).double()

        def mean(counts: Tensor, name: str = name) -> Tensor:  # [R, groups of all folds] to [R]
            rows = []
            for some in counts.split(step):
                parts = zip(folds, groups, some.split(sizes, dim=1), strict=True)
                each_fold = [fold.measures[name](counts_of_units(part, own)) for fold, own, part in parts]
                rows.append(torch.stack(each_fold).mean(0))
            return torch.cat(rows)

        value, sd = float(each.mean()), float(each.std()) if len(folds) > 1 else None
        halves = half_sample_values(mean, sizes, HALVES, seed)
        if name in folds[0].ranges:
            ends, bounds = symmetric_interval(value, halves), folds[0].ranges[name]
            low, high = max(ends[0], bounds[0]), min(ends[1], bounds[1])
        else:
            low, high = half_sample_interval(value, value, halves, clips_behind(sizes))
        metrics[name] = Metric(value, low, high, definition, sd, "units", name in folds[0].lower)
    return metrics


def counts_of_units(counts: Tensor, groups: Tensor) -> Tensor:
    """Counts [R, groups] of groups to those of units [R, n], whose groups are [n], or [n, 2]."""
    own = counts[:, groups]
    return own if groups.ndim == 1 else own.prod(-1)


def join_values(parts: Sequence[Values | None], folds: Sequence[str | None]) -> Values | None:
    """The values of all folds, each with its fold's name; None if one has none."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    if len(parts) == 1:
        return known[0]

    def joined(name: str) -> Any:
        arrays = [getattr(part, name) for part in known]
        return None if any(array is None for array in arrays) else np.concatenate(arrays)

    names = np.repeat([str(fold) for fold in folds], [len(part.keys) for part in known])
    return Values(joined("keys"), joined("values"), joined("targets"), joined("groups"), names)
