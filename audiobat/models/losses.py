"""Losses of training on labels: logits and targets to a number (Table 6; asymmetric loss: BAT's released code)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from audiobat.engine.ranks import sum_over_ranks

Loss: TypeAlias = Literal["bce", "ce", "asl"]


def probe_loss(kind: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of logits [M, C] against bool labels [M, C]; under `ce` each row must have exactly one label."""
    if kind == "ce":
        return F.cross_entropy(logits, labels.int().argmax(1))  # class numbers: cheaper than a distribution
    return soft_loss(kind, logits, labels.to(logits.dtype))


def soft_loss(kind: Loss, logits: Tensor, targets: Tensor, bce_per: Literal["cell", "label"] = "cell") -> Tensor:
    """Mean loss of logits [M, C] against targets [M, C] from 0 to 1, as mixup and label smoothing make them.

    `ce` reads a row of targets as a distribution over classes; `bce` and `asl` treat each class by itself.

    `bce` is a mean over cells or, as in EAT's code, a sum over them divided by the labels of the batch, so that batches
    with few labels weigh more; the batch is that of all ranks.

    `asl` is the asymmetric loss (Ridnik et al., 2021) with gamma- 1, gamma+ 0 and no clipping: binary cross-entropy
    times (1 - p_t)^(gamma- (1 - y) + gamma+ y), p_t = p y + (1 - p) (1 - y). So a negative counts by the probability
    p that the model gives it, and a positive in full. As in BAT's released code this weight gets no gradient.
    """
    if kind == "ce":
        return F.cross_entropy(logits, targets)
    if kind == "bce":
        loss = F.binary_cross_entropy_with_logits(logits, targets)
        return loss if bce_per == "cell" else loss * cells_per_label(targets)
    with torch.no_grad():
        weight = torch.lerp(logits.sigmoid(), (-logits).sigmoid(), targets) ** (1 - targets)  # 1 - p_t, from p to 1 - p
    return F.binary_cross_entropy_with_logits(logits, targets, weight)


def cells_per_label(targets: Tensor) -> Tensor:
    """Cells of targets [M, C] over all ranks, for each label among them: makes a mean over cells one over labels."""
    cells = sum_over_ranks(torch.tensor(targets.numel(), device=targets.device))
    return cells / sum_over_ranks(targets.sum()).clamp(min=1)


def smooth(targets: Tensor, share: float) -> Tensor:
    """Label smoothing of targets [..., C]: (1 - share) * targets + share / C."""
    return targets if share == 0 else (1 - share) * targets + share / targets.shape[-1]
