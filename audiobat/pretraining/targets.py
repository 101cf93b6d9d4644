"""Unmasked spectrograms to normalised regression targets: of the EMA teacher (Section 3, Table 3), or their own.

Layers are accumulated as they come; no graph is built and no stack of layers is held.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiobat.config import TargetConfig
from audiobat.models.encoder import AudioEncoder


class Targets(NamedTuple):
    """What the student predicts for each clip, and the spread that a collapsed teacher loses."""

    patch_targets: Tensor  # [B, N, D]
    cls_target: Tensor | None  # [B, D]; None without a teacher
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
        return self.of_tokens(self.encoder.embed_patches(spectrogram), valid)

    @torch.no_grad()
    def of_tokens(self, tokens: Tensor, valid: Tensor | None = None) -> Targets:
        """The same of patch tokens [B, n, D] with their positions: whole clips, or parts of them."""
        depth, eps = self.encoder.depth, self.config.norm_eps
        first = 0 if self.config.layers is None else depth - self.config.layers
        first_cls = first if self.config.cls_layers is None else depth - self.config.cls_layers
        sums: dict[int, Tensor] = {}  # by the layer at which they begin
        variance = torch.zeros((), device=tokens.device)
        weight = None if valid is None else valid.unsqueeze(-1)  # [B, n, 1]
        for layer, (block, mlp) in enumerate(self.encoder.run_blocks(tokens, valid)):
            if layer < min(first, first_cls):
                continue
            output = (block if self.config.source == "block" else mlp)[:, 1:].float()  # [B, n, D]
            normed, spread = standardise_tokens(output, weight, eps)
            if layer >= first:
                variance += spread.mean()
            for begin in {first, first_cls}:
                if layer >= begin:
                    sums[begin] = normed.clone() if begin not in sums else sums[begin].add_(normed)
        means = {begin: standardise_features(total / (depth - begin), eps) for begin, total in sums.items()}
        return Targets(means[first], masked_mean(means[first_cls], weight)[:, 0], variance / (depth - first))


class SpectrogramTargets(nn.Module):
    """Patches of the spectrogram themselves, each standardised (Audio-MAE); nothing to learn, no cls target."""

    def __init__(self, patch_size: tuple[int, int], eps: float) -> None:
        super().__init__()
        self.patch_size, self.eps = patch_size, eps

    def update(self, student: AudioEncoder, step: int) -> None:
        """Stay as it is."""

    @torch.no_grad()
    def forward(self, spectrogram: Tensor, valid: Tensor | None = None) -> Targets:
        """Spectrogram [B, T, F] to Targets [B, N, frames * bins]."""
        patches = F.unfold(spectrogram.float().unsqueeze(1), self.patch_size, stride=self.patch_size).mT  # [B, N, P]
        weight = None if valid is None else valid.unsqueeze(-1)
        _, variance = standardise_tokens(patches, weight, self.eps)
        return Targets(standardise_features(patches, self.eps), None, variance.mean())


def standardise_tokens(x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Instance norm of [B, N, D] over a clip's tokens, those with weight 0 left out; also the variance [B, 1, D]."""
    mean = masked_mean(x, weight)
    centred = x - mean
    variance = masked_mean(centred.square(), weight)
    return centred * (variance + eps).rsqrt(), variance


def standardise_features(x: Tensor, eps: float) -> Tensor:
    """Layer norm of [B, N, D] over features, without learned scale."""
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def masked_mean(x: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of [B, N, D] over the tokens with non-zero weight [B, N, 1]: [B, 1, D]."""
    if weight is None:
        return x.mean(1, keepdim=True)
    return (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
