"""A clip table and lists of its rows to batches of whole clips in that order, decoded ahead in other processes."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from audiobat.audio.read import pad_batch
from audiobat.data.clip_table import ClipTable
from audiobat.data.store import read_clip
from audiobat.errors import AudiobatError

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Drawn:
    """The readable ones of the clips asked for."""

    rows: Rows  # [B] of the clip table
    waveform: Tensor  # [B, S] float32, zero-padded
    lengths: Tensor  # [B] samples
    skipped: dict[str, str]  # key -> reason, of the others

    def to(self, device: torch.device) -> Drawn:
        """The same with its tensors on `device`."""
        return replace(self, waveform=self.waveform.to(device), lengths=self.lengths.to(device))

    def pin_memory(self) -> Drawn:
        """In memory that a GPU can fetch by itself."""
        return replace(self, waveform=self.waveform.pin_memory(), lengths=self.lengths.pin_memory())


def read_draws(table: ClipTable, sample_rate: int, draws: Iterable[Rows], workers: int = 0) -> Iterator[Drawn]:
    """Yield one batch for each list of rows.

    Args:
        table: the clips.
        sample_rate: Hz.
        draws: rows of the table, a list for each batch; may be endless.
        workers: processes that decode, each two batches ahead; 0: this one does.

    Raises:
        AudiobatError: the system killed a worker.
    """
    loader = DataLoader(
        _Draws(table, sample_rate),
        batch_size=None,  # an item is a batch already, and its index a list of rows
        sampler=draws,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_ignore_interrupt,
        generator=torch.Generator(),  # else it draws from everybody's
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "worker" not in str(error):
            raise
        raise AudiobatError(
            f"A process that reads clips was killed ({str(error).splitlines()[0]}): if memory ran out, use fewer "
            "workers or a smaller train.batch_size."
        ) from error


@dataclass(frozen=True, eq=False)
class _Draws(Dataset[Drawn]):
    """Item `rows` is their batch."""

    table: ClipTable
    sample_rate: int

    def __getitem__(self, rows: Rows) -> Drawn:
        waveforms: list[Tensor] = []
        found: list[int] = []
        skipped: dict[str, str] = {}
        for row in rows.tolist():
            try:
                waveforms.append(torch.from_numpy(read_clip(self.table, row, self.sample_rate)))
                found.append(row)
            except AudiobatError as error:
                skipped[self.table.keys[row]] = str(error)
        waveform, lengths = pad_batch(waveforms or [torch.zeros(0)])
        return Drawn(np.array(found, np.int64), waveform[: len(found)], lengths[: len(found)], skipped)


def _ignore_interrupt(worker: int) -> None:
    """Leave Ctrl-C to the main process, which ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
