"""Linear probe: one block's cls token, or the mean over its valid patches, to logits."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from audiobat.errors import AudiobatError
from audiobat.features import LayerFeatures
from audiobat.heads.pooling import layer_index, mean_valid


class LinearProbe(nn.Module):
    """LayerFeatures to logits [B, classes] from block `layer` (1 .. L, or -1 for the last).

    `pool`: auto takes cls if the model has one, else the mean. `norm`: layer and batch have no learned scale; batch is
    the linear probe of masked autoencoders (He et al., 2021).
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        layer: int = -1,
        pool: Literal["auto", "cls", "mean"] = "auto",
        norm: Literal["none", "layer", "batch"] = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.pool = pool
        self.norm = _build_norm(norm, dim)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(dim, classes)

    def forward(self, features: LayerFeatures) -> Tensor:
        """Logits [B, C]. Every clip needs at least one valid patch; padding is never seen."""
        logits: Tensor = self.classifier(self.dropout(self.norm(self._pooled(features))))
        return logits

    def _pooled(self, features: LayerFeatures) -> Tensor:
        """One vector a clip, [B, D], in the classifier's precision."""
        index, dtype = layer_index(self.layer), self.classifier.weight.dtype
        if features.cls_token is not None and self.pool != "mean":
            return features.cls_token[index].to(dtype)
        if self.pool == "cls":
            raise AudiobatError('head.pool is "cls" and this model has no cls token: use "mean" or "auto".')
        return mean_valid(features.patch_tokens[index].to(dtype), features.valid)


def _build_norm(norm: str, dim: int) -> nn.Module:
    if norm == "layer":
        return nn.LayerNorm(dim, elementwise_affine=False)
    if norm == "batch":
        return nn.BatchNorm1d(dim, eps=1e-6, affine=False)
    return nn.Identity()
