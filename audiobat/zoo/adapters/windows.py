"""What foreign models share: clips are cut into windows, windows of one length run together, and columns are joined.

In: waveform [B, S], lengths [B]. Out: LayerFeatures in which a clip depends neither on its neighbours nor on padding.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from audiobat.errors import AudiobatError
from audiobat.models.features import LayerFeatures


@dataclass(frozen=True)
class TimeGrid:
    """How a model's columns of tokens lie in time, in samples."""

    window: int  # the most that runs at once
    hop: int  # from the start of one column to that of the next
    span: int  # what a clip must hold, from a column's start on, for the column to be valid
    rows: int = 1  # tokens of a column, low frequencies first

    def columns(self, samples: int) -> int:
        """Valid columns of a clip of `samples`: at least one."""
        return max(1, (samples - self.span) // self.hop + 1)

    @property
    def step(self) -> int:
        """From the start of one window to that of the next: whole columns, so that time goes on evenly."""
        return self.columns(self.window) * self.hop


class Piece(NamedTuple):
    """One window of one clip: its samples, and where its columns go."""

    clip: int
    start: int
    stop: int
    first_column: int
    columns: int


class WindowedEncoder(nn.Module):
    """Base of the adapters, which meet the `Encoder` protocol: they give `run` and the four attributes."""

    sample_rate: int
    dim: int
    depth: int
    grid: TimeGrid

    @property
    def max_samples(self) -> int:
        """Longest clip, in samples, that the model sees at once."""
        return self.grid.window

    def run(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Windows [W, S] of one length, without padding, to block outputs.

        Returns patch tokens [L, W, n, D], time-major, of which the first columns(S) * rows are used, and the cls token
        [L, W, D] or None.
        """
        raise NotImplementedError

    def forward_intermediates(self, waveform: Tensor, lengths: Tensor | None = None) -> LayerFeatures:
        """Waveform [B, S] to the block outputs of all layers; a long clip's cls is the mean over its windows.

        Raises AudiobatError if the waveform is not [B, S] or empty.
        """
        if waveform.ndim != 2 or 0 in waveform.shape:
            raise AudiobatError(f"The waveform has shape {list(waveform.shape)}: give [clips, samples], not empty.")
        clips = len(waveform)
        samples = [waveform.shape[1]] * clips if lengths is None else [int(n) for n in lengths]
        counts = [self.grid.columns(n) for n in samples]
        columns, rows = max(counts), self.grid.rows
        patches = waveform.new_zeros(self.depth, clips, columns * rows, self.dim)
        cls_sum: Tensor | None = None
        for pieces in self._batches(samples):
            stacked = torch.stack([waveform[p.clip, p.start : p.stop] for p in pieces])  # [W, S]
            tokens, cls = self.run(stacked)
            if cls is not None and cls_sum is None:
                cls_sum = waveform.new_zeros(self.depth, clips, self.dim)
            for i, p in enumerate(pieces):
                first, count = p.first_column * rows, p.columns * rows
                patches[:, p.clip, first : first + count] = tokens[:, i, :count].to(patches.dtype)
                if cls is not None and cls_sum is not None:
                    cls_sum[:, p.clip] += cls[:, i]
        own = torch.arange(columns, device=waveform.device) < torch.tensor(counts, device=waveform.device)[:, None]
        times = torch.arange(columns, device=waveform.device) * (self.grid.hop / self.sample_rate)
        cls_token = None
        if cls_sum is not None:
            per_window = self.grid.columns(self.grid.window)
            windows = torch.tensor([-(-count // per_window) for count in counts], device=waveform.device)
            cls_token = cls_sum / windows[:, None]
        return LayerFeatures(patches, cls_token, (columns, rows), own.repeat_interleave(rows, dim=1), times)

    def _batches(self, samples: list[int]) -> list[list[Piece]]:
        """All windows of clips of `samples` each, those of one length together, at most as many as there are clips."""
        per_window = self.grid.columns(self.grid.window)
        by_length: defaultdict[int, list[Piece]] = defaultdict(list)
        for clip, total in enumerate(samples):
            count = self.grid.columns(total)
            for first in range(0, count, per_window):
                start = first * self.grid.hop
                stop = min(total, start + self.grid.window)
                piece = Piece(clip, start, stop, first, min(per_window, count - first))
                by_length[stop - start].append(piece)
        size = len(samples)
        return [group[i : i + size] for group in by_length.values() for i in range(0, len(group), size)]


def record_blocks(blocks: nn.ModuleList, into: list[Tensor]) -> list[torch.utils.hooks.RemovableHandle]:
    """Append each block's output (its first, if it gives several) to `into` at every call; remove the handles after."""

    def keep(_: nn.Module, __: object, output: object) -> None:
        first = output[0] if isinstance(output, tuple | list) else output
        assert isinstance(first, Tensor)
        into.append(first)

    return [block.register_forward_hook(keep) for block in blocks]
