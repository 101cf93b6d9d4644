"""Scores to rows: best labels first, and events that do not depend on how the frames came."""

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiobat.evaluation.metrics import frames_to_events
from audiobat.evaluation.score_file import Stretch
from audiobat.inference.events import EventJoiner, FrameEvents, WindowLabels
from audiobat.inference.journal import join_rows
from audiobat.inference.scoring import HeldFrames


def follow(make, scores: np.ndarray, spans: np.ndarray, cuts=(), resumed: bool = False) -> dict[str, np.ndarray]:
    """The rows of a recording whose frames come in pieces; `resumed`: each is taken by a rule that goes on anew."""
    edges = [0, *sorted(cut for cut in cuts if cut <= len(scores)), len(scores)]
    rule, found = make(), []
    for number, (at, end) in enumerate(pairwise(edges)):
        stretch = Stretch(7, spans[at:end], scores[at:end], number == 0, number == len(edges) - 2)
        found.append(rule.rows(stretch))
        if resumed:
            state = {name: np.array(value) for name, value in rule.state().items()}
            rule = make()
            rule.restore(state)
    rows = join_rows(found)
    assert (rows.pop("row") == 7).all()
    return rows


def plain_events(events, scores, merge_gap, min_duration):
    """(start, end, label, score) of joined events, in loops; `events` are those without joining, in frames of 0.5 s."""
    rows = []
    for label in range(scores.shape[1]):
        own = sorted((start, end) for start, end, c in events if c == label)
        joined = [[event] for event in own[:1]]
        for event in own[1:]:
            if merge_gap > 0 and event[0] - joined[-1][-1][1] <= merge_gap:
                joined[-1].append(event)
            else:
                joined.append([event])
        for parts in joined:
            start, end = parts[0][0], parts[-1][1]
            if end - start >= min_duration:
                values = np.concatenate([scores[round(on * 2) : round(off * 2), label] for on, off in parts])
                rows.append((start, end, label, round(float(values.astype(np.float64).mean()), 6)))
    return sorted(rows)


def sorted_rows(rows: dict[str, np.ndarray]) -> list[tuple]:
    return sorted(zip(*(rows[name].tolist() for name in ("start", "end", "label", "score")), strict=True))


@given(
    frames=st.integers(1, 40),
    classes=st.integers(1, 4),
    median=st.sampled_from([1, 3, 5, 9]),
    thresholds=st.lists(st.sampled_from([0.0, 0.3, 0.5, 0.9]), min_size=4, max_size=4),
    merge_gap=st.sampled_from([0.0, 0.5, 0.9, 1.0, 3.0]),
    min_duration=st.sampled_from([0.0, 0.4, 0.5, 1.5, 2.0]),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    seed=st.integers(0, 10**6),
    resumed=st.booleans(),
)
def test_events_are_those_of_all_frames_at_once(
    frames, classes, median, thresholds, merge_gap, min_duration, cuts, seed, resumed
):
    rng = np.random.default_rng(seed)
    scores = (rng.integers(0, 5, (frames, classes)) / 4).astype(np.float32)  # also exactly the threshold
    spans = np.stack([np.arange(frames) * 0.5, np.arange(frames) * 0.5 + 0.5], 1)

    def make() -> FrameEvents:
        return FrameEvents(np.array(thresholds[:classes]), median, EventJoiner(classes, merge_gap, min_duration))

    rows = sorted_rows(follow(make, scores, spans, cuts, resumed))
    events, smooth = [], np.zeros_like(scores)
    for label in range(classes):
        own = torch.from_numpy(scores[:, label : label + 1])
        found = frames_to_events(own, torch.from_numpy(spans[:, 0]), 0.5, thresholds[label], median)
        events += [(on, off, label) for on, off in zip(found.onset.tolist(), found.offset.tolist(), strict=True)]
        padded = np.pad(scores[:, label], median // 2, "symmetric")
        smooth[:, label] = [np.median(padded[at : at + median]) for at in range(frames)]
    assert rows == plain_events(events, smooth, merge_gap, min_duration)


@given(
    windows=st.integers(1, 30),
    top=st.integers(1, 3),
    merge_gap=st.sampled_from([0.0, 1.0, 2.5]),
    min_duration=st.sampled_from([0.0, 1.5, 3.0]),
    cuts=st.lists(st.integers(0, 30), max_size=4),
    seed=st.integers(0, 10**6),
    resumed=st.booleans(),
)
def test_neighbouring_windows_of_a_label_are_joined(windows, top, merge_gap, min_duration, cuts, seed, resumed):
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.linspace(0.1, 0.9, 3, dtype=np.float32), (windows, 1)), axis=1)
    spans = np.stack([np.arange(windows) * 0.5, np.arange(windows) * 0.5 + 0.5], 1)
    thresholds = np.array([0.2, 0.5, 0.6])

    def joined() -> WindowLabels:
        return WindowLabels(top, thresholds, EventJoiner(3, merge_gap, min_duration))

    alone = sorted_rows(follow(lambda: WindowLabels(top, thresholds), scores, spans, cuts))
    events = []
    for label in range(3):
        own = [(start, end) for start, end, c, _ in alone if c == label]
        for start, end in own:
            if events and events[-1][1:] == (start, label):
                events[-1] = (events[-1][0], end, label)
            else:
                events.append((start, end, label))
    wanted = plain_events(events, scores, merge_gap, min_duration)
    assert sorted_rows(follow(joined, scores, spans, cuts, resumed)) == wanted


