"""Scores of a recording's frames or windows to events at a threshold, and to the highest score in stretches of time.

The events are those that `audiobat predict` makes of the same scores. All at once: T frames or windows, C classes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from audiobat.evaluation.detections.event_list import TOUCHING, Bools, EventList, Floats, Scores, Whole


def smooth(scores: Scores, width: int) -> Scores:
    """Medians [T, C] over `width` frames, odd; a recording is continued by its mirror image at both ends."""
    frames, reach = len(scores), width // 2
    if not frames or not reach:
        return scores
    place = np.arange(-reach, frames + reach) % (2 * frames)
    padded = scores[np.minimum(place, 2 * frames - 1 - place)]
    views = np.lib.stride_tricks.sliding_window_view(padded, width, axis=0)  # [T, C, width]
    return np.asarray(np.partition(views, reach, axis=-1)[..., reach])


def best_of_each(scores: Scores, top: int) -> Scores:
    """The scores [T, C], with -infinity in place of all but the `top` highest of each frame or window."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]  # of equal ones the first, as `predict` has it
    kept = np.full_like(scores, -np.inf)
    np.put_along_axis(kept, best, np.take_along_axis(scores, best, 1), 1)
    return kept


def runs(marked: Bools, spans: Floats, scores: Scores | None = None, *, ends_on_frame: bool = False) -> EventList:
    """Runs of marked frames [T, C] as events of recording 0, each with the mean of its frames' scores.

    Args:
        marked: the frames that count.
        spans: [T, 2] seconds at which the frames begin and end.
        scores: [T, C]; None: the events have none.
        ends_on_frame: whether an event ends where its last frame begins, not where that ends.
    """
    change = np.diff(np.pad(marked.T.astype(np.int8), ((0, 0), (1, 1))))  # [C, T + 1]: 1 where a run begins, -1 behind
    label, first = np.nonzero(change == 1)
    _, behind = np.nonzero(change == -1)  # in the same order, as the runs of a class begin and end in turn
    ends = spans[behind - 1, 0 if ends_on_frame else 1]
    events = EventList(np.zeros(len(label), np.int64), label, spans[first, 0], ends)
    if scores is None:
        return events
    sums = np.concatenate([np.zeros((1, scores.shape[1])), np.cumsum(scores, axis=0, dtype=np.float64)])
    return replace(events, score=(sums[behind, label] - sums[first, label]) / (behind - first))


def singles(marked: Bools, spans: Floats, scores: Scores | None = None) -> EventList:
    """Every marked window [T, C] as an event of its own, of recording 0; arguments as of `runs`."""
    window, label = np.nonzero(marked)
    score = None if scores is None else scores[window, label].astype(np.float64)
    return EventList(np.zeros(len(label), np.int64), label, spans[window, 0], spans[window, 1], score)


def highest(scores: Scores, spans: Floats, starts: Floats, ends: Floats) -> Scores:
    """The highest score [K, C] of the frames or windows that share time with each stretch; -infinity where none does.

    Args:
        scores: [T, C].
        spans: [T, 2] seconds, both columns rising.
        starts: [K] seconds at which the stretches begin, and
        ends: [K] end.
    """
    first, behind = _frames_in(spans, starts, ends)
    padded = np.concatenate([scores, np.full((1, scores.shape[1]), -np.inf, scores.dtype)])
    edges = np.stack([first, np.maximum(behind, first)], 1).ravel()  # every second stretch of frames is one asked for
    best = np.maximum.reduceat(padded, edges, axis=0)[::2] if len(starts) else padded[:0]
    return np.asarray(np.where((behind > first)[:, None], best, -np.inf), scores.dtype)


def _frames_in(spans: Floats, starts: Floats, ends: Floats) -> tuple[Whole, Whole]:
    """The first frame that shares time with each stretch, and the one behind the last."""
    first = np.searchsorted(spans[:, 1], starts + TOUCHING, side="right")
    return first, np.searchsorted(spans[:, 0], ends - TOUCHING, side="left")
