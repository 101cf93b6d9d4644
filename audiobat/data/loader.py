"""Clip table to batches of waveforms, decoded ahead in worker processes: random crops, or whole clips in a given order.

In: a clip table and which clips each batch takes. Out: `CropBatch` without end for training, `ClipBatch` for probes and
tests. (Windows of long recordings are the third shape of batch: see `windows.py`, which decodes in threads.)

A crop depends only on (seed, step, place in the batch): the stream is the same for any number of workers or processes
and after resuming. A clip that cannot be read is recorded and replaced (crops) or left out (whole clips).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from audiobat.audio.read import pad_batch
from audiobat.data.clip import open_clip, read_clip
from audiobat.data.clip_table import ClipTable
from audiobat.data.sampler import ClipOrder
from audiobat.engine.memory import FLOAT, Need, workers_need
from audiobat.engine.signals import leave_to_parent
from audiobat.errors import AudiobatError

T = TypeVar("T")
ClipIds = NDArray[np.int64]  # places of clips in their table

SKIPPED_LIMIT = 0.05  # largest share of the clips that may be unreadable
SKIPPED_LEAST = 5  # unreadable clips that stop a run, at the least: a few broken files of a small set are a nuisance
SKIPPED_SAMPLE = 20  # clips read before a share of them says anything about the others
ATTEMPTS = 100  # clips tried in place of an unreadable one
AHEAD = 2  # batches that each worker has under way
ROUNDING = 0.01  # seconds by which headers and resampling may miss a full crop's length


@dataclass(frozen=True)
class CropBatch:
    """Random crops for one step."""

    waveform: Tensor  # [B, S] float32
    lengths: Tensor | None  # [B] samples, on the CPU, so that to look at them waits for no device; None: all S
    clip_ids: ClipIds  # [B]
    starts: NDArray[np.float64]  # [B] seconds into its clip at which a crop begins
    keys: list[str]
    step: int
    skipped: dict[str, str]  # key -> reason, of the clips that others replaced

    def to(self, device: torch.device, non_blocking: bool = False) -> CropBatch:
        """The batch with its waveform on `device`."""
        return replace(self, waveform=self.waveform.to(device, non_blocking=non_blocking))


@dataclass(frozen=True)
class ClipBatch:
    """The readable ones of some whole clips."""

    clip_ids: ClipIds  # [B]
    waveform: Tensor  # [B, S] float32, zeros after each clip's end
    lengths: Tensor  # [B] samples
    skipped: dict[str, str]  # key -> reason, of the clips that cannot be read

    def to(self, device: torch.device) -> ClipBatch:
        """The batch with its tensors on `device`."""
        return replace(self, waveform=self.waveform.to(device), lengths=self.lengths.to(device))

    def pin_memory(self) -> ClipBatch:
        """The batch in memory that a GPU can fetch by itself; DataLoader calls this."""
        return replace(self, waveform=self.waveform.pin_memory(), lengths=self.lengths.pin_memory())


def load(items: Dataset[T], order: Iterable[Any], workers: int, pin: bool = False) -> Iterator[T]:
    """`items[i]` for each i of `order`, in that order, made by worker processes (0: by this one).

    Whatever loads audio in other processes does it through this function. Workers leave Ctrl-C and its like to the main
    process, which finishes its step and ends them.

    Args:
        items: makes an item, such as a batch.
        order: indices, of whatever type `items` takes; may be endless.
        workers: processes, each two items ahead.
        pin: put items into memory that a GPU can fetch by itself; they have a method `pin_memory`.

    Raises:
        AudiobatError: the system killed a worker, or gives it no shared memory.
    """
    loader = DataLoader(
        items,
        batch_size=None,  # an item is a batch already
        sampler=order,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        pin_memory=pin and torch.cuda.is_available(),
        worker_init_fn=_begin,
        collate_fn=_shared,
        generator=torch.Generator(),  # else it draws from the global one, on which a model's dropout depends
    )
    try:
        for item in loader:
            if isinstance(item, _NoRoom):
                raise AudiobatError(no_shared_memory(item.reason, f"workers {workers}"))
            yield item
    except (RuntimeError, ConnectionError, EOFError) as error:
        if (sentence := lost_worker(error)) is None:
            raise
        raise AudiobatError(sentence) from error


def lost_worker(error: Exception) -> str | None:
    """The sentence for a worker that the system killed; None for any other error.

    torch notices that by a signal, so that the error may be raised in the midst of anything, not only in `load`; or
    first the connection breaks, through which a tensor was to come (what a worker itself raises is "Caught ...").
    """
    broken = isinstance(error, ConnectionError | EOFError) and not str(error).startswith("Caught")
    if not broken and "DataLoader worker (pid" not in str(error):
        return None
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(". ")
    return (
        f"A process that loads data was killed ({reason}): if memory ran out, use fewer "
        "data.workers or a smaller train.batch_size; the same command goes on from the last checkpoint."
    )


def no_shared_memory(error: str, workers: str) -> str:
    """The sentence for what the system says where it gives workers no memory to share with the main process."""
    reason = error.splitlines()[0].rstrip(". ")
    return (
        f"There is no shared memory for {workers} ({reason}): give /dev/shm more room (for docker --shm-size), or use "
        "fewer workers; 0 need none."
    )


def _begin(worker: int) -> None:
    leave_to_parent()


@dataclass(frozen=True)
class _NoRoom:
    """What a worker sends in place of an item for which it has no shared memory."""

    reason: str


def _shared(item: T) -> T | _NoRoom:
    """An item whose tensors are in shared memory, if this process is a worker.

    Else a thread that sends the item would move them there, and drop it where that fails: it would be waited for
    without end.
    """
    if get_worker_info() is not None:
        try:
            for value in vars(item).values():
                if isinstance(value, Tensor):
                    value.share_memory_()
        except RuntimeError as error:
            return _NoRoom(str(error))
    return item


def ring_needs(workers: int, clips: int, samples: int) -> list[Need]:
    """The memory for a `CropLoader` of so many worker processes, whose batches are `clips` crops of `samples`."""
    batches = AHEAD * workers + 2 if workers else 1  # the slots, and the batch that was copied out
    ring = FLOAT * batches * clips * samples
    settings = "data.workers, train.batch_size or data.clip_seconds"
    return [Need("batches that are loaded ahead", ring, settings), workers_need(workers, "data.workers")]


class CropLoader:
    """Iterates for ever over `CropBatch`, from `start_step` on; `skipped` (key -> reason) grows as it goes.

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
        self._read = np.zeros(len(table), dtype=bool)
        self._read_count = 0
        self._workers, self._start = workers, start_step
        samples = round(clip_seconds * sample_rate)
        self._crops = _StepCrops(table, sample_rate, samples, order, batch_size, seed, roll, rank, world_size)

    def __iter__(self) -> Iterator[CropBatch]:
        # Workers write into memory that both sides map once: to send a batch through a pipe costs more than to read it.
        # One slot more than batches under way, so that none is written while it is copied out.
        slots = AHEAD * self._workers + 1 if self._workers else 0
        try:
            ring = torch.empty(slots, self._crops.share, self._crops.samples).share_memory_()
        except RuntimeError as error:  # a small /dev/shm, as containers have
            raise AudiobatError(no_shared_memory(str(error), f"data.workers {self._workers}")) from error
        items = replace(self._crops, ring=ring if slots else None)
        for step, crops in enumerate(load(items, itertools.count(self._start), self._workers), self._start):
            waveform, lengths, clip_ids = crops.waveform, crops.lengths, crops.clip_ids
            self.skipped.update(crops.skipped)
            new = np.unique(clip_ids[~self._read[clip_ids]])  # a clip counts once, however often it is drawn
            self._read[new] = True
            self._read_count += len(new)
            check_skipped(self.skipped, self._read_count + len(self.skipped), len(self.table))
            if not len(clip_ids):
                raise AudiobatError(f"{ATTEMPTS} clips in a row are unreadable, such as {_example(self.skipped)}.")
            if waveform is None:  # copied to memory from which a GPU can fetch it while the step before still computes
                slot = ring[step % slots]
                waveform = torch.empty_like(slot, pin_memory=torch.cuda.is_available()).copy_(slot)
            own = None if bool((lengths == waveform.shape[1]).all()) else torch.from_numpy(lengths)
            keys = [self.table.keys[clip_id] for clip_id in clip_ids.tolist()]
            yield CropBatch(waveform, own, clip_ids, crops.starts, keys, step, crops.skipped)


