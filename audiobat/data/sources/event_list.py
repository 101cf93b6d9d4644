"""A list with a row for each event (columns `onset`, `offset`, `label`) to one clip for each file, with its events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from audiobat.data.build import Event
from audiobat.errors import AudiobatError

SPAN = ("onset", "offset")
OF_FILES = ("split", "fold", "seconds")  # columns that cannot differ between the events of a file


def lists_events(columns: Mapping[str, Sequence[str]]) -> bool:
    """Whether rows are events: both ends are there."""
    return all(name in columns for name in SPAN)


def gather_events(
    source: Path, keys: Sequence[str], columns: Mapping[str, Sequence[str]], labels: Sequence[Sequence[str]]
) -> tuple[list[int], list[list[Event]], set[str]]:
    """The first row of each file, the events of all its rows, and the columns that are of events and not of files.

    A row without label and times is a file without events.

    Args:
        source: the list, for messages.
        keys: [rows] file of each row.
        columns: whatever the list has.
        labels: [rows] class names of each row.

    Raises:
        AudiobatError: times that are none, a label without times or times without a label, a file in two splits.
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
