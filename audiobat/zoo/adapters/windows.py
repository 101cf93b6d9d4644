"""Base class of the adapters: clips are cut into windows, windows of one length run together, columns are joined.

In: waveform [B, S], lengths [B]. Out: `LayerFeatures` in which a clip depends neither on its neighbours nor on padding,
which most models from elsewhere cannot mask: they never see any.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from operator import mul
from typing import NamedTuple

import torch
from torch import Tensor, nn

from audiobat.errors import AudiobatError
from audiobat.models.encoder import BaseEncoder
from audiobat.models.features import LayerFeatures, block_numbers


@dataclass(frozen=True)
class TimeGrid:
    """Where a model's columns of tokens lie in time; all numbers but the last are in samples."""

    window: int  # the longest piece that the model runs on
    hop: int  # from the start of one column to the start of the next
    span: int  # samples that a clip must hold, from a column's start on, for the column to be valid
    freq_patches: int = 1  # tokens of a column, low frequencies first

    @classmethod
    def of_convolutions(cls, window: int, kernels: Sequence[int], strides: Sequence[int]) -> TimeGrid:
        """Of convolutions one after the other, without padding; framing and means of tokens count as such."""
        steps = accumulate(strides[:-1], mul, initial=1)  # samples between two inputs of each
        span = 1 + sum((kernel - 1) * step for kernel, step in zip(kernels, steps, strict=True))
        return cls(window, prod(strides), span)

    def columns(self, samples: int) -> int:
        """Valid columns of a clip of `samples`: at least one."""
        return max(1, (samples - self.span) // self.hop + 1)


class Piece(NamedTuple):
    """One window of one clip: its samples, and the columns of the clip that it fills."""

    clip: int
    start: int
    stop: int
    first_column: int
    columns: int


class WindowedEncoder(BaseEncoder):
    """Base of the adapters, which set `grid` beside the attributes of every encoder, and write `run`."""

    grid: TimeGrid

    @property
    def freq_patches(self) -> int:
        """Patches above one another in a patch column."""
        return self.grid.freq_patches

    @property
    def max_samples(self) -> int:
        """Longest clip, in samples, that the model sees at once."""
        return self.grid.window

    @property
    def column_samples(self) -> int:
        """Samples that a column needs."""
        return self.grid.span

    def run(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Windows [W, S] of one length, without padding, to the outputs of all blocks.

        Returns patch tokens [L, W, n, D], time-major, of which the first columns(S) * freq_patches are used, and the
        cls token [L, W, D] or None.
        """
        raise NotImplementedError

    def forward_intermediates(
        self, waveform: Tensor, lengths: Tensor | None = None, indices: int | Sequence[int] | None = None
    ) -> LayerFeatures:
        """As `BaseEncoder` says, but all blocks run. A long clip's cls is the mean of its windows' by columns."""
        if waveform.ndim != 2 or 0 in waveform.shape:
            raise AudiobatError(f"The waveform has shape {list(waveform.shape)}: give [clips, samples], not empty.")
        chosen = block_numbers(self.depth, indices)
        clips, device = len(waveform), waveform.device
        samples = [waveform.shape[1]] * clips if lengths is None else [int(n) for n in lengths]
        counts = [self.grid.columns(n) for n in samples]
        columns, freq_patches = max(counts), self.grid.freq_patches
        patches = waveform.new_zeros(len(chosen), clips, columns * freq_patches, self.dim)
        cls_sum: Tensor | None = None  # [L, B, D]
        for pieces in self._batches(samples):
            stacked = torch.stack([waveform[p.clip, p.start : p.stop] for p in pieces])  # [W, S]
            tokens, cls = self.run(stacked)
            if cls is not None and cls_sum is None:
                cls_sum = waveform.new_zeros(len(chosen), clips, self.dim)
            for i, p in enumerate(pieces):
                first, count = p.first_column * freq_patches, p.columns * freq_patches
                patches[:, p.clip, first : first + count] = tokens[chosen, i, :count].to(patches.dtype)
                if cls is not None and cls_sum is not None:
                    cls_sum[:, p.clip] += cls[chosen, i] * p.columns
        column = torch.arange(columns, device=device)
        valid = column < torch.tensor(counts, device=device)[:, None]  # [B, T]
        cls_token = None
        if cls_sum is not None:
            cls_token = cls_sum / torch.tensor(counts, device=device)[:, None]
        times = column * (self.grid.hop / self.sample_rate)
        return LayerFeatures(
            patches, cls_token, (columns, freq_patches), valid.repeat_interleave(freq_patches, dim=1), times
        )

    def _batches(self, samples: list[int]) -> list[list[Piece]]:
        """The windows of clips of `samples` each, in batches of equal length, none larger than the number of clips."""
        per_window = self.grid.columns(self.grid.window)
        by_length: defaultdict[int, list[Piece]] = defaultdict(list)
        for clip, total in enumerate(samples):
            count = self.grid.columns(total)
            for first in range(0, count, per_window):
                start = first * self.grid.hop
                stop = min(total, start + self.grid.window)
                piece = Piece(clip, start, stop, first, min(per_window, count - first))
                by_length[stop - start].append(piece)
        size = len(samples)  # so that no batch needs more memory than the user's own batch of whole windows
        return [group[i : i + size] for group in by_length.values() for i in range(0, len(group), size)]


@contextmanager
def recorded_blocks(blocks: nn.ModuleList) -> Iterator[list[Tensor]]:
    """The outputs of the blocks that run inside the context, in order: of each the first, if it gives several."""
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: object) -> None:
        first = output[0] if isinstance(output, tuple | list) else output
        assert isinstance(first, Tensor)
        outputs.append(first)

    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
