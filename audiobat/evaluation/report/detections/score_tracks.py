"""The scores of one recording as the page holds them: hundredths, packed, from which it makes events at any threshold.

Scores are rounded up to hundredths: so a score lies above a whole hundredth exactly where it did before, also after a
median filter, and the page's events are those of `audiobat predict` at that threshold.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

HUNDREDTHS = (np.arange(101) / 100).astype(np.float32)
LEAST = 5  # hundredths: a class whose scores stay below has no track, unless it is asked for


@dataclass(frozen=True, eq=False)
class ScoreTrack:
    """The scores of T windows or frames of a recording."""

    spans: NDArray[np.float64]  # [T, 2] seconds: start and end
    scores: NDArray[np.float32]  # [T, C]
    classes: Sequence[str]  # [C]
    is_frames: bool  # events are runs of frames; else each window is labelled as a whole
    median: int = 3  # frames under the filter of `predict`

    def within(self, start: float, seconds: float) -> ScoreTrack:
        """The windows or frames that begin in a stretch, with times from its start."""
        kept = (self.spans[:, 0] >= start) & (self.spans[:, 0] < start + seconds)
        spans = self.spans[kept] - start
        return ScoreTrack(spans, self.scores[kept], self.classes, self.is_frames, self.median)

    def heard(self) -> list[str]:
        """The classes whose scores reach LEAST."""
        if not len(self.scores):
            return []
        return [name for name, top in zip(self.classes, self.scores.max(0), strict=True) if 100 * top >= LEAST]

    def plain(self, labels: Sequence[str], places: Sequence[int]) -> dict[str, Any]:
        """For the page: the tracks of `labels`, whose places among the page's classes are `places`."""
        columns = [list(self.classes).index(label) for label in labels]
        hundredths = np.searchsorted(HUNDREDTHS, self.scores[:, columns], side="left")
        steps = np.diff(np.round(1000 * self.spans).astype(np.int32).ravel(), prepend=np.int32(0))
        return {
            "rows": list(places),
            "windows": not self.is_frames,
            "median": self.median if self.is_frames else 1,
            "values": packed(np.ascontiguousarray(hundredths.T).astype(np.uint8)),
            "spans": packed(steps.astype("<i4")),
        }


def packed(values: NDArray[Any]) -> str:
    """An array's bytes, compressed, as text."""
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode()
