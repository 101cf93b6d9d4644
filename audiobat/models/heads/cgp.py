"""Convex gated probing: all blocks' tokens, mixed by a gate, to prototype similarities to logits (Eq. 8-11)."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from audiobat.config import HeadConfig
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.base import Probe
from audiobat.models.heads.pooling import columns, extremes, mean_valid, mix_layers, repeat_valid, unit_rows


class ConvexGatedProbe(Probe):
    """LayerFeatures of `depth` blocks of width `dim` to logits [B, classes].

    `prototypes` [K, D] are real-valued; `gate` [L] holds logits (`gate_weights` their softmax); `classifier` reads
    [min, max, cls] similarities (Eq. 11), or [min, mean, max] where the model has no cls token.
    """

    title = "CGP"
    layers = "all"
    has_prototypes = True

    @classmethod
    def build(cls, config: HeadConfig, dim: int, depth: int, classes: int, freq_patches: int | None) -> Self:
        """See `Head.build`."""
        return cls(dim, depth, classes, config.prototypes, config.dropout)

    def __init__(self, dim: int, depth: int, classes: int, prototypes: int, dropout: float = 0.0) -> None:
        start = torch.randn(prototypes, dim) * 0.02  # drawn before the classifier is: a seed keeps its meaning
        super().__init__(nn.Linear(3 * prototypes, classes), dropout=dropout)
        self.prototypes = nn.Parameter(start)
        self.gate = nn.Parameter(torch.ones(depth))

    @property
    def gate_weights(self) -> Tensor:
        """Share of each block in the mix, [L], summing to one."""
        return self.gate.softmax(0)

    def pool(self, features: LayerFeatures) -> Tensor:
        """Similarities [B, 3 * K]."""
        return self._similarities(features, mean_last=False)

    def pool_columns(self, features: LayerFeatures) -> Tensor:
        """Least, mean and greatest similarity within each column, [B * T, 3 * K].

        The mean stands where the classifier expects the same kind of number of a clip: in the place of cls, thus last,
        for a model that has a cls token; in the middle for one that has none.
        """
        return self._similarities(columns(features), mean_last=features.cls_token is not None)

    def _similarities(self, features: LayerFeatures, mean_last: bool) -> Tensor:
        patches, cls = mix_layers(features, self.gate_weights)
        prototypes = unit_rows(self.prototypes)
        low, high = extremes(repeat_valid(patches, features.valid), prototypes)  # [B, K] each
        if cls is not None:
            return torch.cat([low, high, cls @ prototypes.T], dim=-1)
        mean = mean_valid(patches, features.valid) @ prototypes.T  # a mean of similarities
        return torch.cat([low, high, mean] if mean_last else [low, mean, high], dim=-1)
