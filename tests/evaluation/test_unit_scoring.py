"""Intervals of tasks: halves draw groups whole, a pair is there where both clips are, ends stay within the range."""

import numpy as np
import pytest
import torch

from audiobat.evaluation.record import Values
from audiobat.evaluation.unit_scoring import UnitOutputs, counts_of_units, evaluate_units, join_values, mean_of


def outputs(values: np.ndarray, **fields) -> UnitOutputs:
    return UnitOutputs(len(values), {"m": mean_of(values)}, {"m": "a mean"}, **fields)


def test_a_pair_is_in_a_half_if_both_of_its_clips_are():
    counts = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])  # of three clips, in two halves
    pairs = torch.tensor([[0, 1], [0, 2], [2, 2]])
    assert counts_of_units(counts, pairs).tolist() == [[0, 1, 1], [0, 0, 1]]
    assert counts_of_units(counts, torch.tensor([2, 0])).tolist() == [[1, 1], [1, 0]]


def test_units_of_one_group_are_drawn_together_and_one_group_alone_is_none():
    values = np.random.default_rng(0).random(60)
    apart = evaluate_units([outputs(values)], seed=0)["m"]
    same = np.repeat([f"{i:02d}" for i in range(30)], 2)
    twice = np.repeat(values[:30], 2)  # two of each: as sure as one of each
    pairs, singles = (evaluate_units([one], seed=0)["m"] for one in (outputs(twice, groups=same), outputs(values[:30])))
    assert (pairs.low, pairs.high) == pytest.approx((singles.low, singles.high))
    alone = evaluate_units([outputs(values, groups=np.repeat("all", 60))], seed=0)["m"]
    assert alone == apart


def test_an_interval_ends_where_the_range_of_its_metric_does():
    values = np.array([0.0] * 3 + [0.2] * 3)
    free = evaluate_units([outputs(values, ranges={"m": (-np.inf, np.inf)})], seed=0)["m"]
    held = evaluate_units([outputs(values, ranges={"m": (0.09, 0.11)})], seed=0)["m"]
    assert free.low < 0.09
    assert (held.low, held.high) == (0.09, 0.11)
    assert free.value - free.low == pytest.approx(free.high - free.value)


def test_metrics_are_means_over_folds_and_say_which_are_to_be_low():
    folds = [outputs(np.full(10, 0.25) + np.arange(10) / 50, lower={"m"}), outputs(np.arange(20) / 20, lower={"m"})]
    metric = evaluate_units(folds, seed=0)["m"]
    assert metric.value == pytest.approx((0.34 + 0.475) / 2)
    assert metric.sd == pytest.approx(np.std([0.34, 0.475], ddof=1))
    assert metric.lower_is_better
    assert metric.interval == "units"


def test_values_of_folds_are_one_list_with_the_name_of_each_fold():
    parts = [Values(np.array(["a", "b"]), np.array([0.5, 1.0])), Values(np.array(["c"]), np.array([0.0]))]
    joined = join_values(parts, ["1", "2"])
    assert joined is not None
    assert joined.keys.tolist() == ["a", "b", "c"]
    assert joined.folds.tolist() == ["1", "1", "2"]
    assert joined.targets is None
    assert join_values([parts[0], None], ["1", "2"]) is None
