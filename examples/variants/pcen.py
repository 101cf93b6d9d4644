"""A PCEN frontend: per-channel energy normalisation in place of decibels (Wang et al., 2017).

    audiobat pretrain --config bat_nano --data recordings/ --out runs/pcen \
        --frontend.kind examples/variants/pcen.py:PCEN --frontend.smoothing 0.04

Each mel band is divided by its own smoothed past, so that a steady background fades and onsets stay. A release keeps
this file, and is loaded with trust_remote_code=True.
"""

from dataclasses import dataclass

import torch

from audiobat.audio.frontends.mel_db import MelFrontend
from audiobat.config import FrontendConfig, check


class PCEN(MelFrontend):
    """(power / (eps + smoothed)^gain + bias)^root - bias^root."""

    title = "mel bands with per-channel energy normalisation"

    @dataclass(frozen=True)
    class Config(FrontendConfig):
        smoothing: float = 0.025  # weight of a new frame in the running mean
        gain: float = 0.98
        bias: float = 2.0
        root: float = 0.5
        eps: float = 1e-6

        def __post_init__(self):
            super().__post_init__()
            check(0 < self.smoothing <= 1, "frontend.smoothing", self.smoothing, "use more than 0, up to 1")

    def raw_spectrogram(self, waveform, lengths):
        """Waveform [B, S] to PCEN [B, T, F]; padding lies after a clip, so the past of its own frames is its own."""
        c = self.config
        power = self.mel_power(waveform, lengths) * 2.0**31  # of samples as 32-bit numbers, as PCEN's constants want
        smoothed = running_mean(power.shape[1], c.smoothing, power) @ power
        return (power / (c.eps + smoothed) ** c.gain + c.bias) ** c.root - c.bias**c.root


def running_mean(frames, weight, like):
    """The matrix [T, T] of the filter m(t) = (1 - weight) m(t - 1) + weight x(t), which begins with m(0) = x(0)."""
    time = torch.arange(frames, device=like.device, dtype=like.dtype)
    age = time[:, None] - time  # of frame u at time t
    matrix = weight * (1 - weight) ** age.clamp(min=0)
    matrix[:, 0] /= weight
    return matrix.tril()
