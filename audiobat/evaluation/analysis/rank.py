"""How many directions features use: vectors to mean and scatter; spectra to RankMe, alpha-ReQ, LiDAR."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPS = 1e-7  # of RankMe and LiDAR, added to each share; a larger one would count directions that hold nothing
LIDAR_DELTA = 1e-4  # on the diagonal of the scatter within clips
ALPHA_RANGE = (10, 100)  # places in the spectrum, counted from 1, to which alpha-ReQ fits its line
ALPHA_POINTS = 5  # with fewer the exponent is not computed


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


def spectrum_measures(moments: Moments) -> dict[str, float]:
    """Every rank measure of the vectors behind `moments`; RankMe's of the vectors as they are, the others' centred."""
    singular = torch.linalg.eigvalsh(moments.gram).clamp(min=0).sqrt()
    eigenvalues = torch.linalg.eigvalsh(moments.covariance).clamp(min=0)
    return {
        "vectors": moments.count,
        "rankme": rankme(singular),
        "effective_rank": effective_rank(eigenvalues),
        "participation_ratio": participation_ratio(eigenvalues),
        "alpha_req": alpha_req(eigenvalues),
    }


def rankme(singular_values: Tensor) -> float:
    """exp(-sum p log p) with p = s / sum(s) + 1e-7 of singular values s of features that were not centred.

    Garrido et al., 2210.02885. At most min(n, D): only for comparing runs of one method, with n far above D.
    """
    shares = singular_values.double() / singular_values.double().sum() + EPS
    return math.exp(-float((shares * shares.log()).sum()))


def effective_rank(eigenvalues: Tensor) -> float:
    """exp of the entropy of the covariance's eigenvalues as shares of their sum (Roy and Vetterli, 2007)."""
    shares = eigenvalues.double() / eigenvalues.double().sum()
    return math.exp(-float(torch.xlogy(shares, shares).sum()))


def participation_ratio(eigenvalues: Tensor) -> float:
    """(sum of eigenvalues)^2 / sum of their squares."""
    values = eigenvalues.double()
    return float(values.sum().square() / values.square().sum())


def alpha_req(eigenvalues: Tensor) -> float:
    """Exponent a of eigenvalue i ~ i^-a, a least-squares line through the logarithms at places 10 to 100.

    Agrawal et al. (NeurIPS 2022). Nan where fewer than 5 eigenvalues of that range are above rounding.
    """
    values = eigenvalues.double().sort(descending=True).values
    first, last = ALPHA_RANGE
    real = int((values > values[0] * 1e-12).sum())
    last = min(last, real)
    if last - first + 1 < ALPHA_POINTS:
        return math.nan
    x = torch.arange(first, last + 1, dtype=torch.float64).log()
    y = values[first - 1 : last].log()
    x = x - x.mean()
    return -float((x @ y) / (x @ x))


class Lidar:
    """Rank of the scatter between clips, whitened by that between views of a clip (Thilak et al., 2312.04000)."""

    def __init__(self, dim: int) -> None:
        self._within = Moments(dim)  # of views less their clip's mean
        self._between = Moments(dim)  # of the clips' means

    def update(self, views: Tensor) -> None:
        """Add the views [q, D] of one clip."""
        views = views.detach().cpu().double()
        mean = views.mean(0)
        self._within.update(views - mean)
        self._between.update(mean[None])

    @property
    def clips(self) -> int:
        """The number of clips added."""
        return self._between.count

    def value(self) -> float:
        """exp(-sum p log p), p = share + 1e-7 of eigenvalues of S_w^-1/2 S_b S_w^-1/2; S_w has 1e-4 on its diagonal."""
        within = self._within.covariance
        scales, axes = torch.linalg.eigh(within + LIDAR_DELTA * torch.eye(len(within), dtype=within.dtype))
        whiten = axes * scales.rsqrt()  # [D, D]: the same eigenvalues as with the symmetric root
        eigenvalues = torch.linalg.eigvalsh(whiten.T @ self._between.covariance @ whiten).clamp(min=0)
        return rankme(eigenvalues)
