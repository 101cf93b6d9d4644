"""Trivial encoders that a learned one has to beat, `--model baseline:NAME`: statistics of a clip, nothing trained.

In: waveforms. Out: the `LayerFeatures` of one block with one patch token per clip, of whatever length. Under a linear
head with norm `batch` and a chosen weight decay they are logistic regression on these statistics.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from audiobat.audio.frontends.base import below
from audiobat.audio.frontends.mel_db import MelFrontend
from audiobat.config import FrontendConfig
from audiobat.errors import AudiobatError, did_you_mean
from audiobat.models.encoder import BaseEncoder
from audiobat.models.features import LayerFeatures, block_numbers

PREFIX = "baseline:"  # of their names as models
HOP = 320  # samples, 20 ms
MEL_BINS = 64
COEFFICIENTS = 20  # MFCCs, as many as librosa takes
WIDTH = 512  # of the random layer
MIDDLE = 0.5  # of a spectrogram between 0 and 1


class Baseline(BaseEncoder):
    """An encoder of one token, which a subclass makes of a log-mel spectrogram between 0 and 1 in `describe`."""

    depth = 1

    def __init__(self, dim: int) -> None:
        super().__init__()
        config = FrontendConfig(hop_length=HOP, mel_bins=MEL_BINS)
        self.sample_rate, self.dim = config.sample_rate, dim
        self.frontend = MelFrontend(config)
        # Records and tables of embeddings tell models apart by their tensors, and this one has no others.
        self.register_buffer("settings", torch.tensor([config.sample_rate, HOP, MEL_BINS, dim]))

    @property
    def freq_patches(self) -> int:
        """One: a token is of all bins."""
        return 1

    def describe(self, spectrogram: Tensor, own: Tensor) -> Tensor:
        """Spectrogram [B, T, F] of which `own` [B, T] marks each clip's frames to a token [B, D]."""
        raise NotImplementedError

    def forward_intermediates(
        self, waveform: Tensor, lengths: Tensor | None = None, indices: int | Sequence[int] | None = None
    ) -> LayerFeatures:
        """Waveform [B, S] to patch tokens [1, B, 1, D] without a cls token; `indices` as `BaseEncoder` says."""
        block_numbers(self.depth, indices)
        spectrogram, frames = self.frontend(waveform, lengths)  # [B, T, F], [B]
        token = self.describe(spectrogram, below(frames, spectrogram.shape[1]))
        valid = torch.ones(len(token), 1, dtype=torch.bool, device=token.device)
        return LayerFeatures(token[None, :, None], None, (1, 1), valid, torch.zeros(1, device=token.device))


class LogMelEncoder(Baseline):
    """`baseline:logmel`: mean, deviation and maximum over time of 64 log-mel bins: 192 numbers."""

    def __init__(self) -> None:
        super().__init__(3 * MEL_BINS)

    def describe(self, spectrogram: Tensor, own: Tensor) -> Tensor:
        """[mean, deviation, maximum], [B, 3 F]."""
        return torch.cat([*moments(spectrogram, own), highest(spectrogram, own)], dim=1)


class MfccEncoder(Baseline):
    """`baseline:mfcc`: mean and deviation over time of 20 MFCCs, and deviation of their first and second differences.

    MFCCs are the orthonormal cosine transform of the log-mel bins. The mean of a difference tells no more than how a
    clip begins and ends, and is left out: 80 numbers. On the demo's scenes deviations serve better than variances, and
    64 bins between 0 and 1 better than 128 in dB.
    """

    transform: Tensor  # [F, C]

    def __init__(self) -> None:
        super().__init__(4 * COEFFICIENTS)
        self.register_buffer("transform", cosines(MEL_BINS, COEFFICIENTS), persistent=False)

    def describe(self, spectrogram: Tensor, own: Tensor) -> Tensor:
        """[mean, deviation, of first differences, of second differences], [B, 4 C]."""
        coefficients = spectrogram @ self.transform  # [B, T, C]
        parts = [*moments(coefficients, own)]
        for _ in range(2):
            coefficients, own = coefficients.diff(dim=1), own[:, 1:]  # a difference is a clip's if its later frame is
            parts.append(moments(coefficients, own)[1])
        return torch.cat(parts, dim=1)


class RandomEncoder(Baseline):
    """`baseline:random`: 512 random projections of each log-mel frame, cut at 0, their mean and maximum over time.

    The matrix is of random signs (Achlioptas, 2003), the same on every machine; mean and maximum of random features
    classify series as in ROCKET (Dempster et al., 2020). More random layers, and projections of several frames at once,
    were worse on the demo's scenes.
    """

    def __init__(self) -> None:
        super().__init__(2 * WIDTH)
        self.weight = nn.Parameter(random_signs(MEL_BINS, WIDTH) / math.sqrt(MEL_BINS), requires_grad=False)

    def describe(self, spectrogram: Tensor, own: Tensor) -> Tensor:
        """[mean, maximum], [B, 2 W]."""
        hidden = ((spectrogram - MIDDLE) @ self.weight).relu()  # [B, T, W]
        return torch.cat([moments(hidden, own)[0], highest(hidden, own)], dim=1)


BASELINES: dict[str, Callable[[], Baseline]] = {"logmel": LogMelEncoder, "mfcc": MfccEncoder, "random": RandomEncoder}


def load_baseline(name: str) -> Baseline:
    """The baseline of this name, in eval mode; AudiobatError if there is none."""
    if name not in BASELINES:
        known = ", ".join(PREFIX + each for each in BASELINES)
        raise AudiobatError(f"There is no baseline {name!r}{did_you_mean(name, BASELINES)}: choose from {known}.")
    return BASELINES[name]().eval()


def moments(x: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation [B, F] of the frames of x [B, T, F] that `own` [B, T] marks; 0 where these are too few."""
    weight = own[..., None].to(x.dtype)  # [B, T, 1]
    count = weight.sum(1)  # [B, 1]
    mean = (x * weight).sum(1) / count.clamp(min=1)
    deviation = ((x - mean[:, None]) * weight).square().sum(1) / (count - 1).clamp(min=1)
    return mean, deviation.sqrt()


def highest(x: Tensor, own: Tensor) -> Tensor:
    """The maximum [B, F] over the frames of x [B, T, F] that `own` [B, T] marks."""
    return x.masked_fill(~own[..., None], -math.inf).amax(1)


def cosines(bins: int, count: int) -> Tensor:
    """The first `count` functions of the orthonormal cosine transform (DCT-II) over `bins` values: [bins, count]."""
    angle = (torch.arange(bins, dtype=torch.float64)[:, None] + 0.5) * torch.arange(count) * (math.pi / bins)
    matrix = angle.cos() * math.sqrt(2 / bins)
    matrix[:, 0] /= math.sqrt(2)
    return matrix.float()


def random_signs(rows: int, columns: int) -> Tensor:
    """A matrix [rows, columns] of 1 and -1 from the bits of a hash, which no version of a library changes."""
    stream = hashlib.shake_256(b"audiobat baseline:random").digest(rows * columns // 8)
    bits = np.unpackbits(np.frombuffer(stream, np.uint8)).reshape(rows, columns)
    return torch.from_numpy(2.0 * bits - 1).float()
