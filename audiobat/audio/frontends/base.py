"""The protocol of frontends, and what all share: lengths, normalisation over a clip's own frames, the fill beyond them.

In: waveform [B, S] and lengths [B] in samples. Out: spectrogram [B, T, F] and frames [B]; a batch never changes a clip.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiobat.config import FrontendConfig
from audiobat.config.registry import class_for
from audiobat.errors import AudiobatError

CPU_SAMPLES = 1 << 18  # transformed at once on a CPU, so that the spectra of a few clips stay in its caches
MINMAX_EPS = 1e-8  # so that a silent clip divides 0 by something


def build_frontend(config: FrontendConfig) -> Frontend:
    """The frontend that `config.kind` names."""
    frontend: Frontend = class_for(config).build(config)
    return frontend


class Frontend(nn.Module, ABC):
    """Base of every frontend; a subclass in this folder is a kind, one in a user's file is `FILE.py:CLASS`.

    A frontend is not trained. Its filters are buffers with `persistent=False`: computed, and no part of the weights.
    """

    title: ClassVar[str] = "spectrogram of its own"  # as a model card names it

    def __init__(self, config: FrontendConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def build(cls, config: FrontendConfig) -> Self:
        """A frontend of `config`."""
        return cls(config)

    @abstractmethod
    def frame_counts(self, samples: Tensor) -> Tensor:
        """Frames [B] int64 of clips of `samples` [B] samples each."""

    @abstractmethod
    def raw_spectrogram(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Waveform [B, S] to a spectrogram [B, T, mel_bins] before normalisation, frame t at t * hop_length.

        Frames beyond a clip's own `lengths` [B] hold anything finite, and must not change those of the clip.
        """

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Turn waveforms into normalised spectrograms, in float32 whatever the autocast.

        Args:
            waveform: [B, S], in [-1, 1], at `config.sample_rate`.
            lengths: [B], samples of each clip, from 1 to S; None: all S.

        Returns:
            Spectrogram [B, T, F] float32, and the frames [B] int64 that each clip owns, those of `pad_seconds` among
            them. Frames beyond them are 0.0
            (`minmax`: the clip's minimum) or what a zero becomes (`global`: EAT pads before it normalises).

        Raises:
            AudiobatError: the waveform is not [B, S], or S is 0.
        """
        if waveform.ndim != 2 or waveform.shape[1] == 0:
            raise AudiobatError(f"The waveform has shape {list(waveform.shape)}: give [clips, samples], not empty.")
        if lengths is None:
            lengths = torch.full((waveform.shape[0],), waveform.shape[1], device=waveform.device)
        lengths = lengths.to(waveform.device, torch.int64, non_blocking=True)  # the host has no reason to wait for it
        if self.config.pad_samples:
            waveform, lengths = pad_waveforms(waveform, lengths, self.config.pad_samples)
        with torch.autocast(waveform.device.type, enabled=False):
            frames = self.frame_counts(lengths)
            if waveform.device.type != "cpu" or torch.compiler.is_compiling():
                return self._normalised(waveform.float(), lengths, frames), frames
            size = max(1, CPU_SAMPLES // waveform.shape[1])  # clips
            parts = zip(waveform.float().split(size), lengths.split(size), frames.split(size), strict=True)
            return torch.cat([self._normalised(*part) for part in parts]), frames

    def _normalised(self, waveform: Tensor, lengths: Tensor, frames: Tensor) -> Tensor:
        """The spectrogram [B, T, F] of clips that own `frames` [B]."""
        raw = self.raw_spectrogram(waveform, lengths)
        return self.normalise(raw, below(frames, raw.shape[1]))

    def normalise(self, raw: Tensor, valid: Tensor) -> Tensor:
        """Apply `config.norm` to `raw` [B, T, F] over the frames where `valid` [B, T], and fill the others."""
        valid = valid[:, :, None]
        if self.config.norm == "global":
            mean, std = self.config.moments
            return (raw.masked_fill(~valid, 0.0) - mean) / (2 * std)
        low = raw.masked_fill(~valid, math.inf).amin((1, 2), keepdim=True)
        high = raw.masked_fill(~valid, -math.inf).amax((1, 2), keepdim=True)
        span = high - low
        # What translates to ONNX takes a sum with 1e-8 for one with 0.
        span = span.clamp(min=MINMAX_EPS) if torch.compiler.is_exporting() else span + MINMAX_EPS
        return ((raw - low) / span).masked_fill(~valid, 0.0)

    @property
    def floor(self) -> float:
        """What padding holds after normalisation."""
        mean, std = self.config.moments
        return -mean / (2 * std) if self.config.norm == "global" else 0.0

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow a model to its device but not to its dtype: `model.bfloat16()` must not round the filters."""
        super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)  # type: ignore[no-untyped-call]
        return self


def pad_waveforms(waveform: Tensor, lengths: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Waveform [B, S] and `lengths` [B] with zeros behind each clip's end up to `samples`, which then are its own."""
    waveform = waveform.masked_fill(~below(lengths, waveform.shape[1]), 0.0)
    # No branch on the length: an exported graph takes any.
    waveform = functional.pad(waveform, (0, torch.sym_max(samples - waveform.shape[1], 0)))
    return waveform, lengths.clamp(min=samples)


def below(counts: Tensor, size: int) -> Tensor:
    """Mask [B, size], True at the first counts[b] places of row b."""
    mask: Tensor = torch.arange(size, device=counts.device) < counts[:, None]
    return mask


def triangles(scale: Tensor, points: Tensor) -> Tensor:
    """Filters [bins, F] of height 1 over bins at scale [bins]; filter f spans points[f] to points[f + 2]."""
    width = points.diff()
    offset = points - scale[:, None]  # [bins, F + 2]
    return torch.minimum(-offset[:, :-2] / width[:-1], offset[:, 2:] / width[1:]).clamp(min=0.0)


def warn_of_silent_bins(filters: Tensor, config: FrontendConfig) -> None:
    """Warn of mel filters, of [n_fft // 2 + 1, F], that are so narrow that they lie between two FFT bins."""
    empty = [] if filters.is_meta else (filters.amax(0) == 0).nonzero().flatten().tolist()
    if empty:
        warnings.warn(
            f"Mel bins {empty} of {config.mel_bins} hold no FFT bin and stay silent: "
            f"raise frontend.n_fft (now {config.n_fft}) or lower frontend.mel_bins.",
            stacklevel=3,
        )
