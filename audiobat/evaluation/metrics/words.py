"""Recognised texts beside true ones, to word and character error rates.

The rate is that of all texts together: edits (units substituted, left out and put in) over true units. So long texts
count more than short ones, and a rate may exceed 1.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


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
    """What each of n texts adds to an error rate."""

    edits: NDArray[np.int64]  # [n]
    units: NDArray[np.int64]  # [n] words or characters of the true text

    def rate(self, counts: Tensor | None = None) -> Tensor:
        """Edits over true units, a scalar; or [R] of R resamples with `counts` [R, n]."""
        edits, units = torch.from_numpy(self.edits).double(), torch.from_numpy(self.units).double()
        return edits.sum() / units.sum() if counts is None else (counts @ edits) / (counts @ units)


def word_edits(true: Sequence[str], found: Sequence[str]) -> Edits:
    """Edits of the words of each of n texts, which spaces divide."""
    return edits_of([text.split() for text in true], [text.split() for text in found])


def edits_of(true: Sequence[Sequence[Hashable]], found: Sequence[Sequence[Hashable]]) -> Edits:
    """Edits of each of n texts, which are sequences of units: a text as it is has characters, spaces among them."""
    edits = [edit_distance(one, other) for one, other in zip(true, found, strict=True)]
    return Edits(np.array(edits, np.int64), np.array([len(one) for one in true], np.int64))
