"""Clusters beside classes to how well they agree (V-measure: Rosenberg and Hirschberg, EMNLP 2007)."""

from __future__ import annotations

import torch
from torch import Tensor

from audiobat.evaluation.metrics.inputs import weights_of


def v_measure(classes: Tensor, clusters: Tensor, counts: Tensor | None = None) -> Tensor:
    """Harmonic mean of homogeneity and completeness, [] or [R]: 1 where clusters are the classes, 0 for independence.

    Args:
        classes: [n] the class of each clip, counted from 0.
        clusters: [n] its cluster, counted from 0.
        counts: [n] or [R, n]; None: every clip once.
    """
    weights = weights_of(counts, len(classes))
    rows, columns = int(classes.max()) + 1, int(clusters.max()) + 1
    cells = weights.new_zeros(*weights.shape[:-1], rows * columns).index_add_(-1, classes * columns + clusters, weights)
    shares = cells.unflatten(-1, (rows, columns)) / weights.sum(-1)[..., None, None]
    of_class, of_cluster, of_both = _entropy(shares.sum(-1)), _entropy(shares.sum(-2)), _entropy(shares.flatten(-2))
    # homogeneity I / H(class), completeness I / H(cluster): their harmonic mean is 2 I / (H(class) + H(cluster))
    total = of_class + of_cluster
    return torch.where(total > 0, 2 * (total - of_both) / total.clamp_min(1e-12), 1.0)


def _entropy(shares: Tensor) -> Tensor:
    """Entropy in nats of shares [..., K] that sum to one."""
    return -torch.xlogy(shares, shares).sum(-1)
