"""Events against the length of their recording: those behind its end are told of, and left out.

Raven counts the times of a sequence of files from the first one's start; read as times in each file, all but the first
ones lie behind the end. A recording is opened only where no length is known, or where its length contradicts an event.
"""

from __future__ import annotations

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiobat.audio.read import audio_duration
from audiobat.data.clip_table import ClipTable
from audiobat.data.remote import is_remote
from audiobat.data.sources.relabel import drop_events
from audiobat.engine.progress import Progress
from audiobat.errors import AudiobatError

READERS = 8  # headers that are read at the same time
SHOWN = 500  # recordings; fewer are looked at without a bar


def events_inside(table: ClipTable, source: str | Path) -> ClipTable:
    """The table without the events that begin behind the end of their recording, which a warning counts.

    A recording all of whose events lie there is left out: what it holds is not known. Recordings that are not there,
    cannot be read or lie behind a URL are left as they are.

    Raises:
        AudiobatError: there are events, and none of them lies inside.
    """
    if table.events is None or not len(table.events.values):
        return table
    lengths = _lengths(table)
    per_event = np.repeat(lengths, table.events.lengths)  # [E]
    inside = ~(table.events.values["onset"] >= per_event)  # NaN: not known
    if inside.all():
        return table
    owners = np.repeat(np.arange(len(table)), table.events.lengths)
    first = int(np.flatnonzero(~inside)[0])
    clip, event = int(owners[first]), table.events.values[first]
    example = f"{event['onset']:g} to {event['offset']:g} s in {table.keys[clip]} of {lengths[clip]:g} s"
    hint = "times that go on over several files need Raven's column `File Offset (s)`"
    if not inside.any():
        raise AudiobatError(
            f"{source}: all {len(inside)} events lie behind the end of their recordings, {example}: {hint}."
        )
    kept = drop_events(table, inside)
    assert kept.events is not None
    emptied = (table.events.lengths > 0) & (kept.events.lengths == 0)
    also = f", and {emptied.sum()} recordings with them" if emptied.any() else ""
    warnings.warn(
        f"{source}: {(~inside).sum()} of {len(inside)} events lie behind the end of their recordings and are left "
        f"out{also}, such as {example}: {hint}.",
        stacklevel=3,
    )
    return kept.select(~emptied)


def _lengths(table: ClipTable) -> NDArray[np.float64]:
    """Seconds of each recording, [n]; NaN: not known. If an event contradicts what a list says, the file is asked."""
    assert table.events is not None
    seconds = np.full(len(table), math.nan) if table.seconds is None else table.seconds.astype(np.float64)
    owners = np.repeat(np.arange(len(table)), table.events.lengths)
    doubtful = np.unique(owners[~(table.events.values["onset"] < seconds[owners])])
    if table.offsets is not None or table.begins is not None:  # in shards, and cut from recordings: the table knows
        return seconds
    paths = {int(i): path for i in doubtful if not is_remote(path := table.path(int(i)))}
    progress = Progress("measure recordings", len(paths), "file", shown=len(paths) >= SHOWN)
    with progress as bar, ThreadPoolExecutor(READERS) as pool:
        for i, length in zip(paths, pool.map(_length, paths.values()), strict=True):
            seconds[i] = length
            bar.advance(1)
    return seconds


def _length(path: str) -> float:
    try:
        return audio_duration(path)[0]
    except AudiobatError:  # whoever reads it says what is wrong
        return math.nan
