"""What training on labels minimises: logits and targets to a number (Table 6; the release's asymmetric loss)."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor
from torch.nn import functional as F

Loss: TypeAlias = Literal["bce", "ce", "asl"]


def probe_loss(kind: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of logits [M, C] against bool labels [M, C]; for `ce` each row has one label."""
    if kind == "ce":
        return F.cross_entropy(logits, labels.int().argmax(1))
    return soft_loss(kind, logits, labels.to(logits.dtype))


def soft_loss(kind: Loss, logits: Tensor, targets: Tensor) -> Tensor:
    """Mean loss of logits [M, C] against targets [M, C] from 0 to 1, as mixup and label smoothing leave them.

    `ce` takes a row of targets as a distribution over classes; the others ask of each class by itself.

    `asl` is the asymmetric loss (Ridnik et al., 2021) with gamma- 1, gamma+ 0 and no clip: binary cross-entropy whose
    negatives weigh as much as the probability that they wrongly have. The gradient passes through that weight.
    """
    if kind == "ce":
        return F.cross_entropy(logits, targets)
    if kind == "bce":
        return F.binary_cross_entropy_with_logits(logits, targets)
    negatives = logits.sigmoid() * F.softplus(logits)  # p * -log(1 - p)
    return (targets * F.softplus(-logits) + (1 - targets) * negatives).mean()


def smooth(targets: Tensor, share: float) -> Tensor:
    """Targets [..., C] with `share` of each taken away and spread over all classes: (1 - share) t + share / C."""
    return targets if share == 0 else (1 - share) * targets + share / targets.shape[-1]
