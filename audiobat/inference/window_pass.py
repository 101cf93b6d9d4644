"""One pass of a model over all windows of many files: batches across files, rows into the journal, broken files aside.

Batches are made within pools of consecutive windows, longest first, so that short windows are not padded to long ones;
rows come in the order of the windows. What a pool holds depends neither on threads nor on where a run was stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import torch
from torch import Tensor

from audiobat.audio.read import pad_batch
from audiobat.config import check
from audiobat.data.clip_table import ClipTable
from audiobat.data.loader import check_skipped, write_skipped
from audiobat.data.windows import BrokenClip, FileStamp, Window, WindowStream, read_ahead
from audiobat.engine.progress import Progress
from audiobat.inference.journal import Journal, Part, Place, Rows, join_rows

POOL_BATCHES = 4  # batches in a pool
POOL_FILES = 4096  # broken files at most in a pool
PART_SECONDS = 10.0  # a part is written after the pool that ends so much later
PART_ROWS = 1 << 14  # or that makes so many rows


@dataclass(frozen=True)
class Cut:
    """How recordings are cut into windows and these into batches."""

    sample_rate: int
    window_seconds: float
    hop_seconds: float
    batch_size: int
    workers: int

    def __post_init__(self) -> None:
        window = self.window_seconds
        check(window > 0, "window_seconds", window, "it must be positive")
        check(0 < self.hop_seconds <= window, "hop_seconds", self.hop_seconds, f"use more than 0, at most {window:g}")
        check(self.batch_size > 0, "batch_size", self.batch_size, "it must be positive")
        check(self.workers >= 0, "workers", self.workers, "use 0 or more")

    @property
    def window(self) -> int:
        """Samples of a window."""
        return max(1, round(self.window_seconds * self.sample_rate))

    @property
    def hop(self) -> int:
        """Samples from the start of one window to that of the next."""
        return max(1, round(self.hop_seconds * self.sample_rate))

    def stream(self, clips: ClipTable) -> WindowStream:
        """The windows of all clips."""
        return WindowStream(clips, self.sample_rate, self.window, self.hop, self.workers)


class Task(Protocol):
    """What is done with windows."""

    def compute(self, waveform: Tensor, lengths: Tensor) -> Sequence[Any]:
        """The model's word on windows [B, S], one value for each; the values do not depend on the batch."""
        ...

    def rows(self, window: Window, value: Any) -> Rows:
        """The rows that are certain after this window. Windows come in order."""
        ...

    def state(self) -> Rows:
        """What `rows` remembers of windows before."""
        ...

    def restore(self, state: Rows) -> None:
        """Remember that again."""
        ...


@dataclass
class Pool:
    """Consecutive windows, and the clips that broke among them."""

    windows: list[Window] = field(default_factory=list)
    broken: dict[int, str] = field(default_factory=dict)
    stamps: dict[int, FileStamp | None] = field(default_factory=dict)
    next: Place = (0, 0)

    def add(self, item: Window | BrokenClip) -> None:
        """Take the next item of the stream."""
        self.stamps[item.clip_id] = item.stamp
        if isinstance(item, BrokenClip):
            self.broken[item.clip_id] = item.reason
            self.next = (item.clip_id + 1, 0)
        else:
            self.windows.append(item)
            self.next = (item.clip_id + 1, 0) if item.last else (item.clip_id, item.number + 1)


def run_pass(
    verb: str, task: Task, clips: ClipTable, cut: Cut, journal: Journal, device: torch.device, skipped: Path
) -> None:
    """Do `task` on every window from where the journal ends; broken clips are listed in the file `skipped`.

    Raises:
        AudiobatError: more than 5% of the clips are unreadable.
    """
    task.restore(journal.state)
    skipped.unlink(missing_ok=True)
    if journal.broken:
        write_skipped(skipped, {clips.keys[row]: reason for row, reason in journal.broken.items()})
    rows: list[Rows] = []
    stamps: dict[int, FileStamp | None] = {}  # since the last part, as are `rows` and `broken`
    broken: dict[int, str] = {}
    done, windows, written = journal.next[0], 0, monotonic()
    with Progress(verb, total=len(clips), unit="file", done=done) as bar:
        size = cut.batch_size * POOL_BATCHES
        first = cut.batch_size if journal.next == (0, 0) else size  # a run begins to compute as soon as it can
        for pool in read_ahead(pools(cut.stream(clips)(*journal.next), first, size)):
            values = compute(task, pool.windows, cut.batch_size, device)
            if pool.windows:
                pairs = zip(pool.windows, values, strict=True)
                rows.append(join_rows([task.rows(window, value) for window, value in pairs]))
            stamps |= pool.stamps
            broken |= pool.broken
            windows += len(pool.windows)
            bar.advance(pool.next[0] - done, f"{windows} windows")
            done = pool.next[0]
            many = sum(len(found["row"]) for found in rows) >= PART_ROWS
            if many or done == len(clips) or monotonic() - written >= PART_SECONDS:
                journal.add(Part(join_rows(rows) if rows else {}, task.state(), pool.next, stamps, broken))
                rows, stamps, broken, written = [], {}, {}, monotonic()
            if unreadable := {clips.keys[row]: reason for row, reason in (journal.broken | broken).items()}:
                write_skipped(skipped, unreadable)
                check_skipped(unreadable, done, len(clips))


def pools(items: Iterator[Window | BrokenClip], first: int, size: int) -> Iterator[Pool]:
    """The stream in pools of `size` windows, the first one of `first`; the last one may be smaller."""
    pool, wanted = Pool(), first
    for item in items:
        pool.add(item)
        if len(pool.windows) == wanted or len(pool.broken) == POOL_FILES:
            yield pool
            pool, wanted = Pool(), size
    if pool.stamps:
        yield pool


@torch.inference_mode()
def compute(task: Task, windows: Sequence[Window], batch_size: int, device: torch.device) -> list[Any]:
    """The value of each window, from batches of the longest first."""
    order = sorted(range(len(windows)), key=lambda i: -len(windows[i].samples))
    values: list[Any] = [None] * len(windows)
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        waveform, lengths = pad_batch([torch.from_numpy(windows[i].samples) for i in batch])
        for i, value in zip(batch, task.compute(waveform.to(device), lengths.to(device)), strict=True):
            values[i] = value
    return values
