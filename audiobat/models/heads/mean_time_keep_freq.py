"""Mean over time, frequencies kept side by side, and a matrix: the plain rival of prototypes (Niizumi et al.)."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from audiobat.config import HeadConfig
from audiobat.errors import AudiobatError
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.base import Norm, Probe, build_norm
from audiobat.models.heads.pooling import layer_index


class KeepFrequencyProbe(Probe):
    """LayerFeatures of F = `freq_patches` and width `dim` to logits [B, classes] from block `layer` (1 .. L, or -1).

    At each of the F frequencies the mean over its valid patches, the F means in a line [F * D], `norm`, a matrix. A
    frequency without any valid patch counts as zeros. The vector of a single column is its F patches in a line.
    """

    title = "Mean over time"

    @classmethod
    def build(cls, config: HeadConfig, dim: int, depth: int, classes: int, freq_patches: int | None) -> Self:
        """See `Head.build`."""
        if freq_patches is None:
            raise AudiobatError(
                "head.kind mean_time_keep_freq needs the number of patches above one another: give build_head "
                "freq_patches=grid[1] of the features."
            )
        return cls(dim, freq_patches, classes, config.layer, config.norm, config.dropout)

    def __init__(
        self,
        dim: int,
        freq_patches: int,
        classes: int,
        layer: int = -1,
        norm: Norm = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(nn.Linear(freq_patches * dim, classes), build_norm(norm, freq_patches * dim), dropout)
        self.freq_patches = freq_patches
        self.layer = layer

    def pool(self, features: LayerFeatures) -> Tensor:
        """Means over time, [B, F * D], the lowest frequencies first."""
        if features.grid[1] != self.freq_patches:
            raise AudiobatError(
                f"The probe reads {self.freq_patches} patches above one another and the model has {features.grid[1]}: "
                "use the model it was made for."
            )
        tokens = features.patch_tokens[layer_index(self.layer)].to(self.classifier.weight.dtype)
        valid = features.valid.unflatten(1, features.grid)  # [B, T, F]
        weights = valid.to(tokens.dtype) / valid.sum(1, keepdim=True).clamp_min(1)
        return torch.einsum("btf,btfd->bfd", weights, tokens.unflatten(1, features.grid)).flatten(1)
