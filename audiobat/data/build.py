"""Python lists to a clip table: the last step of every source of clips."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiobat.data.clip_table import EVENT, ClipTable
from audiobat.data.columns import Ragged, Strings
from audiobat.errors import AudiobatError

Event = tuple[str, float, float]  # class name, onset and offset in seconds from the clip's start


class Clip(NamedTuple):
    """A clip of a public data set."""

    path: str  # of its file; as `keys`, `labels`, ... of `clip_table`
    key: str
    labels: Sequence[str]
    split: str
    begin: float = 0.0
    seconds: float = math.nan
    group: str = ""  # such as its speaker


def table_of_clips(root: str | Path, clips: Sequence[Clip], classes: Sequence[str] | None = None) -> ClipTable:
    """The table of clips, see `clip_table`."""
    return clip_table(
        root,
        [clip.path for clip in clips],
        keys=[clip.key for clip in clips],
        labels=[clip.labels for clip in clips],
        classes=classes,
        splits=[clip.split for clip in clips],
        begins=[clip.begin for clip in clips],
        seconds=[clip.seconds for clip in clips],
        columns={"group": [clip.group for clip in clips]} if any(clip.group for clip in clips) else None,
    )


def clip_table(
    root: str | Path,
    paths: Sequence[str],
    *,
    keys: Sequence[str] | None = None,
    labels: Sequence[Iterable[str]] | None = None,
    classes: Sequence[str] | None = None,
    events: Sequence[Sequence[Event]] | None = None,
    splits: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    begins: Sequence[float] | None = None,
    seconds: Sequence[float] | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> ClipTable:
    """The table of n clips in files below `root`.

    Args:
        root: folder of the files.
        paths: [n] file of each clip, relative to `root` with `/`, or absolute; several clips may lie in one file.
        keys: [n] unique names; by default the paths.
        labels: [n] class names of each clip.
        classes: names in the order of a head's outputs; by default those that occur, sorted.
        events: [n] frame-level labels; without `labels`, a clip's labels are those of its events.
        splits: [n] of `train`, `valid`, `test`.
        folds: [n].
        begins: [n] seconds into the file where a clip begins.
        seconds: [n] length; NaN where it is not known.
        columns: further columns of text.

    Raises:
        AudiobatError: two clips with one key, a label that is not among `classes`, a text that UTF-8 cannot hold.
    """
    files: dict[str, int] = {}  # the distinct paths in order of appearance, and the place of each
    file_ids = [files.setdefault(path, len(files)) for path in paths]
    keys = paths if keys is None else keys
    if len(set(keys)) < len(keys):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise AudiobatError(f"{root}: two clips have the key {twice}: give each clip a name of its own.")
    if events is not None and labels is None:
        labels = [[name for name, _, _ in clip] for clip in events]
    label_ids, names = (None, tuple(classes or ())) if labels is None else label_column(labels, classes, root)
    event_ids = None
    if events is not None:
        index = {name: c for c, name in enumerate(names)}
        event_ids = Ragged.of([[(index[name], start, end) for name, start, end in clip] for clip in events], EVENT)
    return ClipTable(
        keys=_texts(root, keys),
        files=_texts(root, list(files)),
        file_ids=np.array(file_ids, np.int32),
        root=os.fspath(root),
        labels=label_ids,
        classes=names,
        events=event_ids,
        splits=None if splits is None else np.array(splits),
        folds=None if folds is None else np.array(folds, np.int64),
        begins=None if begins is None else np.array(begins, np.float64),
        seconds=None if seconds is None else np.array(seconds, np.float64),
        columns={name: _texts(root, values) for name, values in (columns or {}).items()},
    )


def label_column(
    labels: Sequence[Iterable[str]], classes: Sequence[str] | None = None, source: str | Path = ""
) -> tuple[Ragged, tuple[str, ...]]:
    """Label names of n clips to class indices, each clip's ascending, and the C class names (by default sorted)."""
    classes = tuple(sorted({name for names in labels for name in names}) if classes is None else classes)
    index = {name: c for c, name in enumerate(classes)}
    try:
        return Ragged.of([sorted({index[name] for name in names}) for names in labels], np.int32), classes
    except KeyError as error:
        raise AudiobatError(
            f"{source}: label {error.args[0]!r} is none of the {len(classes)} classes: fix it, or the list of classes."
        ) from None


def _texts(root: str | Path, texts: Sequence[str]) -> Strings:
    try:
        return Strings.of_texts(texts)
    except UnicodeEncodeError as error:
        raise AudiobatError(f"{root}: {error.object!a} is no text that UTF-8 can hold: rename it.") from None
