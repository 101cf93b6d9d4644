"""The task of predicting: scores of a tagger for each window, or for each frame; kept, or made into rows at once.

Where windows overlap, a frame is taken from the window whose middle is nearer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audiobat.data.windows import Window
from audiobat.engine.tensors import weights_sha256
from audiobat.evaluation.score_file import About, Stretch
from audiobat.inference.events import DIGITS, Rule
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

    def compute(self, waveform: Tensor, lengths: Tensor) -> Sequence[WindowScores]:
        """Scores of each window of [B, S]."""
        if self.tagger.task == "clip":
            scores = self.tagger.scores(self.tagger(waveform, lengths)).float().cpu().numpy()
            return [WindowScores(own[None], None) for own in scores]
        logits, frame_times = self.tagger.frames(waveform, lengths)
        times = frame_times.double().cpu().numpy().round(DIGITS)  # float32's 0.16 lies before 0.16
        return [WindowScores(own, times) for own in self.tagger.scores(logits).float().cpu().numpy()]

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
        """The window, or those of its frames whose middle no other window has nearer."""
        rate, first = self.tagger.sample_rate, window.number == 0
        begin, seconds = window.start / rate, len(window.samples) / rate
        if value.times is None:
            spans = np.array([[begin, (window.start + len(window.samples)) / rate]])
            return Stretch(window.clip_id, spans.round(DIGITS), value.scores, first, window.last)
        times = value.times
        margin = (self.window - self.hop) // 2  # half of the overlap: the neighbour is nearer there
        after = 0.0 if first else margin / rate
        before = seconds if window.last else min(seconds, (margin + self.hop) / rate)
        keep = (times >= after) & (times < before)
        step = float(times[1] - times[0]) if len(times) > 1 else seconds
        spans = begin + np.stack([times[keep], np.minimum(times[keep] + step, seconds)], 1)
        return Stretch(window.clip_id, spans.round(DIGITS), value.scores[keep], first, window.last)

    def state(self) -> Rows:
        """The rule's."""
        return {} if self.rule is None else self.rule.state()

    def restore(self, state: Rows) -> None:
        """Go on within a recording."""
        if self.rule is not None:
            self.rule.restore(state)


def about(tagger: Tagger) -> About:
    """What scores of a tagger are."""
    kind = "windows" if tagger.task == "clip" else "frames"
    thresholds, median, nyquist = tagger.config.thresholds, tagger.config.median or 0, tagger.sample_rate / 2
    return About(tagger.classes, kind, tagger.multi_label, thresholds, median, nyquist, weights_sha256(tagger))
