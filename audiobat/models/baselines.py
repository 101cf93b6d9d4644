"""The trivial encoder that a learned one has to beat: mean, deviation and maximum over time of a log-mel spectrum.

In: waveforms. Out: the `LayerFeatures` of one block with one patch per clip.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from audiobat.audio.frontends.mel_db import MelFrontend
from audiobat.config import FrontendConfig
from audiobat.models.features import LayerFeatures

MEL_BINS = 64
HOP = 320


class LogMelEncoder(nn.Module):
    """Meets the `Encoder` protocol and has nothing to train: give it a `linear` head with norm `batch`."""

    def __init__(self) -> None:
        super().__init__()
        config = FrontendConfig(hop_length=HOP, mel_bins=MEL_BINS)
        self.sample_rate = config.sample_rate
        self.dim, self.depth = 3 * MEL_BINS, 1
        self.frontend = MelFrontend(config)

    def forward_intermediates(self, waveform: Tensor, lengths: Tensor | None = None) -> LayerFeatures:
        """Waveform [B, S] to patch tokens [1, B, 1, 192]: [mean, std, max] over a clip's own frames; no cls token."""
        spectrogram, frames = self.frontend(waveform, lengths)  # [B, T, F], [B]
        own = (torch.arange(spectrogram.shape[1], device=frames.device) < frames[:, None])[..., None]  # [B, T, 1]
        count = frames[:, None].to(spectrogram.dtype)
        mean = (spectrogram * own).sum(1) / count
        deviation = ((spectrogram - mean[:, None]) * own).square().sum(1) / (count - 1).clamp(min=1)
        highest = spectrogram.masked_fill(~own, -math.inf).amax(1)
        token = torch.cat([mean, deviation.sqrt(), highest], dim=1)  # [B, 192]
        valid = torch.ones(len(token), 1, dtype=torch.bool, device=token.device)
        return LayerFeatures(token[None, :, None], None, (1, 1), valid, torch.zeros(1, device=token.device))

    forward = forward_intermediates
