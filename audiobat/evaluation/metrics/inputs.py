"""Checks and orders that all metrics share: finite scores, falling order, counts of clips as numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from audiobat.errors import AudiobatError


def weights_of(counts: Tensor | None, clips: int) -> Tensor:
    """Counts [n] or [R, n] as float64; None counts every clip once."""
    return torch.ones(clips, dtype=torch.float64) if counts is None else counts.double()


def check_finite(scores: Tensor) -> None:
    """Raise AudiobatError for NaN and infinity."""
    if scores.sum().isfinite():  # the quicker look: a NaN or an infinity makes the sum one
        return
    if not torch.stack(scores.aminmax()).isfinite().all():  # the sum of huge finite scores may overflow
        raise AudiobatError("The scores hold NaN or infinity: the head diverged, lower train.lr.")


def falling_order(scores: Tensor) -> Tensor:
    """Indices [..., n] that sort the scores [..., n] from the greatest to the least; equal scores in any order."""
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))  # numpy has no bfloat16
    return torch.from_numpy(np.argsort(-wide.numpy(), axis=-1))  # several times as fast as torch's
