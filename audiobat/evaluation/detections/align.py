"""Two annotation tables to events of the same recordings and classes: names meet by path, labels by name.

A recording of the truth that predictions do not name is one in which nothing was detected. One that only predictions
name was not annotated, and is left out. A label that only predictions have counts: as false alarms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np

from audiobat.data.clip_table import ClipTable
from audiobat.errors import AudiobatError, did_you_mean, name_some
from audiobat.evaluation.detections.event_list import NONE, EventList, Whole

LATEST = 1e8  # seconds, three years: a later time is in another unit
SHOWN = 3  # names in a message


@dataclass(frozen=True, eq=False)
class Side:
    """What one table says: events of recordings."""

    keys: list[str]  # names of its recordings
    classes: list[str]
    events: EventList
    timed: bool = True  # whether events have times; else a recording has labels as a whole
    every_class: bool = False  # whether all of its classes are evaluated, not only those that events have
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Pair:
    """Truth and predictions with the same recordings and classes."""

    keys: list[str]  # the truth's, sorted
    truth_ids: Whole  # [R] place of each recording among the truth's
    predicted_ids: Whole  # [R] among the predictions'; -1: nothing was detected in it
    classes: list[str]
    truth: EventList
    found: EventList
    timed: bool
    left_out: list[str]  # recordings that only predictions name
    only_predicted: dict[str, int]  # label that truth never has: its detections
    only_true: dict[str, int]  # label that predictions never have: its true events


def side_of(table: ClipTable, name: str) -> Side:
    """A table's events; of one without times, the labels of its clips.

    Args:
        table: from `read_annotations` or `read_clips`.
        name: of the table, for messages.

    Raises:
        AudiobatError: no labels at all, times that cannot be seconds.
    """
    keys, classes = list(table.keys), list(table.classes)
    if table.events is None:
        if table.labels is None:
            raise AudiobatError(f"{name} has no labels: give annotations, or a list with a column `label`.")
        recording = np.repeat(np.arange(len(keys)), table.labels.lengths)
        label = table.labels.values.astype(np.int64)
        return Side(keys, classes, EventList(recording, label, np.zeros(len(label)), np.zeros(len(label))), timed=False)
    values = table.events.values
    recording = np.repeat(np.arange(len(keys)), table.events.lengths)
    onset, offset = values["onset"].astype(np.float64), values["offset"].astype(np.float64)
    if len(offset) and offset.max() > LATEST:
        late = keys[int(recording[int(offset.argmax())])]
        raise AudiobatError(f"{name}: an event of {late} ends at {offset.max():g} s: are its times in seconds?")
    scores = None if table.event_scores is None else table.event_scores.values.astype(np.float64)
    notes = []
    if scores is not None and not (known := np.isfinite(scores)).all():
        if known.any():
            notes.append(f"{name} has {int((~known).sum()):,} rows of {len(scores):,} without a score: none is used.")
        scores = None
    label = values["label"].astype(np.int64)
    return Side(keys, classes, EventList(recording, label, onset, offset, scores), notes=notes)


def align(truth: Side, predicted: Side, labels: Sequence[str] | None = None) -> Pair:
    """Bring both sides to the same recordings and classes.

    Args:
        truth: what was annotated.
        predicted: what was detected.
        labels: those to evaluate; None: all that either side has.

    Raises:
        AudiobatError: names that may mean several recordings, no recording or no label in common, an unknown label.
    """
    partner = match_names(truth.keys, predicted.keys)  # [predicted] the recording of truth
    order = sorted(range(len(truth.keys)), key=lambda i: truth.keys[i])
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    known = np.array([place[p] if p >= 0 else NONE for p in partner], np.int64)
    if len(predicted.events) and not (known >= 0).any():  # a table without a row names no recording
        shown = [name_some(side.keys, SHOWN) for side in (predicted, truth)]
        raise AudiobatError(
            f"Predictions and truth have no recording in common: predictions name {shown[0]}; the truth {shown[1]}. "
            "A name is matched from its end, folder by folder: give both tables the same folders, or none."
        )
    predicted_ids = np.full(len(order), NONE)
    predicted_ids[known[known >= 0]] = np.flatnonzero(known >= 0)
    offered = set(predicted.classes if predicted.every_class else _used(predicted))
    names = sorted({*_used(truth), *offered})
    if not _used(truth):
        raise AudiobatError("The truth has no event of any label: there is nothing to find.")
    if labels is not None:
        for label in labels:
            if label not in names:
                hint = f"{did_you_mean(label, names)}: the labels are {name_some(names)}."
                raise AudiobatError(f"--labels {label}: neither side has it{hint}")
        names = list(dict.fromkeys(labels))
    true = _rename(truth, np.asarray(place), names)
    found = _rename(predicted, known, names)
    true_counts, found_counts = (np.bincount(side.label, minlength=len(names)) for side in (true, found))
    if offered and not offered & set(_used(truth)):
        raise AudiobatError(
            f"Predictions and truth have no label in common: predictions have {name_some(sorted(offered), SHOWN)}; "
            f"the truth {name_some(sorted(_used(truth)), SHOWN)}. --map renames labels."
        )
    alarms = np.flatnonzero((true_counts == 0) & (found_counts > 0))
    unfound = np.flatnonzero((found_counts == 0) & (true_counts > 0))
    return Pair(
        keys=[truth.keys[i] for i in order],
        truth_ids=np.array(order, np.int64),
        predicted_ids=predicted_ids,
        classes=names,
        truth=true,
        found=found,
        timed=truth.timed and predicted.timed,
        left_out=[predicted.keys[i] for i in np.flatnonzero(known < 0)],
        only_predicted={names[c]: int(found_counts[c]) for c in alarms},
        only_true={names[c]: int(true_counts[c]) for c in unfound},
    )


def match_names(truth: Sequence[str], predicted: Sequence[str]) -> list[int]:
    """The recording of the truth that each name of the predictions means, [predicted]; -1: none.

    Two names mean one recording if the shorter is the end of the longer, folder by folder: `a.wav` and `site/a.wav`.
    Where no name with the same ending of the file fits, endings are left out: `a.flac` may mean `a.wav`.

    Raises:
        AudiobatError: a name that may mean several recordings, or several names that mean one.
    """
    wholes, stems = _index(truth, stem=False), _index(truth, stem=True)
    found = []
    for name in predicted:
        at = _find(name, _parts(name, stem=False), wholes, truth)
        found.append(_find(name, _parts(name, stem=True), stems, truth) if at == NONE else at)
    first: dict[int, str] = {}
    for name, at in zip(predicted, found, strict=True):
        if at != NONE and first.setdefault(at, name) != name:
            raise AudiobatError(f"Predictions name {first[at]} and {name}, and both may mean {truth[at]} of the truth.")
    return found


def _index(names: Sequence[str], *, stem: bool) -> dict[str, list[tuple[tuple[str, ...], int]]]:
    """Names by their last part."""
    index: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for i, name in enumerate(names):
        parts = _parts(name, stem=stem)
        index.setdefault(parts[-1], []).append((parts, i))
    return index


def _find(
    name: str, parts: tuple[str, ...], index: dict[str, list[tuple[tuple[str, ...], int]]], truth: Sequence[str]
) -> int:
    """The one recording that a name means; of several that fit, the one that shares most folders."""
    fits = [(len(own), i) for own, i in index.get(parts[-1], ()) if _is_end(own, parts)]
    if not fits:
        return NONE
    shared = [(min(length, len(parts)), i) for length, i in fits]
    most = max(count for count, _ in shared)
    best = [i for count, i in shared if count == most]
    if len(best) > 1:
        raise AudiobatError(
            f"Predictions name {name}, which may be {truth[best[0]]} or {truth[best[1]]} of the truth: "
            "name the folders, too."
        )
    return best[0]


def _is_end(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    shorter = min(len(a), len(b))
    return a[-shorter:] == b[-shorter:]


def _parts(name: str, *, stem: bool) -> tuple[str, ...]:
    path = PurePosixPath(name.replace("\\", "/"))
    parts = tuple(part for part in path.parts if part not in ("/", ".", ".."))
    return (*parts[:-1], path.stem if stem else path.name) if parts else (name,)


def _used(side: Side) -> list[str]:
    """The labels that events have."""
    return [side.classes[c] for c in np.unique(side.events.label).tolist()]


def _rename(side: Side, recording: Whole, names: list[str]) -> EventList:
    """A side's events with the recordings and classes of the pair, without those that it does not have."""
    places = {name: place for place, name in enumerate(names)}
    label = np.array([places.get(name, NONE) for name in side.classes] or [NONE], np.int64)
    events = side.events
    kept = events.take((recording[events.recording] >= 0) & (label[events.label] >= 0))
    return EventList(recording[kept.recording], label[kept.label], kept.onset, kept.offset, kept.score)
