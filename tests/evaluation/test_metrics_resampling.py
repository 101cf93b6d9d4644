"""The paired bootstrap: against a plain loop, its interval and p agree, its error rate, folds resampled apart."""

import math

import numpy as np
import pytest
import torch

from audiobat.errors import AudiobatError
from audiobat.evaluation.metrics import bootstrap_values, interval_of_difference


def mean_of(values: torch.Tensor):
    return lambda counts: counts @ values / counts.sum(-1)


def paired_bootstrap(metric_a, metric_b, n, samples=1000, seed=0):
    """The difference of two metrics, its interval and p, as `compare` takes them from shared resamples."""
    whole = torch.ones(1, n, dtype=torch.float64)
    difference = float(metric_a(whole)) - float(metric_b(whole))
    resampled = bootstrap_values(metric_a, n, samples, seed) - bootstrap_values(metric_b, n, samples, seed)
    return difference, *interval_of_difference(difference, resampled)


def normal(*size: int, seed: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_paired_bootstrap_is_a_loop_over_resamples_of_both():
    a, b = normal(25, seed=1) + 0.4, normal(25, seed=2)
    drawn = []
    bootstrap_values(lambda counts: drawn.append(counts) or counts[:, 0], 25, samples=500, seed=3)
    gaps = []
    for counts in torch.cat(drawn).long():
        rows = np.repeat(np.arange(25), counts.numpy())
        gaps.append(float(a[rows].mean() - b[rows].mean()))
    whole = float(a.mean() - b.mean())
    low, high = np.quantile(2 * whole - np.array(gaps), [0.025, 0.975])
    beyond = sum(gap - whole >= whole for gap in gaps)
    found = paired_bootstrap(mean_of(a), mean_of(b), 25, samples=500, seed=3)
    assert found == pytest.approx((whole, low, high, 2 * (beyond + 1) / 501))


def test_swapping_the_two_turns_the_sign_and_nothing_else():
    a, b = normal(30, seed=1) + 0.3, normal(30, seed=2)
    difference, low, high, p = paired_bootstrap(mean_of(a), mean_of(b), 30)
    assert paired_bootstrap(mean_of(b), mean_of(a), 30) == pytest.approx((-difference, -high, -low, p))


def test_pairing_takes_out_what_both_share():
    clips = 10 * normal(50, seed=1)
    _, low, high, p = paired_bootstrap(mean_of(clips + 0.1 + 0.01 * normal(50, seed=2)), mean_of(clips), 50)
    assert 0.09 < low < 0.1 < high < 0.11
    assert p == pytest.approx(2 / 1001)


@pytest.mark.parametrize("shift", np.linspace(-0.6, 0.6, 13))
def test_p_is_below_5_percent_where_the_interval_leaves_out_zero(shift):
    resampled = normal(4000, seed=5).exp() * 0.2 - 0.3 + shift  # skewed
    low, high, p = interval_of_difference(shift, resampled)
    assert low <= high
    assert (p < 0.05) == (low > 0 or high < 0)


def test_equal_models_are_no_different():
    values = normal(20, seed=1)
    assert paired_bootstrap(mean_of(values), mean_of(values), 20) == (0.0, 0.0, 0.0, 1.0)


def test_one_in_twenty_equal_models_is_called_different():
    pairs = normal(400, 2, 50, seed=7)
    p = torch.tensor([paired_bootstrap(mean_of(a), mean_of(b), 50, samples=200)[-1] for a, b in pairs])
    assert 0.02 < (p < 0.05).double().mean() < 0.09
    assert 0.4 < (p < 0.5).double().mean() < 0.6


def test_resamples_without_a_value_are_left_out():
    def first(counts):  # NaN where clip 0 is not drawn
        return counts[:, 0] / counts[:, 0]

    assert paired_bootstrap(first, lambda counts: 0 * counts[:, 0], 3) == (1.0, 1.0, 1.0, pytest.approx(0.0, abs=0.01))
    never = paired_bootstrap(lambda counts: math.nan * counts[:, 0], first, 3)
    assert all(math.isnan(value) for value in never)


def test_clips_of_a_fold_are_resampled_within_it():
    seen = []
    values = bootstrap_values(lambda counts: seen.append(counts) or counts[:, 0], [3, 5], samples=200)
    counts = torch.cat(seen)
    assert values.shape == (200,)
    assert counts.shape == (200, 8)
    assert (counts[:, :3].sum(1) == 3).all()
    assert (counts[:, 3:].sum(1) == 5).all()
    assert counts.mean(0).sub(1).abs().max() < 0.3
    assert torch.equal(bootstrap_values(lambda c: c[:, 0], 8), bootstrap_values(lambda c: c[:, 0], [8]))
    for empty in ([], [3, 0], 0):
        with pytest.raises(AudiobatError, match="no test clips"):
            bootstrap_values(lambda counts: counts[:, 0], empty)
