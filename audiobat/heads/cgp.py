"""Convex gated probing: all blocks' tokens, mixed by a gate, to prototype similarities to logits (Eq. 8-11)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiobat.errors import AudiobatError
from audiobat.features import LayerFeatures
from audiobat.heads.pooling import extremes, mean_valid, repeat_valid

TINY = 1e-12  # keeps a zero token zero


class ConvexGatedProbe(nn.Module):
    """LayerFeatures of `depth` blocks of width `dim` to logits [B, classes].

    `prototypes` [K, D] are real-valued; `gate` [L] holds logits (`gate_weights` their softmax); `classifier` reads
    [min, max, cls] similarities (Eq. 11), or [min, mean, max] where the model has no cls token.
    """

    def __init__(self, dim: int, depth: int, classes: int, prototypes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(prototypes, dim) * 0.02)
        self.gate = nn.Parameter(torch.ones(depth))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(3 * prototypes, classes)

    @property
    def gate_weights(self) -> Tensor:
        """Share of each block in the mix, [L], summing to one."""
        return self.gate.softmax(0)

    def forward(self, features: LayerFeatures) -> Tensor:
        """Logits [B, C]. Every clip needs at least one valid patch; padding is never seen."""
        patches, cls = mix_layers(features, self.gate_weights)
        prototypes = F.normalize(self.prototypes, dim=-1, eps=TINY)
        low, high = extremes(repeat_valid(patches, features.valid), prototypes)  # [B, K] each
        if cls is None:  # a mean of similarities is the similarity of the mean
            scores = [low, mean_valid(patches, features.valid) @ prototypes.T, high]
        else:
            scores = [low, high, cls @ prototypes.T]
        logits: Tensor = self.classifier(self.dropout(torch.cat(scores, dim=-1)))
        return logits


def mix_layers(features: LayerFeatures, gate_weights: Tensor) -> tuple[Tensor, Tensor | None]:
    """Sum over blocks of gate weight [L] times unit token (Eq. 9): patches [B, N, D] and cls [B, D] if there is one.

    A mix is shorter than one where blocks disagree; it is not made a unit vector again.
    """
    depth = len(features.patch_tokens)
    if depth != len(gate_weights):
        raise AudiobatError(
            f"The probe mixes {len(gate_weights)} blocks and the model has {depth}: use the model it was made for."
        )
    cls = None if features.cls_token is None else _mix(features.cls_token, gate_weights)
    return _mix(features.patch_tokens, gate_weights), cls


def _mix(stack: Tensor, gate_weights: Tensor) -> Tensor:
    """Mix [L, ..., D] to [..., D], block by block: no normalised copy of the stack, which may be of lower precision."""
    mixed = torch.zeros_like(stack[0], dtype=gate_weights.dtype)
    for weight, tokens in zip(gate_weights, stack, strict=True):
        norm = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True, dtype=gate_weights.dtype)
        mixed = torch.addcmul(mixed, tokens, weight / norm.clamp_min(TINY))
    return mixed
