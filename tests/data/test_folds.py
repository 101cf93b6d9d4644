"""Folds that are drawn: even in every class, whole groups, the same for everybody; and what cannot be drawn."""

import numpy as np
import pytest

from audiobat.data.build import clip_table
from audiobat.data.folds import describe_folds, with_folds
from audiobat.errors import AudiobatError


def table_of(labels, **columns):
    return clip_table("/x", [f"{i:03}.wav" for i in range(len(labels))], labels=labels, **columns)


def counts(table):
    """Clips of each class in each fold, [folds, C]."""
    targets = table.targets()
    return np.stack([targets[table.folds == fold].sum(0) for fold in sorted(set(table.folds.tolist()))])


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_every_class_and_all_clips_are_spread_evenly(folds):
    labels = [["rare"]] * 7 + [["common"]] * 41 + [["middle"]] * 20
    drawn = with_folds(table_of(labels), folds)
    assert sorted(set(drawn.folds.tolist())) == list(range(1, folds + 1))
    found = counts(drawn)
    assert (np.ptp(found, axis=0) <= 1).all()
    assert np.ptp(found.sum(1)) <= 1


def test_classes_of_several_labels_are_spread_nearly_evenly():
    rng = np.random.default_rng(0)
    labels = [
        [name for name, share in zip("abcd", (0.5, 0.3, 0.1, 0.05), strict=True) if rng.random() < share]
        for _ in range(300)
    ]
    found = counts(with_folds(table_of(labels), 5))
    wanted = np.sum([[name in own for name in "abcd"] for own in labels], 0) / 5
    assert (np.abs(found - wanted) <= np.maximum(2, 0.15 * wanted)).all()


def test_groups_stay_whole_and_folds_do_not_depend_on_the_order_of_clips():
    rng = np.random.default_rng(1)
    groups = [f"recording {rng.integers(24)}" for _ in range(120)]
    labels = [["wren" if int(group.split()[1]) % 2 else "robin"] for group in groups]
    drawn = with_folds(table_of(labels, columns={"group": groups}), 4)
    of_group = {
        group: {fold for g, fold in zip(groups, drawn.folds.tolist(), strict=True) if g == group} for group in groups
    }
    assert all(len(found) == 1 for found in of_group.values())
    assert np.ptp(counts(drawn), axis=0).max() <= 8
    order = rng.permutation(120)
    other = with_folds(table_of(labels, columns={"group": groups}).select(order), 4)
    np.testing.assert_array_equal(other.folds, drawn.folds[order])
    assert "4 of " in describe_folds(drawn)
    assert "24 recordings or groups stay whole" in describe_folds(drawn)


def test_what_cannot_be_drawn_is_said_in_a_sentence():
    labels = [["a"], ["b"], ["a"], ["b"]]
    for folds in (0, 1, 5, -2):
        with pytest.raises(AudiobatError, match=rf"--folds is {folds}: use 2 to 4, as many as there are clips"):
            with_folds(table_of(labels), folds)
    grouped = table_of(labels, columns={"group": ["x", "x", "y", "y"]})
    with pytest.raises(AudiobatError, match="use 2 to 2, as many as there are groups of clips"):
        with_folds(grouped, 3)
    with pytest.raises(AudiobatError, match="have their own splits: leave out --folds"):
        with_folds(table_of(labels, splits=["train", "test", "train", "test"]), 2)
    with pytest.raises(AudiobatError, match="have their own folds"):
        with_folds(table_of(labels, folds=[0, 1, 0, 1]), 2)
    with pytest.raises(AudiobatError, match="needs labels"):
        with_folds(clip_table("/x", ["a.wav", "b.wav"]), 2)
    assert with_folds(grouped, None) is grouped
