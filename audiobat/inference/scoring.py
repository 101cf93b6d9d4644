"""The task of predicting: scores of a tagger for each window, or for each frame; kept, or made into rows at once.

Where windows overlap, a frame has the mean of its scores in all of them if they are a whole number of frames apart;
else it is taken from the window whose middle is nearer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audiobat.data.windows import Window
from audiobat.engine.tensors import weights_sha256
from audiobat.evaluation.score_file import About, Stretch
from audiobat.inference.events import DIGITS, Resumable, Rule
from audiobat.inference.journal import CLIP_ID, Rows
from audiobat.inference.window_pass import Task
from audiobat.models.tagger import Tagger


class WindowScores(NamedTuple):
    """What a tagger scores in a window: one row for all of it, or a row for each frame."""

    scores: NDArray[np.float32]  # [T, C]
    times: NDArray[np.float64] | None  # [T] seconds at which the frames start; None: the row is of the whole window


@dataclass
class ScoreTask(Task):
    """Scores of windows or frames; with a `rule`, what it makes of them."""

    tagger: Tagger
    window: int  # samples
    hop: int
    rule: Rule | None  # None: the scores themselves are the rows
    held: HeldFrames | None = field(init=False)  # where a frame has the mean over windows

    def __post_init__(self) -> None:
        step = getattr(self.tagger.encoder, "column_samples", 0) if self.tagger.task == "frame" else 0
        apart, rest = divmod(self.hop, step) if step and self.hop < self.window else (0, 0)
        self.held = HeldFrames(len(self.tagger.classes), apart) if apart and not rest else None

    def compute(self, waveform: Tensor, lengths: Tensor) -> Sequence[WindowScores | None]:
        """Scores of each window of [B, S]; None: some are not finite."""
        if self.tagger.task == "clip":
            logits, times = self.tagger(waveform, lengths)[:, None], None  # [B, 1, C]
        else:
            logits, frame_times = self.tagger.frames(waveform, lengths)
            times = frame_times.double().cpu().numpy().round(DIGITS)  # float32's 0.16 lies before 0.16
        scores = self.tagger.scores(logits).float().cpu().numpy()
        return [WindowScores(own, times) if np.isfinite(own).all() else None for own in scores]

    def rows(self, window: Window, value: WindowScores) -> Rows:
        """What the rule makes of the window's stretch, or the stretch; with the recording's own rate."""
        stretch = self.stretch(window, value)
        if self.rule is not None:
            rows = self.rule.rows(stretch)
        else:
            start, end = stretch.spans.T
            rows = {CLIP_ID: np.full(len(start), window.clip_id), "start": start, "end": end, "scores": stretch.scores}
        return rows | {"rate": np.full(len(rows[CLIP_ID]), window.rate)}

    def stretch(self, window: Window, value: WindowScores) -> Stretch:
        """The window, or those of its frames that no later window has, too, or whose middle none has nearer."""
        rate, first = self.tagger.sample_rate, window.number == 0
        begin, seconds = window.start / rate, len(window.samples) / rate
        if value.times is None:
            spans = np.array([[begin, (window.start + len(window.samples)) / rate]])
            return Stretch(window.clip_id, spans.round(DIGITS), value.scores, first, window.last)
        times = value.times
        step = float(times[1] - times[0]) if len(times) > 1 else seconds
        if self.held is not None:
            spans = begin + np.stack([times, np.minimum(times + step, seconds)], 1)
            own = times < seconds
            spans, scores = self.held.follow(spans[own], value.scores[own], first, window.last)
            return Stretch(window.clip_id, spans.round(DIGITS), scores, first, window.last)
        margin = (self.window - self.hop) // 2  # half of the overlap: the neighbour is nearer there
        after = 0.0 if first else margin / rate
        before = seconds if window.last else min(seconds, (margin + self.hop) / rate)
        keep = (times >= after) & (times < before)
        spans = begin + np.stack([times[keep], np.minimum(times[keep] + step, seconds)], 1)
        return Stretch(window.clip_id, spans.round(DIGITS), value.scores[keep], first, window.last)

    def state(self) -> Rows:
        """The rule's, and the frames that the next windows have, too."""
        own = {} if self.rule is None else self.rule.state()
        return own if self.held is None else own | self.held.state()

    def restore(self, state: Rows) -> None:
        """Go on within a recording."""
        if self.held is not None:
            self.held.restore(state)
        if self.rule is not None:
            self.rule.restore(state)


class HeldFrames(Resumable):
    """Frames of one recording's overlapping windows, `apart` frames from one to the next: each with its mean score."""

    _fields = ("held_sums", "held_counts", "held_spans")

    def __init__(self, classes: int, apart: int) -> None:
        self._classes, self._apart = classes, apart
        self._begin()

    def _begin(self) -> None:
        self._held_sums = np.zeros((0, self._classes), np.float32)  # of the frames from the start of the next window on
        self._held_counts = np.zeros((0, 1), np.float32)  # windows that have had them
        self._held_spans = np.zeros((0, 2))  # their spans

    def follow(
        self, spans: NDArray[np.float64], scores: NDArray[np.float32], first: bool, last: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Take the next window's frames [T, 2] and scores [T, C]; returns those that no later window has."""
        if first:
            self._begin()
        count = max(len(self._held_sums), len(scores))
        sums, counts, own = (
            np.concatenate([rows, np.zeros((count - len(rows), rows.shape[1]), rows.dtype)])
            for rows in (self._held_sums, self._held_counts, self._held_spans)
        )
        sums[: len(scores)] += scores
        counts[: len(scores)] += 1
        own[: len(spans)] = np.maximum(own[: len(spans)], spans)  # a window may end within a frame
        done = count if last else self._apart
        self._held_sums, self._held_counts, self._held_spans = sums[done:], counts[done:], own[done:]
        return own[:done], sums[:done] / counts[:done]


def about(tagger: Tagger) -> About:
    """What scores of a tagger are."""
    kind: Literal["windows", "frames"] = "windows" if tagger.task == "clip" else "frames"
    thresholds, median, nyquist = tagger.config.thresholds, tagger.config.median or 0, tagger.sample_rate / 2
    return About(tagger.classes, kind, tagger.multi_label, thresholds, median, nyquist, weights_sha256(tagger))
