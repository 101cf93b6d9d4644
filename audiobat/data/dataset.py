"""Clip table to batches of waveforms: endless random crops for pre-training, whole clips in table order for probes.

A crop depends only on (seed, step, place in the batch): the stream is the same for any number of workers or processes
and after resuming. A clip that cannot be read is recorded and replaced (crops) or left out (whole clips).
"""

from __future__ import annotations

import csv
import itertools
import math
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from audiobat.audio.read import pad_batch
from audiobat.data.clip_table import ClipTable
from audiobat.data.sampler import ClipOrder
from audiobat.data.store import clip_duration, read_clip
from audiobat.errors import AudiobatError

B = TypeVar("B")

SKIPPED_LIMIT = 0.05  # largest share of the clips that may be unreadable
SKIPPED_SAMPLE = 20  # clips seen before a share of them says anything about the others
ATTEMPTS = 100  # clips tried in place of an unreadable one
AHEAD = 2  # batches that each worker has under way
ROUNDING = 0.01  # seconds by which headers and resampling may miss a full crop's length


@dataclass(frozen=True)
class Batch:
    """Random crops for one step."""

    waveform: Tensor  # [B, S] float32
    lengths: Tensor | None  # [B] samples; None: all S, so that nobody needs to look
    rows: NDArray[np.int64]  # [B] of the clip table
    starts: NDArray[np.float64]  # [B] seconds into its clip at which a crop begins
    keys: list[str]
    step: int
    skipped: dict[str, str]  # key -> reason, of the clips that others replaced

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        """The batch with its tensors on `device`."""
        lengths = None if self.lengths is None else self.lengths.to(device, non_blocking=non_blocking)
        waveform = self.waveform.to(device, non_blocking=non_blocking)
        return replace(self, waveform=waveform, lengths=lengths)


@dataclass(frozen=True)
class ClipBatch:
    """Whole clips."""

    waveform: Tensor  # [B, S] float32
    lengths: Tensor  # [B] samples
    indices: NDArray[np.int64]  # [B] rows of the clip table
    skipped: dict[str, str]  # key -> reason, of the clips left out


class CropLoader:
    """Iterates for ever over `Batch`, from `start_step` on; `skipped` (key -> reason) grows as it goes.

    Args:
        table: the clips.
        sample_rate: Hz.
        clip_seconds: length of a crop; shorter clips are padded with zeros, and `lengths` says so.
        order: which clips each step takes.
        batch_size: clips per step over all ranks.
        seed: of crop starts and rolls.
        roll: turn each crop's own samples circularly by a random amount.
        rank: this process among `world_size`.
        world_size: processes that share each batch.
        workers: processes that decode; 0: this one does.
        start_step: where to begin.

    Raises:
        AudiobatError: while iterating, when more than 5% of the clips are unreadable (see `check_skipped`).
    """

    def __init__(
        self,
        table: ClipTable,
        sample_rate: int,
        clip_seconds: float,
        order: ClipOrder,
        batch_size: int,
        *,
        seed: int,
        roll: bool = False,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 2,
        start_step: int = 0,
    ) -> None:
        self.table = table
        self.skipped: dict[str, str] = {}
        self._seen = np.zeros(len(table), dtype=bool)
        self._seen_count = 0
        self._workers, self._start = workers, start_step
        samples = round(clip_seconds * sample_rate)
        self._crops = _StepCrops(table, sample_rate, samples, order, batch_size, seed, roll, rank, world_size)

    def __iter__(self) -> Iterator[Batch]:
        # Workers write into memory that both sides map once: to send a batch through a pipe costs more than to read it.
        # One slot more than batches under way, so that none is written while it is copied out.
        slots = AHEAD * self._workers + 1 if self._workers else 0
        ring = torch.empty(slots, self._crops.share, self._crops.samples).share_memory_()
        loader = DataLoader(
            replace(self._crops, ring=ring if slots else None),
            batch_size=None,  # an item is a batch already, and its index the step
            sampler=_Steps(self._start),
            num_workers=self._workers,
            prefetch_factor=AHEAD if self._workers else None,
            worker_init_fn=ignore_interrupt,
        )
        for crops in alive(loader):
            self.skipped.update(crops.skipped)
            new = np.unique(crops.rows[~self._seen[crops.rows]])
            self._seen[new] = True
            self._seen_count += len(new)
            check_skipped(self.skipped, self._seen_count + len(self.skipped), len(self.table))
            if not len(crops.rows):
                raise AudiobatError(f"{ATTEMPTS} clips in a row are unreadable, such as {_example(self.skipped)}.")
            waveform = _copy(ring[crops.step % slots]) if crops.waveform is None else crops.waveform
            lengths = None if bool((crops.lengths == waveform.shape[1]).all()) else torch.from_numpy(crops.lengths)
            keys = [self.table.keys[row] for row in crops.rows.tolist()]
            yield Batch(waveform, lengths, crops.rows, crops.starts, keys, crops.step, crops.skipped)


