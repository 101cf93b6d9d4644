"""Frozen features of some clips to measures that need no labels: rank, spread, artefacts, likeness of blocks.

A few patches are drawn from each clip, and only D x D numbers are kept for each block.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from audiobat.evaluation.analysis.rank import Moments, spectrum_measures
from audiobat.evaluation.analysis.similarity import FEWEST, linear_cka
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.pooling import mean_valid
from audiobat.pretraining.masks.base import seeded_generator

PATCHES = 64  # drawn from each clip: 400 clips make the 25,600 vectors of RankMe's paper
ARTEFACT_STD = 4.0  # standard deviations above the mean from which a patch's norm makes it an artefact
DEFINITIONS = {
    "rankme": "exp(-sum p log p), p = s / sum(s) + 1e-7, s the singular values of the vectors as they are",
    "effective_rank": "exp of the entropy of the covariance's eigenvalues, as shares of their sum",
    "participation_ratio": "(sum of the covariance's eigenvalues)^2 / sum of their squares",
    "alpha_req": "exponent of the covariance's eigenvalues over their place, a line through places 10 to 100",
    "token_std": "std of unit vectors, mean over features, times sqrt(D): 1 for isotropic ones, 0 for one vector",
    "artefact_share": f"share of all patches whose norm is more than {ARTEFACT_STD:g} std above the mean",
    "lidar": "exp(-sum p log p), p = share + 1e-7 of eigenvalues of S_w^-1/2 S_b S_w^-1/2, S_w + 1e-4 I",
    "cka": "linear CKA of the clips' mean patches with the unbiased estimate of HSIC",
}


class Population:
    """One kind of vector of one block: its moments, and those of the unit vectors."""

    def __init__(self, dim: int) -> None:
        self._moments = Moments(dim)
        self._unit_sum = torch.zeros(dim, dtype=torch.float64)
        self._unit_squares = torch.zeros(dim, dtype=torch.float64)

    def update(self, vectors: Tensor) -> None:
        """Add vectors [n, D]."""
        vectors = vectors.detach().cpu().double()
        self._moments.update(vectors)
        unit = F.normalize(vectors, dim=-1)
        self._unit_sum += unit.sum(0)
        self._unit_squares += unit.square().sum(0)

    def measures(self) -> dict[str, float]:
        """Ranks and spread."""
        count, dim = self._moments.count, len(self._unit_sum)
        mean = self._unit_sum / count
        variance = (self._unit_squares / count - mean.square()).clamp(min=0) * (count / max(1, count - 1))
        return {**spectrum_measures(self._moments), "token_std": float(variance.sqrt().mean()) * math.sqrt(dim)}


class LabelFree:
    """Label-free measures of L blocks of width D, batch after batch; `seed` draws the patches."""

    def __init__(self, depth: int, dim: int, seed: int = 0) -> None:
        self._seed, self._batches = seed, 0
        self._kinds = {kind: [Population(dim) for _ in range(depth)] for kind in ("patches", "mean", "cls")}
        self._norms: list[Tensor] = []  # [L, valid patches] of each batch
        self._means: list[Tensor] = []  # [L, B, D] of each batch

    def update(self, features: LayerFeatures) -> None:
        """Add a batch."""
        generator = seeded_generator(torch.device("cpu"), self._seed, self._batches)
        self._batches += 1
        drawn = draw_patches(features.valid.cpu(), generator).to(features.valid.device)  # [B, N]
        means = torch.stack([mean_valid(layer, features.valid) for layer in features.patch_tokens])
        self._means.append(means.cpu())
        self._norms.append(torch.stack([layer[features.valid].norm(dim=-1) for layer in features.patch_tokens]).cpu())
        for i, layer in enumerate(features.patch_tokens):
            self._kinds["patches"][i].update(layer[drawn])
            self._kinds["mean"][i].update(means[i])
            if features.cls_token is not None:
                self._kinds["cls"][i].update(features.cls_token[i])
        if features.cls_token is None:
            self._kinds.pop("cls", None)

    def blocks(self) -> list[dict[str, Any]]:
        """For each block the measures of its patches, of its clips' mean patches, and of cls if there is one."""
        norms = torch.cat(self._norms, 1).double()  # [L, patches]
        found: list[dict[str, Any]] = []
        for i, norm in enumerate(norms):
            block: dict[str, Any] = {kind: populations[i].measures() for kind, populations in self._kinds.items()}
            found.append({"block": i + 1, **block, "artefact_share": artefact_share(norm)})
        return found

    def cka(self) -> list[list[float]] | None:
        """Likeness of blocks [L, L]; None for too few clips."""
        means = torch.cat(self._means, 1)
        return linear_cka(means).tolist() if means.shape[1] >= FEWEST else None


def draw_patches(valid: Tensor, generator: torch.Generator) -> Tensor:
    """Mark at most `PATCHES` random ones of each clip's valid patches, bool [B, N]."""
    order = torch.rand(valid.shape, generator=generator).masked_fill(~valid, 2.0).argsort(1)
    drawn = torch.zeros_like(valid).scatter_(1, order[:, :PATCHES], True)
    return drawn & valid


def artefact_share(norms: Tensor) -> float:
    """Share of norms [n] far above the others, as of artefact tokens (Darcet et al., 2309.16588)."""
    return float((norms > norms.mean() + ARTEFACT_STD * norms.std(correction=0)).double().mean())
