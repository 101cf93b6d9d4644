"""Inverse-block masks (Section 3, with EAT's constants): square blocks around uniform centres stay visible.

Every mask shows exactly int(N * (1 - ratio)) patches: where the blocks hold more, `mask.trim` says which of theirs are
hidden; where they hold fewer, single random patches are shown besides. A block at the edge is cut off there, which is
also what EAT comes to by moving its coordinates to the edge. On a grid lower than a block, such as the one row that
patches as high as the spectrogram make, blocks are spans of time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from audiobat.config import MaskConfig
from audiobat.engine.memory import INDEX
from audiobat.pretraining.masks.base import Mask, Masks, show_lowest


class InverseBlockMask(Mask):
    """Blocks of `block_size` x `block_size` patches stay visible."""

    def memory(self, count: int, grid: tuple[int, int]) -> int:
        """Bytes of which blocks cover which patches, [R, blocks, N]."""
        return INDEX * count * block_count(grid, self.config) * grid[0] * grid[1]

    def draw(self, count: int, grid: tuple[int, int], generator: torch.Generator) -> Masks:
        """Draw `count` masks over a (T, F) grid, all in one call."""
        chance = torch.rand(count, grid[0] * grid[1], generator=generator, device=generator.device)  # [R, N] in [0, 1)
        number = first_blocks(count, grid, self.config, generator)
        if self.config.trim == "random":
            number = number // block_count(grid, self.config)  # 0 in any block, 1 outside: chance alone decides
        # Whole numbers rank the blocks, fractions the patches within a block: sorting keeps blocks whole but the last.
        return show_lowest(chance + number, self.config.ratio)


def block_count(grid: tuple[int, int], config: MaskConfig) -> int:
    """Blocks drawn for each mask over a (T, F) grid: int(N * (1 - ratio + adjust) / block area), at least one."""
    columns, rows = grid
    area = min(config.block_size, columns) * min(config.block_size, rows)
    return max(int(columns * rows * (1 - config.ratio + config.adjust) / area), 1)


def first_blocks(count: int, grid: tuple[int, int], config: MaskConfig, generator: torch.Generator) -> Tensor:
    """For each patch the number of the first block that covers it, or the block count where none does: [R, N]."""
    device, patches = generator.device, grid[0] * grid[1]
    blocks = block_count(grid, config)
    centre = torch.randint(patches, (count, blocks, 1), generator=generator, device=device)
    patch = torch.arange(patches, device=device)
    before = config.block_size // 2  # a block of even size reaches further back than forward, as EAT's
    time = patch // grid[1] - centre // grid[1] + before  # [R, blocks, N], 0 at the block's first column
    frequency = patch % grid[1] - centre % grid[1] + before
    covered = (time >= 0) & (time < config.block_size) & (frequency >= 0) & (frequency < config.block_size)
    number = torch.arange(blocks, device=device)[:, None]
    return torch.where(covered, number, blocks).amin(dim=1)
