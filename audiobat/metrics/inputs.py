"""What every metric asks of its input: scores that are finite, and counts of clips as numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from audiobat.errors import AudiobatError


def weights_of(counts: Tensor | None, clips: int) -> Tensor:
    """Counts [n] or [R, n] as float64; None counts every clip once."""
    return torch.ones(clips, dtype=torch.float64) if counts is None else counts.double()


def check_finite(scores: Tensor) -> None:
    """Raise AudiobatError for NaN and infinity."""
    if not scores.isfinite().all():
        raise AudiobatError("The scores hold NaN or infinity: the head diverged, lower train.lr.")
