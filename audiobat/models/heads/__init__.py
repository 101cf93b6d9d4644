"""Probes: one file each, one signature, LayerFeatures to logits of clips, and by `frames` of patch columns.

pooling.py      what probes share: picking a block, means, extremes
base.py         what trainable heads have in common
cgp.py          convex gated probing (Eq. 8-11)
protobin.py     Protobin
linear.py       linear
linear_cgp.py   a linear probe of a gated mix
attentive.py    one learned query
ep.py           efficient probing
head2toe.py     Head2Toe
vqt.py          visual query tuning
proto_classwise.py  class-bound prototypes
knn.py          nearest neighbours
mean_time_keep_freq.py  mean over time, frequencies kept
"""

from __future__ import annotations

from typing import Any

from torch import nn

from audiobat.config import HeadConfig
from audiobat.errors import AudiobatError
from audiobat.models.heads.attentive import AttentiveProbe
from audiobat.models.heads.cgp import ConvexGatedProbe
from audiobat.models.heads.ep import EfficientProbe
from audiobat.models.heads.head2toe import Head2Toe
from audiobat.models.heads.knn import NearestNeighbours
from audiobat.models.heads.linear import LinearProbe
from audiobat.models.heads.linear_cgp import LinearGatedProbe
from audiobat.models.heads.mean_time_keep_freq import KeepFrequencyProbe
from audiobat.models.heads.proto_classwise import ClasswisePrototypes
from audiobat.models.heads.protobin import Protobin
from audiobat.models.heads.vqt import VisualQueryTuning

__all__ = [
    "AttentiveProbe",
    "ClasswisePrototypes",
    "ConvexGatedProbe",
    "EfficientProbe",
    "Head2Toe",
    "KeepFrequencyProbe",
    "LinearGatedProbe",
    "LinearProbe",
    "NearestNeighbours",
    "Protobin",
    "VisualQueryTuning",
    "build_head",
    "parameter_groups",
]

LASSO, ORTHOGONALITY = 1e-4, 1.0  # `head.penalty: null` of head2toe (the release's) and proto_classwise (ours)


def build_head(config: HeadConfig, dim: int, depth: int, classes: int, rows: int | None = None) -> nn.Module:
    """The head that `config` describes, for a model of `depth` blocks of width `dim` and `rows` patch rows.

    `rows` (`LayerFeatures.grid[1]`) is for mean_time_keep_freq alone.

    Raises AudiobatError if `config.layer` is beyond the model's blocks, if the width does not suit the head, if `rows`
    is missed, and for vqt, which is built from an encoder: `VisualQueryTuning(encoder, classes)`.
    """
    if config.layer > depth:
        raise AudiobatError(f"head.layer is {config.layer} and the model has {depth} blocks: use 1 to {depth}, or -1.")
    layer, pool, norm, dropout = config.layer, config.pool, config.norm, config.dropout
    match config.kind:
        case "cgp":
            return ConvexGatedProbe(dim, depth, classes, config.prototypes, dropout)
        case "protobin":
            return Protobin(dim, classes, config.prototypes, layer, dropout)
        case "linear":
            return LinearProbe(dim, classes, layer, pool, norm, dropout)
        case "linear_cgp":
            return LinearGatedProbe(dim, depth, classes, pool, dropout)
        case "attentive":
            return AttentiveProbe(dim, classes, layer, norm, dropout)
        case "ep":
            return EfficientProbe(dim, classes, config.queries or 32, config.reduction, layer, dropout)
        case "head2toe":
            return Head2Toe(dim, depth, classes, pool, dropout, LASSO if config.penalty is None else config.penalty)
        case "proto_classwise":
            weight = ORTHOGONALITY if config.penalty is None else config.penalty
            return ClasswisePrototypes(dim, classes, config.per_class, layer, dropout, weight)
        case "knn":
            return NearestNeighbours(dim, classes, layer, pool, config.neighbours, config.temperature)
        case "mean_time_keep_freq":
            if rows is None:
                raise AudiobatError(
                    "head.kind mean_time_keep_freq needs the number of patch rows: give build_head rows=grid[1] of the "
                    "features."
                )
            return KeepFrequencyProbe(dim, rows, classes, layer, norm, dropout)
        case "vqt":
            raise AudiobatError(
                "head.kind vqt runs its own pass through the encoder's blocks and shares none: build it as "
                "VisualQueryTuning(encoder, classes), or choose another head."
            )


def parameter_groups(head: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for an optimizer: the classifier's matrix with `weight_decay`, everything else without.

    What else there is, by head: prototypes, which are normalised or binarised, so that decay would only change their
    learning rate (cgp, protobin, proto_classwise); gates (cgp, linear_cgp), where decay would pull the mix to the
    uniform one; queries and projections (attentive, ep, vqt); biases. Norms have no parameters. proto_classwise's
    matrix is its class weights [C, J]. knn has no parameters and gets no groups: there is nothing to train.
    """
    named = dict(head.named_parameters())
    if not named:
        return []
    matrix = named.pop("classifier.weight")
    return [
        {"params": [matrix], "weight_decay": weight_decay},
        {"params": list(named.values()), "weight_decay": 0.0},
    ]
