"""Clips to the mean and deviation of their log-mel spectrograms, which a frontend with `norm: global` wants.

Sums are kept, not means: those of parts add up to those of the whole, in any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from audiobat.audio.frontend import KaldiFrontend, MelFrontend, build_frontend
from audiobat.config import FrontendConfig
from audiobat.data.clip import open_clip
from audiobat.data.clip_table import ClipTable
from audiobat.data.loader import check_skipped, load
from audiobat.engine.progress import Progress
from audiobat.errors import AudiobatError

CHUNK = 64  # clips that a worker sums at once
FRAMES = 1024  # of a window, such as a model hears: longer clips are cut, so that memory holds them


@dataclass(frozen=True)
class LogMelSums:
    """Of all cells of the spectrograms of some clips; no padding is ever in them."""

    clips: int = 0
    silent: int = 0  # clips whose cells are one and the same number; they count like others
    cells: int = 0
    total: float = 0.0
    squares: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)  # key -> reason, of the clips that cannot be read

    def __add__(self, other: LogMelSums) -> LogMelSums:
        return LogMelSums(
            self.clips + other.clips,
            self.silent + other.silent,
            self.cells + other.cells,
            self.total + other.total,
            self.squares + other.squares,
            self.skipped | other.skipped,
        )

    @property
    def seen(self) -> int:
        """Clips, read or not."""
        return self.clips + len(self.skipped)

    @property
    def mean(self) -> float:
        """Of a cell."""
        return self.total / self.cells

    @property
    def std(self) -> float:
        """Standard deviation of a cell."""
        return math.sqrt(max(0.0, self.squares / self.cells - self.mean**2))

    def fields(self) -> dict[str, Any]:
        """`frontend.mean` and `frontend.std`, to four decimals.

        Raises:
            AudiobatError: no clip, or silence alone: nothing can be divided by their deviation.
        """
        if not self.cells:
            raise AudiobatError("No clip can be read, so there are no statistics: check the data.")
        mean, std = round(self.mean, 4), round(self.std, 4)
        if std == 0:
            raise AudiobatError(
                f"All {self.clips} clips are silent: their log-mel is {mean} throughout. Check the data."
            )
        return {"mean": mean, "std": std}


def log_mel_sums(
    table: ClipTable,
    frontend: FrontendConfig,
    *,
    workers: int = 0,
    begun: LogMelSums | None = None,
    keep: Callable[[LogMelSums], None] | None = None,
) -> LogMelSums:
    """Go over the clips once.

    Args:
        table: the clips; of those that cannot be read, `skipped` of the sums says why.
        frontend: whose log-mel spectrogram it is, before its `norm`. Clips beyond 1,024 frames are cut into windows.
        workers: processes that decode and transform; 0: this one does.
        begun: what an earlier run kept of the first clips; it goes on behind them.
        keep: is given the sums so far, every 64 clips.

    Raises:
        AudiobatError: more than 5% of the clips are unreadable.
    """
    sums = begun or LogMelSums()
    chunks = _Chunks(table, build_frontend(frontend), sums.seen)
    with Progress("statistics", len(table), "clip", done=sums.seen) as bar:
        for chunk in load(chunks, range(len(chunks)), workers):
            sums += chunk
            check_skipped(sums.skipped, sums.seen, len(table))
            if keep is not None:
                keep(sums)
            bar.advance(chunk.seen)
    return sums


@dataclass(frozen=True, eq=False)
class _Chunks(Dataset[LogMelSums]):
    """Item i is the sum over the i-th 64 clips from row `first` on."""

    table: ClipTable
    frontend: MelFrontend | KaldiFrontend
    first: int

    def __len__(self) -> int:
        return -(-(len(self.table) - self.first) // CHUNK)

    def __getitem__(self, number: int) -> LogMelSums:
        begin = self.first + number * CHUNK
        sums = LogMelSums()
        for row in range(begin, min(begin + CHUNK, len(self.table))):
            try:
                sums += clip_sums(self.table, row, self.frontend)
            except AudiobatError as error:
                sums += LogMelSums(skipped={str(self.table.keys[row]): str(error)})
        return sums


def clip_sums(table: ClipTable, row: int, frontend: MelFrontend | KaldiFrontend) -> LogMelSums:
    """The sums of one clip, window by window."""
    sums = LogMelSums()
    low, high = math.inf, -math.inf
    for samples in windows(table, row, frontend.config):
        cells = frontend.log_mel(torch.from_numpy(samples)[None], torch.tensor([len(samples)])).double()
        sums += LogMelSums(0, 0, cells.numel(), float(cells.sum()), float(cells.square().sum()))
        low, high = min(low, float(cells.min())), max(high, float(cells.max()))
    return replace(sums, clips=1, silent=int(low == high))


def windows(table: ClipTable, row: int, frontend: FrontendConfig) -> Iterator[NDArray[Any]]:
    """A clip in pieces of 1,024 hops [S]; a last one shorter than the analysis window is left out, if others are."""
    rate = frontend.sample_rate
    seconds, shortest = FRAMES * frontend.hop_length / rate, frontend.win_length / rate
    with open_clip(table, row) as clip:
        count = max(1, math.ceil((clip.seconds - shortest) / seconds))
        for number in range(count):
            yield clip.read(rate, number * seconds, seconds)
