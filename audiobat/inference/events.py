"""Scores to rows (clip, start, end, label, score): labels of windows, or events of windows or frames.

In: stretches of a recording, in order. Out: the rows that are final, whatever follows. A recording in any stretches
gives the rows that it gives at once, in the memory that the longest median filter needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audiobat.evaluation.score_file import Stretch
from audiobat.inference.journal import CLIP_ID, Rows, join_rows

DIGITS = 6  # of scores, as exact as float32 is, and of seconds: microseconds
DTYPES = {CLIP_ID: np.int64, "start": np.float64, "end": np.float64, "label": np.int32, "score": np.float64}

Spans = NDArray[np.float64]  # [T, 2] seconds
FrameScores = NDArray[np.float32]  # [T, C]


def make_rows(clip_id: int, start: ArrayLike, end: ArrayLike, label: ArrayLike, score: ArrayLike) -> Rows:
    """Rows of one clip; the other columns are arrays [R], or a number for all rows."""
    columns = np.broadcast_arrays(clip_id, start, end, label, score)
    rows = {name: np.array(column, kind) for (name, kind), column in zip(DTYPES.items(), columns, strict=True)}
    return rows | {name: rows[name].round(DIGITS) for name in ("start", "end", "score")}


class Rule(Protocol):
    """What makes rows of scores."""

    def rows(self, stretch: Stretch) -> Rows:
        """The rows that are final after this stretch."""

    def state(self) -> Rows:
        """What it remembers of the recording so far, as arrays."""

    def restore(self, state: Rows) -> None:
        """Go on within a recording; an empty state is that before the first stretch."""


@dataclass
class WindowLabels:
    """Labels of windows: of each the `top` best above their thresholds, best first, a row each.

    With `joiner`, neighbouring windows of one label are one row.
    """

    top: int
    thresholds: NDArray[np.float64]  # [C]
    joiner: EventJoiner | None = None

    def rows(self, stretch: Stretch) -> Rows:
        """The rows of windows, or the events that have ended."""
        scores, spans = stretch.scores, stretch.spans
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.top]  # [T, top]
        value = np.take_along_axis(scores, best, 1)
        found = value > self.thresholds[best]
        if self.joiner is None:
            window, rank = np.nonzero(found)
            starts, ends = spans[window].T
            return make_rows(stretch.recording, starts, ends, best[window, rank], value[window, rank])
        active = np.zeros(scores.shape, bool)
        np.put_along_axis(active, best, found, 1)
        return make_rows(stretch.recording, **self.joiner.follow(stretch, active, scores, spans))

    def state(self) -> Rows:
        """The joiner's."""
        return {} if self.joiner is None else self.joiner.state()

    def restore(self, state: Rows) -> None:
        """Go on within a recording."""
        if self.joiner is not None:
            self.joiner.restore(state)


@dataclass
class FrameEvents:
    """Events of frames: runs above the threshold after a median filter over time."""

    thresholds: NDArray[np.float64]  # [C]
    median: int  # frames, odd
    joiner: EventJoiner
    filter: MedianFilter = field(init=False)

    def __post_init__(self) -> None:
        self.filter = MedianFilter(len(self.thresholds), self.median)

    def rows(self, stretch: Stretch) -> Rows:
        """The events that have ended."""
        smooth, spans = self.filter.follow(stretch)
        return make_rows(stretch.recording, **self.joiner.follow(stretch, smooth > self.thresholds, smooth, spans))

    def state(self) -> Rows:
        """The events that have not ended, and the frames that the filter still needs."""
        return self.filter.state() | self.joiner.state()

    def restore(self, state: Rows) -> None:
        """Go on within a recording."""
        self.filter.restore(state)
        self.joiner.restore(state)


class Resumable:
    """Holds arrays from one stretch of a recording to the next; `_fields` are their names."""

    _fields: tuple[str, ...]

    def state(self) -> Rows:
        """All that it holds."""
        return {name: getattr(self, f"_{name}").copy() for name in self._fields}

    def restore(self, state: Rows) -> None:
        """Take over the state of another one; an empty state is that before the first stretch."""
        for name in self._fields if state else ():
            setattr(self, f"_{name}", state[name])


