"""Python lists to a clip table: the last step of every source of clips."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from audiobat.data.clip_table import EVENT, ClipTable
from audiobat.data.columns import Ragged, Strings
from audiobat.errors import AudiobatError

Event = tuple[str, float, float]  # class name, onset and offset in seconds from the clip's start


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
    names, file_ids = _distinct(paths)
    key_list = list(paths) if keys is None else list(keys)
    _check_unique(root, key_list)
    if events is not None and labels is None:
        labels = [[name for name, _, _ in clip] for clip in events]
    label_ids, names_of_classes = (
        (None, tuple(classes or ())) if labels is None else label_column(labels, classes, root)
    )
    return ClipTable(
        keys=_texts(root, key_list),
        files=_texts(root, names),
        file_ids=np.array(file_ids, np.int32),
        root=os.fspath(root),
        labels=label_ids,
        classes=names_of_classes,
        events=None if events is None else _event_column(events, names_of_classes),
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


def _event_column(events: Sequence[Sequence[Event]], classes: Sequence[str]) -> Ragged:
    index = {name: c for c, name in enumerate(classes)}
    return Ragged.of([[(index[name], onset, offset) for name, onset, offset in clip] for clip in events], EVENT)


def _texts(root: str | Path, texts: Sequence[str]) -> Strings:
    try:
        return Strings.of_texts(texts)
    except UnicodeEncodeError as error:
        raise AudiobatError(f"{root}: {error.object!a} is no text that UTF-8 can hold: rename it.") from None


def _distinct(paths: Sequence[str]) -> tuple[list[str], list[int]]:
    """The distinct paths in order of appearance, and for each clip the index of its path among them."""
    index: dict[str, int] = {}
    ids = [index.setdefault(path, len(index)) for path in paths]
    return list(index), ids


def _check_unique(root: str | Path, keys: Sequence[str]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise AudiobatError(f"{root}: two clips have the key {key}: give each clip a name of its own.")
        seen.add(key)
