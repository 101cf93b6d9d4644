"""The nearest rows of every row of a library, exactly, a block of rows at a time.

In: unit vectors [R, D]. Out: ids and cosines [R, K] of the K nearest other rows, the nearest first. Memory holds a
block of cosines, not all R x R.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from audiobat.engine.progress import Progress
from audiobat.inference.library.vectors import Ids, Library, blocks

BLOCK_COSINES = 1 << 25  # of a block: 128 MiB


def nearest_rows(
    library: Library, count: int, phase: str, *, other_recordings: bool = False
) -> tuple[Ids, NDArray[np.float32]]:
    """Ids and cosines [R, K] of the `count` rows nearest to each, or as many as there are.

    With `other_recordings`, rows of the same recording are no neighbours; where too few are left, cosines are -2. Rows
    that match nothing are nobody's neighbours.
    """
    rows = torch.from_numpy(library.rows)
    count = min(count, len(rows) - 1)
    recordings = torch.from_numpy(np.unique(library.table.paths, return_inverse=True)[1])
    nothing = ~rows.any(1)
    ids, cosines = torch.empty(len(rows), count, dtype=torch.int64), torch.empty(len(rows), count)
    with Progress(phase, total=len(rows), unit="row") as bar:
        for at in blocks(len(rows), max(1, BLOCK_COSINES // len(rows))):
            scores = rows[at] @ rows.T  # [B, R]
            scores[:, nothing] = -2
            scores[nothing[at]] = -2
            if other_recordings:
                scores.masked_fill_(recordings[at, None] == recordings[None], -2)
            else:
                scores[torch.arange(len(scores)), torch.arange(at.start, at.stop)] = -2
            cosines[at], ids[at] = scores.topk(count)
            bar.advance(len(scores))
    return ids.numpy(), cosines.numpy()
