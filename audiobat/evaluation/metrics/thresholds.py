"""A threshold for each class, chosen on validation clips: the highest F1, of a class with few positives among all."""

from __future__ import annotations

import torch
from torch import Tensor

from audiobat.evaluation.metrics.inputs import check_finite

GRID = 100  # thresholds tried are 1/GRID, 2/GRID, ...
ALL_COUNT = 10.0  # positives that the mean class counts for beside a class's own
RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 4.0)  # yeses a positive


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
    return grid[middle_of_best(pooled_f1(hits, yes, positives))]


def thresholds_by_rate(probabilities: Tensor, targets: Tensor) -> Tensor:
    """The same for heads that learnt from few examples, whose scores mean something else in every class.

    What classes share is then not a score, but how many times as many yeses as positives are best: the F1 at RATES is
    that of the class's own hits, positives and yeses, with those of the mean class for 10 positives added. A class's
    threshold lies midway between its last yes and its first no. Without any positive at all every threshold is 0.5.
    """
    check_finite(probabilities)
    actual, positives = targets.bool(), targets.sum(0).double()  # [n, C], [C]
    if not positives.any():
        return torch.full((targets.shape[1],), 0.5, dtype=torch.float64)
    falling, order = probabilities.double().sort(dim=0, descending=True, stable=True)  # [n, C]
    hits_of_first = actual.gather(0, order).cumsum(0).double()
    rates = torch.tensor(RATES, dtype=torch.float64)  # [G]
    yes = (rates * positives.clamp(min=1)[:, None]).round().clamp(1, max(1, len(falling) - 1))  # [C, G]
    place = yes.long().T - 1  # [G, C] of the last yes
    hits = hits_of_first.gather(0, place).T
    best = pooled_f1(hits, yes, positives).argmax(1)  # [C]; of equals the fewest yeses
    last = place.T.gather(1, best[:, None])[:, 0]  # [C]
    after = (last + 1).clamp(max=len(falling) - 1)
    columns = torch.arange(len(last))
    return (falling[last, columns] + falling[after, columns]) / 2


def pooled_f1(hits: Tensor, yes: Tensor, positives: Tensor) -> Tensor:
    """F1 [C, G] of each class's hits and yeses [C, G] and positives [C], the mean class's for 10 positives added."""
    known = positives > 0
    shares = ALL_COUNT / positives[known, None]
    hits, yes = hits + (hits[known] * shares).mean(0), yes + (yes[known] * shares).mean(0)
    return 2 * hits / (yes + positives[:, None] + ALL_COUNT)


def middle_of_best(f1: Tensor) -> Tensor:
    """The place [C] of the highest F1 of each row [C, G]: of equally good ones the middle one."""
    best = f1 >= f1.amax(1, keepdim=True) - 1e-9
    places = [row.nonzero()[:, 0] for row in best]
    return torch.stack([place[len(place) // 2] for place in places])
