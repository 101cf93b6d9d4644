"""Metrics against scikit-learn, weighted ones against repeated clips, and the bootstrap's coverage."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from audiobat.errors import AudiobatError
from audiobat.evaluation.metrics import (
    Ranking,
    accuracy,
    average_precision,
    bootstrap_values,
    f1_macro,
    macro_map_present,
)


def sklearn_ap(scores, targets, counts=None) -> list[float]:
    """Per class, NaN without (weighted) positives."""
    weight = np.ones(len(scores)) if counts is None else np.asarray(counts, dtype=float)
    kept = weight > 0
    columns = zip(np.asarray(scores).T, np.asarray(targets).T, strict=True)
    return [
        average_precision_score(t[kept], s[kept], sample_weight=weight[kept]) if (t * weight).any() else math.nan
        for s, t in columns
    ]


@st.composite
def problems(draw):
    """Few distinct scores, so that ties are the rule; counts with zeros; classes without positives now and then."""
    clips, classes = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.integers(-2, draw(st.integers(-1, 20)), (clips, classes)).astype(np.float64) / 4
    targets = (rng.random((clips, classes)) < draw(st.sampled_from([0.1, 0.5, 0.9]))).astype(np.int64)
    counts = rng.multinomial(clips, np.full(clips, 1 / clips), size=3)
    return scores, targets, counts


@settings(max_examples=150)
@given(problems())
def test_average_precision_is_scikit_learns(problem):
    scores, targets, counts = problem
    s, t, c = map(torch.from_numpy, problem)
    np.testing.assert_allclose(average_precision(s, t), sklearn_ap(scores, targets), atol=1e-12)
    expected = [sklearn_ap(scores, targets, row) for row in counts]
    np.testing.assert_allclose(average_precision(s, t, c), expected, atol=1e-12)
    np.testing.assert_allclose(average_precision(s, t, c[1]), expected[1], atol=1e-12)


@settings(max_examples=100)
@given(problems())
def test_f1_is_scikit_learns_on_the_repeated_clips(problem):
    scores, targets, counts = problem
    predicted = (1 / (1 + np.exp(-scores)) > 0.5).astype(int)
    expected = [
        f1_score(targets.repeat(row, 0), predicted.repeat(row, 0), average=None, zero_division=0, labels=[1])
        if targets.shape[1] == 1
        else f1_score(targets.repeat(row, 0), predicted.repeat(row, 0), average="macro", zero_division=0)
        for row in (*counts, np.ones(len(scores), dtype=int))
    ]
    s, t, c = map(torch.from_numpy, problem)
    np.testing.assert_allclose(f1_macro(s, t, c), np.reshape(expected[:-1], 3), atol=1e-12)
    assert f1_macro(s, t).item() == pytest.approx(float(np.squeeze(expected[-1])), abs=1e-12)


@settings(max_examples=50)
@given(problems())
def test_accuracy_is_scikit_learns_on_the_repeated_clips(problem):
    scores, targets, counts = problem
    labels, predicted = targets.sum(1) % scores.shape[1], scores.argmax(1)
    s, c, y = torch.from_numpy(scores), torch.from_numpy(counts), torch.from_numpy(labels)
    expected = [accuracy_score(labels.repeat(row), predicted.repeat(row)) for row in counts]
    np.testing.assert_allclose(accuracy(s, y, c), expected, atol=1e-12)
    assert accuracy(s, y).item() == pytest.approx(accuracy_score(labels, predicted))


def test_accuracy_of_some_of_the_clips_is_a_share_of_these():
    scores, labels = torch.eye(4), torch.tensor([0, 1, 0, 0])
    assert accuracy(scores, labels, torch.tensor([1, 0, 1, 0])).item() == 0.5


def test_average_precision_of_known_cases():
    def ap(scores, targets):
        return average_precision(torch.tensor(scores)[:, None], torch.tensor(targets)[:, None]).item()

    assert ap([3.0, 2.0, 1.0], [1, 0, 1]) == pytest.approx((1 + 2 / 3) / 2)
    assert ap([1.0, 1.0, 1.0, 1.0, 0.0], [1, 0, 1, 0, 0]) == pytest.approx(0.5)  # a tie is one threshold
    assert ap([0.0, 1.0, 2.0], [0, 1, 1]) == 1.0
    assert math.isnan(ap([0.0, 1.0], [0, 0]))


def test_the_macro_mean_leaves_out_absent_classes():
    torch.manual_seed(0)
    scores, targets = torch.randn(40, 5), (torch.rand(40, 5) < 0.2).long()
    targets[:, 2] = 0
    ap = average_precision(scores, targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the class without positives
        expected = average_precision_score(targets.numpy(), scores.numpy(), average="macro")
    assert macro_map_present(ap).item() == pytest.approx(expected * 5 / 4)  # scikit-learn counts the absent class 0
    both = torch.stack([ap, torch.full_like(ap, math.nan)])
    assert math.isnan(macro_map_present(both)[1])


def test_a_probability_of_exactly_one_half_is_a_no():
    scores, targets = torch.tensor([[0.0], [0.1], [-0.1]]), torch.ones(3, 1)
    assert f1_macro(scores, targets).item() == pytest.approx(2 * 1 / (1 + 3))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    scores, targets = torch.zeros(3, 2), torch.ones(3, 2)
    scores[1, 1] = bad
    for call in (average_precision, f1_macro, lambda s, t: accuracy(s, t[:, 0])):
        with pytest.raises(AudiobatError, match="NaN or infinity"):
            call(scores, targets)


def mean_of(values: torch.Tensor):
    return lambda counts: counts @ values / counts.sum(-1)


def percentiles(values: torch.Tensor) -> tuple[float, float]:
    low, high = np.nanquantile(values, [0.025, 0.975])
    return low, high


def test_bootstrap_covers_a_mean_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(1)
    draws = torch.randn(300, 60, generator=generator, dtype=torch.float64) + 2.0
    intervals = [percentiles(bootstrap_values(mean_of(x), 60, samples=400, seed=i)) for i, x in enumerate(draws)]
    share = sum(low <= 2.0 <= high for low, high in intervals) / len(intervals)
    assert 0.90 <= share <= 0.98
    widths = torch.tensor([high - low for low, high in intervals])
    assert widths.mean().item() == pytest.approx(2 * 1.96 / math.sqrt(60), rel=0.05)


def test_bootstrap_hands_out_counts_of_n_clips_and_every_resample_once(monkeypatch):
    monkeypatch.setattr("audiobat.evaluation.metrics.resampling.CHUNK", 70)
    seen = []

    def metric(counts):
        seen.append(counts)
        return counts[:, 0]

    bootstrap_values(metric, 10, samples=100)
    counts = torch.cat(seen)
    assert counts.shape == (100, 10)
    assert max(map(len, seen)) == 7
    assert (counts.sum(1) == 10).all()
    assert len(counts.unique(dim=0)) > 90
    assert counts.mean(0).sub(1).abs().max() < 0.5


def test_bootstrap_depends_on_its_seed_alone():
    values = torch.arange(30.0, dtype=torch.float64)
    before = torch.get_rng_state()
    first = bootstrap_values(mean_of(values), 30, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(bootstrap_values(mean_of(values), 30, seed=4), first)
    assert not torch.equal(bootstrap_values(mean_of(values), 30, seed=5), first)
    low, high = percentiles(first)
    assert low < 14.5 < high


def test_bootstrap_refuses_an_empty_test_set():
    with pytest.raises(AudiobatError, match="no test clips"):
        bootstrap_values(mean_of(torch.zeros(0)), 0)


def test_bootstrap_of_map_is_that_of_single_resamples():
    torch.manual_seed(0)
    scores, targets = torch.randn(400, 37), (torch.rand(400, 37) < 0.1).long()
    scores += targets
    ranked, batches = Ranking(scores, targets), []

    def metric(counts):
        batches.append(counts)
        return macro_map_present(ranked.average_precision(counts))

    low, high = percentiles(bootstrap_values(metric, 400))
    assert low < macro_map_present(ranked.average_precision()).item() < high
    single = [np.nanmean(sklearn_ap(scores, targets, row)) for row in batches[0][:3]]
    np.testing.assert_allclose(macro_map_present(ranked.average_precision(batches[0][:3])), single, atol=1e-12)
