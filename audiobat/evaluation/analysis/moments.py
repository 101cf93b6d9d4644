"""Vectors, batch after batch, to their count, mean and scatter in float64: D x D numbers, enough for all spectra."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """Running mean [D] and scatter [D, D] of vectors, joined batch by batch by the formula of Chan et al. (1979).

    Unlike sums of squares, it loses no digits where the mean is large.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64)  # sum of (z - mean)(z - mean)^T

    def update(self, vectors: Tensor) -> None:
        """Add vectors [n, D]."""
        if not len(vectors):
            return
        z = vectors.detach().cpu().double()
        count, mean = len(z), z.mean(0)
        centred, shift = z - mean, mean - self.mean
        total = self.count + count
        self.scatter += centred.T @ centred + torch.outer(shift, shift) * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """Mean of (z - mean)(z - mean)^T, [D, D]."""
        return self.scatter / max(1, self.count)

    @property
    def gram(self) -> Tensor:
        """Sum of z z^T, [D, D], not centred; its eigenvalues are the squared singular values of [n, D]."""
        return self.scatter + self.count * torch.outer(self.mean, self.mean)
