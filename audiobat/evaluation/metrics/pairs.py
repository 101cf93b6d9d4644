"""Similarities of pairs of clips, some of them of one kind, to how well a threshold can tell these from the others.

The thresholds lie between two neighbouring similarities, as those of MTEB's pair classification do: never beyond the
highest or the lowest one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from audiobat.evaluation.metrics.inputs import weights_of


def best_accuracy(similarity: Tensor, same: Tensor, counts: Tensor | None = None) -> Tensor:
    """Share of pairs that the best threshold puts right, [] or [R]; similarity and same [n], counts [n] or [R, n]."""
    found, false, pairs = _cuts(similarity, same, counts)
    right = found + (pairs[..., 1:] - false)
    return _best(right / pairs.sum(-1, keepdim=True), similarity)


def best_f1(similarity: Tensor, same: Tensor, counts: Tensor | None = None) -> Tensor:
    """F1 of the pairs above the threshold for which it is highest; arguments and result as of `best_accuracy`."""
    found, false, pairs = _cuts(similarity, same, counts)
    return _best(2 * found / (found + false + pairs[..., :1]), similarity)


def _cuts(similarity: Tensor, same: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs that are the same, and others down to each by falling similarity [..., n]; the numbers of both [..., 2]."""
    order = similarity.argsort(descending=True, stable=True)
    weights = weights_of(counts, len(similarity))[..., order]
    found, false = (weights * same[order]).cumsum(-1), (weights * ~same[order]).cumsum(-1)
    return found, false, torch.stack([found[..., -1], false[..., -1]], -1)


def _best(values: Tensor, similarity: Tensor) -> Tensor:
    """The highest of values [..., n] at thresholds behind each pair, none between equal similarities; 0 if all are."""
    falling = similarity.sort(descending=True, stable=True).values
    parts = torch.cat([falling[:-1] != falling[1:], torch.zeros(1, dtype=torch.bool)])
    return torch.where(parts, values, 0.0).amax(-1)
