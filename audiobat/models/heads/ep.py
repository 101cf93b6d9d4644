"""Efficient probing: queries attend to one block's raw patches, each with its own values (Psomas et al., 2026)."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor, nn

from audiobat.config import HeadConfig
from audiobat.errors import AudiobatError
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.base import Probe, build_norm
from audiobat.models.heads.pooling import layer_index, query_tokens

QUERIES = 32  # of `head.queries: null`


class EfficientProbe(Probe):
    """LayerFeatures to logits [B, classes] from block `layer` (1 .. L, or -1 for the last); the cls token is not used.

    `queries` [Q, D] meet the tokens with no key projection, in one head, at scale D^-1/2. `values`, a matrix D to
    D / `reduction` without bias, falls into Q groups of rows, and each query reads its own. The answers side by side,
    [D / reduction], pass a batch norm without learned scale (the linear probe of masked autoencoders) to the matrix.
    """

    title = "EP"

    @classmethod
    def build(cls, config: HeadConfig, dim: int, depth: int, classes: int, freq_patches: int | None) -> Self:
        """See `Head.build`."""
        return cls(dim, classes, config.queries or QUERIES, config.reduction, config.layer, config.dropout)

    def __init__(
        self, dim: int, classes: int, queries: int = QUERIES, reduction: int = 1, layer: int = -1, dropout: float = 0.0
    ) -> None:
        if dim % (reduction * queries) != 0:
            raise AudiobatError(
                f"head.queries is {queries} and head.reduction {reduction}: their product must divide the model's "
                f"width {dim}."
            )
        super().__init__(nn.Linear(dim // reduction, classes), build_norm("batch", dim // reduction), dropout)
        self.queries = nn.Parameter(torch.randn(queries, dim) * 0.02)
        self.values = nn.Linear(dim, dim // reduction, bias=False)
        self.layer = layer

    def pool(self, features: LayerFeatures) -> Tensor:
        """What the queries take from their values, [B, D / reduction]; a mean of values is the value of the mean."""
        tokens = features.patch_tokens[layer_index(self.layer)].to(self.queries.dtype)  # [B, N, D]
        taken = query_tokens(tokens, self.queries, 1 / math.sqrt(tokens.shape[-1]), features.valid)  # [B, Q, D]
        groups = self.values.weight.unflatten(0, (len(self.queries), -1))  # [Q, D / (reduction * Q), D]
        return torch.einsum("bqd,qed->bqe", taken, groups).flatten(1)
