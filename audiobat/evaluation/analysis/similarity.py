"""Features of the same clips from L layers to a map [L, L] of how alike the layers are: linear CKA."""

from __future__ import annotations

import torch
from torch import Tensor

from audiobat.errors import AudiobatError

FEWEST = 4  # clips that the unbiased estimate needs


def linear_cka(layers: Tensor) -> Tensor:
    """Linear CKA between all pairs of layers, features [L, n, D] of n clips to [L, L] in float64.

    1 for the same features up to rotation and scale, about 0 for unrelated ones. HSIC is the unbiased estimate of Song
    et al. (2012), as in Nguyen et al. (2010.15327): the plain one nears 1 for any two layers where n is below D.

    Raises:
        AudiobatError: fewer than 4 clips.
    """
    if layers.shape[1] < FEWEST:
        raise AudiobatError(f"CKA needs at least {FEWEST} clips and got {layers.shape[1]}: raise --clips.")
    centred = torch.stack([u_centred(x.detach().cpu().double()).flatten() for x in layers])  # [L, n * n]
    hsic = centred @ centred.T  # times n (n - 3)
    scale = hsic.diagonal().sqrt()
    return hsic / torch.outer(scale, scale)


def u_centred(features: Tensor) -> Tensor:
    """Gram matrix of features [n, D], no diagonal, centred so that inner products are n (n - 3) HSIC: [n, n]."""
    count = len(features)
    features = features - features.mean(0)  # changes nothing but the rounding
    kernel = (features @ features.T).fill_diagonal_(0)
    rows = kernel.sum(0) / (count - 2)
    centred = kernel - rows - rows[:, None] + kernel.sum() / ((count - 1) * (count - 2))
    return centred.fill_diagonal_(0)
