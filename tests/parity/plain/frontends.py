"""A waveform [S] to a spectrogram [T, 128], by NumPy and in double precision."""

import math
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float64]
RATE, HOP, MELS = 16_000, 160, 128


def triangles(points: list[float], scale: list[float]) -> Array:
    """Filters [frequencies, bands] that rise from one of `points` to the next and fall to the one after it."""
    bank = np.zeros((len(scale), len(points) - 2))
    for row, here in enumerate(scale):
        for band in range(len(points) - 2):
            left, centre, right = points[band : band + 3]
            bank[row, band] = max(0.0, min((here - left) / (centre - left), (right - here) / (right - centre)))
    return bank


@cache
def htk_bank(n_fft: int) -> Array:
    """torchaudio's: triangles in hertz, between corners at equal distances on HTK's mel scale, 0 to 8,000 Hz."""
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    corners = [700 * (10 ** (top * i / (MELS + 1) / 2595) - 1) for i in range(MELS + 2)]
    return triangles(corners, [k * RATE / n_fft for k in range(n_fft // 2 + 1)])


@cache
def kaldi_bank() -> Array:
    """Kaldi's: triangles in mels, 20 Hz to the Nyquist frequency, whose own bin weighs nothing."""

    def mel(hertz: float) -> float:
        return 1127 * math.log(1 + hertz / 700)

    low, high = mel(20), mel(RATE / 2)
    corners = [low + i * (high - low) / (MELS + 1) for i in range(MELS + 2)]
    bank = triangles(corners, [mel(k * RATE / 512) for k in range(257)])
    bank[256] = 0
    return bank


def mel_db_minmax(waveform: Array) -> Array:
    """BAT (Section 5.1): power mel in decibels, at most 80 below the clip's loudest, from 0 to 1. Frames 1 + S // 160.

    The paper names neither window nor epsilons: 1,024 samples, periodic Hann, 1e-10 and 1e-8 are its release's.
    """
    n_fft = 1024
    x = np.pad(np.asarray(waveform, np.float64), n_fft // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(n_fft) / n_fft)
    frames = sliding_window_view(x, n_fft)[::HOP] * hann
    power = np.abs(np.fft.rfft(frames)) ** 2 @ htk_bank(n_fft)
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    decibels = np.maximum(decibels, decibels.max() - 80)
    return (decibels - decibels.min()) / (decibels.max() - decibels.min() + 1e-8)


def kaldi_fbank(waveform: Array) -> Array:
    """EAT (its README and data loader): Kaldi's log-mel, not yet normalised. Frames 1 + (S - 400) // 160."""
    x = np.asarray(waveform, np.float64)
    x = x - x.mean()
    hann = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(400) / 399)
    frames = sliding_window_view(x, 400)[::HOP]
    frames = frames - frames.mean(1, keepdims=True)
    emphasised = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], 1)
    power = np.abs(np.fft.rfft(emphasised * hann, 512)) ** 2
    return np.log(np.maximum(power @ kaldi_bank(), 2.0**-23))


def fit_frames(spectrogram: Array, frames: int) -> Array:
    """The first `frames` rows, or rows of zeros behind those that there are."""
    kept = spectrogram[:frames]
    return np.concatenate([kept, np.zeros((frames - len(kept), kept.shape[1]))])


def eat_input(waveform: Array, frames: int, mean: float, std: float) -> Array:
    """EAT: zeros behind the log-mel up to `frames`, and only then the data set's mean and twice its deviation."""
    return (fit_frames(kaldi_fbank(waveform), frames) - mean) / (2 * std)
