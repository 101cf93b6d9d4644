"""One pass of a model over all windows of many recordings; embedding and predicting are tasks of it.

In: the clips, how they are cut into windows, a task. Out: rows in the journal, in the order of the windows, and a list
of the clips that cannot be read. Batches hold windows of several clips, the longest first within a pool, so that short
windows are not padded to long ones. A pool does not depend on threads, nor on where a run was stopped, nor on which of
several ranks makes it.
"""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiobat.audio.read import pad_batch
from audiobat.config import ModelConfig, check
from audiobat.data.build import clip_table
from audiobat.data.clip_table import ClipTable
from audiobat.data.loader import SKIPPED_LIMIT
from audiobat.data.skipped import write_skipped
from audiobat.data.sources.read import read_clips
from audiobat.data.sources.tars import find_tars, read_tars
from audiobat.data.windows import BrokenClip, Window, WindowStream, read_ahead
from audiobat.engine.files import errors_of_writing
from audiobat.engine.memory import check_fits
from audiobat.engine.progress import Progress
from audiobat.engine.ranks import Ranks
from audiobat.engine.run_folder import sole_use
from audiobat.errors import AudiobatError, Incomplete
from audiobat.inference.journal import (
    CLIP_ID,
    Count,
    Journal,
    Rows,
    Seen,
    Share,
    WindowId,
    join_rows,
    sibling,
    skipped_list,
)
from audiobat.inference.tally import Tally
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import NOT_FINITE, Encoder
from audiobat.models.needs import clip_needs
from audiobat.models.tagger import Tagger

CLIP_SECONDS = 10.0  # window for an encoder that has no longest clip
POOL_BATCHES = 4  # batches of windows in a pool
CPU_SECONDS = 20.0  # of audio in a batch for each thread of a CPU: batches of few windows hold little padding
GOES_ON = "fix that; the same command goes on from what is done"  # the hint where nothing can be written
POOL_BROKEN = 4096  # broken clips in a pool, at most
WAIT_SECONDS = 0.2  # between two looks at what other ranks have done
PART_SECONDS = 10.0  # a part is written with the first pool that ends so long after the last part
PART_ROWS = 1 << 14  # or that brings the rows to so many
SILENCE = 2e-4  # from the lowest sample to the highest: six steps of 16 bits, as a recorder without a microphone has


def list_clips(data: str | Path | Sequence[str | Path]) -> ClipTable:
    """The clips of one or several of: an audio file, a .txt list of files, any source that `read_clips` takes.

    The clips of several sources are named by their paths; several tars are one source.

    Raises:
        AudiobatError: as for `read_clips`; no source; one of several sources has its clips inside other files.
    """
    if isinstance(data, str | Path):
        return _list_source(data)
    if not data:
        raise AudiobatError("--data names nothing: give files or folders of audio.")
    if len(data) == 1:
        return _list_source(data[0])
    tars = [find_tars(source) for source in data]
    if all(tars):
        return read_tars(" ".join(map(str, data)), [path for found in tars for path in found or ()])
    paths: dict[str, None] = {}  # a file that two sources name is taken once
    for source in data:
        table = _list_source(source)
        if table.offsets is not None or table.begins is not None:
            raise AudiobatError(f"--data {source} has its clips inside other files: give it alone.")
        paths |= dict.fromkeys(table.path(clip_id) for clip_id in range(len(table)))
    return clip_table("", list(paths))


def _list_source(data: str | Path) -> ClipTable:
    source = Path(data)
    if find_tars(data) is not None or not source.is_file() or source.suffix.lower() in (".csv", ".parquet"):
        return read_clips(data)
    if source.suffix.lower() != ".txt":
        return clip_table("", [str(source)])
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise AudiobatError(f"{source} is not UTF-8 text (byte {error.start}): save it in UTF-8.") from None
    files = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not files:
        raise AudiobatError(f"{source} lists no files: write one path on each line.")
    if not any("://" in file or os.path.exists(source.parent / file) for file in files):
        raise AudiobatError(
            f"{source} is a list of files, none of which is there, such as {files[0]!r}: write one path on each line."
        )
    return clip_table(source.parent, files)


