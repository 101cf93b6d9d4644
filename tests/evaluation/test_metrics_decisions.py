"""Decisions: F1 at a threshold and the best threshold against trying every one."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from audiobat.errors import AudiobatError
from audiobat.evaluation.metrics import best_threshold, f1_at, f1_macro


@st.composite
def problems(draw):
    clips, classes = draw(st.integers(1, 10)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.integers(-5, draw(st.integers(-4, 30)), (clips, classes)) / 8
    return scores, rng.random((clips, classes)) < draw(st.sampled_from([0.0, 0.2, 0.7]))


def plain_f1(scores, targets, threshold) -> float:
    columns = zip(targets.T, threshold < scores.T, strict=True)
    return float(np.mean([f1_score(t, p, zero_division=0) for t, p in columns]))


@settings(max_examples=100)
@given(problems(), st.sampled_from([-0.25, 0.0, 0.5, 0.3]))
def test_f1_at_a_threshold_is_scikit_learns(problem, threshold):
    scores, targets = problem
    counts = np.random.default_rng(0).multinomial(len(scores), np.full(len(scores), 1 / len(scores)), size=2)
    s, t = map(torch.from_numpy, problem)
    assert f1_at(s, t, threshold).item() == pytest.approx(plain_f1(scores, targets, threshold))
    expected = [plain_f1(scores.repeat(row, 0), targets.repeat(row, 0), threshold) for row in counts]
    np.testing.assert_allclose(f1_at(s, t, threshold, torch.from_numpy(counts)), expected, atol=1e-12)


@settings(max_examples=150)
@given(problems())
def test_the_best_threshold_is_the_highest_of_the_best_that_trying_every_one_finds(problem):
    scores, targets = problem
    distinct = np.unique(scores)
    between = [*((distinct[1:] + distinct[:-1]) / 2)[::-1], distinct[0] - 1]  # from the highest down
    f1 = [plain_f1(scores, targets, threshold) for threshold in between]
    best = next(threshold for threshold, value in zip(between, f1, strict=True) if value >= max(f1) - 1e-9)
    assert best_threshold(*map(torch.from_numpy, problem)) == best


def test_the_best_threshold_of_known_cases():
    def best(scores, targets):
        return best_threshold(torch.tensor(scores)[:, None], torch.tensor(targets)[:, None])

    assert best([0.0, 1.0, 2.0, 4.0], [0, 0, 1, 1]) == 1.5
    assert best([0.0, 1.0, 2.0, 4.0], [1, 1, 1, 1]) == -1.0
    neighbours = [1.0, math.nextafter(1.0, 2.0)]
    found = best_threshold(torch.tensor(neighbours, dtype=torch.float64)[:, None], torch.tensor([[0], [1]]))
    assert neighbours[0] <= found < neighbours[1]  # nothing lies between them


def test_one_threshold_for_all_classes_beats_one_half_on_scores_that_lean_low():
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(300, 6, generator=generator) < 0.2
    scores = 3 * targets + torch.randn(300, 6, generator=generator) - 4
    train, test = slice(0, 150), slice(150, 300)
    threshold = best_threshold(scores[train], targets[train])
    assert f1_at(scores[test], targets[test], threshold) > f1_macro(scores[test], targets[test]) + 0.3


def test_a_threshold_needs_scores_that_are_finite():
    with pytest.raises(AudiobatError, match="no training scores"):
        best_threshold(torch.zeros(0, 3), torch.zeros(0, 3))
    with pytest.raises(AudiobatError, match="NaN or infinity"):
        best_threshold(torch.tensor([[math.inf]]), torch.ones(1, 1))
    with pytest.raises(AudiobatError, match="NaN or infinity"):
        f1_at(torch.tensor([[math.nan]]), torch.ones(1, 1), 0.5)
