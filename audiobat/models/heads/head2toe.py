"""Head2Toe: all blocks' tokens in a line, a matrix, a group lasso that picks features (Evci et al., 2201.03529)."""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from torch import Tensor, nn

from audiobat.config import HeadConfig
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.base import Probe, build_norm
from audiobat.models.heads.pooling import check_depth, check_pool, clip_tokens

LASSO = 1e-4  # of `head.penalty: null`, as in BAT's release


class Head2Toe(Probe):
    """LayerFeatures of `depth` blocks of width `dim` to logits [B, classes].

    The blocks' cls tokens (or mean valid patches) in a line [L * D], a layer norm, a matrix. A group is a feature: its
    weights to all C classes. A scale that the norm learns, if `norm` is scaled_layer (BAT's release), lets features
    escape the lasso.
    """

    title = "Head2Toe"
    reads = "means"
    layers = "all"

    @classmethod
    def build(cls, config: HeadConfig, dim: int, depth: int, classes: int, freq_patches: int | None) -> Self:
        """See `Head.build`."""
        lasso = LASSO if config.penalty is None else config.penalty
        norm = config.norm if config.norm == "scaled_layer" else "layer"
        return cls(dim, depth, classes, config.pool, config.dropout, lasso, norm)

    def __init__(
        self,
        dim: int,
        depth: int,
        classes: int,
        pool: Literal["auto", "cls", "mean"] = "auto",
        dropout: float = 0.0,
        lasso: float = LASSO,
        norm: Literal["layer", "scaled_layer"] = "layer",
    ) -> None:
        super().__init__(nn.Linear(depth * dim, classes), build_norm(norm, depth * dim), dropout)
        self.depth = depth
        self.token = pool
        self.lasso = lasso

    def forward(self, features: LayerFeatures) -> Tensor:
        """Logits [B, C]. Every clip needs at least one valid patch; padding has no influence."""
        check_pool(features, self.token)
        return super().forward(features)

    def pool(self, features: LayerFeatures) -> Tensor:
        """Tokens of all blocks, [B, L * D], the first block first."""
        check_depth(features, self.depth)
        return clip_tokens(features, self.token, self.classifier.weight.dtype).transpose(0, 1).flatten(1)

    def penalty(self) -> Tensor:
        """Lambda times sqrt(C) times the sum over features of the norm of their weights to all classes."""
        norms = torch.linalg.vector_norm(self.classifier.weight, dim=0)  # [L * D]
        weighted: Tensor = self.lasso * math.sqrt(self.classifier.out_features) * norms.sum()
        return weighted
