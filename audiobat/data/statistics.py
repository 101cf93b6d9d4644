"""Clips to the mean and deviation of their log-mel spectrograms, which a frontend with `norm: global` wants.

Sums are kept, not means: those of parts add up to those of the whole, in any order.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from audiobat.config import FrontendConfig
from audiobat.data.dataset import iterate_clips
from audiobat.data.index import ClipTable
from audiobat.errors import AudiobatError
from audiobat.frontend import below, build_frontend
from audiobat.progress import Progress

BATCH = 16


@dataclass(frozen=True)
class LogMelSums:
    """Of all cells of the spectrograms of some clips, padding left out."""

    clips: int = 0
    cells: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: LogMelSums) -> LogMelSums:
        return LogMelSums(**{name: value + getattr(other, name) for name, value in asdict(self).items()})

    @property
    def mean(self) -> float:
        """Of a cell."""
        return self.total / self.cells

    @property
    def std(self) -> float:
        """Standard deviation of a cell."""
        return math.sqrt(max(0.0, self.squares / self.cells - self.mean**2))

    def fields(self) -> dict[str, Any]:
        """`frontend.mean` and `frontend.std`."""
        return {"mean": round(self.mean, 4), "std": round(self.std, 4)}


def log_mel_sums(
    table: ClipTable, frontend: FrontendConfig, *, seconds: float | None = None, workers: int = 0
) -> LogMelSums:
    """Go over the clips once.

    Args:
        table: the clips; those that cannot be read are left out.
        frontend: whose log-mel spectrogram it is, before its `norm`.
        seconds: read no more than this much from each clip's start.
        workers: processes that decode.

    Raises:
        AudiobatError: more than 5% of the clips are unreadable, or none is left.
    """
    module = build_frontend(replace(frontend, norm="global"))
    sums = LogMelSums()
    with Progress("statistics", len(table), "clip") as bar:
        batches = iterate_clips(table, frontend.sample_rate, BATCH, seconds, skipped={}, workers=workers)
        for batch in batches:
            log_mel = module.log_mel(batch.waveform, batch.lengths).double()
            valid = below(module.frame_counts(batch.lengths), log_mel.shape[1])[:, :, None].expand_as(log_mel)
            cells = torch.where(valid, log_mel, 0.0)
            sums += LogMelSums(len(cells), int(valid.sum()), float(cells.sum()), float(cells.square().sum()))
            bar.advance(len(cells))
    if not sums.cells:
        raise AudiobatError("No clip can be read, so there are no statistics: check the data.")
    return sums
