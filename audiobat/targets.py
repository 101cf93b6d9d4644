"""The EMA teacher: unmasked spectrograms to normalised regression targets (Section 3, Table 3).

Layers are accumulated as they come; no graph is built and no stack of layers is held.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiobat.config import TargetConfig
from audiobat.encoder import AudioEncoder

EPS = 1e-6  # of the target normalisations, the release's


class Targets(NamedTuple):
    """What the student predicts for each clip, and the spread that a collapsed teacher loses."""

    patch_targets: Tensor  # [B, N, D]
    cls_target: Tensor  # [B, D]
    variance: Tensor  # [] of the raw layer outputs over tokens: 0 when all tokens are one


class Teacher(nn.Module):
    """An exponential moving average of the student's encoder that makes the targets."""

    def __init__(self, student: AudioEncoder, config: TargetConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = copy.deepcopy(student).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode: the teacher never drops paths."""
        return super().train(False)

    def decay_at(self, step: int) -> float:
        """EMA decay after `step` updates: linear from ema_start to ema_end over ema_steps, then constant."""
        share = min(step / self.config.ema_steps, 1.0)
        return self.config.ema_start + share * (self.config.ema_end - self.config.ema_start)

    @torch.no_grad()
    def update(self, student: AudioEncoder, step: int) -> None:
        """Move every parameter towards the student's, after its update number `step`."""
        pairs = zip(self.encoder.parameters(), student.parameters(), strict=True)
        mine, theirs = map(list, zip(*pairs, strict=True))
        torch._foreach_lerp_(mine, theirs, 1 - self.decay_at(step))

    @torch.no_grad()
    def forward(self, spectrogram: Tensor, valid: Tensor | None = None) -> Targets:
        """Spectrogram [B, T, F] of whole clips, `valid` bool [B, N] where there is padding, to Targets."""
        first = 0 if self.config.layers is None else self.encoder.depth - self.config.layers
        total: Tensor | None = None
        variance = torch.zeros((), device=spectrogram.device)
        weight = None if valid is None else valid.unsqueeze(-1)  # [B, N, 1]
        for layer, (block, mlp) in enumerate(self.encoder.run_blocks(self.encoder.embed_patches(spectrogram), valid)):
            if layer < first:
                continue
            output = (block if self.config.source == "block" else mlp)[:, 1:].float()  # [B, N, D]
            normed, spread = standardise_tokens(output, weight)
            variance += spread.mean()
            total = normed if total is None else total.add_(normed)
        assert total is not None
        layers = self.encoder.depth - first
        patch_targets = F.layer_norm(total / layers, total.shape[-1:], eps=EPS)
        return Targets(patch_targets, masked_mean(patch_targets, weight)[:, 0], variance / layers)


def standardise_tokens(x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Instance norm of [B, N, D] over a clip's tokens, those with weight 0 left out; also the variance [B, 1, D]."""
    mean = masked_mean(x, weight)
    centred = x - mean
    variance = masked_mean(centred.square(), weight)
    return centred * (variance + EPS).rsqrt(), variance


def masked_mean(x: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of [B, N, D] over the tokens with non-zero weight [B, N, 1]: [B, 1, D]."""
    if weight is None:
        return x.mean(1, keepdim=True)
    return (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
