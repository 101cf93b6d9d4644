"""Clips of different lengths with as little padding as can be: a batch of waveforms in, one or more parts of it out.

A crop is as long as `data.clip_seconds` says, and what a shorter clip lacks is padding, which nothing may see. Padding
costs what sound costs, and the mask that hides it keeps attention off its fastest kernels. So a batch ends, `together`,
with its longest clip, and where all its clips end in one patch column, there is no padding and no mask. `apart` makes
a part of each column's clips, none of which has any.

Columns are counted on the CPU, where the loader knows the lengths, so that nothing waits for the device. With
`encoder.pad` "grid" padding is part of the input, and nothing is cut.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from audiobat.engine.ranks import gather_rows
from audiobat.models.encoder import AudioEncoder


class Waveforms(Protocol):
    """What an objective needs of a batch."""

    @property
    def waveform(self) -> Tensor:
        """[B, S]."""

    @property
    def lengths(self) -> Tensor | None:
        """Samples [B], on the CPU, where a look at them waits for nothing; None when every clip is full."""


class Part(NamedTuple):
    """Clips of a batch, without the patch columns that none of them reaches."""

    waveform: Tensor  # [b, S]
    lengths: Tensor | None  # [b] on the CPU; None: all S
    is_even: bool  # whether all end in the last column, so that no patch is padding
    places: Tensor | None = None  # [b] of the clips in the batch, ascending, on the CPU; None: it is the whole batch


def together(encoder: AudioEncoder, batch: Waveforms) -> Part:
    """The whole batch, up to the longest clip of all ranks, whose masks have to be of one grid.

    With several ranks all must call it at the same point: they tell each other how long their clips are.
    """
    own = torch.full(batch.waveform.shape[:1], batch.waveform.shape[1]) if batch.lengths is None else batch.lengths
    return _cut(encoder, batch, int(gather_rows(own.max()[None].cpu()).max()))


def apart(encoder: AudioEncoder, batch: Waveforms) -> list[Part]:
    """A part of each patch column in which clips end. A clip's part is the same on any number of ranks."""
    if batch.lengths is None or encoder.config.encoder.pad == "grid":
        return [_cut(encoder, batch, batch.waveform.shape[1])]
    lengths, waveform = batch.lengths.cpu(), batch.waveform
    columns = encoder.count_columns(lengths)
    found = columns.unique().tolist()
    if len(found) == 1:
        return [_cut(encoder, batch, int(lengths.max()))]
    parts = []
    for column in found:
        places = (columns == column).nonzero().flatten()
        own = lengths[places]
        some = Part(waveform[places.to(waveform.device, non_blocking=True)], own, is_even=False)
        parts.append(_cut(encoder, some, int(own.max()))._replace(places=places))
    return parts


def _cut(encoder: AudioEncoder, batch: Waveforms, longest: int) -> Part:
    """The clips of a batch up to `longest` samples, unless padding is part of the input."""
    if encoder.config.encoder.pad == "grid" or batch.lengths is None:
        return Part(batch.waveform, batch.lengths, is_even=batch.lengths is None)
    # At least two patches: one that is seen and one that is predicted.
    longest = max(longest, 1 if encoder.freq_patches > 1 else encoder.column_samples)
    return Part(batch.waveform[:, :longest], batch.lengths, encoder.end_together(batch.lengths.cpu(), longest))
