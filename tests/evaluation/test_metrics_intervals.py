"""Intervals: Wilson's against his equation, halves against exact variances, corrected precision, and their coverage."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiobat.errors import AudiobatError
from audiobat.evaluation.metrics import (
    Ranking,
    accuracy,
    bootstrap_values,
    clips_behind,
    half_sample_interval,
    half_sample_values,
    macro_map_present,
    wilson,
)
from audiobat.evaluation.scoring import ClipOutputs, evaluate

NORMAL = 1.959964
HALF = st.integers(0, 30)


@settings(max_examples=200, deadline=None)
@given(HALF, HALF)
def test_wilsons_ends_solve_his_equation(hits: int, misses: int):
    n = hits + misses + 1
    share = hits / n
    low, high = wilson(share, n)
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(share - end) == pytest.approx(NORMAL * math.sqrt(end * (1 - end) / n), abs=1e-9)


def test_wilsons_interval_of_all_and_of_none():
    assert wilson(1.0, 60) == pytest.approx((60 / (60 + NORMAL**2), 1))
    assert wilson(0.0, 60) == pytest.approx((0, NORMAL**2 / (60 + NORMAL**2)))


def test_more_clips_make_intervals_narrower():
    widths = [high - low for low, high in (wilson(0.8, n) for n in (5, 20, 60, 400, 2000))]
    assert widths == sorted(widths, reverse=True)


def test_the_mean_over_folds_is_as_sure_as_its_variance_says():
    assert clips_behind([80] * 5) == pytest.approx(400)
    sizes, share = [20, 50, 200], 0.3
    variance = sum(share * (1 - share) / size for size in sizes) / 9  # of a mean of three independent shares
    assert share * (1 - share) / clips_behind(sizes) == pytest.approx(variance)


def test_halves_are_drawn_by_coin_within_folds_and_depend_on_the_seed_alone():
    seen: list[torch.Tensor] = []

    def sizes(counts: torch.Tensor) -> torch.Tensor:
        seen.append(counts)
        return counts.sum(1)

    first = half_sample_values(sizes, [30, 50], samples=400, seed=4)
    counts = torch.cat(seen)
    assert set(counts.unique().tolist()) == {0, 1}
    assert counts.shape == (400, 80)
    assert counts.mean(0).sub(0.5).abs().max() < 0.15
    torch.manual_seed(99)
    assert torch.equal(half_sample_values(sizes, [30, 50], samples=400, seed=4), first)
    assert not torch.equal(half_sample_values(sizes, [30, 50], samples=400, seed=5), first)
    with pytest.raises(AudiobatError, match="no test clips"):
        half_sample_values(sizes, [3, 0])


def test_the_interval_of_a_share_is_wilsons():
    """Halves of 100 clips find out by themselves that a share of 0.8 is one of 100 clips."""
    right = torch.arange(100) < 80
    share = half_sample_values(lambda counts: counts @ right.double() / counts.sum(1), 100, samples=20_000)
    assert half_sample_interval(0.8, 0.8, share, 100) == pytest.approx(wilson(0.8, 100), abs=0.003)


def test_the_interval_reaches_from_the_estimate_to_the_estimate_less_its_bias():
    around = torch.tensor([0.58, 0.62], dtype=torch.float64)  # the halves lie .1 above the estimate: .4 has no bias
    low, high = half_sample_interval(0.55, 0.5, around, 20)
    n = 0.6 * 0.4 / 0.02**2
    assert (low, high) == pytest.approx((wilson(0.4, n)[0], 0.55))  # wilson(0.5, n) ends below the value
    assert wilson(0.5, n)[1] < 0.55
    low, high = half_sample_interval(0.5, 0.5, 1 - around, 20)  # .1 below: it may be .6
    assert (low, high) == pytest.approx((wilson(0.5, n)[0], wilson(0.6, n)[1]))


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.lists(st.floats(0, 1) | st.just(math.nan), min_size=1, max_size=9))
def test_an_interval_lies_within_0_to_1_and_holds_its_value(value: float, estimate: float, halves: list[float]):
    low, high = half_sample_interval(value, estimate, torch.tensor(halves, dtype=torch.float64), 7)
    if all(math.isnan(half) for half in halves):
        assert math.isnan(low)
        assert math.isnan(high)
    else:
        assert 0 <= low <= value <= high <= 1


def test_where_halves_agree_the_interval_is_that_of_a_share_of_all_clips():
    assert half_sample_interval(1.0, 1.0, torch.ones(9, dtype=torch.float64), 60) == wilson(1.0, 60)


def test_halves_that_differ_by_rounding_agree():
    halves = torch.full((500,), 1 / 3, dtype=torch.float64)
    halves[::2] += 1e-16
    assert halves.var() > 0
    assert half_sample_interval(1 / 3, 1 / 3, halves, 12) == pytest.approx(wilson(1 / 3, 12))


@pytest.mark.parametrize("sizes", [[], [0], [3, 0]])
def test_no_test_clips_are_a_mistake_not_a_division_by_zero(sizes: list[int]):
    folds = [ClipOutputs(torch.zeros(n, 2), torch.arange(2).eq(torch.zeros(n, 1)), "ce") for n in sizes]
    with pytest.raises(AudiobatError, match="no test clips"):
        clips_behind(sizes)
    if folds:
        with pytest.raises(AudiobatError, match="no test clips"):
            evaluate(folds, ["a", "b"], single_label=True, seed=0)


def test_an_undefined_value_has_no_interval():
    assert all(map(math.isnan, half_sample_interval(math.nan, math.nan, torch.tensor([0.5, 0.6]), 2)))


def test_corrected_precision_is_its_formula_class_by_class():
    generator = np.random.default_rng(0)
    scores, targets = generator.normal(size=(40, 3)), generator.random((40, 3)) < 0.2
    scores += targets
    expected = []
    for column, true in zip(scores.T, targets.T, strict=True):
        terms = []
        for place in np.flatnonzero(true):
            hits = np.sum(true & (column >= column[place])) - 0.5
            negatives = np.sum(~true & (column > column[place]))
            terms.append(hits / (hits + negatives + 1 - hits / (hits + negatives)))
        expected.append(np.mean(terms))
    found = Ranking(torch.from_numpy(scores), torch.from_numpy(targets)).corrected_precision()
    np.testing.assert_allclose(found, expected)


def test_corrected_precision_leaves_perfect_ranks_and_undrawn_clips_alone():
    ranking = Ranking(torch.tensor([[4.0], [3.0], [2.0], [1.0]]), torch.tensor([[True], [True], [False], [False]]))
    assert ranking.corrected_precision().item() == 1
    assert ranking.corrected_precision(torch.tensor([[0.0, 1, 1, 1], [1, 0, 1, 0]])).tolist() == [[1], [1]]
    assert ranking.corrected_precision(torch.tensor([[0.0, 0, 1, 1]])).isnan().all()


def rare_labels() -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and labels of 30,000 clips whose 20 classes are in .5 to 5% of them."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(30_000, 20, generator=generator) < torch.logspace(-2.3, -1.3, 20)
    return torch.randn(30_000, 20, generator=generator) + 2.5 * targets, targets


def test_intervals_of_map_and_auc_hold_the_truth_where_classes_are_rare():
    """Of 80 seeded test sets of 300 clips. Basic bootstrap intervals held that of mAP in 75%."""
    scores, targets = rare_labels()
    whole = Ranking(scores, targets)
    truth = {"map": macro_map_present(whole.average_precision()).item(), "auc": whole.auc().mean().item()}
    held = {"map": 0, "auc": 0, "basic": 0}
    generator = torch.Generator().manual_seed(1)
    for draw in range(80):
        rows = torch.randint(30_000, (300,), generator=generator)
        found = evaluate([ClipOutputs(scores[rows], targets[rows], "bce")], [str(c) for c in range(20)], False, draw)
        for name in truth:
            held[name] += found.metrics[name].low <= truth[name] <= found.metrics[name].high
        ranking = Ranking(scores[rows], targets[rows])
        values = bootstrap_values(lambda c, r=ranking: macro_map_present(r.average_precision(c)), 300, 150, draw)
        low, high = 2 * found.metrics["map"].value - values.nanquantile(torch.tensor([0.975, 0.025]).double())
        held["basic"] += bool(low <= truth["map"] <= high)
    assert held["map"] >= 0.93 * 80
    assert held["auc"] >= 0.85 * 80
    assert held["basic"] <= 0.9 * 80, "too easy a case to tell anything"


def test_accuracy_has_wilsons_interval_and_over_folds_that_of_all_clips():
    generator = torch.Generator().manual_seed(0)
    folds = []
    for _ in range(3):
        targets = torch.nn.functional.one_hot(torch.randint(4, (25,), generator=generator), 4).bool()
        folds.append(ClipOutputs(torch.randn(25, 4, generator=generator) + 2.0 * targets, targets, "ce"))
    found = evaluate(folds, "abcd", True, 0).metrics["accuracy"]
    shares = [accuracy(fold.scores, fold.targets.int().argmax(1)).item() for fold in folds]
    assert found.value == pytest.approx(np.mean(shares))
    assert (found.low, found.high) == pytest.approx(wilson(found.value, 75))
    assert found.interval == "wilson"
