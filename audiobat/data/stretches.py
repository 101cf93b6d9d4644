"""Long recordings with events to rows of a clip table: stretches to draw crops from, and windows to test on.

In: a clip table whose clips may last a day; `seconds`, how much of a recording a model takes in at once. Out: a table
whose rows are parts of those clips, each with the events that sound in it; a clip that is no longer stays as it is.
Rows keep the keys of their clips, under which a broken one is listed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from audiobat.data.clip import measure
from audiobat.data.clip_table import EVENT, ClipTable
from audiobat.data.columns import Ragged
from audiobat.data.remote import is_remote

ROUNDING = 0.01  # seconds by which a clip may be longer and still fit
PIECE = 2  # times `seconds`: the least length of a stretch of a long silence between events

Events = NDArray[np.void]  # [E] of EVENT


@dataclass(frozen=True)
class Rows:
    """Parts of clips."""

    table: ClipTable  # n rows
    clip_ids: NDArray[np.int64]  # [n] of each row's clip in the table that was cut
    starts: NDArray[np.float64]  # [n] seconds into its clip at which a row begins

    @property
    def cut(self) -> bool:
        """Whether any clip was cut."""
        return bool(self.starts.any()) or len(np.unique(self.clip_ids)) < len(self.clip_ids)


def cut_to_stretches(table: ClipTable, seconds: float) -> Rows:
    """A row around each event, labelled by it, and rows without label that are free of events.

    Wherever a crop of `seconds` is cut from a row around an event, it holds the event, or of a long event as much as
    half of the crop. A silence between events that is shorter than a crop makes no row, a long one several.
    """
    assert table.events is not None
    labels: list[Sequence[int]] = []
    spans: list[tuple[int, float, float]] = []  # clip, begin, end
    for clip_id, length in enumerate(lengths_of(table)):
        events = table.events.row(clip_id)
        if length is None or length <= seconds + ROUNDING:
            spans.append((clip_id, 0.0, np.nan))
            labels.append(np.unique(events["label"]).tolist())
            continue
        heard = [event for event in events.tolist() if event[1] < length]
        for label, onset, offset in heard:
            spans.append((clip_id, *span_around(onset, min(offset, length), length, seconds)))
            labels.append([label])
        for begin, end in silences(((onset, offset) for _, onset, offset in heard), length):
            if end - begin >= seconds:
                edges = np.linspace(begin, end, max(1, int((end - begin) // (PIECE * seconds))) + 1).tolist()
                spans += [(clip_id, *edge) for edge in itertools.pairwise(edges)]
                labels += [()] * (len(edges) - 1)
    rows = rows_of(table, spans)
    return replace(rows, table=replace(rows.table, labels=Ragged.of(labels, np.int32)))


def cut_to_windows(table: ClipTable, seconds: float, hop: float, least: float) -> Rows:
    """The windows of `seconds` every `hop` of each clip; a last one of less than `least` seconds is left out."""
    spans: list[tuple[int, float, float]] = []
    for clip_id, length in enumerate(lengths_of(table)):
        if length is None or length <= seconds + ROUNDING:
            spans.append((clip_id, 0.0, np.nan))
            continue
        whole = int((length - seconds + ROUNDING) // hop) + 1  # windows
        starts = hop * np.arange(whole + 1)
        if length <= starts[-2] + seconds + ROUNDING or length - starts[-1] < least:
            starts = starts[:-1]
        spans += [(clip_id, at, min(length, at + seconds)) for at in starts.tolist()]
    return rows_of(table, spans)


def span_around(onset: float, offset: float, length: float, seconds: float) -> tuple[float, float]:
    """Begin and end of the row around an event, of `seconds` or more, in a recording of this length."""
    needed = min(offset - onset, seconds / 2)
    begin, end = max(0.0, onset + needed - seconds), min(length, offset - needed + seconds)
    begin = max(0.0, min(begin, end - seconds))
    return begin, max(end, begin + seconds)


def silences(events: Iterable[tuple[float, float]], length: float) -> list[tuple[float, float]]:
    """What the events (onset, offset) leave of a recording, in order."""
    found, end = [], 0.0
    for onset, offset in sorted(events):
        if onset > end:
            found.append((end, onset))
        end = max(end, offset)
    return [*found, (end, length)] if end < length else found


def rows_of(table: ClipTable, spans: Sequence[tuple[int, float, float]]) -> Rows:
    """The rows (clip, begin, end in seconds; NaN: the clip's own end) of a table with events."""
    assert table.events is not None
    clip_ids = np.array([clip_id for clip_id, _, _ in spans], np.int64)
    starts, ends = (np.array([span[i] for span in spans], np.float64) for i in (1, 2))
    lengths = ends - starts
    picked = table.select(clip_ids)
    assert picked.events is not None
    if table.begins is not None and picked.seconds is not None:
        lengths = np.where(np.isnan(ends), picked.seconds, lengths)
    events = Ragged.of([inside(picked.events.row(i), *spans[i][1:]) for i in range(len(spans))], EVENT)
    begins = starts + (0.0 if picked.begins is None else picked.begins)
    return Rows(replace(picked, begins=begins, seconds=lengths, events=events), clip_ids, starts)


def inside(events: Events, begin: float, end: float) -> list[tuple[int, float, float]]:
    """The events that sound between `begin` and `end` (NaN: to the end), as seconds from `begin`; their edges stay."""
    return [
        (label, onset - begin, offset - begin)
        for label, onset, offset in events.tolist()
        if offset > begin and not onset >= end
    ]


def lengths_of(table: ClipTable) -> list[float | None]:
    """The length of each clip in seconds as its file has it, not its list; None: it cannot be read.

    To look at a file behind a URL would fetch it: there the list is believed, and None if it does not say. Errors are
    left to whoever reads the clip.
    """
    lengths = [table.location(clip_id).seconds for clip_id in range(len(table))]
    here = [clip_id for clip_id in range(len(table)) if not is_remote(table.path(clip_id))]
    for clip_id, found in zip(here, measure(table.select(here)), strict=True):
        lengths[clip_id] = None if math.isnan(found.seconds) else found.seconds
    return lengths
