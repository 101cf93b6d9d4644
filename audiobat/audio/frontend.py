"""Waveform to spectrogram: mel dB with per-clip min-max (Section 5.1), or EAT's Kaldi filter bank (Table 2's baseline).

In: waveform [B, S] and lengths [B] in samples. Out: spectrogram [B, T, F] and frames [B]; a batch never changes a clip.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiobat.config import FrontendConfig
from audiobat.errors import AudiobatError

AMIN = 1e-10  # power below which mel dB is cut, as in torchaudio's AmplitudeToDB
MINMAX_EPS = 1e-8  # so that a silent clip divides 0 by something
LOG_EPS = torch.finfo(torch.float32).eps  # Kaldi's floor below the natural logarithm
PREEMPHASIS = 0.97  # Kaldi's default


def build_frontend(config: FrontendConfig) -> MelFrontend | KaldiFrontend:
    """Build the frontend that `config.kind` names."""
    return MelFrontend(config) if config.kind == "mel_db" else KaldiFrontend(config)


class _Frontend(nn.Module):
    """What both kinds share: lengths, normalisation over a clip's own frames, and the fill beyond them."""

    def __init__(self, config: FrontendConfig) -> None:
        super().__init__()
        self.config = config

    def frame_counts(self, samples: Tensor) -> Tensor:
        """Frames of clips of `samples` samples each, int64."""
        raise NotImplementedError

    def log_mel(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Waveform [B, S] to an unnormalised log-mel [B, T, F]; frames beyond a clip's own hold anything finite."""
        raise NotImplementedError

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Turn waveforms into normalised spectrograms, in float32 whatever the autocast.

        Args:
            waveform: [B, S], in [-1, 1], at `config.sample_rate`.
            lengths: [B], samples of each clip, from 1 to S; None: all S.

        Returns:
            Spectrogram [B, T, F] float32, and the frames [B] int64 that each clip owns. Frames beyond them are 0.0
            (`minmax`: the clip's minimum) or what a zero log-mel becomes (`global`: EAT pads before it normalises).

        Raises:
            AudiobatError: the waveform is not [B, S], or S is 0.
        """
        if waveform.ndim != 2 or waveform.shape[1] == 0:
            raise AudiobatError(f"The waveform has shape {list(waveform.shape)}: give [clips, samples], not empty.")
        if lengths is None:
            lengths = torch.full((waveform.shape[0],), waveform.shape[1])
        lengths = lengths.to(waveform.device, torch.int64)
        with torch.autocast(waveform.device.type, enabled=False):
            log_mel = self.log_mel(waveform.float(), lengths)
            frames = self.frame_counts(lengths)
            return self.normalise(log_mel, below(frames, log_mel.shape[1])), frames

    def normalise(self, log_mel: Tensor, valid: Tensor) -> Tensor:
        """Apply `config.norm` to log_mel [B, T, F] over the frames where valid [B, T], and fill the others."""
        valid = valid[:, :, None]
        if self.config.norm == "global":
            mean, std = self.config.moments
            return (log_mel.masked_fill(~valid, 0.0) - mean) / (2 * std)
        low = log_mel.masked_fill(~valid, math.inf).amin((1, 2), keepdim=True)
        high = log_mel.masked_fill(~valid, -math.inf).amax((1, 2), keepdim=True)
        span = high - low
        # What translates to ONNX takes a sum with 1e-8 for one with 0.
        span = span.clamp(min=MINMAX_EPS) if torch.compiler.is_exporting() else span + MINMAX_EPS
        return ((log_mel - low) / span).masked_fill(~valid, 0.0)

    @property
    def floor(self) -> float:
        """What padding holds after normalisation."""
        mean, std = self.config.moments
        return -mean / (2 * std) if self.config.norm == "global" else 0.0

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Frontend:
        """Follow a model to its device but not to its dtype: `model.bfloat16()` must not round the filters."""
        super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)  # type: ignore[no-untyped-call]
        return self


class MelFrontend(_Frontend):
    """Centred STFT, HTK mel filters, dB within `top_db` of each clip's maximum: torchaudio's numbers, batched.

    A clip of n samples has 1 + n // hop_length frames.
    """

    window: Tensor  # [win_length]
    filters: Tensor  # [n_fft // 2 + 1, F]

    def __init__(self, config: FrontendConfig) -> None:
        super().__init__(config)
        filters = htk_filters(config)
        empty = (filters.amax(0) == 0).nonzero().flatten().tolist()
        if empty:
            warnings.warn(
                f"Mel bins {empty} of {config.mel_bins} hold no FFT bin and stay silent: "
                f"raise frontend.n_fft (now {config.n_fft}) or lower frontend.mel_bins.",
                stacklevel=2,
            )
        self.register_buffer("window", torch.hann_window(config.win_length), persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def frame_counts(self, samples: Tensor) -> Tensor:
        """1 + samples // hop_length."""
        return 1 + samples // self.config.hop_length

    def log_mel(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Waveform [B, S] to mel dB [B, T, F] with a floor of its own for each clip."""
        c = self.config
        padded = reflect_ends(waveform, lengths, c.n_fft // 2)
        stft = torch.stft(
            padded, c.n_fft, c.hop_length, c.win_length, self.window, center=False, return_complex=True
        )  # [B, n_fft // 2 + 1, T]
        power = stft.real.square() + stft.imag.square()
        db = 10 * torch.log10((power.mT @ self.filters).clamp(min=AMIN))  # [B, T, F]
        valid = below(self.frame_counts(lengths), db.shape[1])[:, :, None]
        loudest = db.masked_fill(~valid, -math.inf).amax((1, 2), keepdim=True)
        return torch.maximum(db, loudest - c.top_db)


class KaldiFrontend(_Frontend):
    """EAT's filter bank: 25 ms frames, DC removal, pre-emphasis 0.97, symmetric Hann, natural log of mel power.

    A clip of n samples has 1 + (n - win_length) // hop_length frames; one shorter than a window is zero-padded to one.
    """

    window: Tensor  # [win_length]
    filters: Tensor  # [n_fft // 2 + 1, F]

    def __init__(self, config: FrontendConfig) -> None:
        super().__init__(config)
        self.register_buffer("window", torch.hann_window(config.win_length, periodic=False), persistent=False)
        self.register_buffer("filters", kaldi_filters(config), persistent=False)

    def frame_counts(self, samples: Tensor) -> Tensor:
        """1 + (samples - win_length) // hop_length, and at least 1."""
        return 1 + (samples - self.config.win_length).clamp(min=0) // self.config.hop_length

    def log_mel(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Waveform [B, S] to log-mel [B, T, F], after the mean of each whole clip is taken off."""
        c = self.config
        own = below(lengths, waveform.shape[1])
        waveform = waveform.masked_fill(~own, 0.0)
        # A float32 sum is rounded differently when zeros follow it; Apple's GPUs have nothing wider.
        wide = torch.float32 if waveform.device.type == "mps" else torch.float64
        mean = waveform.sum(1, keepdim=True, dtype=wide) / lengths[:, None]
        waveform = (waveform - mean.float()).masked_fill(~own, 0.0)
        waveform = functional.pad(waveform, (0, max(0, c.win_length - waveform.shape[1])))
        frames = waveform.unfold(1, c.win_length, c.hop_length)  # [B, T, win_length]
        frames = frames - frames.mean(2, keepdim=True)
        previous = frames.roll(1, dims=2)  # wrong at a frame's first sample alone, where the window is 0
        spectrum = torch.fft.rfft((frames - PREEMPHASIS * previous) * self.window, n=c.n_fft)
        power = spectrum.real.square() + spectrum.imag.square()  # [B, T, n_fft // 2 + 1]
        mel: Tensor = power @ self.filters  # [B, T, F]
        return mel.clamp(min=LOG_EPS).log()


def below(counts: Tensor, size: int) -> Tensor:
    """Mask [B, size], True at the first counts[b] places of row b."""
    mask: Tensor = torch.arange(size, device=counts.device) < counts[:, None]
    return mask


def reflect_ends(waveform: Tensor, lengths: Tensor, pad: int) -> Tensor:
    """Pad waveform [B, S] to [B, S + 2 pad], reflecting clip b at its own ends, samples 0 and lengths[b] - 1.

    The index is a triangular wave of period 2 (length - 1), so clips shorter than `pad` reflect back and forth.
    """
    place = torch.arange(-pad, waveform.shape[1] + pad, device=waveform.device)
    period = (2 * (lengths[:, None] - 1)).clamp(min=1)
    phase = place % period
    return waveform.gather(1, torch.minimum(phase, period - phase))


def triangles(scale: Tensor, points: Tensor) -> Tensor:
    """Filters [bins, F] of height 1 over bins at scale [bins]; filter f spans points[f] to points[f + 2]."""
    width = points.diff()
    offset = points - scale[:, None]  # [bins, F + 2]
    return torch.minimum(-offset[:, :-2] / width[:-1], offset[:, 2:] / width[1:]).clamp(min=0.0)


def htk_filters(config: FrontendConfig) -> Tensor:
    """HTK mel filters [n_fft // 2 + 1, F], triangular in Hz, without area normalisation (torchaudio's default)."""
    nyquist = config.sample_rate / 2
    f_max = nyquist if config.f_max is None else config.f_max
    low, high = (2595.0 * math.log10(1 + f / 700.0) for f in (config.f_min, f_max))
    hertz = 700.0 * (10.0 ** (torch.linspace(low, high, config.mel_bins + 2) / 2595.0) - 1.0)
    return triangles(torch.linspace(0, nyquist, config.n_fft // 2 + 1), hertz)


def kaldi_filters(config: FrontendConfig) -> Tensor:
    """Kaldi's mel filters [n_fft // 2 + 1, F], triangular in mels; the Nyquist bin has no weight."""
    f_max = config.sample_rate / 2 if config.f_max is None else config.f_max
    low, high = (1127.0 * math.log(1 + f / 700.0) for f in (config.f_min, f_max))
    points = low + torch.arange(config.mel_bins + 2) * ((high - low) / (config.mel_bins + 1))
    hertz = torch.arange(config.n_fft // 2) * (config.sample_rate / config.n_fft)
    return functional.pad(triangles(1127.0 * torch.log(1 + hertz / 700.0), points), (0, 0, 0, 1))