@dataclass(frozen=True)
class _Crops:
    """The part of a `CropBatch` that a worker sends through a pipe; no tuple, whose arrays torch turns into tensors."""

    waveform: Tensor | None  # [B, S]; None: it lies in the ring
    lengths: NDArray[np.int64]  # [B] samples
    clip_ids: ClipIds  # [B]; empty if no readable clip was found
    starts: NDArray[np.float64]  # [B] seconds
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

    def drawn(self, step: int) -> ClipIds:
        """The clips [B] that the order has for this rank's places in a step."""
        return self.order.batch_indices(step, self.batch_size, self.rank, self.world_size)

    def __getitem__(self, step: int) -> _Crops:
        drawn = self.drawn(step)
        ring = self.ring
        waveform = torch.empty(len(drawn), self.samples) if ring is None else ring[step % len(ring)]
        lengths = np.zeros(len(drawn), dtype=np.int64)
        clip_ids = np.zeros(len(drawn), dtype=np.int64)
        starts = np.zeros(len(drawn))
        skipped: dict[str, str] = {}
        values = waveform.numpy()
        # Where each crop begins and how far it is turned, in [0, 1): [batch_size, 2], the same on every rank.
        randoms = np.random.default_rng((self.seed, step)).random((self.batch_size, 2))[self.rank * self.share :]
        for place, clip_id in enumerate(drawn.tolist()):
            found = self._readable_crop(clip_id, step, place, randoms[place].tolist(), skipped)
            if found is None:
                return _Crops(None, lengths[:0], clip_ids[:0], starts[:0], skipped)
            clip_ids[place], starts[place], crop = found
            values[place, : len(crop)] = crop
            values[place, len(crop) :] = 0  # the ring holds an older batch
            full = len(crop) >= self.samples - ROUNDING * self.sample_rate
            lengths[place] = self.samples if full else len(crop)
        return _Crops(waveform if ring is None else None, lengths, clip_ids, starts, skipped)

    def _readable_crop(
        self, clip_id: int, step: int, place: int, random: list[float], skipped: dict[str, str]
    ) -> tuple[int, float, NDArray[np.float32]] | None:
        """clip_id, start in seconds and crop [at most S] of this clip or, if it cannot be read, of the clip at this
        place in a later step.
        """
        at, turn = random
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with open_clip(self.table, clip_id) as clip:
                    start = at * max(0.0, clip.seconds - self.samples / self.sample_rate)
                    crop = clip.read(self.sample_rate, start, self.samples / self.sample_rate)[: self.samples]
                return clip_id, start, np.roll(crop, int(turn * len(crop))) if self.roll else crop
            except AudiobatError as error:
                skipped[self.table.keys[clip_id]] = str(error)
                clip_id = int(self.drawn(step + attempt)[place])
        return None


