"""Student's t beside scipy: quantiles, noncentral probabilities, intervals, and the pairs that a difference needs."""

import math

import numpy as np
import pytest
from scipy import stats

from audiobat.evaluation.metrics.student import (
    difference_found,
    mean_interval,
    paired_power,
    pairs_needed,
    t_below,
    t_quantile,
)


@pytest.mark.parametrize("df", [1, 2, 5, 30, 1000])
def test_probabilities_are_those_of_noncentral_t(df):
    assert t_quantile(df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-8)
    for t in (0.5, 3.0, 12.0):
        for shift in (0.0, 0.5, 2.0, 6.0):
            assert t_below(t, df, shift) == pytest.approx(stats.nct.cdf(t, df, shift), abs=1e-8)


def test_the_interval_of_a_mean_is_students():
    values = [0.30, 0.32, 0.36, 0.31]
    wanted = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert mean_interval(values) == pytest.approx((np.mean(values), *wanted))
    mean, *ends = mean_interval([0.3])
    assert mean == 0.3
    assert all(map(math.isnan, ends))


@pytest.mark.parametrize(("difference", "deviation"), [(0.5, 0.87), (1.0, 0.87), (2.0, 0.87), (-1.0, 0.1), (0.1, 2.0)])
def test_so_many_pairs_find_a_difference_and_one_less_does_not(difference, deviation):
    effect, pairs = abs(difference) / deviation, pairs_needed(difference, deviation)

    def power(n):
        limit, shift = stats.t.ppf(0.975, n - 1), effect * n**0.5
        return stats.nct.sf(limit, n - 1, shift) + stats.nct.cdf(-limit, n - 1, shift)

    assert power(pairs) >= 0.8
    assert pairs == 2 or power(pairs - 1) < 0.8
    assert paired_power(effect, pairs) == pytest.approx(power(pairs), abs=1e-6)
    assert difference_found(pairs, deviation) <= abs(difference)
    assert paired_power(difference_found(pairs, deviation) / deviation, pairs) == pytest.approx(0.8)


def test_the_power_is_the_share_of_samples_in_which_the_test_finds_the_difference():
    drawn = np.random.default_rng(0).normal(1.2, 1.0, size=(4_000, 6))
    found = stats.ttest_1samp(drawn, 0.0, axis=1).pvalue < 0.05
    assert paired_power(1.2, 6) == pytest.approx(found.mean(), abs=0.03)
