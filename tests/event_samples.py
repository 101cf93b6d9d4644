"""Random events for the tests of detections, on grids of times that make ties and exact collars likely."""

from __future__ import annotations

import numpy as np

from audiobat.evaluation.detections.align import Pair, Side, align
from audiobat.evaluation.detections.event_list import EventList


def some_events(rng: np.random.Generator, count: int, recordings: int = 3, classes: int = 3, scored: bool = True):
    """Events of at most a second, within 6 s."""
    onset = rng.integers(0, 50, count) / 10
    return EventList(
        rng.integers(0, recordings, count),
        rng.integers(0, classes, count),
        onset,
        onset + rng.integers(1, 11, count) / 10,
        rng.integers(1, 9, count) / 10 if scored else None,
    )


def near(rng: np.random.Generator, truth: EventList, classes: int = 3) -> EventList:
    """Scored detections near true events: some late or early, some of another label, some missing, some of nothing."""
    kept = truth.take(rng.random(len(truth)) < 0.8)
    onset = np.maximum(0, kept.onset + rng.integers(-3, 4, len(kept)) / 10)
    offset = np.maximum(onset + 0.1, kept.offset + rng.integers(-3, 4, len(kept)) / 10)
    label = np.where(rng.random(len(kept)) < 0.2, rng.integers(0, classes, len(kept)), kept.label)
    more = some_events(rng, 3, classes=classes)
    columns = zip(
        (kept.recording, label, onset.round(6), offset.round(6), rng.integers(1, 9, len(kept)) / 10),
        (more.recording, more.label, more.onset, more.offset, more.score),
        strict=True,
    )
    return EventList(*(np.concatenate(both) for both in columns))


def some_pair(seed: int, count: int = 25) -> Pair:
    """True events in 3 recordings of 6 s, and detections near them."""
    rng = np.random.default_rng(seed)
    truth = some_events(rng, count, scored=False)
    return pair_of(truth, near(rng, truth))


def pair_of(truth: EventList, found: EventList, recordings: int = 3, classes: int = 3) -> Pair:
    """The two as tables of the recordings 0.wav, 1.wav, ... and the classes a, b, ... would come."""
    keys, names = [f"{i}.wav" for i in range(recordings)], [chr(97 + i) for i in range(classes)]
    return align(Side(keys, names, truth), Side(keys, names, found, every_class=True))
