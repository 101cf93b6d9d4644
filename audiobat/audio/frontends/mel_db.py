"""Mel spectrograms in dB (Section 5.1): centred STFT, HTK mel filters, and a floor below each clip's own maximum."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from audiobat.audio.frontends.base import below, triangles, warn_of_silent_bins
from audiobat.audio.frontends.filter_bank import FilterBank
from audiobat.config import FrontendConfig

AMIN = 1e-10  # power below which mel dB is cut, as in torchaudio's AmplitudeToDB


class MelFrontend(FilterBank):
    """Centred STFT, HTK mel filters, dB within `top_db` of each clip's maximum: torchaudio's numbers, batched.

    A clip of n samples has 1 + n // hop_length frames.
    """

    title: ClassVar[str] = "mel spectrogram in dB"

    def __init__(self, config: FrontendConfig) -> None:
        filters = htk_filters(config)
        warn_of_silent_bins(filters, config)
        super().__init__(config, torch.hann_window(config.win_length), filters)

    def frame_counts(self, samples: Tensor) -> Tensor:
        """1 + samples // hop_length."""
        return 1 + samples // self.config.hop_length

    def mel_power(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Waveform [B, S] to the power in each mel band, [B, T, F]; each clip is reflected at its own ends.

        Frames beyond a clip's own `lengths` [B] hold 0.
        """
        c = self.config
        padded = reflect_ends(waveform, lengths, c.n_fft // 2)
        before = (c.n_fft - c.win_length) // 2  # the window lies in the middle of an FFT
        window = functional.pad(self.window, (before, c.n_fft - c.win_length - before))
        mel = self.mel_of_frames(self.cut_frames(padded, c.n_fft) * window)
        return mel.masked_fill(~below(self.frame_counts(lengths), mel.shape[1])[:, :, None], 0.0)

    def raw_spectrogram(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Waveform [B, S] to mel dB [B, T, F] with a floor of its own for each clip."""
        db = 10 * torch.log10(self.mel_power(waveform, lengths).clamp(min=AMIN))  # [B, T, F]
        loudest = db.amax((1, 2), keepdim=True)  # a clip's own, as no power is less than that beyond its end
        return torch.maximum(db, loudest - self.config.top_db)


def reflect_ends(waveform: Tensor, lengths: Tensor, pad: int) -> Tensor:
    """Pad waveform [B, S] to [B, S + 2 pad], reflecting clip b at its own ends, samples 0 and lengths[b] - 1.

    The index is a triangular wave of period 2 (length - 1), so clips shorter than `pad` reflect back and forth. What is
    further behind a clip than `pad` stays as it is.
    """
    lengths = lengths[:, None]
    reach = torch.arange(pad, device=waveform.device)
    before = (reach - pad).expand(waveform.shape[0], -1)
    places = torch.cat([before, lengths + reach], 1)  # [B, 2 pad]
    period = (2 * (lengths - 1)).clamp(min=1)
    phase = places % period
    ends = waveform.gather(1, torch.minimum(phase, period - phase))
    return functional.pad(waveform, (pad, pad)).scatter(1, places + pad, ends)


def htk_filters(config: FrontendConfig) -> Tensor:
    """HTK mel filters [n_fft // 2 + 1, F], triangular in Hz, without area normalisation (torchaudio's default)."""
    nyquist = config.sample_rate / 2
    f_max = nyquist if config.f_max is None else config.f_max
    low, high = (2595.0 * math.log10(1 + f / 700.0) for f in (config.f_min, f_max))
    hertz = 700.0 * (10.0 ** (torch.linspace(low, high, config.mel_bins + 2) / 2595.0) - 1.0)
    return triangles(torch.linspace(0, nyquist, config.n_fft // 2 + 1), hertz)
