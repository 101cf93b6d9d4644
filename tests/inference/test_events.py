"""Scores to rows: best labels first, and events that do not depend on how the frames came."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiobat.evaluation.metrics import frames_to_events
from audiobat.inference.events import EventTracker
from audiobat.inference.journal import join_rows


@given(
    frames=st.integers(1, 40),
    classes=st.integers(1, 4),
    median=st.sampled_from([1, 3, 5, 9]),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    seed=st.integers(0, 10**6),
    resumed=st.booleans(),
)
def test_events_are_those_of_all_frames_at_once(frames, classes, median, threshold, cuts, seed, resumed):
    rng = np.random.default_rng(seed)
    scores = (rng.integers(0, 5, (frames, classes)) / 4).astype(np.float32)  # also exactly the threshold
    spans = np.stack([np.arange(frames) * 0.5, np.arange(frames) * 0.5 + 0.5], 1)
    tracker = EventTracker(classes, threshold, median)
    found = []
    for part, span in zip(np.split(scores, sorted(cuts)), np.split(spans, sorted(cuts)), strict=True):
        found.append(tracker.push(part, span))
        if resumed:
            state = {name: np.array(value) for name, value in tracker.state().items()}
            tracker = EventTracker(classes, threshold, median)
            tracker.restore(state)
    rows = join_rows([*found, tracker.finish()])
    wanted = frames_to_events(torch.from_numpy(scores), torch.from_numpy(spans[:, 0]), 0.5, threshold, median)
    events = sorted(zip(rows["start"].tolist(), rows["end"].tolist(), rows["label"].tolist(), strict=True))
    assert events == sorted(zip(wanted.onset.tolist(), wanted.offset.tolist(), wanted.label.tolist(), strict=True))
    assert (rows["score"] > threshold).all()


def test_the_score_of_an_event_is_the_mean_of_its_frames():
    tracker = EventTracker(2, 0.5, 1)
    scores = np.array([[0.6, 0.1], [0.8, 0.9], [0.4, 0.7], [0.9, 0.2]], np.float32)
    spans = np.stack([np.arange(4.0), np.arange(4.0) + 1], 1)
    rows = join_rows([tracker.push(scores[:1], spans[:1]), tracker.push(scores[1:], spans[1:]), tracker.finish()])
    found = sorted(zip(rows["label"], rows["start"], rows["end"], rows["score"].round(6), strict=True))
    assert found == [(0, 0.0, 2.0, 0.7), (0, 3.0, 4.0, 0.9), (1, 1.0, 3.0, 0.8)]
