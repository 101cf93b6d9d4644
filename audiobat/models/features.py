"""The two values that everything passes: what an encoder is, and the features it hands to probes, embed and reports.

Features of an encoder that somebody else wrote are held against these shapes before they are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from audiobat.errors import AudiobatError


@dataclass(frozen=True)
class LayerFeatures:
    """Outputs of all L layers for a batch of B clips.

    Token n = t * F + f: time-major, frequency fastest.
    """

    patch_tokens: Tensor  # [L, B, N, D]
    cls_token: Tensor | None  # [L, B, D]
    grid: tuple[int, int]  # (T, F) with T * F = N
    valid: Tensor  # [B, N] bool, False on padding
    frame_times: Tensor  # [T] seconds at which each patch column starts

    def clip(self, index: int) -> LayerFeatures:
        """Features of clip `index` alone, still batched (B = 1)."""
        one = slice(index, index + 1)
        cls = None if self.cls_token is None else self.cls_token[:, one]
        return LayerFeatures(self.patch_tokens[:, one], cls, self.grid, self.valid[one], self.frame_times)


@runtime_checkable
class Encoder(Protocol):
    """All that heads, probes, embed and reports know of a model."""

    sample_rate: int
    dim: int
    depth: int

    def forward_intermediates(self, waveform: Tensor, lengths: Tensor | None = None) -> LayerFeatures:
        """Turn waveform [B, S] at `sample_rate` into features; `lengths` [B] in samples (None: all S)."""
        ...


def check_features(encoder: Encoder, features: LayerFeatures, clips: int) -> None:
    """Raise an AudiobatError that says what is wrong about the features of a batch of `clips`, if anything is."""
    fault = shape_fault(encoder, features, clips) or type_fault(features)
    if fault is None and not features.valid.any(1).all():
        fault = "a clip has no valid token; mark at least its first column valid"
    if fault is not None:
        raise AudiobatError(
            f"{type(encoder).__name__}.forward_intermediates: {fault}. `audiobat doctor --model` checks every rule."
        )


def shape_fault(encoder: Encoder, features: object, clips: int) -> str | None:
    """What is not as `LayerFeatures` names it for a batch of `clips`, and the hint; None if all is."""
    if not isinstance(features, LayerFeatures):
        return f"forward_intermediates gives a {type(features).__name__}; return LayerFeatures"
    grid = features.grid
    if not (isinstance(grid, tuple) and len(grid) == 2 and all(type(size) is int for size in grid)):
        return f"grid is {grid!r}; give two whole numbers (T, F)"
    columns, rows = grid
    wanted = {
        "patch_tokens": ("[L, B, N, D]", (encoder.depth, clips, columns * rows, encoder.dim)),
        "cls_token": ("[L, B, D]", (encoder.depth, clips, encoder.dim)),
        "valid": ("[B, N]", (clips, columns * rows)),
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
    """Which tensor is of another type than it must be, and the hint; None if none is."""
    if features.valid.dtype != torch.bool:
        return f"valid has type {features.valid.dtype}; make it bool"
    for name in ("patch_tokens", "cls_token", "frame_times"):
        tensor = getattr(features, name)
        if tensor is not None and not tensor.is_floating_point():
            return f"{name} has type {tensor.dtype}; make it float"
    return None
