"""Probes: one file each, one signature, LayerFeatures to logits."""

from __future__ import annotations

from typing import Any

from torch import nn

from audiobat.config import HeadConfig
from audiobat.errors import AudiobatError
from audiobat.heads.cgp import ConvexGatedProbe
from audiobat.heads.linear import LinearProbe
from audiobat.heads.protobin import Protobin

__all__ = ["ConvexGatedProbe", "LinearProbe", "Protobin", "build_head", "parameter_groups"]


def build_head(config: HeadConfig, dim: int, depth: int, classes: int) -> nn.Module:
    """The head that `config` describes, for a model of `depth` blocks of width `dim`.

    Raises AudiobatError if `config.layer` is beyond the model's blocks.
    """
    if config.layer > depth:
        raise AudiobatError(f"head.layer is {config.layer} and the model has {depth} blocks: use 1 to {depth}, or -1.")
    if config.kind == "cgp":
        return ConvexGatedProbe(dim, depth, classes, config.prototypes, config.dropout)
    if config.kind == "protobin":
        return Protobin(dim, classes, config.prototypes, config.layer, config.dropout)
    return LinearProbe(dim, classes, config.layer, config.pool, config.norm, config.dropout)


def parameter_groups(head: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for an optimizer: the classifier's matrix with `weight_decay`, everything else without.

    Prototypes are normalised or binarised, so that decay would only change their learning rate.
    """
    named = dict(head.named_parameters())
    matrix = named.pop("classifier.weight")
    return [
        {"params": [matrix], "weight_decay": weight_decay},
        {"params": list(named.values()), "weight_decay": 0.0},
    ]
