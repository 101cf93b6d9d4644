"""Heads: features of all blocks to logits of clips, or by `frames` of patch columns. One file a kind, named after it.

In: `LayerFeatures` and a `HeadConfig`. Out: logits [B, C]. What the kinds share, in reading order; `cgp` is the paper's
head (Eq. 8-11):

    pooling.py  as functions of tensors: picking a block, means, mixes of blocks, extremes
    base.py     what every head is, and what its class says of it
"""

from __future__ import annotations

from typing import Any

from audiobat.config import HeadConfig
from audiobat.config.registry import class_for, find
from audiobat.errors import AudiobatError
from audiobat.models.heads.base import BlockInputs, Head, Probe, block_inputs, parameter_groups

__all__ = [
    "BlockInputs",
    "Head",
    "Probe",
    "block_inputs",
    "build_head",
    "check_teaches",
    "head_class",
    "parameter_groups",
]


def head_class(kind: str) -> type[Head]:
    """The class behind `head.kind`: the one in the file of that name, or a user's own, `my_head.py:MyHead`.

    Raises:
        AudiobatError: there is no such kind, file or class, or the class is no `Head`.
    """
    found: type[Any] = find("head", kind)
    if not issubclass(found, Head):
        raise AudiobatError(f"{kind} is no head: derive {found.__name__} from Probe or Head of audiobat.models.heads.")
    return found


def build_head(config: HeadConfig, dim: int, depth: int, classes: int, freq_patches: int | None = None) -> Head:
    """The head that `config` describes, for a model of `depth` blocks of width `dim`.

    `freq_patches` (`LayerFeatures.grid[1]`) is for mean_time_keep_freq alone.

    Raises:
        AudiobatError: `config.layer` is beyond the model's blocks, the width does not suit the head, `freq_patches` is
            missing, or the kind is vqt, which is built from an encoder: `VisualQueryTuning(encoder, classes)`.
    """
    if config.layer > depth:
        raise AudiobatError(f"head.layer is {config.layer} and the model has {depth} blocks: use 1 to {depth}, or -1.")
    class_for(config)  # a config that was made by hand may lack the settings of a user's own class
    return head_class(config.kind).build(config, dim, depth, classes, freq_patches)


def check_teaches(kind: str) -> None:
    """Raise an AudiobatError for a head that gives the model under it no gradients, so that it cannot be fine-tuned."""
    if not head_class(kind).teaches:
        raise AudiobatError(
            f"head.kind is {kind!r}: it gives no gradients to a model, so it cannot be fine-tuned or kept with one; "
            "choose another."
        )
