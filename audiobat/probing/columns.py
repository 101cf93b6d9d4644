"""Features with the mean over frequency in place of the patches of a column: what a task over time looks at.

That is a fraction of the patches to keep, 1/8 with 128 mel bins and patches of 16.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from audiobat.models.features import Encoder, LayerFeatures, check_features


def column_means(features: LayerFeatures) -> LayerFeatures:
    """The features with one patch a column, the mean of its valid ones."""
    tokens = features.patch_tokens.unflatten(2, features.grid)  # [L, B, T, F, D]
    valid = features.valid.unflatten(1, features.grid)  # [B, T, F]
    weights = valid.to(tokens.dtype) / valid.sum(2, keepdim=True).clamp(min=1)
    means = torch.einsum("btf,lbtfd->lbtd", weights, tokens)
    return LayerFeatures(means, features.cls_token, (features.grid[0], 1), valid.any(2), features.frame_times)


class Reduced(nn.Module):
    """An encoder whose features are those of another, reduced by a function such as `column_means`.

    So a run that looks at no more keeps no more, and what it keeps nearly always fits in memory.
    """

    def __init__(self, encoder: Encoder, reduce: Callable[[LayerFeatures], LayerFeatures]) -> None:
        super().__init__()
        self.encoder, self.reduce = encoder, reduce
        self.sample_rate, self.dim, self.depth = encoder.sample_rate, encoder.dim, encoder.depth
        self.config = type(encoder).__qualname__, getattr(encoder, "config", None)  # tells kept features apart

    def forward_intermediates(self, waveform: Tensor, lengths: Tensor | None = None) -> LayerFeatures:
        """See `Encoder`; AudiobatError for features that are not as `LayerFeatures` describes them."""
        features = self.encoder.forward_intermediates(waveform, lengths)
        check_features(self.encoder, features, len(waveform))  # what is reduced would hide a wrong shape
        return self.reduce(features)
