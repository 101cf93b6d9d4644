"""Whether two stretches of sound are the same recording: how well one, moved along the other, matches it.

In: samples [S] and [T] at one rate. Out: the correlation at the best shift, 0 to 1, and the shift. Copies that were
encoded anew, made softer, cut or turned around in sign stay near 1; two sounds of one kind do not come near it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST_OVERLAP = 0.25  # of the shorter stretch
LEAST_ENERGY = 0.5  # of one stretch that must lie in the overlap: silence matches silence
SMOOTH_HZ = 20.0  # width over which a spectrum is smoothed before it is made flat
FLOOR = 0.03  # of the mean power: what is softer is not lifted, as there a copy may hold noise alone

Samples = NDArray[np.float32]


class Alignment(NamedTuple):
    """How well two stretches match, and where."""

    correlation: float  # 0 to 1
    shift: int  # samples into the first at which the second begins


def align(first: Samples, second: Samples, rate: int) -> Alignment:
    """The best match of two stretches of sound over all shifts.

    Their common spectrum is made flat first: else a hum or a wind that two recordings share would be a match.
    """
    if not first.any() or not second.any():
        return Alignment(0.0, 0)
    size = 1 << (len(first) + len(second) - 2).bit_length()
    spectra = [np.fft.rfft(samples, size) for samples in (first, second)]
    power = sum(np.square(np.abs(spectrum)) / np.mean(np.square(np.abs(spectrum))) for spectrum in spectra) / 2
    flat = 1 / np.sqrt(smooth(power, max(1, round(SMOOTH_HZ * size / rate))) + FLOOR)
    a, b = (np.fft.irfft(spectrum * flat, size)[: len(s)] for spectrum, s in zip(spectra, (first, second), strict=True))
    product = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)
    shifts = np.arange(1 - len(b), len(a))
    matches = np.abs(product[shifts])  # negative shifts stand at the end, as Python counts
    energy_a, overlap = overlap_energy(a, shifts, len(b))
    energy_b, _ = overlap_energy(b, -shifts, len(a))
    enough = overlap >= LEAST_OVERLAP * min(len(a), len(b))
    enough &= np.maximum(energy_a / np.sum(a * a), energy_b / np.sum(b * b)) >= LEAST_ENERGY
    scale = np.sqrt(energy_a * energy_b)
    correlations = np.divide(matches, scale, out=np.zeros_like(matches), where=enough & (scale > 0))
    best = int(correlations.argmax())
    return Alignment(min(1.0, float(correlations[best])), int(shifts[best]))


def overlap_energy(
    samples: NDArray[np.float64], shifts: NDArray[np.int64], length: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Energy, and number, of the samples under another stretch of `length` that begins at each of `shifts`."""
    sums = np.concatenate([np.zeros(1), np.cumsum(np.square(samples))])
    begin, end = np.clip(shifts, 0, len(samples)), np.clip(shifts + length, 0, len(samples))
    return np.maximum(0, sums[end] - sums[begin]), end - begin


def smooth(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Means over `width` neighbours, fewer at the ends."""
    sums = np.concatenate([np.zeros(1), np.cumsum(values)])
    places = np.arange(len(values))
    begin = np.maximum(0, places - width // 2)
    end = np.minimum(len(values), places + width // 2 + 1)
    means: NDArray[np.float64] = (sums[end] - sums[begin]) / (end - begin)
    return means
