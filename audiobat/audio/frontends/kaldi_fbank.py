"""EAT's filter bank (Table 2's baseline): Kaldi's frames and mel filters, natural logarithm."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from audiobat.audio.frontends.base import below, triangles, warn_of_silent_bins
from audiobat.audio.frontends.filter_bank import FilterBank
from audiobat.config import FrontendConfig

LOG_EPS = torch.finfo(torch.float32).eps  # Kaldi's floor below the natural logarithm
EAT_BANK = (16_000, 512, 128, 20.0, None)  # its bin 3 is silent, and its weights were trained with it
PREEMPHASIS = 0.97  # Kaldi's default


class KaldiFrontend(FilterBank):
    """EAT's filter bank: 25 ms frames, DC removal, pre-emphasis 0.97, symmetric Hann, natural log of mel power.

    A clip of n samples has 1 + (n - win_length) // hop_length frames; one shorter than a window is zero-padded to one.
    """

    title: ClassVar[str] = "Kaldi's log-mel filter bank"

    def __init__(self, config: FrontendConfig) -> None:
        filters = kaldi_filters(config)
        if (config.sample_rate, config.n_fft, config.mel_bins, config.f_min, config.f_max) != EAT_BANK:
            warn_of_silent_bins(filters, config)
        super().__init__(config, torch.hann_window(config.win_length, periodic=False), filters)

    def frame_counts(self, samples: Tensor) -> Tensor:
        """1 + (samples - win_length) // hop_length, and at least 1."""
        return 1 + (samples - self.config.win_length).clamp(min=0) // self.config.hop_length

    def raw_spectrogram(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Waveform [B, S] to log-mel [B, T, F], after the mean of each whole clip is taken off."""
        c = self.config
        own = below(lengths, waveform.shape[1])
        waveform = waveform.masked_fill(~own, 0.0)
        # A float32 sum is rounded differently when zeros follow it; Apple's GPUs have nothing wider.
        wide = torch.float32 if waveform.device.type == "mps" else torch.float64
        mean = waveform.sum(1, keepdim=True, dtype=wide) / lengths[:, None]
        waveform = (waveform - mean.float()).masked_fill(~own, 0.0)
        waveform = functional.pad(waveform, (0, max(0, c.win_length - waveform.shape[1])))
        frames = self.cut_frames(waveform, c.win_length)  # [B, T, win_length]
        frames = frames - frames.mean(2, keepdim=True)
        previous = torch.cat([frames[:, :, :1], frames[:, :, :-1]], 2)  # of a frame's first sample, itself, as in Kaldi
        mel = self.mel_of_frames((frames - PREEMPHASIS * previous) * self.window)  # [B, T, F]
        return mel.clamp(min=LOG_EPS).log()


def kaldi_filters(config: FrontendConfig) -> Tensor:
    """Kaldi's mel filters [n_fft // 2 + 1, F], triangular in mels; the Nyquist bin has no weight."""
    f_max = config.sample_rate / 2 if config.f_max is None else config.f_max
    low, high = (1127.0 * math.log(1 + f / 700.0) for f in (config.f_min, f_max))
    points = low + torch.arange(config.mel_bins + 2) * ((high - low) / (config.mel_bins + 1))
    hertz = torch.arange(config.n_fft // 2) * (config.sample_rate / config.n_fft)
    return functional.pad(triangles(1127.0 * torch.log(1 + hertz / 700.0), points), (0, 0, 0, 1))
