"""Annotations to labels for the rows of a table of embeddings, whose audio need not be there any more.

In: the table, and clip tables of recordings that it has, or of clips that were cut out for review. Out: a clip table of
the windows about which something is known.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from audiobat.data.build import clip_table
from audiobat.data.clip_table import ClipTable
from audiobat.data.embeddings import EmbeddingTable
from audiobat.errors import AudiobatError
from audiobat.finetuning.review_list import QUESTION, ReviewClip

COVERED = 0.5  # of the shorter one of window and event that lies in the other: then the window has the event's label
EDGE = 1e-3  # seconds by which windows may stand out of a clip that is part of a recording: times are rounded


@dataclass(frozen=True, eq=False)
class Source:
    """What one --data brings: its name, clips with labels, and the windows that they are if it is a review."""

    name: str
    table: ClipTable
    review: Sequence[ReviewClip] = ()


@dataclass(frozen=True, eq=False)
class LabelledWindows:
    """The windows about which something is known.

    Attributes:
        table: a clip for each, PATH@START, in the order of the embeddings; its group is the recording.
        rows: [n] their rows among the embeddings.
        open: clips of reviews that nobody has heard yet.
        unknown: recordings that the embeddings do not have.
    """

    table: ClipTable
    rows: NDArray[np.int64]
    open: int
    unknown: Sequence[str]


@dataclass
class _Found:
    """What is known of a window."""

    labels: set[str] = field(default_factory=set)
    group: str = ""
    split: str | None = None
    fold: int | None = None


def label_windows(index: EmbeddingTable, sources: Sequence[Source]) -> LabelledWindows:
    """Give labels to the windows of `index`: a window has those of all sources.

    An event labels a window if it holds half of the window, or the window half of it. Labels of a whole clip are those
    of each of its windows. A clip of a review without a row holds nothing.

    Raises:
        AudiobatError: a source has none of the recordings of the index; no window has a label.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, path in enumerate(index.paths.tolist()):
        rows_of[path].append(row)
    found: dict[int, _Found] = defaultdict(_Found)
    unknown: list[str] = []
    still_open = 0
    for source in sources:
        if source.review:
            still_open += _add_review(index, rows_of, source, found)
        else:
            unknown += _add_recordings(index, rows_of, source, found)
    rows = np.array(sorted(found), np.int64)
    known = [found[row] for row in rows.tolist()]
    classes = sorted({label for one in known for label in one.labels})
    if not classes and still_open:
        raise AudiobatError(
            f"{sources[0].name} has no answer: {still_open} clips of the review still have a question mark. Hear them, "
            "and put what each is in the place of its question."
        )
    if not classes:
        raise AudiobatError(
            f"{sources[0].name} labels no window of {index.source}: give annotations of the recordings that it has."
        )
    splits = [one.split for one in known if one.split is not None]
    folds = [one.fold for one in known if one.fold is not None]
    table = clip_table(
        "",
        [index.audio(row) for row in rows.tolist()],
        keys=[f"{index.paths[row]}@{index.starts[row]:g}" for row in rows.tolist()],
        labels=[sorted(one.labels) for one in known],
        classes=classes,
        begins=index.starts[rows].tolist(),
        seconds=(index.ends - index.starts)[rows].tolist(),
        splits=splits if len(splits) == len(known) else None,
        folds=folds if len(folds) == len(known) else None,
        columns={"group": [one.group for one in known]},
    )
    return LabelledWindows(table, rows, still_open, unknown)


