"""The file of scores behind predictions to tracks of the page: hundredths, from which it makes events at any threshold.

Scores are rounded up to hundredths: so a score lies above a whole hundredth exactly where it did before, also after a
median filter, and the page's events are those of `audiobat predict` at that threshold.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiobat.evaluation.detections.align import match_names
from audiobat.evaluation.detections.decode import best_of_each
from audiobat.evaluation.report.detections.evaluation import Evaluation
from audiobat.evaluation.score_file import EVENT_MEDIAN, Stretch, read_scores

HUNDREDTHS = (np.arange(101) / 100).astype(np.float32)
LEAST = 5  # hundredths: a class whose scores stay below has no track, unless it is asked for


@dataclass(frozen=True, eq=False)
class ScoreTrack:
    """The scores of T windows or frames of a recording."""

    spans: NDArray[np.float64]  # [T, 2] seconds from the start of the page's stretch: start and end
    scores: NDArray[np.float32]  # [T, C]
    classes: Sequence[str]  # [C]
    is_frames: bool  # events are runs of frames; else each window is labelled as a whole
    median: int  # frames under the filter of `predict`

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


def read_tracks(found: Evaluation, stretches: Mapping[str, tuple[float, float]]) -> dict[str, ScoreTrack]:
    """The tracks of stretches of recordings, where the predictions are a file of scores that is still there.

    Args:
        found: the evaluation.
        stretches: recording to the start of its stretch, and its length, in seconds.

    Raises:
        AudiobatError: a file of scores that is damaged, or whose names fit several recordings.
    """
    path = Path(str(found.plain["predictions"]))
    if path.suffix.lower() != ".npz" or not path.exists():
        return {}
    kept = read_scores(path)
    files = [str(row["file"]) for row in found.plain["per_recording"]]
    partners = [files[at] if at >= 0 else "" for at in match_names(files, kept.keys)]
    parts: dict[str, list[Stretch]] = {file: [] for file in stretches}
    for part in kept.stretches():
        file = partners[part.recording]
        if file in parts:
            start, seconds = stretches[file]
            inside = (part.spans[:, 0] >= start) & (part.spans[:, 0] < start + seconds)
            parts[file].append(part._replace(spans=part.spans[inside] - start, scores=part.scores[inside]))
    about = kept.about
    tracks = {}
    for file, own in parts.items():
        if any(len(part.scores) for part in own):
            scores = np.concatenate([part.scores for part in own])
            if about.kind == "windows" and not about.multi_label:  # only the best class of a window is predicted
                scores = best_of_each(scores, 1)
            spans = np.concatenate([part.spans for part in own])
            tracks[file] = ScoreTrack(
                spans, scores, about.classes, about.kind == "frames", about.median or EVENT_MEDIAN
            )
    return tracks


def packed(values: NDArray[Any]) -> str:
    """An array's bytes, compressed, as text."""
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode()
