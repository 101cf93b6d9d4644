"""What trainable heads have in common: pool, normalise, drop out, classify; for a clip or for each patch column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from audiobat.models.features import LayerFeatures
from audiobat.models.heads.pooling import columns

NORM_EPS = 1e-6  # of the batch norm of masked autoencoders' linear probe and of the release's layer norms


class Probe(nn.Module):
    """A head is its `pool`; norm, dropout and `classifier`, a matrix with bias, follow."""

    def __init__(self, classifier: nn.Linear, norm: nn.Module | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.Identity() if norm is None else norm
        self.dropout = nn.Dropout(dropout)
        self.classifier = classifier

    def pool(self, features: LayerFeatures) -> Tensor:
        """LayerFeatures to one vector a clip, [B, width], in the classifier's precision."""
        raise NotImplementedError

    def forward(self, features: LayerFeatures) -> Tensor:
        """Logits [B, C]. Every clip needs at least one valid patch; padding is never seen."""
        return self.classify(self.pool(features))

    def frames(self, features: LayerFeatures) -> Tensor:
        """Logits [B, T, C] by the same parameters, pooling over the frequency axis alone; zeros where all is padding.

        There is no cls token of a column: a head that reads cls reads the column's mean patch in its place.
        """
        return classify_frames(self.pool(columns(features)), features, self.classify)

    def classify(self, pooled: Tensor) -> Tensor:
        """Vectors [M, width] to logits [M, C]."""
        logits: Tensor = self.classifier(self.dropout(self.norm(pooled)))
        return logits

    def penalty(self) -> Tensor:
        """What the head adds to the loss, a scalar: nothing unless it says so."""
        return self.classifier.weight.new_zeros(())


def classify_frames(pooled: Tensor, features: LayerFeatures, classify: Callable[[Tensor], Tensor]) -> Tensor:
    """Columns' vectors [B * T, X] to logits [B, T, C]; columns of padding get zeros and never reach a batch norm."""
    real = features.valid.unflatten(1, features.grid).any(-1)  # [B, T]
    if torch.compiler.is_exporting():  # no rows that depend on values: padding is computed too, then cleared
        every: Tensor = classify(pooled).unflatten(0, real.shape).masked_fill(~real[..., None], 0.0)
        return every
    logits = classify(pooled[real.flatten()])
    frames = logits.new_zeros(*real.shape, logits.shape[-1])
    frames[real] = logits
    return frames


def normalise_valid(norm: nn.Module, tokens: Tensor, valid: Tensor) -> Tensor:
    """Tokens [B, N, D] through `norm`, whose statistics are of the valid ones alone; padding becomes zeros."""
    if isinstance(norm, nn.Identity):
        return tokens
    if torch.compiler.is_exporting():
        return torch.where(valid[..., None], norm(tokens.flatten(0, 1)).view_as(tokens), 0.0)
    normal = torch.zeros_like(tokens)
    normal[valid] = norm(tokens[valid])
    return normal


def build_norm(norm: Literal["none", "layer", "batch"], width: int, layer_eps: float = NORM_EPS) -> nn.Module:
    """A norm of `width` values without learned scale: a matrix follows, which can learn that as well."""
    if norm == "layer":
        return nn.LayerNorm(width, eps=layer_eps, elementwise_affine=False)
    if norm == "batch":
        return nn.BatchNorm1d(width, eps=NORM_EPS, affine=False)
    return nn.Identity()
