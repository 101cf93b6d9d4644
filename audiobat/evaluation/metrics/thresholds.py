"""A threshold for each class, chosen on validation clips: the highest F1, of a class with few positives among all."""

from __future__ import annotations

import torch
from torch import Tensor

from audiobat.evaluation.metrics.inputs import check_finite

GRID = 100  # thresholds tried are 1/GRID, 2/GRID, ...
ALL_COUNT = 10.0  # positives that the mean class counts for beside a class's own


def best_thresholds(probabilities: Tensor, targets: Tensor) -> Tensor:
    """The threshold [C] above which a class counts as present, from probabilities and 0/1 targets [n, C].

    The F1 that is highest there is that of the class's own hits, positives and yeses, with those of the mean class for
    10 positives added: three positives alone say little of a threshold. Of equally good ones it is the middle one.
    Without any positive at all every threshold is 0.5.
    """
    check_finite(probabilities)
    grid = torch.arange(1, GRID, dtype=torch.float64) / GRID  # [G]
    actual, positives = targets.bool(), targets.sum(0).double()  # [n, C], [C]
    if not positives.any():
        return torch.full((targets.shape[1],), 0.5, dtype=torch.float64)
    yes = torch.stack([(probabilities > t).sum(0) for t in grid.tolist()], 1).double()  # [C, G]
    hits = torch.stack([((probabilities > t) & actual).sum(0) for t in grid.tolist()], 1).double()
    known = positives > 0
    shares = ALL_COUNT / positives[known, None]
    hits, yes = hits + (hits[known] * shares).mean(0), yes + (yes[known] * shares).mean(0)
    f1 = 2 * hits / (yes + positives[:, None] + ALL_COUNT)
    best = f1 >= f1.amax(1, keepdim=True) - 1e-9
    places = [row.nonzero()[:, 0] for row in best]
    return torch.stack([grid[place[len(place) // 2]] for place in places])
