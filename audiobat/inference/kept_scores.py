"""Scores that `predict --scores` kept, as the predictions of `evaluate`: events at its thresholds, and at all others.

The events are those that `predict --data SCORES` writes. Of classes that exclude each other only the best of a window
counts, as there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from audiobat.data.sources.relabel import read_label_map
from audiobat.engine.progress import Progress
from audiobat.evaluation.detections.align import Pair, Side
from audiobat.evaluation.detections.conventions import Convention
from audiobat.evaluation.detections.decode import best_of_each, runs, singles, smooth
from audiobat.evaluation.detections.event_list import Bools, EventList, Floats, Scores
from audiobat.evaluation.detections.sweep import Sweep
from audiobat.evaluation.detections.units import units_of
from audiobat.evaluation.score_file import read_scores
from audiobat.inference.settings import Settings
from audiobat.inference.thresholds import Threshold


class KeptScores:
    """A file of scores, read recording by recording."""

    def __init__(self, path: str | Path, threshold: Threshold | None, label_map: str | Path | None) -> None:
        """
        Args:
            path: of the file.
            threshold: as `predict` takes it; None: that of the model, or its default.
            label_map: a CSV of columns `from` and `to`, or None.

        Raises:
            AudiobatError: a file that cannot be read, a bad threshold.
        """
        self._file = read_scores(path)
        about = self._file.about
        values = Settings(threshold=threshold).values(about)
        self._thresholds = np.array(values["threshold"])  # [C]
        self._median, self._top = values.get("median", 1), values.get("top", len(about.classes))
        self._is_frames = about.kind == "frames"
        names = {} if label_map is None else read_label_map(Path(label_map))
        self._labels = [names.get(name, name) for name in about.classes]  # empty: left out

    def side(self, convention: Convention) -> Side:
        """The events at the thresholds, of all recordings.

        Raises:
            AudiobatError: a damaged file.
        """
        found = [
            (at, self._events(scores > self._thresholds, spans, convention, scores))
            for at, scores, spans in self._recordings()
        ]
        events = [event_list for _, event_list in found]
        recording = np.repeat([at for at, _ in found], [len(own) for own in events]).astype(np.int64)
        label, onset, offset, score = (
            np.concatenate([np.zeros(0, kind), *(getattr(own, name) for own in events)])
            for name, kind in (("label", np.int64), ("onset", float), ("offset", float), ("score", float))
        )
        every = EventList(recording, label, onset, offset, score)
        named = np.array([bool(name) for name in self._labels])
        kept = every.take(named[label])
        classes = [name for name in self._labels if name]
        return Side(
            list(self._file.keys), classes, replace(kept, label=(named.cumsum() - 1)[kept.label]), every_class=True
        )

    def sweep(self, pair: Pair, lengths: Floats, convention: Convention) -> Sweep:
        """All thresholds, for the recordings and classes of the pair that `side` was aligned to.

        Raises:
            AudiobatError: a damaged file.
        """

        def events_at(scores: Scores, spans: Floats, threshold: float) -> EventList:
            return self._events(scores > threshold, spans, convention)

        sweep = Sweep(pair, lengths, units_of(lengths), units_of(lengths, whole=True), convention, events_at)
        places = {int(at): place for place, at in enumerate(pair.predicted_ids.tolist()) if at >= 0}
        with Progress("every threshold", len(self._file.keys), "recording") as bar:
            for at, scores, spans in self._recordings():
                if at in places:
                    sweep.add(places[at], self._of_classes(scores, pair.classes), spans)
                bar.advance()
        return sweep

    def _recordings(self) -> Iterator[tuple[int, Scores, Floats]]:
        """Each recording's place, its scores [T, C], smoothed or -infinity where a class is not the best, and spans."""
        for stretch in self._file.stretches(None):
            scores = smooth(stretch.scores, self._median)
            if self._top < scores.shape[1]:
                scores = best_of_each(scores, self._top)
            yield stretch.recording, scores, stretch.spans

    def _events(self, marked: Bools, spans: Floats, convention: Convention, scores: Scores | None = None) -> EventList:
        """The events of marked frames or windows [T, C] of a recording."""
        if not self._is_frames:
            return singles(marked, spans, scores)
        return runs(marked, spans, scores, ends_on_frame=convention.ends_on_frame)

    def _of_classes(self, scores: Scores, classes: list[str]) -> Scores:
        """The scores of the pair's classes [T, P]: the highest of those of one name, -infinity where none has it."""
        places = {name: place for place, name in enumerate(classes)}
        taken = np.full((len(scores), len(classes)), -np.inf, np.float32)
        for label, name in enumerate(self._labels):
            if (place := places.get(name)) is not None:
                np.maximum(taken[:, place], scores[:, label], out=taken[:, place])
        return taken
