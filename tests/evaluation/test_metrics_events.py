"""Events: frames decoded as scipy and plain loops would, matchings against every matching, F1 against its formula."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter

from audiobat.errors import AudiobatError
from audiobat.evaluation.metrics import (
    Events,
    event_f1,
    frames_to_events,
    half_sample_interval,
    half_sample_values,
    match_events,
)


def events(*found: tuple[int, float]) -> Events:
    label = torch.tensor([label for label, _ in found], dtype=torch.long)
    onset = torch.tensor([onset for _, onset in found], dtype=torch.float64)
    return Events(label, onset, onset + 0.1)


@st.composite
def onsets(draw, most=5):
    """Onsets on a grid of 0.1 s, so that many lie a collar apart to the last bit or nearly so."""
    pairs = st.tuples(st.integers(0, 1), st.integers(0, 12).map(lambda tenth: tenth / 10))
    return draw(st.lists(pairs, max_size=most))


def most_hits(reference, estimated, collar) -> int:
    """sed_eval's rule by brute force: the largest one-to-one matching of equal labels, |onset - onset| <= collar."""
    few, many = sorted((reference, estimated), key=len)
    return max(
        sum(a[0] == b[0] and math.fabs(a[1] - b[1]) <= collar for a, b in zip(few, chosen, strict=True))
        for chosen in itertools.permutations(many, len(few))
    )


@settings(max_examples=200)
@given(onsets(), onsets(), st.sampled_from([0.1, 0.2, 0.25]))
def test_hits_are_those_of_the_largest_matching(reference, estimated, collar):
    tally = match_events([events(*reference)], [events(*estimated)], 2, collar)
    assert tally.sum((0, 1)).tolist() == [most_hits(reference, estimated, collar), len(reference), len(estimated)]
    for label in (0, 1):
        ours, theirs = ([e for e in found if e[0] == label] for found in (reference, estimated))
        assert tally[0, label].tolist() == [most_hits(ours, theirs, collar), len(ours), len(theirs)]


def test_an_event_is_matched_once_within_its_clip_and_its_class():
    reference = [events((0, 1.0), (0, 1.3)), events((1, 1.0))]
    estimated = [events((0, 1.15), (0, 0.85)), events((0, 1.0), (1, 1.21))]
    tally = match_events(reference, estimated, 2)
    assert tally[0].tolist() == [[2, 2, 2], [0, 0, 0]]  # 1.15 serves 1.3, as 0.85 can serve 1.0 alone
    assert tally[1].tolist() == [[0, 0, 1], [0, 1, 1]]
    assert event_f1(tally).item() == pytest.approx(2 * 2 / (3 + 4))


@settings(max_examples=60)
@given(st.lists(st.tuples(onsets(3), onsets(3)), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_f1_over_resampled_clips_is_that_of_the_repeated_clips(clips, seed):
    tally = match_events([events(*r) for r, _ in clips], [events(*e) for _, e in clips], 2)
    counts = np.random.default_rng(seed).multinomial(len(clips), np.full(len(clips), 1 / len(clips)), size=2)
    for row, found in zip(counts, event_f1(tally, torch.from_numpy(counts)).tolist(), strict=True):
        repeated = [clip for clip, times in zip(clips, row, strict=True) for _ in range(times)]
        hits = sum(most_hits(r, e, 0.2) for r, e in repeated)
        reference, estimated = (sum(len(clip[side]) for clip in repeated) for side in (0, 1))
        if reference and estimated and hits:
            precision, recall = hits / estimated, hits / reference
            assert found == pytest.approx(2 * precision * recall / (precision + recall))
        elif reference or estimated:
            assert found == 0
        else:
            assert math.isnan(found)


def test_the_interval_of_f1_comes_from_halves_of_the_clips():
    good, bad = events(*((0, float(i)) for i in range(10))), events()
    tally = match_events([good] * 12, [good] * 6 + [bad] * 6, 1)
    value = event_f1(tally).item()
    assert value == pytest.approx(2 / 3)
    low, high = half_sample_interval(value, value, half_sample_values(lambda counts: event_f1(tally, counts), 12), 12)
    assert low < 2 / 3 < high
    assert high - low > 0.2  # of 120 events that came and went by themselves it would be half as wide


@settings(max_examples=150)
@given(st.integers(1, 14), st.integers(1, 3), st.sampled_from([1, 3, 5, 7]), st.integers(0, 2**32 - 1))
def test_frames_become_runs_of_the_filtered_frames(frames, classes, median, seed):
    rng = np.random.default_rng(seed)
    probabilities = rng.integers(0, 11, (frames, classes)) / 10
    times = np.arange(frames) * 0.16
    found = frames_to_events(torch.from_numpy(probabilities), torch.from_numpy(times), 0.16, 0.3, median)
    smooth = median_filter(probabilities, size=(median, 1), mode="reflect")
    expected = []
    for label in range(classes):
        for active, run in itertools.groupby(range(frames), key=lambda i, label=label: smooth[i, label] > 0.3):
            if active:
                places = list(run)
                expected.append((label, times[places[0]], times[places[-1]] + 0.16))
    assert list(zip(*(values.tolist() for values in vars(found).values()), strict=True)) == expected


def test_the_defaults_drop_a_lone_frame_and_fill_a_lone_gap():
    probabilities = torch.tensor([0, 0, 0.9, 0, 0, 0.9, 0.9, 0.1, 0.9, 0.9, 0, 0.3, 0.3, 0.3])[:, None]
    found = frames_to_events(probabilities, torch.arange(14.0), 1.0)
    assert (found.label.tolist(), found.onset.tolist(), found.offset.tolist()) == ([0], [5.0], [10.0])


def test_no_frames_are_no_events_and_nan_is_refused():
    assert len(frames_to_events(torch.zeros(0, 3), torch.zeros(0), 0.1).onset) == 0
    with pytest.raises(AudiobatError, match="NaN or infinity"):
        frames_to_events(torch.full((2, 1), math.nan), torch.zeros(2), 0.1)