def _copy(slot: Tensor) -> Tensor:
    """A batch in memory of its own; a GPU can fetch it from there while the step before still computes."""
    return torch.empty_like(slot, pin_memory=torch.cuda.is_available()).copy_(slot)


@dataclass(frozen=True)
class _Crops:
    """What a worker sends: all of a batch but the waveform, which lies in the ring."""

    waveform: Tensor | None  # [B, S] where there is no ring
    lengths: NDArray[np.int64]  # [B] samples
    rows: NDArray[np.int64]  # [B] of the clip table; none if no readable clip was found
    starts: NDArray[np.float64]  # [B] seconds
    step: int
    skipped: dict[str, str]


@dataclass(frozen=True, eq=False)
class _StepCrops(Dataset[_Crops]):
    """Item `step` is this rank's batch of that step."""

    table: ClipTable
    sample_rate: int
    samples: int  # S, the length of a crop
    order: ClipOrder
    batch_size: int
    seed: int
    roll: bool
    rank: int
    world_size: int
    ring: Tensor | None = None  # [slots, B, S]; step n goes to slot n mod slots

    @property
    def share(self) -> int:
        """B, this rank's crops of a batch."""
        return self.batch_size // self.world_size

    def indices(self, step: int) -> NDArray[np.int64]:
        """Clips of this rank's places [B]."""
        return self.order.batch_indices(step, self.batch_size, self.rank, self.world_size)

    def __getitem__(self, step: int) -> _Crops:
        indices = self.indices(step)
        ring = self.ring
        waveform = torch.empty(len(indices), self.samples) if ring is None else ring[step % len(ring)]
        lengths = np.zeros(len(indices), dtype=np.int64)
        rows = np.zeros(len(indices), dtype=np.int64)
        starts = np.zeros(len(indices))
        skipped: dict[str, str] = {}
        values = waveform.numpy()
        draws = self._draws(step)
        for place, index in enumerate(indices.tolist()):
            found = self._readable_crop(index, step, place, draws[place], skipped)
            if found is None:
                return _Crops(None, lengths[:0], rows[:0], starts[:0], step, skipped)
            rows[place], starts[place], crop = found
            values[place, : len(crop)] = crop
            values[place, len(crop) :] = 0
            full = len(crop) >= self.samples - ROUNDING * self.sample_rate
            lengths[place] = self.samples if full else len(crop)
        return _Crops(waveform if ring is None else None, lengths, rows, starts, step, skipped)

    def _draws(self, step: int) -> list[list[float]]:
        """For each of this rank's places where its crop begins and how far it is turned, in [0, 1), as [B, 2]."""
        first = self.rank * self.share
        draws = np.random.default_rng((self.seed, step)).random((self.batch_size, 2))
        own: list[list[float]] = draws[first : first + self.share].tolist()
        return own

    def _readable_crop(
        self, index: int, step: int, place: int, draw: list[float], skipped: dict[str, str]
    ) -> tuple[int, float, NDArray[np.float32]] | None:
        """Row, start and crop of clip `index`, or of the next clip that the order has for this place in later steps."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return index, *self._crop(index, *draw)
            except AudiobatError as error:
                skipped[self.table.keys[index]] = str(error)
                index = int(self.indices(step + attempt)[place])
        return None

    def _crop(self, row: int, at: float, turn: float) -> tuple[float, NDArray[np.float32]]:
        """Read one crop [at most S], and the second at which it begins; `at` and `turn` are in [0, 1)."""
        seconds = self.samples / self.sample_rate
        start = at * max(0.0, clip_duration(self.table, row)[0] - seconds)
        crop = read_clip(self.table, row, self.sample_rate, start, seconds)[: self.samples]
        return start, np.roll(crop, int(turn * len(crop))) if self.roll else crop


def alive(batches: Iterable[B]) -> Iterator[B]:
    """The batches; if the system kills a process that loads them, an AudiobatError says so."""
    try:
        yield from batches
    except RuntimeError as error:
        if not is_loss_of_worker(error):
            raise
        raise AudiobatError(loss_of_worker(error)) from error


def is_loss_of_worker(error: RuntimeError) -> bool:
    """Whether torch says that the system killed a process that loads; it may say so in the midst of anything."""
    return "DataLoader worker (pid" in str(error)


def loss_of_worker(error: RuntimeError) -> str:
    """The sentence for it."""
    said = str(error).splitlines()[0].rstrip(". ")
    return (
        f"A process that loads data was killed ({said}): if memory ran out, use fewer "
        "data.workers or a smaller train.batch_size; the same command goes on from the last checkpoint."
    )


class _Steps:
    """Endless step numbers, the same each time they are iterated."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


