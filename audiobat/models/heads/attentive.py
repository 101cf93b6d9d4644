"""Attentive probe: one learned query attends to one block's patches in several heads (AIM; mhca in 2509.24901)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn

from audiobat.config import HeadConfig
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.base import Norm, Probe, build_norm, normalise_valid
from audiobat.models.heads.pooling import columns, layer_index, query_tokens

HEAD_DIM = 64


class AttentiveProbe(Probe):
    """LayerFeatures to logits [B, classes] from block `layer` (1 .. L, or -1 for the last); the cls token is not used.

    `query` [D] is learned; `keys` and `values` are matrices without bias; the query and the output have none. There
    are D / 64 heads: at least one, and fewer where D / 64 does not divide D. `norm` is of the tokens that come in: none
    by default, as in the papers that compare probes; batch (without learned scale) is AIM's.
    """

    title = "Attentive"

    @classmethod
    def build(cls, config: HeadConfig, dim: int, depth: int, classes: int, freq_patches: int | None) -> Self:
        """See `Head.build`."""
        return cls(dim, classes, config.layer, config.norm, config.dropout)

    def __init__(
        self,
        dim: int,
        classes: int,
        layer: int = -1,
        norm: Norm = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(nn.Linear(dim, classes), dropout=dropout)
        self.query = nn.Parameter(torch.randn(dim) * 0.02)
        self.keys = nn.Linear(dim, dim, bias=False)
        self.values = nn.Linear(dim, dim, bias=False)
        self.token_norm = build_norm(norm, dim)
        self.heads = next(heads for heads in range(max(1, dim // HEAD_DIM), 0, -1) if dim % heads == 0)
        self.layer = layer

    def pool(self, features: LayerFeatures) -> Tensor:
        """What the query takes from the values, heads side by side, [B, D]."""
        return self._attend(self._block(features))

    def pool_columns(self, features: LayerFeatures) -> Tensor:
        """The same, [B * T, D], the query attending to the patches of one column at a time."""
        return self._attend(columns(self._block(features)))

    def _block(self, features: LayerFeatures) -> LayerFeatures:
        """The features of one block, normalised while padding can still be told from the rest."""
        tokens = features.patch_tokens[layer_index(self.layer)].to(self.query.dtype)  # [B, N, D]
        tokens = normalise_valid(self.token_norm, tokens, features.valid)
        return replace(features, patch_tokens=tokens[None], cls_token=None)

    def _attend(self, block: LayerFeatures) -> Tensor:
        """Without biases a projection may wait: q.(Kx) is (K'q).x, and the mean of values is the value of the mean.

        So no token is ever projected.
        """
        query = self.query.view(self.heads, -1)  # [H, d]
        folded = torch.einsum("he,hed->hd", query, self.keys.weight.unflatten(0, query.shape))  # [H, D]
        taken = query_tokens(block.patch_tokens[0], folded, 1 / math.sqrt(query.shape[1]), block.valid)  # [B, H, D]
        return torch.einsum("bhd,hed->bhe", taken, self.values.weight.unflatten(0, query.shape)).flatten(1)
