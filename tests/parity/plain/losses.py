"""Losses of logits [M, C] against targets [M, C] from 0 to 1: means over rows, and over classes but for ce."""

import torch
from torch import Tensor


def bce(logits: Tensor, targets: Tensor) -> Tensor:
    p = 1 / (1 + (-logits).exp())
    return -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()


def bce_per_label(logits: Tensor, targets: Tensor) -> Tensor:
    """EAT: the sum over clips and classes, divided by the labels that the clips have together."""
    return bce(logits, targets) * targets.numel() / targets.sum()


def ce(logits: Tensor, targets: Tensor) -> Tensor:
    shares = logits.exp() / logits.exp().sum(1, keepdim=True)
    return -(targets * shares.log()).sum(1).mean()


def asl(logits: Tensor, targets: Tensor) -> Tensor:
    """BAT's release: binary cross-entropy times (1 - p_t)^(1 - y), a weight that takes no gradient.

    p_t is p where y is 1, 1 - p where it is 0, and in between a mixture of both; both terms have the weight.
    """
    p = 1 / (1 + (-logits).exp())
    with torch.no_grad():
        p_t = targets * p + (1 - targets) * (1 - p)
        weight = (1 - p_t) ** (1 - targets)
    return -(weight * (targets * p.log() + (1 - targets) * (1 - p).log())).mean()


def smooth(targets: Tensor, share: float) -> Tensor:
    """Label smoothing: `share` of every target is spread over all classes."""
    return targets * (1 - share) + share / targets.shape[1]


LOSSES = {"bce": bce, "bce per label": bce_per_label, "ce": ce, "asl": asl}
