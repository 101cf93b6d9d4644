"""Linear probe: one block's cls token, or the mean over its valid patches, to logits."""

from __future__ import annotations

from typing import Literal, Self

from torch import Tensor, nn

from audiobat.config import HeadConfig
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.base import Norm, Probe, build_norm
from audiobat.models.heads.pooling import check_pool, clip_token, layer_index


class LinearProbe(Probe):
    """LayerFeatures to logits [B, classes] from block `layer` (1 .. L, or -1 for the last).

    `pool`: auto takes cls if the model has one, else the mean. `norm`: scaled_layer is that of EAT and BAT's release;
    layer and batch have no learned scale; batch is the linear probe of masked autoencoders (He et al., 2021). `init`:
    eat draws the matrix from N(0, 0.02), with a bias of 0.
    """

    title = "Linear"
    reads = "means"

    @classmethod
    def build(cls, config: HeadConfig, dim: int, depth: int, classes: int, freq_patches: int | None) -> Self:
        """See `Head.build`."""
        return cls(dim, classes, config.layer, config.pool, config.norm, config.dropout, config.init)

    def __init__(
        self,
        dim: int,
        classes: int,
        layer: int = -1,
        pool: Literal["auto", "cls", "mean"] = "auto",
        norm: Norm = "none",
        dropout: float = 0.0,
        init: Literal["torch", "eat"] = "torch",
    ) -> None:
        super().__init__(nn.Linear(dim, classes), build_norm(norm, dim), dropout)
        if init == "eat":
            nn.init.trunc_normal_(self.classifier.weight, std=0.02)  # cut at -2 and 2, so that it is a normal one
            nn.init.zeros_(self.classifier.bias)
        self.layer = layer
        self.token = pool

    def forward(self, features: LayerFeatures) -> Tensor:
        """Logits [B, C]. Every clip needs at least one valid patch; padding has no influence."""
        check_pool(features, self.token)
        return super().forward(features)

    def pool(self, features: LayerFeatures) -> Tensor:
        """One vector a clip, [B, D], in the classifier's precision."""
        return clip_token(features, layer_index(self.layer), self.token, self.classifier.weight.dtype)
