"""The tasks of predicting: scores of windows to rows (clip, start, end, label, score).

A head that labels clips gives labels of windows, `WindowLabels`. One that labels frames gives events, `FrameEvents`:
those that `metrics.frames_to_events` finds in a whole recording, found here window by window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from audiobat.data.windows import Window
from audiobat.inference.journal import CLIP_ID, Rows, join_rows
from audiobat.inference.window_pass import Task
from audiobat.models.tagger import Tagger

DIGITS = 6  # of scores, as exact as float32 is, and of seconds: microseconds
DTYPES = {CLIP_ID: np.int64, "start": np.float64, "end": np.float64, "label": np.int32, "score": np.float64}

Scores = NDArray[np.float32]


def make_rows(clip_id: int, start: ArrayLike, end: ArrayLike, label: ArrayLike, score: ArrayLike) -> Rows:
    """Rows of one clip; the other columns are arrays [R], or a number for all rows."""
    columns = np.broadcast_arrays(clip_id, start, end, label, score)
    rows = {name: np.array(column, kind) for (name, kind), column in zip(DTYPES.items(), columns, strict=True)}
    return rows | {name: rows[name].round(DIGITS) for name in ("start", "end", "score")}


@dataclass
class WindowLabels(Task):
    """Labels of whole windows: of each window the `top` best above the threshold, best first."""

    tagger: Tagger
    top: int
    threshold: float

    def compute(self, waveform: Tensor, lengths: Tensor) -> Sequence[Scores]:
        """Scores [C] of each window of [B, S]."""
        return list(self.tagger.scores(self.tagger(waveform, lengths)).float().cpu().numpy())

    def rows(self, window: Window, value: Scores) -> Rows:
        """The rows of a window from its scores [C]."""
        best = np.argsort(-value, kind="stable")[: self.top]
        best = best[value[best] > self.threshold]
        rate = self.tagger.sample_rate
        start, end = window.start / rate, (window.start + len(window.samples)) / rate
        return make_rows(window.clip_id, start, end, best, value[best])


@dataclass
class FrameEvents(Task):
    """Events: runs of frames above the threshold after a median filter over time, also across windows.

    Where windows overlap, a frame is taken from the window whose middle is nearer.
    """

    tagger: Tagger
    threshold: float
    median: int  # frames, odd
    window: int  # samples
    hop: int
    tracker: EventTracker = field(init=False)  # of the recording whose windows come now

    def __post_init__(self) -> None:
        self._begin_recording()

    def _begin_recording(self) -> None:
        self.tracker = EventTracker(len(self.tagger.classes), self.threshold, self.median)

    def compute(self, waveform: Tensor, lengths: Tensor) -> Sequence[tuple[Scores, NDArray[np.float64]]]:
        """Scores [T, C] and start times [T] in seconds of the frames of each window."""
        logits, frame_times = self.tagger.frames(waveform, lengths)
        scores = self.tagger.scores(logits).float().cpu().numpy()
        times = frame_times.double().cpu().numpy().round(DIGITS)  # float32's 0.16 lies before 0.16
        return [(own, times) for own in scores]

    def rows(self, window: Window, value: tuple[Scores, NDArray[np.float64]]) -> Rows:
        """The events that have ended, whatever follows."""
        scores, times = value
        rate, seconds = self.tagger.sample_rate, len(window.samples) / self.tagger.sample_rate
        if window.number == 0:
            self._begin_recording()
        margin = (self.window - self.hop) // 2  # half of the overlap: the neighbour is nearer there
        first = 0.0 if window.number == 0 else margin / rate
        behind = seconds if window.last else min(seconds, (margin + self.hop) / rate)
        keep = (times >= first) & (times < behind)
        step = float(times[1] - times[0]) if len(times) > 1 else seconds
        starts, ends = times[keep], np.minimum(times[keep] + step, seconds)
        begin = window.start / rate
        found = self.tracker.push(scores[keep], np.stack([begin + starts, begin + ends], 1))
        if window.last:
            found = join_rows([found, self.tracker.finish()])
        return make_rows(window.clip_id, **found)

    def state(self) -> Rows:
        """The tracker's: the events that have not ended, and the frames that the filter still needs."""
        return self.tracker.state()

    def restore(self, state: Rows) -> None:
        """Go on within a recording; an empty state is that before the first window."""
        if state:
            self.tracker.restore(state)


