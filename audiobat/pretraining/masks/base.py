"""The protocol of masks: a count of clones and a patch grid in, visible and masked patch indices out, in one call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from audiobat.config import MaskConfig, ModelConfig
from audiobat.engine.memory import INDEX
from audiobat.engine.ranks import own_rows, place


class Masks(NamedTuple):
    """Patch indices of R masked clones. The built-in masks hold every patch once, visible or masked, ascending."""

    visible: Tensor  # [R, n] int64, what the encoder sees
    masked: Tensor  # [R, m] int64, what is predicted


class Mask(ABC):
    """Base of every mask; a subclass in this folder is a kind, one in a user's file is `FILE.py:CLASS`."""

    def __init__(self, config: MaskConfig) -> None:
        self.config = config

    @classmethod
    def build(cls, config: MaskConfig, model: ModelConfig) -> Self:
        """A mask of `config` for patches of the encoder that `model` describes."""
        return cls(config)

    def memory(self, count: int, grid: tuple[int, int]) -> int:
        """Bytes that drawing `count` masks takes, at the least: a visible and a masked patch of each, if not more."""
        return 2 * INDEX * count

    def __call__(self, count: int, grid: tuple[int, int], generator: torch.Generator) -> Masks:
        """The `count` masks of this rank's clones, of those that `draw` makes for the clones of all ranks.

        So a clone's mask depends on its place in the global batch, if every rank's `generator` is in the same state.
        """
        return Masks(*(own_rows(patches) for patches in self.draw(count * place()[1], grid, generator)))

    @abstractmethod
    def draw(self, count: int, grid: tuple[int, int], generator: torch.Generator) -> Masks:
        """Draw `count` masks over a (T, F) patch grid, on the generator's device.

        The `config.clones` masks of a clip follow each other. All masks show equally many patches, so that they form
        one batch, and draw from `generator` alone, so that a resumed run draws them again.
        """


def seeded_generator(device: torch.device, *numbers: int) -> torch.Generator:
    """A generator on `device` whose stream is a function of `numbers` alone, such as (seed, step)."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:  # SplitMix64, so that neighbouring steps share nothing
        state = (state ^ (number & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 31)) * 0x94D049BB133111EB % 2**64
    return torch.Generator(device).manual_seed(state >> 1)


def visible_count(patches: int, ratio: float) -> int:
    """Patches that stay visible out of `patches`: int(N * (1 - ratio)), at least one, at least one masked."""
    return min(max(int(patches * (1 - ratio)), 1), patches - 1)


def show_lowest(priority: Tensor, ratio: float) -> Masks:
    """Masks that show the patches of lowest `priority` [R, N], as many as `ratio` leaves visible."""
    order = priority.argsort(dim=1)
    shown = visible_count(priority.shape[1], ratio)
    return Masks(order[:, :shown].sort(dim=1).values, order[:, shown:].sort(dim=1).values)


def take_valid(valid: Tensor | None, clip: Tensor, patch: Tensor) -> Tensor | None:
    """Which patches [R, n] of clips [R, 1] are `valid` (bool [B, N]); None, as `valid` is where there is no padding."""
    return None if valid is None else take(valid.unsqueeze(-1), clip, patch)[..., 0]


def clips_of_clones(clips: int, clones: int, device: torch.device) -> Tensor:
    """The clip of each clone, [R, 1], where the clones of a clip follow each other."""
    return torch.arange(clips, device=device).repeat_interleave(clones)[:, None]


def take(tokens: Tensor, clip: Tensor, patch: Tensor) -> Tensor:
    """Tokens [B, N, D] at patches [R, n] of clips [R, 1]: [R, n, D], with nothing repeated per clone."""
    return F.embedding(clip * tokens.shape[1] + patch, tokens.flatten(0, 1))  # an embedding reads rows of a table
