"""Protobin: one block's patches to binary prototypes' greatest cosine to logits (Rauch et al., 2509.24901)."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiobat.config import HeadConfig
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.base import Probe
from audiobat.models.heads.pooling import extremes, layer_index, repeat_valid, unit_signs


class Protobin(Probe):
    """LayerFeatures to logits [B, classes] from block `layer` (1 .. L, or -1 for the last); the cls token is not used.

    `prototypes` [K, D] are real shadow weights; every forward pass sees their signs, as vectors of length one.
    """

    title = "Protobin"
    has_prototypes = True

    @classmethod
    def build(cls, config: HeadConfig, dim: int, depth: int, classes: int, freq_patches: int | None) -> Self:
        """See `Head.build`."""
        return cls(dim, classes, config.prototypes, config.layer, config.dropout)

    def __init__(self, dim: int, classes: int, prototypes: int, layer: int = -1, dropout: float = 0.0) -> None:
        start = torch.randn(prototypes, dim) * 0.02  # drawn before the classifier is: a seed keeps its meaning
        super().__init__(nn.Linear(prototypes, classes), dropout=dropout)
        self.prototypes = nn.Parameter(start)
        self.layer = layer

    def pool(self, features: LayerFeatures) -> Tensor:
        """Greatest cosine of each prototype, [B, K]."""
        patches = features.patch_tokens[layer_index(self.layer)].to(self.prototypes.dtype)  # [B, N, D]
        unit = F.normalize(repeat_valid(patches, features.valid), dim=-1)
        _, high = extremes(unit, unit_signs(self.prototypes))  # [B, K]
        return high
