"""A list of clips, or of events in them, as a CSV or as columns of text, to a clip table; every value is checked."""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiobat.data.build import Event, clip_table
from audiobat.data.clip_table import SPLITS, ClipTable
from audiobat.data.csv_text import unescape
from audiobat.data.remote import is_remote
from audiobat.errors import AudiobatError, did_you_mean

LABEL_COLUMNS = ("label", "labels")
SPAN = ("onset", "offset")
SHARED = 40  # characters up to which equal values share one text in memory

Columns = dict[str, list[str]]


def table_of_columns(
    source: Path,
    columns: Columns,
    labels: Sequence[Sequence[str]] | None = None,
    label_name: str | None = None,
    has_audio: bool = True,
) -> ClipTable:
    """The clips of the list `source`, whose paths are relative to it.

    `labels` where they are lists already; `label_name` is their column, by default `label` or `labels`; without
    `has_audio` no file needs to be there.

    Raises:
        AudiobatError: a value that its column does not allow, a clip listed twice, none of the files there.
    """
    # A path in its normal form, `a.wav` for `./a.wav`; a URL stays as it is.
    keys = [path.strip() if is_remote(path) else os.path.normpath(path.strip()) for path in columns["path"]]
    for row, path in enumerate(columns["path"], start=2):
        if not path.strip():
            raise AudiobatError(f"{source}, row {row}: column `path` is empty: name the file or remove the row.")
    by_event = all(name in columns for name in SPAN)  # the list has both ends of events
    if not by_event:
        _check_unique(source, keys, columns)
    if has_audio and not any(is_remote(key) or os.path.exists(source.parent / key) for key in keys):
        raise AudiobatError(
            f"{source}: none of the {len(keys)} listed files exists, such as {source.parent / keys[0]}: check `path`."
        )
    label_name = label_name or next((name for name in LABEL_COLUMNS if name in columns), None)
    if labels is None and label_name:
        check_column(source, label_name, columns)
        labels = [split_labels(text) for text in columns[label_name]]
    if by_event and labels is None:
        raise AudiobatError(f"{source} has events and no column `label`: name the class of each.")
    values = known_values(source, columns)
    events = None
    if by_event and labels is not None:
        rows, events, differ = gather_events(source, keys, columns, labels)
        keys, labels = [keys[row] for row in rows], None
        columns = {name: [column[row] for row in rows] for name, column in columns.items() if name not in differ}
        values = {name: [found[row] for row in rows] for name, found in values.items()}
    known = {"path", *OF_FILES, label_name}
    return clip_table(
        source.parent,
        keys,
        labels=labels,
        events=events,
        **values,
        columns={name: values for name, values in columns.items() if name not in known},
    )


def known_values(source: Path, columns: Columns, first: int = 2) -> dict[str, Any]:
    """Splits, folds and seconds as `clip_table` takes them; `first` is the number of the first row in messages."""
    found: dict[str, Any] = {}
    for name, (field, parse, hint) in OF_FILES.items():
        for row, text in enumerate(columns.get(name, ()), start=first):
            try:
                found.setdefault(field, []).append(parse(text))
            except ValueError as error:
                guess = did_you_mean(text, SPLITS) if name == "split" else ""
                raise AudiobatError(f"{source}, row {row}: {name} is {text!r}: {hint}{guess}.") from error
    return found


