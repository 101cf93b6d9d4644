"""Heads: features of all blocks to logits of clips, or by `frames` of patch columns. One file a kind, named after it.

In: `LayerFeatures` and a `HeadConfig`. Out: logits [B, C]. What the kinds share, in reading order; `cgp` is the paper's
head (Eq. 8-11):

    fused_extremes.py  the least and greatest similarity in one kernel of a GPU
    pooling.py         as functions of tensors: picking a block, means, mixes of blocks, extremes
    base.py            what every head is, and what its class says of it
"""

from __future__ import annotations

from inspect import getattr_static
from typing import Any, get_args, get_type_hints

import torch

from audiobat.config import HeadConfig
from audiobat.config.registry import class_for, find
from audiobat.config.user_files import errors_of_user_code, is_user_class, place_of
from audiobat.errors import AudiobatError, did_you_mean
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.base import BlockInputs, Head, Probe, block_inputs, parameter_groups
from audiobat.models.heads.pooling import check_layer

__all__ = [
    "BlockInputs",
    "Head",
    "Probe",
    "block_inputs",
    "build_head",
    "check_teaches",
    "check_users_head",
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
    check_layer(config.layer, depth)
    class_for(config)  # a config that was made by hand may lack the settings of a user's own class
    return head_class(config.kind).build(config, dim, depth, classes, freq_patches)


def check_protocol(found: type[Head]) -> None:
    """Raise an AudiobatError if a class lacks a method that every head defines, or an attribute has no known value."""
    inherits = {name: getattr_static(found, name) is getattr_static(Head, name) for name in vars(Head)}
    wanted = {
        "build": inherits["build_for"],  # which calls it
        "pool": inherits["forward"] or not found.trains,
        "classify": inherits["forward"],
        "fit": not found.trains,
    }
    if missing := [name for name, is_wanted in wanted.items() if is_wanted and inherits[name]]:
        raise AudiobatError(
            f"{place_of(found)}: {found.__name__} lacks {', '.join(missing)}: a head defines build and, derived from "
            "Probe, pool (see docs/variants.md)."
        )
    for name in ("reads", "layers"):
        possible, value = get_args(get_args(get_type_hints(Head)[name])[0]), getattr(found, name)
        if value not in possible:
            hint = did_you_mean(str(value), possible)
            raise AudiobatError(
                f"{place_of(found)}: {found.__name__}.{name} is {value!r}: use {' or '.join(possible)}{hint}."
            )


@errors_of_user_code()
def check_users_head(config: HeadConfig, encoder: Any, classes: int, freq_patches: int = 1) -> None:
    """Run a head of a user's own class on noise, as hours of features may lie before its first batch.

    Raises:
        AudiobatError: it lacks a method, its code fails, or its shapes are not [B, width] of `pool` and [B, `classes`]
            of logits.
    """
    if not is_user_class(config.kind):
        return
    found = head_class(config.kind)
    check_protocol(found)
    if found.reads == "blocks":
        return
    with torch.random.fork_rng():
        head = found.build_for(config, encoder, classes, freq_patches)
        columns, rows = (1, 1) if found.reads == "means" else (2, freq_patches)
        features = LayerFeatures(
            torch.randn(encoder.depth, 2, columns * rows, encoder.dim),
            torch.randn(encoder.depth, 2, encoder.dim),
            (columns, rows),
            torch.ones(2, columns * rows, dtype=torch.bool),
            torch.arange(float(columns)),
        )
        where = f"{place_of(type(head))}: {type(head).__name__}"
        if getattr_static(type(head), "forward") is getattr_static(Head, "forward") or not head.trains:
            shape = shape_of(head.pool(features))
            width = getattr(getattr(head, "classifier", None), "in_features", None)
            if len(shape) != 2 or shape[0] != 2 or width not in (None, shape[1]):
                wanted = f"(2, {width or 'any width'})"
                raise AudiobatError(f"{where}.pool gives {shape} for 2 clips: give one vector a clip, {wanted}.")
        if head.trains:
            shape = shape_of(head(features))
            if shape != (2, classes):
                raise AudiobatError(
                    f"{where} gives logits {shape} for 2 clips and {classes} classes: give (2, {classes})."
                )


def shape_of(value: object) -> tuple[Any, ...]:
    """The shape of a tensor; for another object the name of its class."""
    return tuple(value.shape) if isinstance(value, torch.Tensor) else (type(value).__name__,)


def check_teaches(kind: str) -> None:
    """Raise an AudiobatError for a head that gives the model under it no gradients, so that it cannot be fine-tuned."""
    if not head_class(kind).teaches:
        raise AudiobatError(
            f"head.kind is {kind!r}: it gives no gradients to a model, so it cannot be fine-tuned or kept with one; "
            "choose another."
        )
