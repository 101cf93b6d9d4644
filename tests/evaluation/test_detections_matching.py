"""One-to-one hits against scipy's largest matching at every threshold; pairs that are near or overlap against loops."""

import numpy as np
import pytest
from event_samples import near, some_events
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from audiobat.errors import AudiobatError
from audiobat.evaluation.detections import event_list
from audiobat.evaluation.detections.conventions import find_convention
from audiobat.evaluation.detections.event_list import EventList, near_pairs, overlapping_pairs
from audiobat.evaluation.detections.matching import match


def allowed(truth, found, convention, offsets):
    """Which detection [E] may hit which event [T], by plain loops."""
    may = np.zeros((len(found), len(truth)), bool)
    for d in range(len(found)):
        for e in range(len(truth)):
            late = abs(truth.onset[e] - found.onset[d]) <= convention.onset_collar + 1e-6
            collar = max(convention.offset_collar, convention.offset_share * (truth.offset[e] - truth.onset[e]))
            over = not offsets or abs(truth.offset[e] - found.offset[d]) <= collar + 1e-6
            same = truth.recording[e] == found.recording[d] and truth.label[e] == found.label[d]
            may[d, e] = same and late and over
    return may


@pytest.mark.parametrize("offsets", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_hits_above_every_threshold_are_a_largest_matching(seed, offsets):
    rng = np.random.default_rng(seed)
    crowded = seed % 2 == 0
    truth = some_events(rng, 40, 1 if crowded else 3, 1 if crowded else 3)
    found = some_events(rng, 40, 1, 1) if crowded else near(rng, truth)
    convention = find_convention("ours")
    matched = match(truth, found, convention, offsets=offsets)
    may = allowed(truth, found, convention, offsets)
    hits = np.flatnonzero(matched >= 0)
    assert len(set(matched[hits].tolist())) == len(hits)
    assert may[hits, matched[hits]].all()
    for threshold in np.arange(0, 10) / 10:
        above = found.score > threshold
        largest = (
            maximum_bipartite_matching(csr_matrix(may[above]), perm_type="column") if above.any() else np.full(1, -1)
        )
        assert (matched[above] >= 0).sum() == (largest >= 0).sum()


def test_a_chain_of_detections_is_moved_along_to_let_the_last_one_in():
    truth = EventList(*(np.zeros(4, np.int64) for _ in range(2)), np.arange(4) / 10, np.ones(4))
    found = EventList(*(np.zeros(4, np.int64) for _ in range(2)), np.arange(4) / 10 + 0.05, np.ones(4))
    narrow = find_convention("ours", onset_collar=0.05)
    assert sorted(match(truth, found, narrow, offsets=False).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("same_label", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_pairs_are_those_of_plain_loops(seed, same_label):
    rng = np.random.default_rng(seed)
    a, b = some_events(rng, 30), some_events(rng, 30)
    b = EventList(b.recording, b.label, b.onset, b.offset + rng.integers(0, 2, len(b)) * 4)  # some long ones
    every = [
        (i, j)
        for i in range(len(a))
        for j in range(len(b))
        if a.recording[i] == b.recording[j] and (not same_label or a.label[i] == b.label[j])
    ]
    shared = [(i, j) for i, j in every if min(a.offset[i], b.offset[j]) - max(a.onset[i], b.onset[j]) > 1e-6]
    assert sorted(zip(*map(np.ndarray.tolist, overlapping_pairs(a, b, same_label=same_label)), strict=True)) == shared
    close = {(i, j) for i, j in every if abs(a.onset[i] - b.onset[j]) <= 0.3}
    found = set(zip(*map(np.ndarray.tolist, near_pairs(a, b, 0.3, same_label=same_label)), strict=True))
    assert close <= found <= {(i, j) for i, j in every if abs(a.onset[i] - b.onset[j]) <= 0.31}


def test_a_table_that_repeats_a_row_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(event_list, "MOST_PAIRS", 99)
    many = EventList(*(np.zeros(10, np.int64) for _ in range(2)), np.zeros(10), np.ones(10))
    with pytest.raises(AudiobatError, match=r"More than 99 pairs .* narrow --onset-collar"):
        near_pairs(many, many, 0.2, same_label=True)