@dataclass(frozen=True)
class Windows:
    """How recordings are cut into windows, and windows put into batches."""

    sample_rate: int
    window_seconds: float
    hop_seconds: float
    batch_size: int
    workers: int  # threads that decode ahead
    least: int = 1  # samples of a recording's last window: a rest that is shorter is left out
    model: ModelConfig | None = None  # of an encoder of this package: the memory that a batch takes follows from it

    def __post_init__(self) -> None:
        window = self.window_seconds
        check(window > 0, "window_seconds", window, "it must be positive")
        check(0 < self.hop_seconds <= window, "hop_seconds", self.hop_seconds, f"use more than 0, at most {window:g}")
        check(self.batch_size > 0, "batch_size", self.batch_size, "it must be positive")
        check(self.workers >= 0, "workers", self.workers, "use 0 or more")

    @classmethod
    def of(cls, encoder: Encoder, window: float | None, hop: float | None, batch_size: int, workers: int) -> Windows:
        """Windows of so many seconds for an encoder; None: the longest clip that it takes, and windows end to end.

        A rest behind the last window that fills no patch column of the encoder makes no window.
        """
        samples = getattr(encoder, "max_samples", None)
        longest = CLIP_SECONDS if samples is None else math.floor(samples / encoder.sample_rate * 100) / 100
        window = longest if window is None else window
        least = getattr(encoder, "column_samples", 1)
        model = encoder.config if isinstance(encoder, AudioEncoder) else None
        return cls(encoder.sample_rate, window, window if hop is None else hop, batch_size, workers, least, model)

    @classmethod
    def of_tagger(
        cls, tagger: Tagger, window: float | None, hop: float | None, batch_size: int, workers: int
    ) -> Windows:
        """The same for an encoder with a head; None: those that the head learnt from, if it knows of any."""
        if window is None:
            window = tagger.config.window_seconds
            hop = tagger.config.hop_seconds if hop is None else hop
        return cls.of(tagger.encoder, window, hop, batch_size, workers)

    @property
    def length(self) -> int:
        """Samples of a window."""
        return max(1, round(self.window_seconds * self.sample_rate))

    @property
    def hop(self) -> int:
        """Samples from the start of a window to the start of the next."""
        return max(1, round(self.hop_seconds * self.sample_rate))


class Task:
    """What a pass computes of each window; if rows depend on earlier windows, it has `state` and `restore` too."""

    def compute(self, waveform: Tensor, lengths: Tensor) -> Sequence[Any]:
        """The model's output for windows [B, S] of `lengths` [B] samples, one value each, which no batch changes.

        None stands for one that is NaN or infinite.
        """
        raise NotImplementedError

    def rows(self, window: Window, value: Any) -> Rows:
        """The rows that are final after this window; called for all windows in order."""
        raise NotImplementedError

    def state(self) -> Rows:
        """What `rows` remembers of the windows so far, as arrays."""
        return {}

    def restore(self, state: Rows) -> None:
        """Go on from an earlier state."""


@dataclass
class Pool:
    """Consecutive windows, and the clips among them that cannot be read."""

    windows: list[Window] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)
    next: WindowId = (0, 0)

    def add(self, item: Window | BrokenClip) -> None:
        """Take the next item of the stream."""
        self.seen.stamps[item.clip_id] = item.stamp
        if isinstance(item, BrokenClip):
            self.seen.broken[item.clip_id] = item.reason
            self.next = (item.clip_id + 1, 0)
        else:
            self.windows.append(item)
            if np.ptp(item.samples) > SILENCE:
                self.seen.loud.add(item.clip_id)
            self.next = (item.clip_id + 1, 0) if item.last else (item.clip_id, item.number + 1)


def make_table(
    verb: str,
    out: Path,
    task: Task,
    clips: ClipTable,
    windows: Windows,
    settings: dict[str, Any],
    overwrite: bool,
    ranks: Ranks,
    write: Callable[[Journal], Count],
) -> None:
    """Do `task` on all windows, over all ranks, and let rank 0 `write` the table `out` from what they have made.

    `write` returns what it has counted.
    `settings` are those, besides the audio and the windows, that rows depend on: parts of others are not used. Clips
    that cannot be read are listed, with the reason, in `out`.skipped.csv. The last lines tell where the table is, and
    what it lacks. Every rank returns when the table is there.

    Raises:
        AudiobatError: none of the clips can be read; parts of other settings; no room on the disk.
    """
    parts = sibling(out, "parts")
    with errors_of_writing(out, GOES_ON), sole_use(parts) if ranks.is_main else nullcontext():
        cut = {"window_seconds": windows.window_seconds, "hop_seconds": windows.hop_seconds}
        journal = Journal(parts, clips, settings | cut, overwrite, ranks)
        shares = run_pass(verb, task, clips, windows, journal, ranks, skipped_list(out))
        made = ranks.gather([(share.first, share.parts, share.broken) for share in shares])
        journal.finish(itertools.chain.from_iterable(made))
        if ranks.is_main:
            if journal.broken:  # once more, as of two ranks that wrote it at one time the later may have known less
                write_skipped(skipped_list(out), {clips.keys[i]: reason for i, reason in journal.broken.items()})
            print(write(journal).line(out))
            for line in journal.closing_lines(out, windows.window_seconds):
                print(line)
            if len(journal.broken) > SKIPPED_LIMIT * len(clips):
                warnings.warn(
                    f"{out} lacks more than {SKIPPED_LIMIT:.0%} of the files: see {skipped_list(out)}.", Incomplete, 3
                )
            journal.close()
        ranks.barrier()


