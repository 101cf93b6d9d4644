"""Recordings of any length to windows at the model's rate, in the order of the clip table and in constant memory.

Blocks are resampled without seams. Threads decode ahead of whoever computes; what comes out does not depend on them.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import soxr
from numpy.typing import NDArray

from audiobat.data.clip_table import ClipTable
from audiobat.data.remote import is_remote
from audiobat.data.store import clip_duration, read_clip
from audiobat.errors import AudiobatError

READ_SAMPLES = 1 << 21  # of a long recording in memory at once, at its own rate: 8 MiB
CHUNK_WINDOWS = 16  # decoded by a thread in one go
FILES_AHEAD = 2  # for each thread

Samples: TypeAlias = NDArray[np.float32]
Reader: TypeAlias = Callable[..., Samples]  # as `read_clip`
Stamp: TypeAlias = tuple[int, int]  # bytes and time of change (ns) of a file
T = TypeVar("T")


def read_blocks(table: ClipTable, row: int, sample_rate: int, read: Reader = read_clip) -> Iterator[Samples]:
    """A clip of any length, block by block, resampled without seams: what `read_clip` gives, in constant memory."""
    seconds, rate = clip_duration(table, row)
    total = round(seconds * rate)
    stream = None if rate == sample_rate else soxr.ResampleStream(rate, sample_rate, 1, "float32", "HQ")
    for first in range(0, total, READ_SAMPLES):
        block = read(table, row, rate, first / rate, READ_SAMPLES / rate)
        last = len(block) < READ_SAMPLES or first + READ_SAMPLES >= total
        yield block if stream is None else stream.resample_chunk(block, last=last)
        if last:
            break


def cut_windows(blocks: Iterable[Samples], window: int, hop: int) -> Iterator[tuple[int, Samples]]:
    """(start, samples) of the windows that `audio.windows` names, for a recording that comes block by block."""
    held: Samples = np.zeros(0, np.float32)
    start = end = 0  # of what is held; of the last window
    for block in blocks:
        held = np.concatenate([held, block])
        first = 0
        while len(held) - first >= window:
            yield start, held[first : first + window]
            end = start + window
            start, first = start + hop, first + hop
        held = held[first:]
    if start + len(held) > end:
        yield start, held


class Window(NamedTuple):
    """A stretch of a clip."""

    row: int  # of the clip table
    number: int  # within the clip
    start: int  # sample of the clip at the model's rate
    samples: Samples  # [S]
    last: bool  # of its clip
    stamp: Stamp | None  # of the file, before it was read


class Broken(NamedTuple):
    """A clip that cannot be read from here on: its windows that came before are void."""

    row: int
    reason: str
    stamp: Stamp | None


@dataclass(frozen=True)
class WindowStream:
    """All windows of a clip table, file after file; `threads` decode ahead (0: none, the caller decodes)."""

    table: ClipTable
    sample_rate: int
    window: int  # samples at `sample_rate`, as is the hop
    hop: int
    threads: int

    def __call__(self, row: int = 0, number: int = 0) -> Iterator[Window | Broken]:
        """The stream from window `number` of clip `row` on. A clip is decoded from its start in any case."""
        clips = (self._clip(r, number if r == row else 0) for r in range(row, len(self.table)))
        if not self.threads:
            return itertools.chain.from_iterable(clips)
        return _decode_ahead(clips, self.threads)

    def _clip(self, row: int, number: int) -> Iterator[Window | Broken]:
        before = stamp(self.table, row)
        try:
            yield from itertools.islice(self._windows(row, before), number, None)
        except AudiobatError as error:
            yield Broken(row, str(error), before)

    def _windows(self, row: int, before: Stamp | None) -> Iterator[Window]:
        """Windows of a clip; each is held until it is known whether another one follows."""
        held: Window | None = None
        blocks = read_blocks(self.table, row, self.sample_rate)
        for number, (start, samples) in enumerate(cut_windows(blocks, self.window, self.hop)):
            if held is not None:
                yield held
            held = Window(row, number, start, samples, False, before)
        if held is None:
            raise AudiobatError(f"{self.table.path(row)} has no samples: give audio that is not empty.")
        if stamp(self.table, row) != before:
            raise AudiobatError(f"{self.table.path(row)} changed while it was read: run again when it is complete.")
        yield held._replace(last=True)


def stamp(table: ClipTable, row: int) -> Stamp | None:
    """What tells whether the file of a clip has changed; None where there is no such thing."""
    path = table.path(row)
    if is_remote(path):
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in a thread while the caller works on the one before."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(_take, items, 1)
        while found := future.result():
            future = pool.submit(_take, items, 1)
            yield found[0]


def _decode_ahead(clips: Iterator[Iterator[T]], threads: int) -> Iterator[T]:
    """All items of all clips in order; of the next clips a chunk each is being made by `threads` threads."""
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[tuple[Iterator[T], Future[list[T]]]] = deque()

        def begin(clip: Iterator[T]) -> None:
            ahead.append((clip, pool.submit(_take, clip, CHUNK_WINDOWS)))

        for clip in itertools.islice(clips, FILES_AHEAD * threads):
            begin(clip)
        while ahead:
            clip, future = ahead.popleft()
            while len(chunk := future.result()) == CHUNK_WINDOWS:
                future = pool.submit(_take, clip, CHUNK_WINDOWS)
                yield from chunk
            for following in itertools.islice(clips, 1):
                begin(following)
            yield from chunk


def _take(items: Iterator[T], count: int) -> list[T]:
    return list(itertools.islice(items, count))