def test_the_score_of_an_event_is_the_mean_of_its_frames_without_those_of_gaps():
    scores = np.array([[0.6, 0.1], [0.8, 0.9], [0.4, 0.7], [0.9, 0.2]], np.float32)
    spans = np.stack([np.arange(4.0), np.arange(4.0) + 1], 1)

    def rows(merge_gap: float, min_duration: float = 0.0) -> list[tuple]:
        rule = FrameEvents(np.full(2, 0.5), 1, EventJoiner(2, merge_gap, min_duration))
        return sorted_rows(follow(lambda: rule, scores, spans, [1]))

    assert rows(0.0) == [(0.0, 2.0, 0, 0.7), (1.0, 3.0, 1, 0.8), (3.0, 4.0, 0, 0.9)]
    assert rows(0.9) == rows(0.0)
    assert rows(1.0) == [(0.0, 4.0, 0, round((0.6 + 0.8 + 0.9) / 3, 6)), (1.0, 3.0, 1, 0.8)]
    assert rows(0.0, 2.0) == [(0.0, 2.0, 0, 0.7), (1.0, 3.0, 1, 0.8)]


@given(
    apart=st.integers(1, 4),
    more=st.integers(1, 5),
    windows=st.integers(1, 6),
    rest=st.integers(0, 4),
    seed=st.integers(0, 99),
    resumed=st.integers(0, 5),
)
def test_a_frame_of_several_windows_has_its_mean_score_also_after_a_resume(apart, more, windows, rest, seed, resumed):
    rng, size = np.random.default_rng(seed), apart + more
    lengths = [size] * windows + ([size - apart + rest] if windows > 1 and 0 < rest <= apart else [])
    scores = [rng.random((length, 2)).astype(np.float32) for length in lengths]
    views: dict[int, list] = {}
    for i, own in enumerate(scores):
        for at, row in enumerate(own):
            views.setdefault(i * apart + at, []).append(row)
    held, found, places = HeldFrames(2, apart), [], []
    for i, own in enumerate(scores):
        if i == resumed:
            held, before = HeldFrames(2, apart), held
            held.restore(before.state())
        starts = (i * apart + np.arange(len(own))) / 4
        spans, means = held.follow(np.stack([starts, starts + 0.25], 1), own, i == 0, i == len(scores) - 1)
        found += means.tolist()
        places += spans[:, 0].tolist()
    assert places == [number / 4 for number in sorted(views)]
    np.testing.assert_allclose(found, [np.mean(views[number], 0) for number in sorted(views)], rtol=1e-6)