class EventTracker:
    """Frames of one recording, some at a time, to events of C classes."""

    def __init__(self, classes: int, threshold: float, median: int) -> None:
        self._threshold, self._reach = threshold, median // 2
        self._raw = np.zeros((0, classes), np.float32)  # frames that the filter still needs
        self._spans = np.zeros((0, 2))  # start and end of the frames that it has not filtered yet
        self._begun = False  # whether `_raw` begins with the mirror image of the first frames
        self._start = np.full(classes, np.nan)  # of the open event of each class; NaN: none is open
        self._end = np.zeros(classes)  # of its last frame
        self._sum = np.zeros(classes)  # of its frames' scores
        self._count = np.zeros(classes)  # of its frames

    def state(self) -> Rows:
        """All that the tracker holds, as arrays."""
        return {name: np.array(getattr(self, f"_{name}")) for name in self._fields}

    def restore(self, state: Rows) -> None:
        """Take over the state of another tracker."""
        for name in self._fields:
            setattr(self, f"_{name}", state[name])

    _fields = ("raw", "spans", "begun", "start", "end", "sum", "count")

    def push(self, scores: Scores, spans: NDArray[np.float64]) -> Rows:
        """Take the next frames [T, C] and their spans [T, 2]; returns the events that ended."""
        self._raw, self._spans = np.concatenate([self._raw, scores]), np.concatenate([self._spans, spans])
        reach = self._reach
        if not self._begun:
            if len(self._raw) < max(1, reach):
                return self._follow(self._raw[:0])
            self._raw = np.concatenate([self._raw[:reach][::-1], self._raw])
            self._begun = True
        return self._filter()

    def finish(self) -> Rows:
        """The recording ends: returns the events that are left."""
        if not self._begun:  # a recording shorter than the filter is mirrored again and again
            frames = len(self._raw)
            place = np.arange(-self._reach, frames + self._reach) % (2 * frames)
            self._raw = self._raw[np.minimum(place, 2 * frames - 1 - place)]
        else:
            self._raw = np.concatenate([self._raw, self._raw[len(self._raw) - self._reach :][::-1]])
        return join_rows([self._filter(), self._close(~np.isnan(self._start))])

    def _filter(self) -> Rows:
        """Filter the frames whose neighbours are all there, and follow them."""
        width = 2 * self._reach + 1
        if len(self._raw) < width:
            return self._follow(self._raw[:0])
        views = np.lib.stride_tricks.sliding_window_view(self._raw, width, axis=0)  # [T, C, width]
        smooth = np.sort(views, axis=-1)[..., self._reach]
        self._raw = self._raw[len(smooth) :]
        return self._follow(smooth)

    def _follow(self, smooth: Scores) -> Rows:
        """Open, prolong and close events along the next filtered frames [T, C]; returns the closed ones."""
        spans, self._spans = self._spans[: len(smooth)], self._spans[len(smooth) :]
        closed = [self._close(np.zeros(len(self._start), bool))]
        active = smooth > self._threshold
        before = np.concatenate([~np.isnan(self._start)[None], active])[:-1]
        ended = (before & ~active).any(1)  # [T] an event of the frame before does not reach this one
        for frame in np.flatnonzero(active.any(1) | ended):
            on, is_open = active[frame], ~np.isnan(self._start)
            if (is_open & ~on).any():
                closed.append(self._close(is_open & ~on))
            self._start[on & ~is_open] = spans[frame, 0]
            self._end[on] = spans[frame, 1]
            self._sum[on] += smooth[frame, on]
            self._count[on] += 1
        return join_rows(closed)

    def _close(self, which: NDArray[np.bool_]) -> Rows:
        """Close the events of some classes; an event's score is the mean of its frames' scores."""
        labels = np.flatnonzero(which)
        score = self._sum[labels] / self._count[labels]
        rows = {"start": self._start[labels], "end": self._end[labels], "label": labels, "score": score}
        self._start[labels], self._sum[labels], self._count[labels] = np.nan, 0, 0
        return rows