def run_pass(
    verb: str, task: Task, clips: ClipTable, windows: Windows, journal: Journal, ranks: Ranks, skipped: Path
) -> list[Share]:
    """Do `task` on every window that has no part yet; returns the shares that this rank took.

    Whichever rank is free takes the next share. The clips that cannot be read are written to `skipped`, a CSV.

    Raises:
        AudiobatError: none of the clips can be read.
    """
    tally = Tally(clips, ranks, skipped)
    shares: list[Share] = []
    rows: list[Rows] = []  # since the last part, as is `seen`
    seen = Seen()
    broken: set[int] = set()  # clips of the share, counted as unreadable
    done, written = 0, monotonic()
    with Progress(verb, total=len(clips), unit="file", shown=ranks.is_main) as bar:
        for share, pool in read_ahead(share_pools(journal, tally, clips, windows)):
            if pool is None:
                shares.append(share)
                task.restore(share.state)
                done, broken = share.next[0], set(share.broken)
                tally.add(done - share.first, 0, share.broken)  # the same command ends in the same way once more
                bar.skip(done - share.first)
                continue
            values = compute(task, pool.windows, windows, ranks.device)
            pairs = list(zip(pool.windows, values, strict=True))
            pool.seen.broken |= {window.clip_id: NOT_FINITE for window, value in pairs if value is None}
            if found := [task.rows(window, value) for window, value in pairs if value is not None]:
                rows.append(join_rows(found))
            new = {clip_id: reason for clip_id, reason in pool.seen.broken.items() if clip_id not in broken}
            broken |= new.keys()
            seen |= pool.seen
            seen.short |= {w.clip_id for w in pool.windows if w.number == 0 and len(w.samples) < windows.length}
            ends = {window.clip_id: window.end / windows.sample_rate for window in pool.windows if window.last}
            seen.misjudged |= {clip_id for clip_id, end in ends.items() if clips.misjudges(clip_id, end)}
            many = sum(len(found[CLIP_ID]) for found in rows) >= PART_ROWS
            if many or pool.next[0] == share.end or monotonic() - written >= PART_SECONDS:
                share.add(join_rows(rows) if rows else {}, task.state(), pool.next, seen)
                rows, seen, written = [], Seen(), monotonic()
            try:
                tally.add(pool.next[0] - done, len(pool.windows), new)
            finally:
                bar.advance(tally.clips - bar.done, f"{tally.windows} windows")
            done = pool.next[0]
        while tally.clips < len(clips):  # other ranks are at work: no collective waits so long
            sleep(WAIT_SECONDS)
            tally.add(0, 0, {})
            bar.advance(tally.clips - bar.done, f"{tally.windows} windows")
    return shares


def share_pools(
    journal: Journal, tally: Tally, clips: ClipTable, windows: Windows
) -> Iterator[tuple[Share, Pool | None]]:
    """The pools of every share that this rank takes; before the first of a share, None."""
    stream = WindowStream(clips, windows.sample_rate, windows.length, windows.hop, windows.workers, windows.least)
    size = windows.batch_size * POOL_BATCHES
    while (number := tally.take()) < len(journal.firsts):
        share = journal.share(number)
        yield share, None
        first = windows.batch_size if share.next == (0, 0) else size  # small, so that the model starts early
        for pool in pools(stream(*share.next, share.end), first, size):
            yield share, pool


def pools(items: Iterator[Window | BrokenClip], first: int, size: int) -> Iterator[Pool]:
    """The stream in pools of `size` windows, the first pool of `first`; the last may be smaller."""
    pool, wanted = Pool(), first
    for item in items:
        pool.add(item)
        if len(pool.windows) == wanted or len(pool.seen.broken) == POOL_BROKEN:
            yield pool
            pool, wanted = Pool(), size
    if pool.seen.stamps:
        yield pool


@torch.inference_mode()
def compute(task: Task, pool: Sequence[Window], windows: Windows, device: torch.device) -> list[Any]:
    """The task's value for each window of `pool`, from batches that begin with the longest windows."""
    values: list[Any] = [None] * len(pool)
    for batch in batches([len(window.samples) for window in pool], windows, device):
        if windows.model is not None:
            longest, width = len(pool[batch[0]].samples), windows.model.encoder.dim
            needs = clip_needs(windows.model, len(batch), longest, width, "window_seconds or batch_size")
            check_fits("A batch of windows", needs, device)
        waveform, lengths = pad_batch([torch.from_numpy(pool[i].samples) for i in batch])
        for i, value in zip(batch, task.compute(waveform.to(device), lengths.to(device)), strict=True):
            values[i] = value
    return values


def batches(lengths: Sequence[int], windows: Windows, device: torch.device) -> Iterator[list[int]]:
    """The places of windows of `lengths` samples, the longest first, in batches; a CPU needs no large ones."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    at_once = CPU_SECONDS * torch.get_num_threads() * windows.sample_rate  # samples
    while order:
        size = windows.batch_size
        if device.type == "cpu":
            size = min(size, max(1, int(at_once / lengths[order[0]])))
        yield order[:size]
        order = order[size:]
