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

from audiobat.audio import pad_batch
from audiobat.data.index import ClipTable
from audiobat.data.sampler import ClipOrder
from audiobat.data.store import clip_duration, read_clip
from audiobat.errors import AudiobatError

B = TypeVar("B")

SKIPPED_LIMIT = 0.05  # largest share of the clips that may be unreadable
SKIPPED_SAMPLE = 20  # clips seen before a share of them says anything about the others
ATTEMPTS = 100  # clips tried in place of an unreadable one
ROUNDING = 0.01  # seconds by which headers and resampling may miss a full crop's length


@dataclass(frozen=True)
class Batch:
    """Random crops for one step; no rows if no readable clip was found."""

    waveform: Tensor  # [B, S] float32
    lengths: Tensor | None  # [B] samples; None: all S, so that nobody needs to look
    rows: NDArray[np.int64]  # [B] of the clip table
    keys: list[str]
    step: int
    skipped: dict[str, str]  # key -> reason, of the clips that others replaced

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        """The batch with its tensors on `device`."""
        lengths = None if self.lengths is None else self.lengths.to(device, non_blocking=non_blocking)
        waveform = self.waveform.to(device, non_blocking=non_blocking)
        return replace(self, waveform=waveform, lengths=lengths)

    def pin_memory(self) -> Batch:
        """The batch in memory that a GPU can fetch by itself, while the step before still computes."""
        lengths = None if self.lengths is None else self.lengths.pin_memory()
        return replace(self, waveform=self.waveform.pin_memory(), lengths=lengths)


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
        self._batches = DataLoader(
            _StepBatches(table, sample_rate, clip_seconds, order, batch_size, seed, roll, rank, world_size),
            batch_size=None,  # an item is a batch already, and its index the step
            sampler=_Steps(start_step),
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_ignore_interrupt,
        )

    def __iter__(self) -> Iterator[Batch]:
        for batch in _alive(self._batches):
            self.skipped.update(batch.skipped)
            self._seen[batch.rows] = True
            check_skipped(self.skipped, int(self._seen.sum()) + len(self.skipped), len(self.table))
            if not batch.keys:
                raise AudiobatError(f"{ATTEMPTS} clips in a row are unreadable, such as {_example(self.skipped)}.")
            yield batch


@dataclass(frozen=True, eq=False)
class _StepBatches(Dataset[Batch]):
    """Item `step` is this rank's batch of that step."""

    table: ClipTable
    sample_rate: int
    clip_seconds: float
    order: ClipOrder
    batch_size: int
    seed: int
    roll: bool
    rank: int
    world_size: int

    @property
    def samples(self) -> int:
        """S, the length of a crop."""
        return round(self.clip_seconds * self.sample_rate)

    def indices(self, step: int) -> NDArray[np.int64]:
        """Clips of this rank's places [B]."""
        return self.order.batch_indices(step, self.batch_size, self.rank, self.world_size)

    def __getitem__(self, step: int) -> Batch:
        indices = self.indices(step)
        waveform = torch.zeros(len(indices), self.samples)
        lengths = torch.zeros(len(indices), dtype=torch.int64)
        rows = np.zeros(len(indices), dtype=np.int64)
        skipped: dict[str, str] = {}
        for place, index in enumerate(indices.tolist()):
            found = self._readable_crop(index, step, place, skipped)
            if found is None:
                return Batch(waveform[:0], None, rows[:0], [], step, skipped)
            rows[place], crop = found
            waveform[place, : len(crop)] = torch.from_numpy(crop)
            full = len(crop) >= self.samples - ROUNDING * self.sample_rate
            lengths[place] = self.samples if full else len(crop)
        keys = [self.table.keys[row] for row in rows.tolist()]
        return Batch(waveform, None if bool((lengths == self.samples).all()) else lengths, rows, keys, step, skipped)

    def _readable_crop(
        self, index: int, step: int, place: int, skipped: dict[str, str]
    ) -> tuple[int, NDArray[np.float32]] | None:
        """Row and crop of clip `index`, or of the next clip that the order has for this place in later steps."""
        for attempt in range(1, ATTEMPTS + 1):
            rng = np.random.default_rng((self.seed, step, self.rank * (self.batch_size // self.world_size) + place))
            try:
                return index, self._crop(index, rng)
            except AudiobatError as error:
                skipped[self.table.keys[index]] = str(error)
                index = int(self.indices(step + attempt)[place])
        return None

    def _crop(self, row: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Read one random crop [at most S]."""
        at, turn = rng.random(2)
        start = at * max(0.0, clip_duration(self.table, row)[0] - self.clip_seconds)
        crop = read_clip(self.table, row, self.sample_rate, start, self.clip_seconds)[: self.samples]
        return np.roll(crop, int(turn * len(crop))) if self.roll else crop


def _alive(batches: Iterable[B]) -> Iterator[B]:
    """The batches; if the system kills a process that loads them, an AudiobatError says so."""
    try:
        yield from batches
    except RuntimeError as error:
        if "worker" not in str(error):
            raise
        raise AudiobatError(
            f"A process that loads data was killed ({str(error).splitlines()[0]}): if memory ran out, use fewer "
            "data.workers or a smaller train.batch_size; the same command goes on from the last checkpoint."
        ) from error


class _Steps:
    """Endless step numbers, the same each time they are iterated."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


def _ignore_interrupt(worker: int) -> None:
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
        worker_init_fn=_ignore_interrupt,
    )
    seen = 0
    for batch in _alive(batches):
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
    if certain or (seen >= SKIPPED_SAMPLE and len(skipped) > chance):
        raise AudiobatError(
            f"{len(skipped)} of {seen} clips seen are unreadable, more than {SKIPPED_LIMIT:.0%} of the {clips} clips: "
            f"mend or remove them; one is {_example(skipped)}"
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
