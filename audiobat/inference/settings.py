"""How rows are made of scores: the arguments of `predict` to a rule, what is not given by its default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audiobat.config import check
from audiobat.evaluation.score_file import EVENT_MEDIAN, About
from audiobat.inference.events import EventJoiner, FrameEvents, Rule, WindowLabels
from audiobat.inference.thresholds import Threshold, pick_thresholds

MULTI_LABEL_THRESHOLD = 0.5
EVENT_THRESHOLD = 0.3  # with EVENT_MEDIAN, as `metrics.frames_to_events` scores events: DCASE-2016 task 2
NO_THRESHOLD = -1.0  # below every score


@dataclass(frozen=True)
class Settings:
    """The arguments of `predict` that make rows of scores."""

    top: int | None = None
    threshold: Threshold | None = None
    median: int | None = None
    merge_gap: float | None = None
    min_duration: float = 0.0

    def rule(self, about: About) -> Rule:
        """The rule for scores of this kind, at the beginning of a recording.

        Raises:
            AudiobatError: a bad value, or a setting for scores of the other kind.
        """
        values = self.values(about)
        thresholds = np.array(values["threshold"], np.float64)
        joiner = EventJoiner(len(about.classes), self.merge_gap or 0.0, self.min_duration)
        if about.kind == "frames":
            return FrameEvents(thresholds, values["median"], joiner)
        return WindowLabels(values["top"], thresholds, joiner if self.joins_windows else None)

    def values(self, about: About) -> dict[str, Any]:
        """What rows of scores of this kind depend on, by name, as JSON has it; thresholds of each class.

        Raises:
            AudiobatError: as for `rule`.
        """
        classes = len(about.classes)
        check(self.merge_gap is None or 0 <= self.merge_gap < np.inf, "merge_gap", self.merge_gap, "use 0 s or more")
        check(0 <= self.min_duration < np.inf, "min_duration", self.min_duration, "use 0 s or more")
        own: dict[str, Any]
        if about.kind == "frames":
            check(self.top is None, "top", self.top, "this head labels frames, use --threshold")
            median = about.median or EVENT_MEDIAN if self.median is None else self.median
            check(median > 0 and median % 2 == 1, "median", median, "use an odd number of frames, 1 for no filter")
            own = {"median": median}
        else:
            hint = "it filters frames, and this head labels clips: leave it out"
            check(self.median is None, "median", self.median, hint)
            hint = f"use 1 to {classes}, as many as the head has classes"
            check(self.top is None or 1 <= self.top <= classes, "top", self.top, hint)
            hint = "this head labels windows, all of one length: give --merge-gap as well, which joins them"
            check(self.joins_windows or self.min_duration == 0, "min_duration", self.min_duration, hint)
            own = {"top": self.top or (classes if about.multi_label else 1)}
        thresholds = pick_thresholds(self.threshold, about.classes, self.default_thresholds(about))
        joining = {"merge_gap": self.merge_gap, "min_duration": self.min_duration}
        return own | {"threshold": thresholds.tolist()} | joining

    def default_thresholds(self, about: About) -> Sequence[float]:
        """Thresholds [C] where none are given."""
        if self.top is None and about.thresholds:
            return about.thresholds
        value = EVENT_THRESHOLD
        if about.kind == "windows":
            value = MULTI_LABEL_THRESHOLD if about.multi_label and self.top is None else NO_THRESHOLD
        return [value] * len(about.classes)

    @property
    def joins_windows(self) -> bool:
        """Whether neighbouring windows of a label become one row."""
        return self.merge_gap is not None

    def sorts(self, about: About) -> bool:
        """Whether the rows of a recording are events, which end in another order than they begin."""
        return about.kind == "frames" or self.joins_windows
