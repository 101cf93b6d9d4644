"""What a probe minimises: logits and 0/1 labels to a number (Table 6; the release's asymmetric loss)."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor
from torch.nn import functional as F

Loss: TypeAlias = Literal["bce", "ce", "asl"]


def probe_loss(kind: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of logits [M, C] against bool labels [M, C]; for `ce` each row has one label.

    `asl` is the asymmetric loss (Ridnik et al., 2021) with gamma- 1, gamma+ 0 and no clip: binary cross-entropy whose
    negatives weigh as much as the probability that they wrongly have. The gradient passes through that weight.
    """
    if kind == "ce":
        return F.cross_entropy(logits, labels.int().argmax(1))
    expected = labels.to(logits.dtype)
    if kind == "bce":
        return F.binary_cross_entropy_with_logits(logits, expected)
    negatives = logits.sigmoid() * F.softplus(logits)  # p * -log(1 - p)
    return (expected * F.softplus(-logits) + (1 - expected) * negatives).mean()
