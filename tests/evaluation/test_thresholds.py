"""Thresholds of classes against a plain search."""

import numpy as np
import pytest
import torch

from audiobat.errors import AudiobatError
from audiobat.evaluation.metrics import best_thresholds, thresholds_by_rate
from audiobat.evaluation.metrics.thresholds import ALL_COUNT


def f1(scores: np.ndarray, targets: np.ndarray, threshold: float) -> float:
    found = scores > threshold
    return 2 * (found & targets).sum() / max(1, found.sum() + targets.sum())


def test_a_class_with_many_positives_has_its_own_best_threshold():
    rng = np.random.default_rng(0)
    targets = rng.random((20_000, 2)) < 0.3
    centre = np.array([0.2, 0.6])  # where the scores of the classes are divided
    scores = np.clip(centre + np.where(targets, 0.1, -0.1) + 0.08 * rng.standard_normal(targets.shape), 0, 1)
    found = best_thresholds(torch.from_numpy(scores), torch.from_numpy(targets)).numpy()
    for c in range(2):
        every = [f1(scores[:, c], targets[:, c], t) for t in np.arange(0.01, 1, 0.01)]
        assert f1(scores[:, c], targets[:, c], found[c]) > max(every) - 0.002
        assert found[c] == pytest.approx(centre[c], abs=0.04)


def test_a_class_with_few_positives_or_none_keeps_to_the_others():
    rng = np.random.default_rng(1)
    targets = rng.random((5_000, 4)) < 0.2
    targets[:, 2:] = False
    targets[0, 2] = True
    scores = np.clip(0.3 + np.where(targets, 0.1, -0.1) + 0.03 * rng.standard_normal(targets.shape), 0, 1)
    scores[0, 2] = 0.95  # alone it would have a threshold up to there
    found = best_thresholds(torch.from_numpy(scores), torch.from_numpy(targets)).numpy()
    assert ALL_COUNT > 1
    np.testing.assert_allclose(found, 0.3, atol=0.05)


def test_without_positives_and_with_scores_that_are_no_numbers():
    assert best_thresholds(torch.rand(5, 2), torch.zeros(5, 2)).tolist() == [0.5, 0.5]
    with pytest.raises(AudiobatError):
        best_thresholds(torch.full((5, 2), torch.nan), torch.ones(5, 2))


def test_by_rate_a_class_of_many_positives_is_divided_where_its_f1_is_best_whatever_its_scores_mean():
    rng = np.random.default_rng(2)
    targets = rng.random((20_000, 3)) < [0.3, 0.1, 0.02]
    raw = np.where(targets, 1.5, -0.5) + rng.standard_normal(targets.shape)
    scores = 1 / (1 + np.exp(-raw * [0.3, 1, 4] - [-6, 0, 3]))  # tiny scores, usual ones, and ones near 1
    found = thresholds_by_rate(torch.from_numpy(scores), torch.from_numpy(targets)).numpy()
    for c in range(3):
        every = [f1(scores[:, c], targets[:, c], t) for t in np.quantile(scores[:, c], np.linspace(0.5, 0.9999, 400))]
        assert f1(scores[:, c], targets[:, c], found[c]) > max(every) - 0.03
    plain = thresholds_by_rate(torch.from_numpy(1 / (1 + np.exp(-raw))), torch.from_numpy(targets)).numpy()
    same = (scores > found) == (1 / (1 + np.exp(-raw)) > plain)
    assert same.all()  # scores of another scale say yes to the same clips


def test_by_rate_few_positives_follow_the_other_classes_and_none_are_no_harm():
    rng = np.random.default_rng(3)
    targets = rng.random((5_000, 4)) < 0.2
    targets[:, 2:] = False
    targets[:3, 2] = True
    scores = np.where(targets, 0.7, 0.3) + 0.1 * rng.standard_normal(targets.shape)
    scores[:3, 2] = 0.1  # the worst luck
    found = thresholds_by_rate(torch.from_numpy(scores).clamp(0, 1), torch.from_numpy(targets)).numpy()
    yes = (scores > found).sum(0)
    assert 0 < yes[2] <= 12
    assert 0 < yes[3] <= 4
    assert thresholds_by_rate(torch.rand(5, 2), torch.zeros(5, 2)).tolist() == [0.5, 0.5]
    assert thresholds_by_rate(torch.tensor([[0.4]]), torch.ones(1, 1)).tolist() == pytest.approx([0.4])
    with pytest.raises(AudiobatError):
        thresholds_by_rate(torch.full((5, 2), torch.nan), torch.ones(5, 2))