class MedianFilter(Resumable):
    """Scores of one recording's frames, some at a time, to their medians over `width` frames.

    The ends of a recording are mirrored.
    """

    _fields = ("raw", "spans", "begun")

    def __init__(self, classes: int, width: int) -> None:
        self._classes, self._reach = classes, width // 2
        self._begin()

    def _begin(self) -> None:
        self._raw = np.zeros((0, self._classes), np.float32)  # frames that the filter still needs
        self._spans = np.zeros((0, 2))  # of the frames that it has not filtered yet
        self._begun = np.array(False)  # whether `_raw` begins with the mirror image of the first frames

    def follow(self, stretch: Stretch) -> tuple[FrameScores, Spans]:
        """Take the next frames; returns the medians of those whose neighbours are all there, and their spans."""
        if stretch.first:
            self._begin()
        reach = self._reach
        raw = np.concatenate([self._raw, stretch.scores])
        spans = np.concatenate([self._spans, stretch.spans])
        if not self._begun and len(raw) >= max(1, reach):
            raw, self._begun = np.concatenate([raw[:reach][::-1], raw]), np.array(True)
        if stretch.last:
            raw = np.concatenate([raw, raw[len(raw) - reach :][::-1]]) if self._begun else mirrored(raw, reach)
        width = 2 * reach + 1
        smooth = raw[:0]
        if len(raw) >= width:
            views = np.lib.stride_tricks.sliding_window_view(raw, width, axis=0)  # [T, C, width]
            smooth = np.sort(views, axis=-1)[..., reach]
        self._raw, self._spans = raw[len(smooth) :], spans[len(smooth) :]
        return smooth, spans[: len(smooth)]


def mirrored(frames: FrameScores, reach: int) -> FrameScores:
    """The frames of a recording that is shorter than the filter's reach, mirrored again and again."""
    count = len(frames)
    place = np.arange(-reach, count + reach) % max(1, 2 * count)
    return frames[np.minimum(place, 2 * count - 1 - place)] if count else frames


class EventJoiner(Resumable):
    """Marked frames, or windows, of one recording to events of C classes.

    An event is a run of marked frames; events of a class that are at most `merge_gap` seconds apart are one; those
    shorter than `min_duration` seconds are dropped after that. Its score is the mean over its marked frames.
    """

    _fields = ("start", "end", "sum", "count", "marked")

    def __init__(self, classes: int, merge_gap: float, min_duration: float) -> None:
        self._merge_gap, self._min_duration = merge_gap, min_duration
        self._start = np.full(classes, np.nan)  # of the open event of each class; NaN: none is open
        self._end = np.zeros(classes)  # of its last marked frame
        self._sum = np.zeros(classes)  # of its marked frames' scores
        self._count = np.zeros(classes)  # of its marked frames
        self._marked = np.zeros(classes, bool)  # whether the frame before was marked

    def follow(self, stretch: Stretch, marked: NDArray[np.bool_], scores: FrameScores, spans: Spans) -> Rows:
        """The next frames of a recording: which are marked [T, C], their scores and spans; returns events that ended.

        `stretch` says whether the recording begins or ends with them.
        """
        if stretch.first:
            self._start[:], self._sum[:], self._count[:], self._marked[:] = np.nan, 0, 0, False
        ended = [self._end_events(np.zeros(len(self._start), bool))]
        for frame in np.flatnonzero(marked.any(1)):
            on, before = marked[frame], marked[frame - 1] if frame else self._marked
            gap = (spans[frame, 0] - self._end).round(DIGITS)
            apart = on & ~before & ((gap > self._merge_gap) | (self._merge_gap == 0))
            if (behind := apart & ~np.isnan(self._start)).any():
                ended.append(self._end_events(behind))
            self._start[on & np.isnan(self._start)] = spans[frame, 0]
            self._end[on] = spans[frame, 1]
            self._sum[on] += scores[frame, on]
            self._count[on] += 1
        if len(marked):
            self._marked = marked[-1].copy()
        if stretch.last:
            ended.append(self._end_events(~np.isnan(self._start)))
        return join_rows(ended)

    def _end_events(self, which: NDArray[np.bool_]) -> Rows:
        """End the open events of some classes; returns those that are long enough."""
        labels = np.flatnonzero(which)
        rows = {
            "start": self._start[labels],
            "end": self._end[labels],
            "label": labels,
            "score": self._sum[labels] / self._count[labels],
        }
        self._start[labels], self._sum[labels], self._count[labels] = np.nan, 0, 0
        long = (rows["end"] - rows["start"]).round(DIGITS) >= self._min_duration
        return {name: values[long] for name, values in rows.items()}
