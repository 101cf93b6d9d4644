"""The two values that the whole package passes on: an encoder, and the features that it gives of a batch of clips.

Heads, probes, embed and reports know no more of a model than this. The features of an encoder that somebody else wrote
are checked against these shapes before they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from audiobat.errors import AudiobatError


@dataclass(frozen=True)
class LayerFeatures:
    """Outputs of L blocks for a batch of B clips: N patch tokens each, in T columns (time) of F patches (frequency).

    Token n = t * F + f: time-major, frequency fastest. A model without a 2-D grid has F = 1.
    """

    patch_tokens: Tensor  # [L, B, N, D]
    cls_token: Tensor | None  # [L, B, D]
    grid: tuple[int, int]  # (T, F) with T * F = N
    valid: Tensor  # [B, N] bool, False on padding
    frame_times: Tensor  # [T] seconds at which each patch column starts

    def clip(self, index: int) -> LayerFeatures:
        """Features of clip `index` alone, still batched (B = 1)."""
        alone = slice(index, index + 1)
        cls = None if self.cls_token is None else self.cls_token[:, alone]
        return LayerFeatures(self.patch_tokens[:, alone], cls, self.grid, self.valid[alone], self.frame_times)


@runtime_checkable
class Encoder(Protocol):
    """All that heads, probes, embed and reports know of a model.

    A clip must have the same features alone and beside a longer one: padding is marked in `valid` and changes nothing.
    `audiobat doctor --model` checks that.
    """

    sample_rate: int  # Hz
    dim: int  # D
    depth: int  # L

    def forward_intermediates(self, waveform: Tensor, lengths: Tensor | None = None) -> LayerFeatures:
        """Turn waveform [B, S] at `sample_rate` into the features of all blocks.

        `lengths` [B] holds the samples of each clip; None: all S.
        """
        ...


def join_clips(parts: Sequence[LayerFeatures]) -> LayerFeatures:
    """The features of the clips of all `parts`, whose grids are the same."""
    first = parts[0]
    if len(parts) == 1:
        return first
    cls = [part.cls_token for part in parts if part.cls_token is not None]
    return LayerFeatures(
        torch.cat([part.patch_tokens for part in parts], 1),
        torch.cat(cls, 1) if cls else None,
        first.grid,
        torch.cat([part.valid for part in parts]),
        first.frame_times,
    )


def take_clips(features: LayerFeatures, chosen: Tensor) -> LayerFeatures:
    """The features of those clips of a batch where `chosen`, bool [B], is True."""
    cls = None if features.cls_token is None else features.cls_token[:, chosen]
    return LayerFeatures(
        features.patch_tokens[:, chosen], cls, features.grid, features.valid[chosen], features.frame_times
    )


def block_numbers(depth: int, indices: int | Sequence[int] | None) -> list[int]:
    """Numbers, from 0 and in the model's order, of the blocks that timm's `indices` chooses among `depth`.

    None: all; a number n: the last n; a list: the blocks of these numbers, negative ones from the end. Raises
    AudiobatError if there is no such block, or none at all is asked for.
    """
    wanted = list(range(depth) if indices is None else range(-indices, 0) if isinstance(indices, int) else indices)
    if not wanted or not all(-depth <= index < depth for index in wanted):
        raise AudiobatError(
            f"indices is {indices!r}: the model has {depth} blocks, so give a number from 1 to {depth} for the last "
            f"ones, or a list of numbers from 0 to {depth - 1}."
        )
    return sorted({index % depth for index in wanted})


def check_features(encoder: Encoder, features: LayerFeatures, clips: int) -> None:
    """Raise an AudiobatError that says what is wrong with the features of a batch of `clips`, if anything is."""
    fault = shape_fault(encoder, features, clips) or type_fault(features)
    if fault is None and not features.valid.any(1).all():
        fault = "a clip has no valid token; mark at least its first column valid"
    if fault is not None:
        raise AudiobatError(
            f"{type(encoder).__name__}.forward_intermediates: {fault}. `audiobat doctor --model` checks every rule."
        )


# Why a clip is left out; it names no clip, so that a model that fails on all of them is told from bad clips.
NOT_FINITE = "the model gives NaN or infinite values, as `audiobat doctor --model` may show."


def finite_clips(features: LayerFeatures) -> Tensor:
    """Of which clips all features, but for those of padding, are finite: bool [B]."""
    sums = features.patch_tokens.float().sum((0, 2, 3))  # of each clip; the quick look: a sum of finite ones is finite
    if features.cls_token is not None:
        sums = sums + features.cls_token.float().sum((0, 2))
    if bool(sums.isfinite().all()):
        return torch.ones_like(sums, dtype=torch.bool)
    fine = (features.patch_tokens.isfinite().all(3).all(0) | ~features.valid).all(1)
    return fine if features.cls_token is None else fine & features.cls_token.isfinite().all(2).all(0)


def shape_fault(encoder: Encoder, features: object, clips: int) -> str | None:
    """The first field whose shape does not fit `LayerFeatures` of a batch of `clips`, with a hint; None if all fit."""
    if not isinstance(features, LayerFeatures):
        return f"forward_intermediates gives a {type(features).__name__}; return LayerFeatures"
    grid = features.grid
    if not (isinstance(grid, tuple) and len(grid) == 2 and all(type(size) is int for size in grid)):
        return f"grid is {grid!r}; give two whole numbers (T, F)"
    columns, freq_patches = grid
    wanted = {
        "patch_tokens": ("[L, B, N, D]", (encoder.depth, clips, columns * freq_patches, encoder.dim)),
        "cls_token": ("[L, B, D]", (encoder.depth, clips, encoder.dim)),
        "valid": ("[B, N]", (clips, columns * freq_patches)),
        "frame_times": ("[T]", (columns,)),
    }
    for name, (axes, shape) in wanted.items():
        tensor = getattr(features, name)
        if name == "cls_token" and tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            return f"{name} is a {type(tensor).__name__}; give a tensor {axes}"
        if tuple(tensor.shape) != shape:
            return (
                f"{name} has shape {list(tensor.shape)}; {axes} is {list(shape)} with depth {encoder.depth}, "
                f"{clips} clips, grid {grid} and dim {encoder.dim}"
            )
    return None


def type_fault(features: LayerFeatures) -> str | None:
    """The first tensor of a wrong type, with a hint; None if all types are right."""
    if features.valid.dtype != torch.bool:
        return f"valid has type {features.valid.dtype}; make it bool"
    for name in ("patch_tokens", "cls_token", "frame_times"):
        tensor = getattr(features, name)
        if tensor is not None and not tensor.is_floating_point():
            return f"{name} has type {tensor.dtype}; make it float"
    return None
