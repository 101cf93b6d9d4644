"""Comparisons of tasks by the values of their units, beside scikit-learn's metrics with the same counts as weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from report_samples import make_record, scored
from sklearn.metrics import average_precision_score, r2_score

from audiobat.errors import AudiobatError
from audiobat.evaluation.compare import compare
from audiobat.evaluation.compare_measures import measure_of
from audiobat.evaluation.compare_records import kept_of, read_entries
from audiobat.evaluation.metrics import bootstrap_values, interval_of_difference
from audiobat.evaluation.record import Metric, Values, save_values

UNITS = 40
RNG = np.random.default_rng(0)
KEYS = np.array([f"q{i:02}" for i in range(UNITS)])
GROUPS = np.array([f"recording{i % 7}" for i in range(UNITS)])
PAIRS = np.stack([GROUPS, np.roll(GROUPS, 3)], 1)
TRUTH = RNG.normal(size=UNITS)
SAME = (RNG.random(UNITS) < 0.4).astype(np.float64)


def write(
    path: Path, model: str, values: Values | None, metric: str = "mrr", kind: str = "retrieval", seed: int = 0
) -> Path:
    """A record of a task, with what it measured of each unit beside it."""
    record = make_record(model, kind, seed=seed)
    head = {name: value for name, value in record.head.items() if name != "loss"}
    metrics = {metric: Metric(0.5, 0.4, 0.6, "", interval="units"), "other": Metric(0.5, 0.4, 0.6, "")}
    kept = None if values is None else save_values(path, values)
    replace(record, head=head, metrics=metrics, per_class={}, values=kept).save(path)
    return path


def values_of(shift: float, seed: int, **fields) -> Values:
    return Values(KEYS, np.random.default_rng(seed).normal(size=UNITS) + shift, **fields)


def weights(groups: np.ndarray | None, counts: np.ndarray) -> np.ndarray:
    """How often each unit counts, from the counts of groups."""
    if groups is None:
        return counts
    names = np.unique(groups).tolist()
    places = np.array([[names.index(name) for name in np.atleast_1d(own)] for own in groups])
    return counts[places].prod(1)


@pytest.mark.parametrize(
    ("metric", "fields", "theirs"),  # the last from values and weights
    [
        ("mrr", {}, lambda v, w: np.average(v, weights=w)),
        ("mrr", {"groups": GROUPS}, lambda v, w: np.average(v, weights=w)),
        (
            "ap",
            {"groups": PAIRS, "targets": SAME},
            lambda v, w: average_precision_score(SAME, v, sample_weight=w),
        ),
        ("r2", {"groups": GROUPS, "targets": TRUTH}, lambda v, w: r2_score(TRUTH, v, sample_weight=w)),
    ],
)
def test_a_metric_of_units_is_scikit_learns_with_counts_as_weights(tmp_path: Path, metric, fields, theirs):
    (entry,) = read_entries([write(tmp_path / "a.json", "a", values_of(0.3, 1, **fields), metric)])
    values = kept_of(entry)
    measure, (size,) = measure_of(entry, values, metric)
    groups = fields.get("groups")
    assert size == (UNITS if groups is None else 7)
    for seed in range(5):
        counts = np.random.default_rng(seed).integers(1, 4, size).astype(np.float64)
        expected = theirs(values.values, weights(groups, counts))
        assert float(measure(torch.from_numpy(counts[None]))) == pytest.approx(expected, abs=1e-12)


def test_the_variance_of_large_numbers_is_not_lost_in_their_squares(tmp_path: Path):
    offset = 1e8
    values = Values(KEYS, TRUTH + np.random.default_rng(1).normal(size=UNITS) + offset, TRUTH + offset)
    (entry,) = read_entries([write(tmp_path / "a.json", "a", values, "r2")])
    measure, (size,) = measure_of(entry, kept_of(entry), "r2")
    found = float(measure(torch.ones(1, size, dtype=torch.float64)))
    assert found == pytest.approx(r2_score(values.targets, values.values), abs=1e-6)


def test_a_pair_is_judged_by_the_same_resamples_of_units(tmp_path: Path):
    good, poor = values_of(1.0, 1), values_of(0.4, 2)
    order = np.random.default_rng(3).permutation(UNITS)
    shuffled = Values(KEYS[order], poor.values[order])
    paths = [write(tmp_path / "a.json", "good", good), write(tmp_path / "b.json", "poor", shuffled)]
    (pair,) = compare(paths, samples=300, seed=5).differences
    resampled = [
        bootstrap_values(lambda c, v=v: c @ torch.from_numpy(v.values) / c.sum(-1), UNITS, 300, 5) for v in (good, poor)
    ]
    gap = good.values.mean() - poor.values.mean()
    low, high, p = interval_of_difference(gap, resampled[0] - resampled[1])
    assert (pair.low, pair.high, pair.p) == pytest.approx((low, high, p))
    assert (pair.data, pair.task, pair.metric, pair.verdict) == ("scenes", "retrieval", "mrr", "win")


def test_each_seed_may_have_units_of_its_own(tmp_path: Path):
    """Pairs are drawn anew for each seed: models are compared on those of the same seed."""
    paths = []
    for model, shift in (("good", 1.0), ("poor", 0.0)):
        for seed in (0, 1):
            own = Values(np.char.add(KEYS, f" {seed}"), values_of(shift, seed).values)
            paths.append(write(tmp_path / f"{model}{seed}.json", model, own, seed=seed))
    (pair,) = compare(paths, samples=100).differences
    assert pair.value_a - pair.value_b == pytest.approx(1)
    other = write(tmp_path / "poor1.json", "poor", values_of(0.0, 1), seed=1)
    with pytest.raises(AudiobatError, match="are not of the same test clips"):
        compare([*paths[:3], other], samples=100)


def test_heads_and_tasks_of_a_data_set_are_compared_apart(tmp_path: Path, capsys):
    (tmp_path / "results").mkdir()
    for model, skill in (("good", 2.0), ("poor", 0.2)):
        scored(tmp_path / f"results/{model}_cgp.json", skill, model=model)
        write(tmp_path / f"results/{model}_retrieval.json", model, values_of(skill, 1))
        write(tmp_path / f"results/{model}_clustering.json", model, None, "v_measure", "clustering")
    found = compare(tmp_path, samples=100)
    assert [(d.task, d.metric, d.verdict) for d in found.differences] == [
        ("", "map", "win"),
        ("retrieval", "mrr", "win"),
    ]
    assert found.duels == [], "that is one data set, however many tasks"
    shown = capsys.readouterr().out
    assert "left out: 2 of clustering, a number that is not made from values of single clips" in shown
    assert "scenes, retrieval: mrr" in shown


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [("other", "--metric other needs more than the values of single units: use mrr"), ("mr", "has no metric mr")],
)
def test_another_metric_than_the_main_one_is_refused(tmp_path: Path, asked, sentence):
    paths = [write(tmp_path / f"{name}.json", name, values_of(0.0, 1)) for name in "ab"]
    with pytest.raises(AudiobatError, match=sentence):
        compare(paths, metric=asked)
