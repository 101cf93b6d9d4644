"""Class-bound prototypes: each class has its own few and no others (Bird-MAE's prototypical probe, 2504.12880)."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiobat.config import HeadConfig
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.base import Probe
from audiobat.models.heads.pooling import extremes, layer_index, repeat_valid

EPSILON = 1e-4  # value of the two channels added to tokens and prototypes, so that no length is zero
SHRINK = 1.01  # similarities are divided by this: 64 / (64 * 1.01) in the original
ORTHOGONALITY = 1.0  # of `head.penalty: null`: ours
BIAS = -2.0  # ours: neither similarities nor weights are negative, so from 0 no class could fall below one half


class ClasswisePrototypes(Probe):
    """LayerFeatures to logits [B, classes] from block `layer` (1 .. L, or -1 for the last); the cls token is not used.

    `prototypes` [C * J, D], J = `per_class` to a class, class by class, start uniform in [0, 1). A score is the
    rectified cosine, greatest over the patches (the original's mean over the k best with its default, k = 1). A class
    sums its own J scores by non-negative weights that start at 1, and adds a bias. Left out of the original: weights
    for frequencies and the pruning of prototypes, both optional there.
    """

    title = "Class-wise prototypes"

    @classmethod
    def build(cls, config: HeadConfig, dim: int, depth: int, classes: int, freq_patches: int | None) -> Self:
        """See `Head.build`."""
        weight = ORTHOGONALITY if config.penalty is None else config.penalty
        return cls(dim, classes, config.per_class, config.layer, config.dropout, weight)

    def __init__(
        self,
        dim: int,
        classes: int,
        per_class: int = 20,
        layer: int = -1,
        dropout: float = 0.0,
        orthogonality: float = ORTHOGONALITY,
    ) -> None:
        super().__init__(OwnScores(per_class, classes), dropout=dropout)
        self.prototypes = nn.Parameter(torch.rand(classes * per_class, dim))
        self.layer = layer
        self.orthogonality = orthogonality

    def pool(self, features: LayerFeatures) -> Tensor:
        """Scores [B, C * J]."""
        patches = features.patch_tokens[layer_index(self.layer)].to(self.prototypes.dtype)  # [B, N, D]
        _, high = extremes(_unit(repeat_valid(patches, features.valid)), _unit(self.prototypes) / SHRINK)
        return high.relu()

    def penalty(self) -> Tensor:
        """`orthogonality` times the mean square of all entries of the classes' Gram matrices minus the identity.

        Gram matrices [C, J, J] are of unit prototypes. A mean, so that a weight means the same for any C and J: ours.
        """
        unit = F.normalize(self.prototypes, dim=-1).unflatten(0, (self.classifier.out_features, -1))  # [C, J, D]
        gram = unit @ unit.transpose(1, 2)
        excess: Tensor = gram - torch.eye(gram.shape[-1]).to(gram)
        return self.orthogonality * excess.square().mean()


class OwnScores(nn.Linear):
    """Scores [M, C * J] to logits [M, C]: row c of `weight` [C, J], rectified, reads the scores of class c alone."""

    def reset_parameters(self) -> None:
        """Start with weights of 1 and a low bias."""
        nn.init.ones_(self.weight)
        nn.init.constant_(self.bias, BIAS)

    def forward(self, scores: Tensor) -> Tensor:
        """Logits [M, C]."""
        weighted: Tensor = scores.unflatten(-1, self.weight.shape) * self.weight.relu()
        return weighted.sum(-1) + self.bias


def _unit(vectors: Tensor) -> Tensor:
    """Vectors [..., D] with the two channels, made unit vectors [..., D + 2]."""
    return F.normalize(F.pad(vectors, (0, 2), value=EPSILON), dim=-1, eps=0.0)
