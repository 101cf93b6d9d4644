"""Clips of different lengths with as little padding as can be: a batch of waveforms in, the same or parts of it out.

A crop is as long as `data.clip_seconds` says, and what a shorter clip lacks is padding, which nothing may see. Padding
costs time twice: it is computed, and the mask that hides it keeps attention off its fastest kernels. So a batch is cut
behind the last patch column of its longest clip, and where all its clips end in that column there is no mask at all.

Which columns that are is counted on the CPU, where the loader knows the lengths, so that nothing waits for the device.
With `encoder.pad` "grid" padding is part of the input, and nothing is cut.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from audiobat.engine.ranks import gather_rows
from audiobat.models.encoder import AudioEncoder


class Waveforms(Protocol):
    """What an objective needs of a batch."""

    waveform: Tensor  # [B, S]
    lengths: Tensor | None  # [B] on the CPU, where a look at them waits for nothing; None when every clip is full


class CutClips(NamedTuple):
    """Clips without the columns that none of them reaches."""

    waveform: Tensor  # [B, S]
    lengths: Tensor | None  # [B] on the CPU; None: all S
    is_even: bool  # whether all clips end in the last column, so that no patch is padding


def cut_clips(encoder: AudioEncoder, batch: Waveforms) -> CutClips:
    """Cut a batch behind the last column of the longest clip of all ranks, whose masks have to be of one grid.

    With several ranks all must call it at the same point: they tell each other how long their clips are.
    """
    waveform, lengths = batch.waveform, batch.lengths
    if encoder.config.encoder.pad == "grid":
        return CutClips(waveform, lengths, is_even=False)
    own = torch.full(waveform.shape[:1], waveform.shape[1]) if lengths is None else lengths.cpu()
    # At least two patches: one that is seen and one that is predicted.
    least = 1 if encoder.freq_patches > 1 else encoder.column_samples
    longest = max(int(gather_rows(own.max()[None]).max()), least)
    return CutClips(waveform[:, :longest], None if lengths is None else own, encoder.end_together(own, longest))
