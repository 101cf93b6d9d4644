"""Random masks: every patch is as likely to stay visible as any other (Audio-MAE)."""

from __future__ import annotations

import torch

from audiobat.engine.memory import INDEX
from audiobat.pretraining.masks.base import Mask, Masks, show_lowest


class RandomMask(Mask):
    """Uniform masks of exactly `ratio` of the patches."""

    def memory(self, count: int, grid: tuple[int, int]) -> int:
        """Bytes of the order of all patches [R, N]."""
        return INDEX * count * grid[0] * grid[1]

    def draw(self, count: int, grid: tuple[int, int], generator: torch.Generator) -> Masks:
        """Draw `count` masks: the patches of the lowest random numbers are visible."""
        numbers = torch.rand(count, grid[0] * grid[1], generator=generator, device=generator.device)  # [R, N]
        return show_lowest(numbers, self.config.ratio)
