"""The two values that everything passes: what an encoder is, and the features it hands to probes, embed and reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


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

    def forward_layers(self, waveform: Tensor, lengths: Tensor | None = None) -> LayerFeatures:
        """Turn waveform [B, S] at `sample_rate` into features; `lengths` [B] in samples (None: all S)."""
        ...
