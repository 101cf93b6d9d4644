"""Mean over time, frequency rows kept side by side, and a matrix: the plain rival of prototypes (Niizumi et al.)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from audiobat.errors import AudiobatError
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.base import Probe, build_norm
from audiobat.models.heads.pooling import layer_index


class KeepFrequencyProbe(Probe):
    """LayerFeatures of `rows` patch rows and width `dim` to logits [B, classes] from block `layer` (1 .. L, or -1).

    Each row's mean over its valid patches, the rows in a line [F * D], `norm` without learned scale, a matrix. A row
    without any valid patch counts as zeros. A column's frame-level vector is its own rows in a line.
    """

    def __init__(
        self,
        dim: int,
        rows: int,
        classes: int,
        layer: int = -1,
        norm: Literal["none", "layer", "batch"] = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(nn.Linear(rows * dim, classes), build_norm(norm, rows * dim), dropout)
        self.rows = rows
        self.layer = layer

    def pool(self, features: LayerFeatures) -> Tensor:
        """Means over time, [B, F * D], the lowest frequencies first."""
        if features.grid[1] != self.rows:
            raise AudiobatError(
                f"The probe reads {self.rows} patch rows and the model has {features.grid[1]}: "
                "use the model it was made for."
            )
        tokens = features.patch_tokens[layer_index(self.layer)].to(self.classifier.weight.dtype)
        valid = features.valid.unflatten(1, features.grid)  # [B, T, F]
        weights = valid.to(tokens.dtype) / valid.sum(1, keepdim=True).clamp_min(1)
        return torch.einsum("btf,btfd->bfd", weights, tokens.unflatten(1, features.grid)).flatten(1)
