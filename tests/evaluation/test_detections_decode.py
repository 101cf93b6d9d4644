"""Scores to events and to the highest score in a stretch, against scipy, `frames_to_events` and plain loops."""

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter

from audiobat.evaluation.detections.decode import highest, runs, singles, smooth
from audiobat.evaluation.metrics import frames_to_events


@pytest.mark.parametrize("width", [1, 3, 5, 9])
@pytest.mark.parametrize("frames", [0, 1, 2, 3, 17])
def test_medians_are_scipys_with_mirrored_ends(frames, width):
    scores = np.random.default_rng(frames).random((frames, 2), np.float32)
    if frames == 0:
        assert smooth(scores, width).shape == (0, 2)
        return
    mirrored = np.pad(scores, ((width, width), (0, 0)), mode="symmetric")  # again and again, where that is longer
    wanted = median_filter(mirrored, (width, 1))[width : width + frames]
    assert np.array_equal(smooth(scores, width), wanted)


@pytest.mark.parametrize("seed", range(10))
def test_runs_are_the_events_that_fine_tuning_is_tested_by(seed):
    rng = np.random.default_rng(seed)
    scores = rng.random((40, 3), np.float32)
    spans = np.stack([np.arange(40), np.arange(1, 41)], 1) * 0.16
    smoothed = smooth(scores, 3)
    wanted = frames_to_events(torch.from_numpy(scores), torch.from_numpy(spans[:, 0]), 0.16, threshold=0.5, median=3)
    events = runs(smoothed > 0.5, spans, smoothed)
    assert events.label.tolist() == wanted.label.tolist()
    np.testing.assert_allclose(events.onset, wanted.onset)
    np.testing.assert_allclose(events.offset, wanted.offset)
    for label, onset, offset, score in zip(events.label, events.onset, events.offset, events.score, strict=True):
        first, last = round(onset / 0.16), round(offset / 0.16)
        assert score == pytest.approx(smoothed[first:last, label].mean(), rel=1e-6)
    ends = runs(smoothed > 0.5, spans, ends_on_frame=True)
    assert ends.score is None
    np.testing.assert_allclose(ends.offset, events.offset - 0.16)


def test_every_marked_window_is_an_event_of_its_own():
    marked = np.array([[True, False], [True, True], [False, False]])
    spans = np.array([[0, 1], [0.5, 1.5], [1, 2]])
    events = singles(marked, spans, marked.astype(np.float32) / 2)
    assert sorted(zip(events.label.tolist(), events.onset.tolist(), strict=True)) == [(0, 0), (0, 0.5), (1, 0.5)]
    assert events.score.tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("hop", [1.0, 0.5, 1.5])  # side by side, overlapping, with gaps
def test_the_highest_score_is_that_of_what_shares_time(hop):
    rng = np.random.default_rng(0)
    scores = rng.random((12, 3), np.float32)
    spans = np.stack([np.arange(12) * hop, np.arange(12) * hop + 1], 1)
    starts = np.array([0, 1, 0.9, 2.5, 3, 11, 30, 0, 1.1])
    ends = np.array([1, 2, 1.1, 2.6, 7, 12, 31, np.inf, 1.4])
    found = highest(scores, spans, starts, ends)
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        inside = [t for t in range(12) if min(end, spans[t, 1]) - max(start, spans[t, 0]) > 1e-6]
        wanted = scores[inside].max(0) if inside else np.full(3, -np.inf)
        assert np.array_equal(found[k], wanted), (start, end)
    assert highest(scores[:0], spans[:0], starts, ends).tolist() == [[-np.inf] * 3] * 9
    assert highest(scores, spans, starts[:0], ends[:0]).shape == (0, 3)
