"""Mel spectrograms in dB (Section 5.1): centred STFT, HTK mel filters, and a floor below each clip's own maximum."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from audiobat.audio.frontends.base import Frontend, below, triangles, warn_of_silent_bins
from audiobat.config import FrontendConfig

AMIN = 1e-10  # power below which mel dB is cut, as in torchaudio's AmplitudeToDB


class MelFrontend(Frontend):
    """Centred STFT, HTK mel filters, dB within `top_db` of each clip's maximum: torchaudio's numbers, batched.

    A clip of n samples has 1 + n // hop_length frames.
    """

    title: ClassVar[str] = "mel spectrogram in dB"
    window: Tensor  # [win_length]
    filters: Tensor  # [n_fft // 2 + 1, F]

    def __init__(self, config: FrontendConfig) -> None:
        super().__init__(config)
        filters = htk_filters(config)
        warn_of_silent_bins(filters, config)
        self.register_buffer("window", torch.hann_window(config.win_length), persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def frame_counts(self, samples: Tensor) -> Tensor:
        """1 + samples // hop_length."""
        return 1 + samples // self.config.hop_length

    def mel_power(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Waveform [B, S] to the power in each mel band, [B, T, F]; each clip is reflected at its own ends."""
        c = self.config
        padded = reflect_ends(waveform, lengths, c.n_fft // 2)
        stft = torch.stft(
            padded, c.n_fft, c.hop_length, c.win_length, self.window, center=False, return_complex=True
        )  # [B, n_fft // 2 + 1, T]
        power = stft.real.square() + stft.imag.square()
        mel: Tensor = power.mT @ self.filters
        return mel

    def raw_spectrogram(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Waveform [B, S] to mel dB [B, T, F] with a floor of its own for each clip."""
        db = 10 * torch.log10(self.mel_power(waveform, lengths).clamp(min=AMIN))  # [B, T, F]
        valid = below(self.frame_counts(lengths), db.shape[1])[:, :, None]
        loudest = db.masked_fill(~valid, -math.inf).amax((1, 2), keepdim=True)
        return torch.maximum(db, loudest - self.config.top_db)


def reflect_ends(waveform: Tensor, lengths: Tensor, pad: int) -> Tensor:
    """Pad waveform [B, S] to [B, S + 2 pad], reflecting clip b at its own ends, samples 0 and lengths[b] - 1.

    The place of a reflected sample is a triangular wave of period 2 (length - 1), so clips shorter than `pad` reflect
    back and forth. What is behind a clip's reflected end is no part of its frames.
    """
    period = (2 * (lengths[:, None] - 1)).clamp(min=1)

    def reflected(place: Tensor) -> Tensor:
        phase = place % period
        return waveform.gather(1, torch.minimum(phase, period - phase))

    behind = lengths[:, None] + torch.arange(pad, device=waveform.device)  # [B, pad]
    before = reflected(torch.arange(-pad, 0, device=waveform.device))
    padded = torch.cat([before, functional.pad(waveform, (0, pad))], 1)
    return padded.scatter(1, pad + behind, reflected(behind))


def htk_filters(config: FrontendConfig) -> Tensor:
    """HTK mel filters [n_fft // 2 + 1, F], triangular in Hz, without area normalisation (torchaudio's default)."""
    nyquist = config.sample_rate / 2
    f_max = nyquist if config.f_max is None else config.f_max
    low, high = (2595.0 * math.log10(1 + f / 700.0) for f in (config.f_min, f_max))
    hertz = 700.0 * (10.0 ** (torch.linspace(low, high, config.mel_bins + 2) / 2595.0) - 1.0)
    return triangles(torch.linspace(0, nyquist, config.n_fft // 2 + 1), hertz)
