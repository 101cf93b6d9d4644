"""A list with a row for each event (columns `onset`, `offset`, `label`) to one clip for each file, with its events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from audiobat.data.build import Event
from audiobat.errors import AudiobatError

SPAN = ("onset", "offset")


def lists_events(columns: Mapping[str, Sequence[str]]) -> bool:
    """Whether rows are events: both ends are there."""
    return all(name in columns for name in SPAN)


def gather_events(
    source: Path, keys: Sequence[str], columns: Mapping[str, Sequence[str]], labels: Sequence[Sequence[str]]
) -> tuple[list[int], list[list[Event]]]:
    """The first row of each file and the events of all its rows; a row without label and times has none.

    Args:
        source: the list, for messages.
        keys: [rows] file of each row.
        columns: all but labels are the same in all rows of a file.
        labels: [rows] class names of each row.

    Raises:
        AudiobatError: times that are none, a label without times or times without a label, rows that differ.
    """
    shared = [name for name in columns if name not in (*SPAN, "path", "label", "labels")]
    first: dict[str, int] = {}
    events: dict[str, list[Event]] = {}
    for row, key in enumerate(keys):
        before = first.setdefault(key, row)
        for name in shared:
            if columns[name][row] != columns[name][before]:
                raise AudiobatError(
                    f"{source} lists {key} with {name} {columns[name][before]!r} (row {before + 2}) "
                    f"and {columns[name][row]!r} (row {row + 2}): give all its events the same."
                )
        span = _span(source, row, columns["onset"][row].strip(), columns["offset"][row].strip(), bool(labels[row]))
        events.setdefault(key, []).extend((label, *span) for label in labels[row] if span is not None)
    return list(first.values()), list(events.values())


def _span(source: Path, row: int, onset: str, offset: str, labelled: bool) -> tuple[float, float] | None:
    """Onset and offset of a row in seconds, None if it is of a file without events."""
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
