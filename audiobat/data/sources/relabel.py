"""The labels of a clip table: from another column, under other names, dropped, or taken as background."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiobat.data.build import label_column
from audiobat.data.clip_table import ClipTable
from audiobat.data.columns import Ragged
from audiobat.data.sources.annotations.text_table import parse_table, read_text, separator_of
from audiobat.data.sources.lists import check_column, split_labels
from audiobat.errors import AudiobatError, did_you_mean, name_some


def with_labels(table: ClipTable, column: str | None, source: str | Path) -> ClipTable:
    """The table with the labels of one of its columns, several joined by ';'; None: as it is.

    Raises:
        AudiobatError: it has no such column, or events, which have their labels already.
    """
    if column is None:
        return table
    check_column(source, column, table.columns)
    if table.events is not None:
        raise AudiobatError(f"{source} has events with labels of their own: leave --label-column {column} out.")
    labels, classes = label_column([split_labels(text) for text in table.columns[column]])
    columns = {name: values for name, values in table.columns.items() if name != column}
    return replace(table, labels=labels, classes=classes, columns=columns)


def read_label_map(path: Path) -> dict[str, str]:
    """The new name of each label from a CSV with columns `from` and `to`; an empty `to` drops the label.

    Raises:
        AudiobatError: no such file, other columns, a label with two new names.
    """
    if not path.is_file():
        raise AudiobatError(f"There is no file {path} of labels to rename: check the path.")
    text = read_text(path)
    separator = separator_of(text, {"from", "to"}.issubset)
    if separator is None:
        raise AudiobatError(f"{path} has no columns `from` and `to` in its first row: write them, a label a row.")
    table = parse_table(path, text, separator)
    names: dict[str, str] = {}
    for line, old, new in zip(table.lines, table.columns["from"], table.columns["to"], strict=True):
        if names.setdefault(old, new) != new:
            raise AudiobatError(
                f"{path}, row {line}: {old!r} becomes {new!r} here and {names[old]!r} before: keep one."
            )
    return names


def relabel(table: ClipTable, names: Mapping[str, str], background: Collection[str]) -> ClipTable:
    """The table with labels and events under new names.

    Args:
        table: clips with labels, events or both.
        names: the new name of each label that changes; empty: it is dropped. A clip without events that has no other
            label goes with it.
        background: labels, under their new names, that are no class: a clip or a span that has no other is background.

    Raises:
        AudiobatError: a background label that no clip has.
    """
    renamed = [names.get(name, name) for name in table.classes]
    for name in background:
        if name not in renamed:
            hint = f"{did_you_mean(name, renamed)}: the labels are {name_some(sorted(set(renamed)))}."
            raise AudiobatError(f"No clip has the background label {name!r}{hint}")
    if unknown := [name for name in names if name not in table.classes]:
        guess = did_you_mean(unknown[0], table.classes)
        warnings.warn(
            f"{len(unknown)} of the {len(names)} labels to rename are on no clip, such as {unknown[0]!r}{guess}.",
            stacklevel=3,
        )
    classes = sorted(set(renamed) - {"", *background})
    index = {name: place for place, name in enumerate(classes)}
    place = np.array([index.get(name, -1) for name in renamed], np.int32)  # [C] of each old class; -1: it is none now
    labels, events = table.labels, table.events
    if labels is not None:
        labels = Ragged.of([sorted(set(place[labels.row(i)].tolist()) - {-1}) for i in range(len(labels))], np.int32)
    if events is not None:
        values: NDArray[Any] = events.values.copy()
        values["label"] = place[values["label"]]
        table = replace(table, events=Ragged(events.offsets, values))
        return replace(_keep(table, values["label"] >= 0), labels=labels, classes=tuple(classes))
    changed = replace(table, labels=labels, classes=tuple(classes))
    if labels is None or table.labels is None:
        return changed
    dropped = np.array([name == "" for name in renamed], bool)  # [C]
    had = np.array([bool(dropped[table.labels.row(i)].any()) for i in range(len(table))], bool)
    return changed.select(~(had & (labels.lengths == 0)))


def drop_events(table: ClipTable, kept: NDArray[np.bool_]) -> ClipTable:
    """The table with those of its events [E] that are kept.

    A clip loses a label of which it had events and has none now; a class that no clip has any more goes, too.
    """
    assert table.events is not None
    changed = _keep(table, kept)
    assert changed.events is not None
    if table.labels is None:
        return changed
    rows: list[list[int]] = []
    for i in range(len(table)):
        lost = set(table.events.row(i)["label"].tolist()) - set(changed.events.row(i)["label"].tolist())
        rows.append(sorted(set(table.labels.row(i).tolist()) - lost))
    changed = replace(changed, labels=Ragged.of(rows, np.int32))
    gone = (table.label_counts() > 0) & (changed.label_counts() == 0)
    return relabel(changed, {table.classes[c]: "" for c in np.flatnonzero(gone)}, ()) if gone.any() else changed


def _keep(table: ClipTable, kept: NDArray[np.bool_]) -> ClipTable:
    """The table with those of its events [E] that are kept, and their scores."""
    assert table.events is not None
    lengths = table.events.lengths
    owners = np.repeat(np.arange(len(lengths)), lengths)[kept]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(lengths)))])
    scores = table.event_scores
    return replace(
        table,
        events=Ragged(offsets, table.events.values[kept]),
        event_scores=None if scores is None else Ragged(offsets, scores.values[kept]),
    )
