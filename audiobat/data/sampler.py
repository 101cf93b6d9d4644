"""Which clips make up step n: a pure function of (seed, epoch), so that resuming needs a step number and nothing else.

The epochs, each a permutation of all clips or weighted draws, follow each other as one endless stream; step n takes the
n-th batch of it. No clip is left out at an epoch's end, and a batch may be larger than the table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiobat.errors import AudiobatError


def balanced_weights(values: NDArray[Any]) -> NDArray[np.float64]:
    """Probability [n] of each clip under which every distinct one of `values` [n] is drawn equally often."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return 1.0 / (len(counts) * counts[which])


class ClipOrder:
    """The endless stream of clip indices for `count` clips.

    Args:
        count: clips in the table.
        seed: of the run.
        weights: [count], how often to draw each clip, relative to the others; None: a permutation per epoch.

    Raises:
        AudiobatError: no clips, or weights that are not one number of 0 or more per clip, some above 0.
    """

    def __init__(self, count: int, seed: int, weights: NDArray[np.float64] | None = None) -> None:
        if count < 1:
            raise AudiobatError("The clip table is empty: give at least one clip.")
        if weights is not None and (
            weights.shape != (count,) or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0
        ):
            raise AudiobatError(f"Weights must be {count} finite numbers of 0 or more, one per clip, some above 0.")
        self.count = count
        self.seed = seed
        self.weights = None if weights is None else weights / weights.sum()
        self._latest: tuple[int, NDArray[np.int64]] | None = None

    def epoch(self, number: int) -> NDArray[np.int64]:
        """Clip indices [count] of an epoch."""
        if self._latest is None or self._latest[0] != number:
            rng = np.random.default_rng((self.seed, number))
            if self.weights is None:
                indices = rng.permutation(self.count)
            else:
                indices = rng.choice(self.count, size=self.count, p=self.weights)
            self._latest = (number, indices)
        return self._latest[1]

    def batch_indices(self, step: int, batch_size: int, rank: int = 0, world_size: int = 1) -> NDArray[np.int64]:
        """This rank's clips [batch_size / world_size] of global step `step`; rank r takes the r-th part of the batch.

        Raises:
            AudiobatError: ranks cannot share the batch evenly.
        """
        if batch_size % world_size:
            raise AudiobatError(f"train.batch_size is {batch_size}: use a multiple of the {world_size} processes.")
        share = batch_size // world_size
        position = step * batch_size + rank * share
        return np.concatenate(list(self._stream(position, share)))

    def _stream(self, position: int, count: int) -> list[NDArray[np.int64]]:
        """Cut `count` indices from `position` on, epoch by epoch."""
        pieces = []
        while count:
            number, offset = divmod(position, self.count)
            piece = self.epoch(number)[offset : offset + count]
            pieces.append(piece)
            position, count = position + len(piece), count - len(piece)
        return pieces
