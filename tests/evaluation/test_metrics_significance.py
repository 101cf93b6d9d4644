"""Holm's correction against its words, Wilcoxon's test against scipy and against every pattern of signs."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from audiobat.evaluation.metrics import holm, wilcoxon


@settings(max_examples=100)
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p):
    corrected = holm(p)
    assert all(0 <= c <= 1 for c in corrected)
    for alpha in (0.01, 0.05, 0.3):
        rejected = set()
        for k, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
            if (len(p) - k) * p[i] > alpha:
                break
            rejected.add(i)
        assert {i for i, c in enumerate(corrected) if c <= alpha} == rejected


def test_holm_of_a_known_case_keeps_nan_apart():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    found = holm([0.01, math.nan, 0.03])
    assert [found[0], found[2]] == pytest.approx([0.02, 0.03])
    assert math.isnan(found[1])


@settings(max_examples=60)
@given(st.lists(st.integers(-6, 6), max_size=8))
def test_wilcoxon_counts_every_pattern_of_signs(differences):
    kept = [d for d in differences if d]
    ranks = stats.rankdata(np.abs(kept))
    observed = sum(r for r, d in zip(ranks, kept, strict=True) if d > 0)
    sums = np.array([np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=len(kept))])
    expected = min(1.0, 2 * min((sums <= observed + 1e-9).mean(), (sums >= observed - 1e-9).mean()))
    assert wilcoxon(differences) == pytest.approx(expected)


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_wilcoxon_without_ties_is_scipys_exact_test(n, seed):
    differences = np.random.default_rng(seed).normal(0.2, 1, n)
    assert wilcoxon(differences.tolist()) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)
