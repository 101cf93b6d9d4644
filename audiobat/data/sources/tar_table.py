"""The clips of many tars to one clip table, tar by tar, so that memory holds columns and not objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiobat.data.clip_table import EVENT, ClipTable
from audiobat.data.columns import Ragged, Strings, join_ragged
from audiobat.data.sources.lists import split_labels
from audiobat.data.sources.tar_clips import TarClip
from audiobat.data.sources.tar_fields import CLASS_TEXT, TEXT, is_label
from audiobat.data.sources.tar_members import Notes

SOURCE = "source"  # column: the clip's name before it came into a tar or, without one, in the tar
NO_FOLD = np.iinfo(np.int64).min


class TableOfTars:
    """Takes the clips of one tar after another; `table` joins them."""

    def __init__(self) -> None:
        self._counts: list[int] = []  # clips of each tar that was added
        self._tars: list[int] = []  # its number
        self._names: list[Strings] = []
        self._numbers: dict[str, list[NDArray[np.int64]]] = {"offsets": [], "sizes": [], "folds": []}
        self._splits: list[NDArray[np.str_]] = []
        self._classes: dict[str, int] = {}  # in order of appearance
        self._labels: list[Ragged] = []
        self._events: list[Ragged] = []
        self._has_labels = self._has_events = False
        self._columns: dict[str, list[Strings]] = {}  # one entry for each tar

    def __len__(self) -> int:
        return sum(self._counts)

    def add(self, number: int, clips: Sequence[TarClip]) -> None:
        """Add the clips of tar `number`."""
        fields = [clip.fields for clip in clips]
        self._counts.append(len(clips))
        self._tars.append(number)
        self._names.append(Strings.of_texts(clip.name for clip in clips))
        self._numbers["offsets"].append(np.array([clip.offset for clip in clips], np.int64))
        self._numbers["sizes"].append(np.array([clip.size for clip in clips], np.int64))
        self._numbers["folds"].append(np.array([NO_FOLD if f.fold is None else f.fold for f in fields], np.int64))
        self._splits.append(np.array([f.split or "" for f in fields], np.str_))
        self._has_labels |= any(f.labels is not None for f in fields)
        self._has_events |= any(f.events is not None for f in fields)
        self._labels.append(self._label_ids([f.labels or () for f in fields]))
        events = [[(self._class(label), begin, end) for label, begin, end in f.events or ()] for f in fields]
        self._events.append(Ragged.of(events, EVENT))
        columns = [{SOURCE: clip.name} | clip.fields.columns | clip.texts for clip in clips]
        for name in dict.fromkeys([*self._columns, *(name for own in columns for name in own)]):
            parts = self._columns.setdefault(name, [Strings.of_texts([""] * count) for count in self._counts[:-1]])
            parts.append(Strings.of_texts(own.get(name, "") for own in columns))

    def _class(self, label: str) -> int:
        return self._classes.setdefault(label, len(self._classes))

    def _label_ids(self, labels: Sequence[Iterable[str]]) -> Ragged:
        return Ragged.of([sorted({self._class(label) for label in names}) for names in labels], np.int32)

    def table(self, prefixes: Sequence[str], notes: Notes) -> ClipTable:
        """The table of all clips; what did not fit is counted in `notes`.

        Args:
            prefixes: the name of each tar, which the keys begin with if clips of two tars have one name. The table's
                files are the numbers of the tars.
            notes: is told of splits or folds that some clips lack.
        """
        names = join_ragged(self._names)
        tars = np.repeat(np.array(self._tars, np.int32), self._counts)
        keys = names
        if len(set(names)) < len(names):
            pairs = zip(tars.tolist(), names, strict=True)
            keys = Strings.of_texts(f"{prefixes[number]}/{name}" for number, name in pairs)
        columns = {name: join_ragged(parts) for name, parts in self._columns.items()}
        labels, events = self._labels_and_events(columns)
        splits, folds = np.concatenate(self._splits), np.concatenate(self._numbers["folds"])
        has_split, has_fold = splits != "", folds != NO_FOLD
        for what, has, texts in (("split", has_split, splits), ("fold", has_fold, folds)):
            if has.any() and not has.all():
                lacking = int(np.flatnonzero(~has)[0])
                notes.add(
                    f"clips lack a {what}, so that those of the others are a column only",
                    keys[lacking],
                    int((~has).sum()),
                )
                known = columns.get(what, [""] * len(keys))  # what is no split or fold is there as text
                both = zip(has.tolist(), texts.tolist(), known, strict=True)
                columns[what] = Strings.of_texts(str(text) if own else other for own, text, other in both)
        order = sorted(self._classes)
        return ClipTable(
            keys=keys,
            files=Strings.of_texts(map(str, range(len(prefixes)))),
            file_ids=tars,
            offsets=np.concatenate(self._numbers["offsets"]),
            sizes=np.concatenate(self._numbers["sizes"]),
            labels=labels,
            classes=() if labels is None else tuple(order),
            events=events,
            splits=splits if has_split.all() else None,
            folds=folds if has_fold.all() else None,
            columns=columns,
        )

    def _labels_and_events(self, columns: dict[str, Strings]) -> tuple[Ragged | None, Ragged | None]:
        """Labels from JSON or, if no clip has any, from events, .cls, .txt; a column that gives labels goes."""
        taken = None
        if not self._has_labels and not self._has_events:
            taken = next((name for name in (CLASS_TEXT, TEXT) if name in columns), None)
            if taken == TEXT and not all(map(is_label, columns[TEXT])):
                taken = None
        labels = events = None
        if taken is not None:
            labels = self._label_ids([split_labels(text) for text in columns.pop(taken)])
        elif self._has_labels:
            labels = join_ragged(self._labels)
        if self._has_events:
            events = join_ragged(self._events)
            if labels is None:
                labels = Ragged.of([np.unique(events.row(i)["label"]).tolist() for i in range(len(events))], np.int32)
        place = np.zeros(len(self._classes), np.int32)  # of each class in alphabetical order
        for new, name in enumerate(sorted(self._classes)):
            place[self._classes[name]] = new
        return None if labels is None else _sorted(labels, place), _moved(events, place)


def _sorted(labels: Ragged, place: NDArray[np.int32]) -> Ragged:
    """Labels with the classes' new places, each clip's ascending."""
    values = place[labels.values]
    owners = np.repeat(np.arange(len(labels)), labels.lengths)
    return Ragged(labels.offsets, values[np.lexsort((values, owners))])


def _moved(events: Ragged | None, place: NDArray[np.int32]) -> Ragged | None:
    if events is None:
        return None
    values: NDArray[Any] = events.values.copy()
    values["label"] = place[values["label"]]
    return Ragged(events.offsets, values)