def read_columns(path: Path) -> Columns:
    """The columns of a CSV in UTF-8 that has a `path` column, as lists of text."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            check_header(path, header)
            columns: Columns = {name: [] for name in header}
            lists = list(columns.values())
            shared: dict[str, str] = {}
            number = 1
            for row in reader:
                if not row:
                    continue
                number += 1
                if len(row) != len(lists):
                    raise AudiobatError(
                        f"{path}, row {number}, does not have {len(header)} values: quote commas in values."
                    )
                for values, cell in zip(lists, row, strict=True):
                    value = unescape(cell)
                    values.append(shared.setdefault(value, value) if len(value) < SHARED else value)
    except UnicodeDecodeError as error:
        raise AudiobatError(f"{path} is not UTF-8 text (byte {error.start}): save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise AudiobatError(
            f"{path} is not valid CSV after line {reader.line_num} ({error}): fix its quotes."
        ) from error
    if not lists[0]:
        raise AudiobatError(f"{path} lists no clips: add a row for each below the header.")
    return columns


def check_header(path: Path, header: Sequence[str]) -> None:
    """Raise an AudiobatError unless there is a column `path` and each name occurs once."""
    if "path" not in header:
        hint = did_you_mean("path", header)
        raise AudiobatError(
            f"{path} has no `path` column (it has {', '.join(header) or 'nothing'}): "
            f"name the column of file names `path` in the first row{hint}, columns separated by commas."
        )
    for name, count in Counter(header).items():
        if count > 1:
            raise AudiobatError(f"{path} has {count} columns `{name}`: keep one, or rename the others.")


def check_column(source: str | Path, name: str, columns: Collection[str], flag: str = "") -> None:
    """Raise an AudiobatError unless there is a column of this name, which the flag may change."""
    if name not in columns:
        listed = ", ".join(columns) or "none besides those that every list has"
        another = f"; name it by {flag}" if flag else ""
        raise AudiobatError(f"{source} has no column {name!r}{did_you_mean(name, columns)}: it has {listed}{another}.")


def split_labels(text: str) -> list[str]:
    """`dog; rain` to its labels."""
    return [label.strip() for label in text.split(";") if label.strip()]


def _check_unique(source: Path, keys: list[str], columns: Columns) -> None:
    first: dict[str, int] = {}
    for i, key in enumerate(keys):
        # An absolute path may name the same file as a relative one.
        file = key if is_remote(key) else os.path.normpath(source.parent / key)
        before = first.setdefault(file, i)
        if before == i:
            continue
        for name in ("split", "fold"):
            values = columns.get(name)
            if values and values[before] != values[i]:
                raise AudiobatError(
                    f"{source} lists {key} in {name} {values[before]} (row {before + 2}) "
                    f"and in {name} {values[i]} (row {i + 2}): keep one."
                )
        raise AudiobatError(
            f"{source} lists {key} twice (rows {before + 2} and {i + 2}): keep one row, labels joined by ';'."
        )


def _fold(text: str) -> int:
    if abs(fold := int(text)) >= 2**63:
        raise ValueError
    return fold


def _seconds(text: str) -> float:
    """NaN: not known."""
    if (seconds := float(text)) < 0 or math.isinf(seconds):
        raise ValueError
    return seconds or math.nan  # 0.0 is what readers of tags say where a header has no length


def _split(text: str) -> str:
    if text.strip() not in SPLITS:
        raise ValueError
    return text.strip()


# The columns that cannot differ between the events of a file: the table's field, how a value is read, and the hint.
OF_FILES: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "split": ("splits", _split, f"use {', '.join(SPLITS)}"),
    "fold": ("folds", _fold, "use a whole number"),
    "seconds": ("seconds", _seconds, "use a number of seconds"),
}


def gather_events(
    source: Path, keys: Sequence[str], columns: Mapping[str, Sequence[str]], labels: Sequence[Sequence[str]]
) -> tuple[list[int], list[list[Event]], set[str]]:
    """From a list with a row for each event: each file's first row, its events, and the columns that events differ in.

    `keys` are the files and `labels` the class names of the rows. A row without label and times is a file without
    events.
    """
    differ = set(SPAN)
    first: dict[str, int] = {}
    events: dict[str, list[Event]] = {}
    for row, key in enumerate(keys):
        before = first.setdefault(key, row)
        differ |= {name for name, column in columns.items() if column[row] != column[before]} - {"path"}
        for name in OF_FILES:
            if name in differ:
                raise AudiobatError(
                    f"{source} lists {key} with {name} {columns[name][before]!r} (row {before + 2}) "
                    f"and {columns[name][row]!r} (row {row + 2}): give all its events the same."
                )
        span = _span(source, row, columns["onset"][row].strip(), columns["offset"][row].strip(), bool(labels[row]))
        events.setdefault(key, []).extend((label, *span) for label in labels[row] if span is not None)
    return list(first.values()), list(events.values()), differ


def _span(source: Path, row: int, onset: str, offset: str, labelled: bool) -> tuple[float, float] | None:
    """Onset and offset of a row in seconds; None if the row is a file without events."""
    if not onset and not offset and not labelled:
        return None
    try:
        begin, end = float(onset), float(offset)
    except ValueError:
        begin = end = math.nan
    if not (labelled and 0 <= begin < end < math.inf):
        raise AudiobatError(
            f"{source}, row {row + 2}: an event from {onset or 'nothing'} to {offset or 'nothing'}"
            f"{'' if labelled else ' without a label'}: give a label and seconds, onset before offset, or none of them."
        )
    return begin, end
