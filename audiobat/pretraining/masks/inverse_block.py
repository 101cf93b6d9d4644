"""Inverse-block masks (Section 3, with EAT's constants): square blocks around uniform centres stay visible.

Every mask shows exactly int(N * (1 - ratio)) patches: blocks are kept whole in the order drawn, the last one is trimmed
where they exceed the count, and single random patches fill what is missing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from audiobat.config import MaskConfig
from audiobat.pretraining.masks.base import Mask, Masks, show_lowest


class InverseBlockMask(Mask):
    """Blocks of `block_size` x `block_size` patches stay visible."""

    def draw(self, count: int, grid: tuple[int, int], generator: torch.Generator) -> Masks:
        """Draw `count` masks over a (T, F) grid, all in one call."""
        patches = grid[0] * grid[1]
        chance = torch.rand(count, patches, generator=generator, device=generator.device)  # [R, N] in [0, 1)
        # Whole numbers rank the blocks, fractions the patches within a block: sorting keeps blocks whole but the last.
        return show_lowest(chance + first_blocks(count, grid, self.config, generator), self.config.ratio)


def block_count(patches: int, config: MaskConfig) -> int:
    """Blocks drawn for each mask: int(N * (1 - ratio + adjust) / block area), at least one."""
    return max(int(patches * (1 - config.ratio + config.adjust) / config.block_size**2), 1)


def first_blocks(count: int, grid: tuple[int, int], config: MaskConfig, generator: torch.Generator) -> Tensor:
    """For each patch the number of the first block that covers it, or the block count where none does: [R, N]."""
    device, patches = generator.device, grid[0] * grid[1]
    blocks = block_count(patches, config)
    centre = torch.randint(patches, (count, blocks, 1), generator=generator, device=device)
    patch = torch.arange(patches, device=device)
    before = config.block_size // 2  # a block of even size reaches further back than forward, as EAT's
    time = patch // grid[1] - centre // grid[1] + before  # [R, blocks, N], 0 at the block's first column
    frequency = patch % grid[1] - centre % grid[1] + before
    covered = (time >= 0) & (time < config.block_size) & (frequency >= 0) & (frequency < config.block_size)
    number = torch.arange(blocks, device=device)[:, None]
    return torch.where(covered, number, blocks).amin(dim=1)
