"""Partial mixtures of a batch: spectrograms with their neighbours' maximum in some patch columns (SSLAM's stage two).

Mixing by maximum in the log-mel domain, every clip with the one before it in the global batch, two windows of columns
left as they were, the same for the whole batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from audiobat.engine.ranks import gather_rows, place

UNMIXED = 15 / 64  # of the columns, in each of the two windows: SSLAM's 240 of 1,024 frames


def mixed_count(columns: int) -> int:
    """How many of T patch columns are mixed."""
    return columns - 2 * int(columns * UNMIXED)


def draw_mixed_columns(columns: int, generator: torch.Generator) -> Tensor:
    """Which of T patch columns are mixed, bool [T]: all but two windows that do not touch each other's columns.

    The first begins uniformly in the first half, the second anywhere behind the first's end but at the last place, as
    in SSLAM for T = 64. Clips of fewer than 4 columns are mixed wholly.
    """
    mixed = torch.ones(columns, dtype=torch.bool, device=generator.device)
    window = int(columns * UNMIXED)
    latest = min(columns // 2, columns - 2 * window)  # one beyond the first window's last place
    if not window or latest < 1:
        return mixed
    first = int(torch.randint(latest, (), generator=generator, device=generator.device))
    ends = max(first + window + 1, columns - window)
    second = int(torch.randint(first + window, ends, (), generator=generator, device=generator.device))
    mixed[first : first + window] = False
    mixed[second : second + window] = False
    return mixed


def partner(batch: Tensor) -> Tensor:
    """What each row [B, ...] is mixed with: the row before it in the global batch, the first with the last."""
    before = gather_rows(batch[-1:])[place()[0] - 1]  # the last row of the rank before, of rank 0 that of the last
    return torch.cat([before[None], batch[:-1]])


def mix(spectrogram: Tensor, mixed: Tensor, patch_frames: int) -> Tensor:
    """Spectrogram [B, T * patch_frames, F] with the maximum of itself and its partner in `mixed` columns [T]."""
    frames = mixed.repeat_interleave(patch_frames)[:, None]  # [T * patch_frames, 1]
    return torch.where(frames, torch.maximum(spectrogram, partner(spectrogram)), spectrogram)
