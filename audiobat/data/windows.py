"""Recordings of any length to windows at the model's rate, in the order of the clip table and in constant memory.

In: a clip table, window and hop. Out: a stream of `Window`s, and a `BrokenClip` where a clip cannot be read. Each clip
is opened once. Threads decode ahead of the model (decoders release Python's lock, and windows need not be copied
between processes); what comes out does not depend on them.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from audiobat.data.clip import open_clip
from audiobat.data.clip_table import ClipTable
from audiobat.data.remote import is_remote
from audiobat.errors import AudiobatError

CHUNK_WINDOWS = 16  # decoded by a thread in one go
FILES_AHEAD = 2  # for each thread

Samples: TypeAlias = NDArray[np.float32]
FileStamp: TypeAlias = tuple[int, int]  # bytes and time of change (ns) of a file
T = TypeVar("T")


def cut_windows(blocks: Iterable[Samples], window: int, hop: int, least: int = 1) -> Iterator[tuple[int, Samples]]:
    """(start, samples) of windows every `hop`, of a recording that comes block by block.

    Together they cover all samples but a rest of less than `least`: the last window may be short, but not so short. A
    recording no longer than a window gives one window.
    """
    held: Samples = np.zeros(0, np.float32)  # samples that no block has completed to a window yet
    start = end = 0  # where `held` starts; where the last window ended
    for block in blocks:
        held = np.concatenate([held, block])
        first = 0
        while len(held) - first >= window:
            yield start, held[first : first + window]
            end = start + window
            start, first = start + hop, first + hop
        held = held[first:]
    if start + len(held) > end and (end == 0 or len(held) >= least):
        yield start, held


class Window(NamedTuple):
    """A stretch of a clip."""

    clip_id: int
    number: int  # within the clip
    start: int  # sample of the clip at the model's rate
    samples: Samples  # [S]
    last: bool  # of its clip
    stamp: FileStamp | None  # of the file, before it was read
    rate: int  # Hz: the recording's own

    @property
    def end(self) -> int:
        """The sample of the clip behind its last one."""
        return self.start + len(self.samples)


class BrokenClip(NamedTuple):
    """A clip that cannot be read from here on: its windows that came before are void."""

    clip_id: int
    reason: str
    stamp: FileStamp | None


@dataclass(frozen=True)
class WindowStream:
    """All windows of a clip table, clip after clip; `threads` decode ahead (0: none, the caller decodes)."""

    table: ClipTable
    sample_rate: int
    window: int  # samples at `sample_rate`, as is the hop
    hop: int
    threads: int
    least: int = 1  # samples of a clip's last window: a rest that is shorter is left out

    def __call__(self, clip_id: int = 0, number: int = 0, end: int | None = None) -> Iterator[Window | BrokenClip]:
        """The stream from window `number` of clip `clip_id` on, to the last clip before `end` (None: of the table).

        A clip is decoded from its start in any case.
        """
        end = len(self.table) if end is None else end
        clips = (self._clip(i, number if i == clip_id else 0) for i in range(clip_id, end))
        if not self.threads:
            return itertools.chain.from_iterable(clips)
        return _decode_ahead(clips, self.threads)

    def _clip(self, clip_id: int, first: int) -> Iterator[Window | BrokenClip]:
        """Windows of a clip from number `first` on; each is held until it is known whether another one follows."""
        before, path = file_stamp(self.table, clip_id), self.table.path(clip_id)
        held: Window | None = None
        try:
            with open_clip(self.table, clip_id) as clip:
                windows = cut_windows(clip.blocks(self.sample_rate), self.window, self.hop, self.least)
                for number, (start, samples) in enumerate(windows):
                    if held is not None and held.number >= first:
                        yield held
                    held = Window(clip_id, number, start, samples, False, before, clip.rate)
            if held is None:
                raise AudiobatError(f"{path} has no samples: give audio that is not empty.")
            if file_stamp(self.table, clip_id) != before:
                raise AudiobatError(f"{path} changed while it was read: run again when it is complete.")
            if held.number >= first:
                yield held._replace(last=True)
        except AudiobatError as error:
            yield BrokenClip(clip_id, str(error), before)


def file_stamp(table: ClipTable, clip_id: int) -> FileStamp | None:
    """Size and time of change of a clip's file; None for a remote file, or where there is none that may be read.

    A permission that is given later changes neither size nor time, but is a change from None.
    """
    path = table.path(clip_id)
    if is_remote(path):
        return None
    try:
        status = os.stat(path)
        if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
            return None
    except (OSError, ValueError):  # ValueError: a zero byte in the name
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
    """All items of all clips in order, while `threads` threads make the first chunk of each of the next clips."""
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[tuple[Iterator[T], Future[list[T]]]] = deque()

        def begin(count: int) -> None:
            for clip in itertools.islice(clips, count):
                ahead.append((clip, pool.submit(_take, clip, CHUNK_WINDOWS)))

        begin(FILES_AHEAD * threads)
        while ahead:
            clip, future = ahead.popleft()
            while len(chunk := future.result()) == CHUNK_WINDOWS:
                future = pool.submit(_take, clip, CHUNK_WINDOWS)
                yield from chunk
            begin(1)
            yield from chunk


def _take(items: Iterator[T], count: int) -> list[T]:
    return list(itertools.islice(items, count))
