"""Convex gated probing: all blocks' tokens, mixed by a gate, to prototype similarities to logits (Eq. 8-11)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiobat.errors import AudiobatError
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.base import Probe, classify_frames
from audiobat.models.heads.pooling import TINY, columns, extremes, mean_valid, repeat_valid, unit_rows


class ConvexGatedProbe(Probe):
    """LayerFeatures of `depth` blocks of width `dim` to logits [B, classes].

    `prototypes` [K, D] are real-valued; `gate` [L] holds logits (`gate_weights` their softmax); `classifier` reads
    [min, max, cls] similarities (Eq. 11), or [min, mean, max] where the model has no cls token.
    """

    def __init__(self, dim: int, depth: int, classes: int, prototypes: int, dropout: float = 0.0) -> None:
        start = torch.randn(prototypes, dim) * 0.02  # drawn before the classifier is: a seed keeps its meaning
        super().__init__(nn.Linear(3 * prototypes, classes), dropout=dropout)
        self.prototypes = nn.Parameter(start)
        self.gate = nn.Parameter(torch.ones(depth))

    @property
    def gate_weights(self) -> Tensor:
        """Share of each block in the mix, [L], summing to one."""
        return self.gate.softmax(0)

    def pool(self, features: LayerFeatures) -> Tensor:
        """Similarities [B, 3 * K]."""
        return self._similarities(features, mean_last=False)

    def frames(self, features: LayerFeatures) -> Tensor:
        """Logits [B, T, C] from least, mean and greatest similarity over a column's rows; zeros where all is padding.

        The mean stands where the clip's classifier expects the same kind of number: in the place of cls, thus last,
        for a model that has a cls token; in the middle for one that has none.
        """
        pooled = self._similarities(columns(features), mean_last=features.cls_token is not None)
        return classify_frames(pooled, features, self.classify)

    def _similarities(self, features: LayerFeatures, mean_last: bool) -> Tensor:
        patches, cls = mix_layers(features, self.gate_weights)
        prototypes = unit_rows(self.prototypes)
        low, high = extremes(repeat_valid(patches, features.valid), prototypes)  # [B, K] each
        if cls is not None:
            return torch.cat([low, high, cls @ prototypes.T], dim=-1)
        mean = mean_valid(patches, features.valid) @ prototypes.T  # a mean of similarities
        return torch.cat([low, high, mean] if mean_last else [low, mean, high], dim=-1)


def mix_layers(features: LayerFeatures, gate_weights: Tensor) -> tuple[Tensor, Tensor | None]:
    """Sum over blocks of gate weight [L] times unit token (Eq. 9): patches [B, N, D] and cls [B, D] if there is one.

    A mix is shorter than one where blocks disagree; it is not made a unit vector again.
    """
    check_depth(features, len(gate_weights))
    cls = None if features.cls_token is None else _mix(features.cls_token, gate_weights)
    return _mix(features.patch_tokens, gate_weights), cls


def check_depth(features: LayerFeatures, depth: int) -> None:
    """Raise AudiobatError if the features are not of `depth` blocks."""
    found = len(features.patch_tokens)
    if found != depth:
        raise AudiobatError(f"The probe mixes {depth} blocks and the model has {found}: use the model it was made for.")


def _mix(stack: Tensor, gate_weights: Tensor) -> Tensor:
    """Mix [L, ..., D] to [..., D], block by block: no normalised copy of the stack, which may be of lower precision."""
    mixed = torch.zeros_like(stack[0], dtype=gate_weights.dtype)
    for weight, tokens in zip(gate_weights, stack, strict=True):
        norm = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True, dtype=gate_weights.dtype)
        mixed = torch.addcmul(mixed, tokens, weight / norm.clamp_min(TINY))
    return mixed
