"""Ranks over many data sets: Friedman's test and the critical difference beside SciPy's; which systems are alike."""

import math

import numpy as np
import pytest
from scipy import stats

from audiobat.errors import AudiobatError
from audiobat.evaluation.metrics import critical_difference, friedman, groups_alike, ranks_of


def values_of(n: int, k: int, seed: int = 0, digits: int = 9) -> np.ndarray:
    """Values of k systems on n data sets, the later ones higher; few digits make ties."""
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(n, k)) + 0.4 * np.arange(k)).round(digits)


@pytest.mark.parametrize("digits", [9, 0])
def test_ranks_are_those_of_scipy_with_the_highest_first(digits):
    values = values_of(7, 5, digits=digits)
    assert np.array_equal(ranks_of(values), stats.rankdata(-values, axis=1))


@pytest.mark.parametrize(("n", "k", "digits"), [(2, 3, 9), (10, 4, 9), (12, 6, 0), (30, 9, 1)])
def test_friedman_is_scipys(n, k, digits):
    values = values_of(n, k, digits=digits)
    found = friedman(ranks_of(values))
    theirs = stats.friedmanchisquare(*values.T)
    assert (found.statistic, found.p) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-9)
    assert found.kendall_w == pytest.approx(theirs.statistic / (n * (k - 1)))


def test_kendalls_w_is_one_where_all_data_sets_agree_and_undefined_where_nothing_differs():
    assert friedman(ranks_of(np.tile(np.arange(4.0), (5, 1)))).kendall_w == pytest.approx(1)
    assert math.isnan(friedman(ranks_of(np.ones((5, 4)))).p)


def test_two_systems_have_no_friedman_test():
    with pytest.raises(AudiobatError, match="needs 3 systems on 2 data sets or more: there are 2 on 9"):
        friedman(ranks_of(values_of(9, 2)))


@pytest.mark.parametrize("k", [2, 3, 5, 10, 40])
def test_critical_differences_are_those_of_scipys_studentized_range(k):
    q = stats.studentized_range.ppf(0.95, k, np.inf) / math.sqrt(2)
    assert critical_difference(k, 14) == pytest.approx(q * math.sqrt(k * (k + 1) / (6 * 14)), rel=1e-6)


def test_the_critical_difference_is_that_of_demsars_example():
    """Four classifiers on 14 data sets (Section 3.2.2): 1.25."""
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


@pytest.mark.parametrize(
    ("ranks", "difference", "alike"),
    [
        ((1.0, 2.0, 3.0, 4.0), 1.0, [(0, 1), (1, 2), (2, 3)]),
        ((1.0, 1.5, 2.0, 4.0), 1.0, [(0, 2)]),  # the run of the second and third is within the first
        ((1.0, 2.0, 3.0), 0.5, []),
        ((1.0, 2.0, 3.0), 5.0, [(0, 2)]),
    ],
)
def test_systems_are_alike_in_longest_runs(ranks, difference, alike):
    assert groups_alike(ranks, difference) == alike