def ignore_interrupt(worker: int) -> None:
    """Leave Ctrl-C to the main process, which finishes its step and ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def iterate_clips(
    table: ClipTable,
    sample_rate: int,
    batch_size: int,
    seconds: float | None = None,
    *,
    skipped: dict[str, str],
    workers: int = 0,
) -> Iterator[ClipBatch]:
    """Yield the readable clips of a table, in its order, zero-padded to the longest of each batch.

    Args:
        table: the clips.
        sample_rate: Hz.
        batch_size: clips per batch, of which those that cannot be read are left out.
        seconds: read no more than this much from each clip's start.
        skipped: receives key -> reason of each clip left out.
        workers: processes that decode ahead; 0: this one does.

    Raises:
        AudiobatError: more than 5% of the clips are unreadable (see `check_skipped`), a worker was killed.
    """
    batches = DataLoader(
        _ClipBatches(table, sample_rate, batch_size, seconds),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=ignore_interrupt,
    )
    seen = 0
    for batch in alive(batches):
        seen += len(batch.indices) + len(batch.skipped)
        skipped.update(batch.skipped)
        check_skipped(skipped, seen, len(table))
        if len(batch.indices):
            yield batch


@dataclass(frozen=True, eq=False)
class _ClipBatches(Dataset[ClipBatch]):
    """Item i is the i-th batch of whole clips."""

    table: ClipTable
    sample_rate: int
    batch_size: int
    seconds: float | None

    def __len__(self) -> int:
        return -(-len(self.table) // self.batch_size)

    def __getitem__(self, number: int) -> ClipBatch:
        waveforms: list[Tensor] = []
        indices: list[int] = []
        skipped: dict[str, str] = {}
        first = number * self.batch_size
        for row in range(first, min(first + self.batch_size, len(self.table))):
            try:
                waveforms.append(torch.from_numpy(read_clip(self.table, row, self.sample_rate, seconds=self.seconds)))
                indices.append(row)
            except AudiobatError as error:
                skipped[self.table.keys[row]] = str(error)
        waveform, lengths = pad_batch(waveforms or [torch.zeros(0)])
        return ClipBatch(waveform[: len(indices)], lengths[: len(indices)], np.array(indices, np.int64), skipped)


def check_skipped(skipped: Mapping[str, str], seen: int, clips: int) -> None:
    """Stop a run in which more than 5% of the clips are unreadable.

    That is certain once the clips skipped are more than 5% of all `clips`. Before, it stops when they exceed 5% of the
    clips `seen` (at least 20) by three standard deviations, so that a large broken corpus is found out at once and a
    large sound one is not stopped by bad luck.

    Raises:
        AudiobatError: too many are unreadable; names one of them, and why.
    """
    chance = SKIPPED_LIMIT * seen + 3 * math.sqrt(SKIPPED_LIMIT * (1 - SKIPPED_LIMIT) * seen)
    certain = len(skipped) > SKIPPED_LIMIT * clips
    if len(skipped) == clips:
        raise AudiobatError(f"None of the clips can be read: fix or replace them; one is {_example(skipped)}")
    if certain or (seen >= SKIPPED_SAMPLE and len(skipped) > chance):
        raise AudiobatError(
            f"{len(skipped)} of {seen} clips seen are unreadable, more than {SKIPPED_LIMIT:.0%} of the {clips} clips: "
            f"fix or remove them; one is {_example(skipped)}"
        )


def write_skipped(path: str | Path, skipped: Mapping[str, str]) -> None:
    """Write `path,reason` rows of the clips left out, whole or not at all."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "reason"), *sorted(skipped.items())])
    os.replace(unfinished, path)


def _example(skipped: Mapping[str, str]) -> str:
    key, reason = next(iter(skipped.items()))
    return f"{key}: {reason}"
