"""Recognised texts beside true ones, to word and character error rates with intervals.

The rate is that of all texts together: edits (words substituted, left out and put in) over true words. So long
texts count more than short ones, and a rate may exceed 1.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiobat.evaluation.metrics.resampling import LEVELS, bootstrap_values


def edit_distance(true: Sequence[Hashable], found: Sequence[Hashable]) -> int:
    """The fewest units to substitute, leave out or put in that turn `true` into `found` (Levenshtein, 1966)."""
    number: dict[Hashable, int] = {}
    rows, row = (np.array([number.setdefault(unit, len(number)) for unit in units]) for units in (true, found))
    places = np.arange(len(row) + 1)
    costs = places  # of turning no unit into each beginning of `found`
    for unit in rows:
        best = costs + 1  # the unit is left out
        best[1:] = np.minimum(best[1:], costs[:-1] + (row != unit))  # or is kept, or substituted
        costs = np.minimum.accumulate(best - places) + places  # or units are put in after it
    return int(costs[-1])


@dataclass(frozen=True)
class Edits:
    """What each of n utterances adds to an error rate."""

    edits: NDArray[np.int64]  # [n]
    units: NDArray[np.int64]  # [n] words or characters of the true text

    @property
    def rate(self) -> float:
        """Edits over true units."""
        return float(self.edits.sum() / self.units.sum())


def word_edits(true: Sequence[str], found: Sequence[str]) -> Edits:
    """Edits of the words of each of n texts, which spaces divide."""
    pairs = [(one.split(), other.split()) for one, other in zip(true, found, strict=True)]
    return Edits(np.array([edit_distance(*pair) for pair in pairs]), np.array([len(one) for one, _ in pairs]))


def character_edits(true: Sequence[str], found: Sequence[str]) -> Edits:
    """Edits of the characters of each of n texts; a space is one of them."""
    pairs = list(zip(true, found, strict=True))
    return Edits(np.array([edit_distance(*pair) for pair in pairs]), np.array([len(one) for one, _ in pairs]))


def rate_interval(edits: Edits, groups: Sequence[str], samples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95% interval of the rate: percentiles over resamples of whole groups (Bisani and Ney, ICASSP 2004).

    `groups` [n] are the speakers, whose utterances fail together; or a name for each utterance.
    """
    _, group = np.unique(np.array(groups), return_inverse=True)
    edits_of, units_of = (torch.from_numpy(np.bincount(group, part)) for part in (edits.edits, edits.units))

    def rate(counts: Tensor) -> Tensor:  # [R, groups] to [R]
        return (counts @ edits_of) / (counts @ units_of)

    low, high = bootstrap_values(rate, len(edits_of), samples, seed).quantile(LEVELS).tolist()
    return low, high
