"""The order of the clips: permutations, weights, ranks and resuming."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiobat.data.sampler import ClipOrder, balanced_weights
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
