"""Linear probe of a gated mix of all blocks: CGP's gate without prototypes and unit vectors (BAT's release, LCGP)."""

from __future__ import annotations

from typing import Literal, Self

import torch
from torch import Tensor, nn

from audiobat.config import HeadConfig
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.base import Probe, build_norm
from audiobat.models.heads.pooling import check_depth, check_pool, clip_tokens


class LinearGatedProbe(Probe):
    """LayerFeatures of `depth` blocks of width `dim` to logits [B, classes].

    Each block's raw cls token (or mean valid patch), weighted by the softmax of `gate` [L], summed; a layer norm,
    which learns a scale if `norm` is scaled_layer (BAT's release); a matrix. `pool`: auto takes cls if the model has
    one, else the mean.
    """

    title = "Linear CGP"
    reads = "means"
    layers = "all"

    @classmethod
    def build(cls, config: HeadConfig, dim: int, depth: int, classes: int, freq_patches: int | None) -> Self:
        """See `Head.build`."""
        norm = config.norm if config.norm == "scaled_layer" else "layer"
        return cls(dim, depth, classes, config.pool, config.dropout, norm)

    def __init__(
        self,
        dim: int,
        depth: int,
        classes: int,
        pool: Literal["auto", "cls", "mean"] = "auto",
        dropout: float = 0.0,
        norm: Literal["layer", "scaled_layer"] = "layer",
    ) -> None:
        super().__init__(nn.Linear(dim, classes), build_norm(norm, dim), dropout)
        self.gate = nn.Parameter(torch.zeros(depth))
        self.token = pool

    @property
    def gate_weights(self) -> Tensor:
        """Share of each block in the mix, [L], summing to one."""
        return self.gate.softmax(0)

    def forward(self, features: LayerFeatures) -> Tensor:
        """Logits [B, C]. Every clip needs at least one valid patch; padding has no influence."""
        check_pool(features, self.token)
        return super().forward(features)

    def pool(self, features: LayerFeatures) -> Tensor:
        """The mix, [B, D]: a mean of mixed patches is a mix of mean patches."""
        check_depth(features, len(self.gate))
        return torch.einsum("l,lbd->bd", self.gate_weights, clip_tokens(features, self.token, self.gate.dtype))
