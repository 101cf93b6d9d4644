"""The order of the clips: permutations, weights, ranks and resuming."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiobat.config import DataConfig
from audiobat.data.build import clip_table
from audiobat.data.columns import Ragged
from audiobat.data.sampler import ClipOrder, balanced_weights, clip_order, label_weights
from audiobat.errors import AudiobatError

COUNTS = st.integers(1, 60)
SEEDS = st.integers(0, 2**32)


def stream(order, batch_size, steps):
    return np.concatenate([order.batch_indices(step, batch_size) for step in range(steps)])


@given(count=COUNTS, seed=SEEDS, batch_size=st.integers(1, 40))
def test_every_epoch_of_the_stream_is_a_permutation(count, seed, batch_size):
    indices = stream(ClipOrder(count, seed), batch_size, 1 + 3 * count // batch_size)
    for epoch in range(len(indices) // count):
        assert sorted(indices[epoch * count : (epoch + 1) * count]) == list(range(count))


@given(count=COUNTS, seed=SEEDS, share=st.integers(1, 8), world_size=st.integers(1, 6), step=st.integers(0, 50))
def test_ranks_cut_the_batch_of_one_process(count, seed, share, world_size, step):
    batch_size = share * world_size
    whole = ClipOrder(count, seed).batch_indices(step, batch_size)
    parts = [ClipOrder(count, seed).batch_indices(step, batch_size, rank, world_size) for rank in range(world_size)]
    assert [len(part) for part in parts] == [share] * world_size
    assert np.concatenate(parts).tolist() == whole.tolist()


@given(seed=SEEDS, world_size=st.integers(1, 4), step=st.integers(0, 4))
def test_ranks_are_disjoint_within_an_epoch(seed, world_size, step):
    order = ClipOrder(60, seed)
    parts = [order.batch_indices(step, 12, rank, world_size) for rank in range(world_size)]
    assert len(set(np.concatenate(parts).tolist())) == 12


@given(count=COUNTS, seed=SEEDS, batch_size=st.integers(1, 40), step=st.integers(0, 100), weighted=st.booleans())
def test_resuming_needs_only_a_step_number(count, seed, batch_size, step, weighted):
    weights = np.arange(1.0, count + 1) if weighted else None
    old = ClipOrder(count, seed, weights)
    stream(old, batch_size, step + 1)
    fresh = ClipOrder(count, seed, weights)
    assert fresh.batch_indices(step, batch_size).tolist() == old.batch_indices(step, batch_size).tolist()


def test_epochs_and_seeds_differ():
    order = ClipOrder(50, 0)
    assert order.epoch(0).tolist() != order.epoch(1).tolist()
    assert order.epoch(0).tolist() != ClipOrder(50, 1).epoch(0).tolist()


def test_weights_are_respected():
    weights = np.array([0.0, 1.0, 2.0, 5.0])
    draws = stream(ClipOrder(4, 3, weights), 100, 200)
    shares = np.bincount(draws, minlength=4) / len(draws)
    assert shares[0] == 0
    np.testing.assert_allclose(shares, weights / 8, atol=4 * np.sqrt(0.25 / len(draws)))


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=50))
def test_balanced_weights_give_each_value_the_same_share(values):
    values = np.array(values)
    weights = balanced_weights(values)
    for value in set(values):
        assert weights[values == value].sum() == pytest.approx(1 / len(set(values)))
        assert len(set(weights[values == value])) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ClipOrder(0, 0), "empty"),
        (lambda: ClipOrder(3, 0, np.ones(2)), "3 finite numbers"),
        (lambda: ClipOrder(2, 0, np.zeros(2)), "above 0"),
        (lambda: ClipOrder(2, 0, np.array([1.0, np.nan])), "finite"),
        (lambda: ClipOrder(2, 0, np.array([2.0, -1.0])), "0 or more"),
        (lambda: ClipOrder(9, 0).batch_indices(0, 10, 0, 4), r"batch_size is 10.*multiple of the 4"),
    ],
)
def test_errors(make, words):
    with pytest.raises(AudiobatError, match=words):
        make()


@given(st.lists(st.sets(st.integers(0, 4), max_size=3), min_size=1, max_size=30))
def test_label_weights_are_the_formulas(labels):
    column = Ragged.of([sorted(part) for part in labels], np.int32)
    count = [sum(c in part for part in labels) for c in range(5)]
    mean = [sum(1 / count[c] for c in part) / len(part) if part else 0.0 for part in labels]
    total = [sum(1000 / (count[c] + 0.01) for c in part) for part in labels]
    np.testing.assert_allclose(label_weights(column, 5), mean)
    np.testing.assert_allclose(label_weights(column, 5, "sum"), total)


def test_draws_with_replacement_follow_the_weights():
    weights = np.array([0.0, 1.0, 2.0, 5.0])
    order = ClipOrder(4, 3, weights, epoch_clips=40_000)
    share = np.bincount(order.epoch(0), minlength=4) / 40_000
    np.testing.assert_allclose(share, weights / 8, atol=0.01)


def test_draws_without_replacement_are_in_proportion_to_the_weights_of_those_left():
    weights = np.array([0.0, 1.0, 2.0, 5.0])
    pairs = np.zeros((4, 4))
    order = ClipOrder(4, 0, weights, epoch_clips=2, replacement=False)
    for epoch in range(20_000):
        first, second = order.epoch(epoch)
        pairs[first, second] += 1 / 20_000
    for i in range(4):
        for j in range(4):
            expected = 0.0 if i == j or not weights[i] else weights[i] / 8 * weights[j] / (8 - weights[i])
            assert abs(pairs[i, j] - expected) < 0.012


@given(seed=SEEDS, batch_size=st.integers(1, 30), epoch_clips=st.integers(1, 20))
def test_an_epoch_without_replacement_repeats_no_clip(seed, batch_size, epoch_clips):
    order = ClipOrder(20, seed, np.arange(1.0, 21.0), epoch_clips=epoch_clips, replacement=False)
    indices = stream(order, batch_size, 1 + 3 * epoch_clips // batch_size)
    for epoch in range(len(indices) // epoch_clips):
        assert len(set(indices[epoch * epoch_clips : (epoch + 1) * epoch_clips].tolist())) == epoch_clips


def test_an_epoch_of_fewer_clips_than_there_are_is_a_sample():
    order = ClipOrder(100, 1, epoch_clips=10)
    assert len(set(order.epoch(0).tolist())) == 10
    assert order.epoch(0).tolist() != order.epoch(1).tolist()


def test_an_epoch_that_cannot_be_drawn_is_refused():
    with pytest.raises(AudiobatError, match=r"epoch of 3 clips cannot be drawn from 2.*data\.epoch_clips to 1 up to 2"):
        ClipOrder(3, 0, np.array([0.0, 1.0, 1.0]), epoch_clips=3, replacement=False)
    with pytest.raises(AudiobatError, match="epoch of 4 clips cannot be drawn from 3"):
        ClipOrder(3, 0, epoch_clips=4)


def test_a_run_draws_as_its_config_says():
    table = clip_table("", ["a", "b", "c"], labels=[["x"], ["x"], ["y"]], columns={"site": ["p", "q", "q"]})

    def weights(**fields):
        return clip_order(table, DataConfig(**fields), 0).weights

    assert weights() is None
    np.testing.assert_allclose(weights(balance="labels"), [0.25, 0.25, 0.5])
    np.testing.assert_allclose(weights(balance="site"), [0.5, 0.25, 0.25])
    assert weights(balance="labels_sum")[2] > 0.49
    assert clip_order(table, DataConfig(epoch_clips=2), 0).epoch_clips == 2
    with pytest.raises(AudiobatError, match=r"data\.balance is 'sight'.*did you mean site.*site, labels, labels_sum"):
        weights(balance="sight")


LABELS = [["x"], ["x"], ["y"], ["x", "y"], [], [], [], []]


@pytest.mark.parametrize("balance", [None, "labels", "labels_sum", "site"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_clips_without_labels_are_a_stated_share_of_the_draws(balance, share):
    table = clip_table("", list("abcdefgh"), labels=LABELS, columns={"site": list("ppqqpqrr")})
    plain = clip_order(table, DataConfig(balance=balance), 0).weights
    plain = np.ones(8) if plain is None else plain
    weights = clip_order(table, DataConfig(balance=balance, background=share), 0).weights
    assert weights[4:].sum() == pytest.approx(share)
    np.testing.assert_allclose(weights[:4], (1 - share) * plain[:4] / plain[:4].sum())
    drawn = clip_order(table, DataConfig(balance=balance, background=share, epoch_clips=4000), 0).epoch(0)
    assert np.mean(drawn >= 4) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("balance", ["labels", "labels_sum"])
def test_a_balance_of_labels_draws_clips_without_labels_as_often_as_there_are(balance):
    table = clip_table("", list("abcdefgh"), labels=LABELS)
    weights = clip_order(table, DataConfig(balance=balance), 0).weights
    np.testing.assert_allclose(weights[4:], 1 / 8)
    of_labelled = label_weights(table.labels, 2, "mean" if balance == "labels" else "sum")[:4]
    np.testing.assert_allclose(weights[:4], of_labelled / of_labelled.sum() / 2)


@pytest.mark.parametrize(("labels", "words"), [([["x"], ["y"]], "every clip"), ([[], []], "no clip")])
def test_a_share_of_what_is_not_there_is_refused(labels, words):
    table = clip_table("", ["a", "b"], labels=labels, classes=["x", "y"])
    with pytest.raises(AudiobatError, match=f"data.background is 0.5, but {words} of mine.csv that trains has a label"):
        clip_order(table, DataConfig(path="mine.csv", background=0.5), 0)