def load_clips(table: ClipTable, sample_rate: int, batches: Iterable[ClipIds], workers: int = 0) -> Iterator[ClipBatch]:
    """Whole clips: one batch for each list of clip_ids.

    `batches` may be endless. `workers` processes decode, each two batches ahead; 0: this one does.

    Raises:
        AudiobatError: the system killed a worker, or gives it no shared memory.
    """
    return load(_WholeClips(table, sample_rate), batches, workers, pin=True)


@dataclass(frozen=True, eq=False)
class _WholeClips(Dataset[ClipBatch]):
    """Item `clip_ids` is the batch of these clips."""

    table: ClipTable
    sample_rate: int

    def __getitem__(self, clip_ids: ClipIds) -> ClipBatch:
        waveforms: list[Tensor] = []
        found: list[int] = []
        skipped: dict[str, str] = {}
        for clip_id in clip_ids.tolist():
            try:
                waveforms.append(torch.from_numpy(read_clip(self.table, clip_id, self.sample_rate)))
                found.append(clip_id)
            except AudiobatError as error:
                skipped[self.table.keys[clip_id]] = str(error)
        waveform, lengths = pad_batch(waveforms or [torch.zeros(0)])
        return ClipBatch(np.array(found, np.int64), waveform[: len(found)], lengths[: len(found)], skipped)


def check_skipped(skipped: Mapping[str, str], tried: int, clips: int) -> None:
    """Stop a training in which more than 5% of the clips, and at least five, are unreadable.

    That is certain once the clips skipped are more than 5% of all `clips`. Before, it stops when they exceed 5% of the
    clips `tried` so far (at least 20) by three standard deviations, so that a large broken corpus is found out at once
    and a large sound one is not stopped by bad luck.

    Raises:
        AudiobatError: too many are unreadable; names one of them, and why.
    """
    chance = SKIPPED_LIMIT * tried + 3 * math.sqrt(SKIPPED_LIMIT * (1 - SKIPPED_LIMIT) * tried)
    certain = len(skipped) > SKIPPED_LIMIT * clips
    check_any_readable(skipped, clips)
    if len(skipped) >= SKIPPED_LEAST and (certain or (tried >= SKIPPED_SAMPLE and len(skipped) > chance)):
        _check_one_reason(skipped, tried)
        raise AudiobatError(
            f"{len(skipped)} of {tried} clips seen are unreadable, more than {SKIPPED_LIMIT:.0%} of the {clips} clips: "
            f"fix or remove them; one is {_example(skipped)}"
        )


def check_any_readable(skipped: Mapping[str, str], clips: int) -> None:
    """Raise an AudiobatError, with one reason, if all of the `clips` are unreadable."""
    if len(skipped) == clips:
        _check_one_reason(skipped, clips)
        raise AudiobatError(f"None of the clips can be read: fix or replace them; one is {_example(skipped)}")


def _check_one_reason(skipped: Mapping[str, str], tried: int) -> None:
    """Raise an AudiobatError if all clips `tried`, two or more, were skipped for one reason, which is not theirs."""
    if len(skipped) == tried > 1 and len(reasons := set(skipped.values())) == 1:
        raise AudiobatError(f"None of the {tried} clips tried can be used: {reasons.pop()}")


def _example(skipped: Mapping[str, str]) -> str:
    key, reason = next(iter(skipped.items()))
    return f"{key}: {reason}"
