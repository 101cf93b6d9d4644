"""The encoder, and with its frontend the model that a release keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from audiobat.config.checks import check, check_choice
from audiobat.config.frontend import FrontendConfig

DEEPEST = 1000  # blocks; more take minutes to build, however narrow they are


@dataclass(frozen=True)
class EncoderConfig:
    """The gated post-norm ViT (Eq. 1-4, 12-14)."""

    dim: int = 768  # width of the tokens
    depth: int = 12  # blocks
    heads: int = 12  # attention heads of a block
    mlp_ratio: float = 4.0
    patch_size: tuple[int, int] = (16, 16)  # frames x mel bins
    max_frames: int = 1024  # length of the position table; longer clips run in windows of this many frames; EAT
    gated_attention: bool = True
    gate_bias: bool = True  # the release's; the paper shows a weight only
    drop_path: float = 0.0
    block_norm: Literal["post", "pre"] = "post"  # pre: before attention and MLP, and none of the stem (Audio-MAE)
    final_norm: bool = False  # of the last block's output; only Audio-MAE has one
    pad: Literal["mask", "grid"] = "mask"  # grid: clips are padded to max_frames and padding is attended to; a long
    # clip's cls is the plain mean of its windows', however short the last one (BAT's release); ours
    positions: Literal["paper", "released", "rotary"] = "paper"  # sines and cosines of time and frequency; released:
    # with both swapped (BAT's release); rotary, of our own: queries and keys are turned, and no clip is too long
    position_frames: int | None = None  # positions start anew every so many frames, as BAT's release has them in long
    # clips; null: never within max_frames; ours
    init: Literal["xavier", "eat"] = "xavier"  # eat: linear layers from N(0, 0.02), cls from N(0, 1)
    patch_init: Literal["xavier", "torch"] = "xavier"  # torch: PyTorch's default of a Conv2d (BAT's release)

    def __post_init__(self) -> None:
        check_choice(self, "pad")
        check_choice(self, "block_norm")
        check_choice(self, "positions")
        check_choice(self, "init")
        check_choice(self, "patch_init")
        object.__setattr__(self, "patch_size", tuple(self.patch_size))
        for name in ("dim", "heads"):
            check(getattr(self, name) > 0, f"encoder.{name}", getattr(self, name), "it must be positive")
        check(0 < self.depth <= DEEPEST, "encoder.depth", self.depth, f"use 1 to {DEEPEST} blocks")
        check(self.mlp_ratio > 0, "encoder.mlp_ratio", self.mlp_ratio, "it must be positive")
        check(self.dim % self.heads == 0, "encoder.heads", self.heads, f"it must divide encoder.dim {self.dim}")
        check(self.dim % 4 == 0, "encoder.dim", self.dim, "2-D positions need a multiple of 4")
        valid_patch = len(self.patch_size) == 2 and min(self.patch_size) > 0
        check(valid_patch, "encoder.patch_size", self.patch_size, "give two positive numbers, frames and mel bins")
        check(
            self.max_frames > 0 and self.max_frames % self.patch_size[0] == 0,
            "encoder.max_frames",
            self.max_frames,
            f"it must be a positive multiple of the patch's {self.patch_size[0]} frames",
        )
        frames = self.position_frames
        check(
            frames is None or (frames > 0 and frames % self.patch_size[0] == 0),
            "encoder.position_frames",
            frames,
            f"use a positive multiple of the patch's {self.patch_size[0]} frames, or null",
        )
        if self.positions == "rotary":
            pairs = self.dim // self.heads % 4 == 0
            check(pairs, "encoder.heads", self.heads, f"rotary positions need encoder.dim {self.dim} / heads in fours")
            hint = "under encoder.positions rotary"
            check(frames is None, "encoder.position_frames", frames, f"positions never end {hint}: use null")
            check(self.pad == "mask", "encoder.pad", self.pad, f"clips are not padded {hint}: use mask")
        check(0 <= self.drop_path < 1, "encoder.drop_path", self.drop_path, "use 0 up to, not including, 1")


@dataclass(frozen=True)
class ModelConfig:
    """What a release folder needs to rebuild its encoder."""

    frontend: FrontendConfig = field(default_factory=FrontendConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)

    def __post_init__(self) -> None:
        check(
            self.frontend.mel_bins % self.encoder.patch_size[1] == 0,
            "frontend.mel_bins",
            self.frontend.mel_bins,
            f"it must be a multiple of the patch's {self.encoder.patch_size[1]} mel bins",
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Patch columns and rows of the longest clip that pre-training takes, (T, F)."""
        return (
            self.encoder.max_frames // self.encoder.patch_size[0],
            self.frontend.mel_bins // self.encoder.patch_size[1],
        )

    @property
    def position_grid(self) -> tuple[int, int]:
        """Patch columns and rows of the position table, which repeats in time; one column under rotary positions."""
        columns, rows = self.grid
        if self.encoder.positions == "rotary":
            return 1, rows
        frames = self.encoder.position_frames
        return columns if frames is None else min(columns, frames // self.encoder.patch_size[0]), rows
