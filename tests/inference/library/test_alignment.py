"""Alignment: shifts are found, copies stay near 1, different sounds do not, and a shared hum is no match."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiobat.inference.library.alignment import FLOOR, LEAST_ENERGY, LEAST_OVERLAP, SMOOTH_HZ, align

RATE = 8000


def noise(seed: int, samples: int = 8000) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=samples).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3000), st.integers(3000, 5000), st.sampled_from([1.0, -1.0, 0.01]), st.booleans())
def test_a_part_is_found_where_it_was_cut(first: int, length: int, factor: float, swapped: bool):
    whole = noise(first)
    part = factor * whole[first : first + length]
    found = align(part, whole, RATE) if swapped else align(whole, part, RATE)
    assert found.shift == (-first if swapped else first)
    assert found.correlation > 0.98


def test_it_is_the_largest_normalised_correlation_over_all_shifts():
    """Against plain loops in float64."""
    a, b = noise(1, 300).astype(np.float64), noise(2, 180).astype(np.float64)
    b[:90] = a[200:290] + 0.3 * b[:90]
    size = 512
    spectra = [np.fft.rfft(x, size) for x in (a, b)]
    power = sum(abs(s) ** 2 / np.mean(abs(s) ** 2) for s in spectra) / 2
    width = round(SMOOTH_HZ * size / RATE)
    smooth = [np.mean(power[max(0, i - width // 2) : i + width // 2 + 1]) for i in range(len(power))]
    flat = 1 / np.sqrt(np.array(smooth) + FLOOR)
    x, y = (np.fft.irfft(s * flat, size)[: len(v)] for s, v in zip(spectra, (a, b), strict=True))
    best = (0.0, 0)
    for shift in range(1 - len(y), len(x)):
        i = np.arange(max(0, shift), min(len(x), shift + len(y)))
        u, v = x[i], y[i - shift]
        enough = len(i) >= LEAST_OVERLAP * len(y)
        loud = max(u @ u / (x @ x), v @ v / (y @ y)) >= LEAST_ENERGY
        if enough and loud:
            best = max(best, (abs(u @ v) / np.sqrt((u @ u) * (v @ v)), shift))
    found = align(a.astype(np.float32), b.astype(np.float32), RATE)
    assert found.shift == best[1]
    assert found.correlation == pytest.approx(best[0], abs=1e-4)


def test_noise_at_ten_decibels_is_still_a_copy_and_another_sound_is_none():
    sound = noise(0, 16_000)
    assert align(sound, sound + 0.316 * noise(1, 16_000), RATE).correlation > 0.9
    assert align(sound, noise(1, 16_000), RATE).correlation < 0.2


def test_a_hum_that_two_sounds_share_is_no_match():
    hum = 10 * np.sin(2 * np.pi * 100 * np.arange(16_000) / RATE).astype(np.float32)
    a, b = noise(0, 16_000) + hum, noise(1, 16_000) + hum
    assert a @ b / np.sqrt((a @ a) * (b @ b)) > 0.95  # plain correlation takes them for one sound
    assert align(a, b, RATE).correlation < 0.6
    assert align(a, 0.5 * a[4000:12_000], RATE).correlation > 0.98


@pytest.mark.parametrize("lengths", [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_silence_and_scraps_give_a_number(lengths: tuple[int, int]):
    a, b = (noise(i, n) for i, n in enumerate(lengths))
    assert 0 <= align(a, b, RATE).correlation <= 1
    assert align(a, np.zeros_like(b), RATE).correlation == 0
    assert align(np.zeros_like(a), b, RATE).correlation == 0