def _add_recordings(
    index: EmbeddingTable, rows_of: Mapping[str, Sequence[int]], source: Source, found: dict[int, _Found]
) -> list[str]:
    """Add the labels of annotated recordings; returns those that the index does not have.

    A recording is found by its place on the disk; or, if none of the source lies where it was embedded, by its path
    from the end: `site/a.wav` is `a.wav` unless another `a.wav` is there.
    """
    table = source.table
    places = {os.path.realpath(index.audio(rows[0])): path for path, rows in rows_of.items()}
    names = [places.get(os.path.realpath(table.path(clip_id))) for clip_id in range(len(table))]
    if not any(names):
        files = [table.files[file_id] for file_id in table.file_ids.tolist()]
        names = by_ends(files, list(rows_of))
    if not any(names):
        raise AudiobatError(
            f"{index.source} has no embedding of the recordings of {source.name}, such as {table.path(0)}: it was made "
            f"of {index.meta.get('data', 'others')}."
        )
    for clip_id, name in enumerate(names):
        if name is None:
            continue
        rows = np.array(rows_of[name], np.int64)
        place = table.location(clip_id)
        starts, ends = index.starts[rows] - place.begin, index.ends[rows] - place.begin
        inside = starts >= -EDGE
        if place.seconds is not None and table.begins is not None:
            inside &= ends <= place.seconds + EDGE
        group = table.columns["group"][clip_id] if "group" in table.columns else name
        labels_by_row = labels_of(table, clip_id, starts[inside], ends[inside])
        for row, labels in zip(rows[inside].tolist(), labels_by_row, strict=True):
            own = found[row]
            own.labels |= labels
            own.group = own.group or group
            own.split = None if table.splits is None else str(table.splits[clip_id])
            own.fold = None if table.folds is None else int(table.folds[clip_id])
    return [table.path(clip_id) for clip_id, name in enumerate(names) if name is None]


def by_ends(files: Sequence[str], known: Sequence[str]) -> list[str | None]:
    """The one of the `known` paths that each file is, as far back as both go; None if there is none, or several."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in known:
        by_name[path.rpartition("/")[2]].append(path)

    def of(file: str) -> str | None:
        parts = file.split("/")[::-1]
        found = [
            path
            for path in by_name[parts[0]]
            if all(a == b for a, b in zip(parts, path.split("/")[::-1], strict=False))
        ]
        return found[0] if len(found) == 1 else None

    return [of(file) for file in files]


def _add_review(
    index: EmbeddingTable, rows_of: Mapping[str, Sequence[int]], source: Source, found: dict[int, _Found]
) -> int:
    """Add what a person marked in the clips of a review; returns how many clips nobody has heard yet."""
    table, still_open, known = source.table, 0, 0
    clip_ids = {os.path.basename(key): clip_id for clip_id, key in enumerate(table.keys.tolist())}
    for clip in source.review:
        clip_id = clip_ids.get(clip.clip)
        rows = [row for row in rows_of.get(clip.path, ()) if abs(index.starts[row] - clip.start) < EDGE]
        if not rows or not os.path.exists(os.path.join(source.name, clip.clip)):
            continue  # a clip that was removed is not judged
        known += 1
        marks = set[str]()
        if clip_id is not None:
            [marks] = labels_of(table, clip_id, np.zeros(1), np.array([clip.end - clip.start]))
        if any(mark.startswith(QUESTION) for mark in marks):
            still_open += 1
            continue
        found[rows[0]].labels |= marks
        found[rows[0]].group = found[rows[0]].group or clip.path
    if not known:
        raise AudiobatError(f"{index.source} has none of the windows of {source.name}: it is a review of others.")
    return still_open


def labels_of(table: ClipTable, clip_id: int, starts: NDArray[np.float64], ends: NDArray[np.float64]) -> list[set[str]]:
    """The labels of each of W windows of a clip, which begin and end at these seconds of it, [W]."""
    if table.events is None:
        assert table.labels is not None
        labels = {table.classes[label] for label in table.labels.row(clip_id).tolist()}
        return [labels] * len(starts)
    found: list[set[str]] = [set() for _ in starts]
    order = np.argsort(starts, kind="stable")
    sorted_starts, longest = starts[order], float((ends - starts).max(initial=0.0))
    for label, onset, offset in table.events.row(clip_id).tolist():
        near = order[slice(*np.searchsorted(sorted_starts, (onset - longest, offset)))]  # no other can share a part
        shared = np.minimum(ends[near], offset) - np.maximum(starts[near], onset)  # seconds
        shorter = np.minimum(ends[near] - starts[near], offset - onset)
        for window in near[(shared >= COVERED * shorter - 1e-6) & (shared > 0)].tolist():
            found[window].add(table.classes[label])
    return found
