"""Frame targets against a plain loop in whole milliseconds, and at the edges of an event."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiobat.data.clip_table import EVENT
from audiobat.data.columns import Ragged
from audiobat.data.frames import frame_targets

CLASSES = 3


def in_seconds(clips):
    """Events in milliseconds to a table's column."""
    return Ragged.of([[(label, on / 1000, off / 1000) for label, on, off in clip] for clip in clips], EVENT)


def by_loop(clips, rows, hop, frames):
    targets = np.zeros((len(rows), frames, CLASSES), bool)
    for b, row in enumerate(rows):
        for label, on, off in clips[row]:
            for t in range(frames):
                if on <= t * hop < off:
                    targets[b, t, label] = True
    return targets


event = st.tuples(st.integers(0, CLASSES - 1), st.integers(0, 900), st.integers(0, 900))
clip_lists = st.lists(st.lists(event, max_size=5), min_size=1, max_size=4)


@given(clip_lists, st.data(), st.sampled_from([1, 7, 20, 100, 160]), st.integers(0, 40))
def test_as_a_plain_loop(clips, data, hop, frames):
    rows = data.draw(st.lists(st.integers(0, len(clips) - 1), max_size=6))  # any order, also twice
    seconds = np.arange(frames) * (hop / 1000)  # not exact in binary
    found = frame_targets(in_seconds(clips), rows, seconds, CLASSES)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, by_loop(clips, rows, hop, frames))


@pytest.mark.parametrize(
    ("on", "off", "frames"),
    [
        (300, 480, [2]),  # 0.32 alone: 0.16 starts before, 0.48 at the offset
        (320, 481, [2, 3]),  # onset on a frame's start
        (161, 319, []),  # between two starts
        (0, 1, [0]),
        (1120, 5000, [7]),  # to the end and past it
    ],
)
def test_a_frame_counts_by_its_start(on, off, frames):
    found = frame_targets(in_seconds([[(1, on, off)]]), [0], np.arange(8) * 0.16, CLASSES)
    assert np.flatnonzero(found[0, :, 1]).tolist() == frames
    assert not found[:, :, [0, 2]].any()


def test_rounding_does_not_move_an_edge():
    times = np.arange(4) * 0.1  # 0.30000000000000004
    assert times[3] > 0.3
    assert frame_targets(in_seconds([[(0, 300, 400)]]), [0], times, 1)[0, :, 0].tolist() == [False] * 3 + [True]
    assert not frame_targets(in_seconds([[(0, 0, 300)]]), [0], times, 1)[0, 3, 0]


def test_clips_without_events_and_no_clips():
    events = in_seconds([[], [(0, 0, 50)], []])
    assert frame_targets(events, [0, 2], [0.0], 1).tolist() == [[[False]], [[False]]]
    assert frame_targets(events, [], [0.0, 1.0], 1).shape == (0, 2, 1)


@given(clip_lists, st.sampled_from([7, 20, 100, 320]), st.integers(2, 40), st.sampled_from([0.25, 0.5, 1.0]))
def test_a_frame_that_an_event_fills_enough_is_marked(clips, hop, frames, filled):
    found = frame_targets(in_seconds(clips), range(len(clips)), np.arange(frames) * (hop / 1000), CLASSES, filled)
    expected = np.zeros_like(found)
    for b, clip in enumerate(clips):
        for label, on, off in clip:
            shared = [max(0, min(off, (t + 1) * hop) - max(on, t * hop)) for t in range(frames)]
            for t, own in enumerate(shared):
                if own and (own >= filled * hop or own == max(shared)):
                    expected[b, t, label] = True
    np.testing.assert_array_equal(found, expected)
