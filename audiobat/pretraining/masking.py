"""Masks for M clones of every clip: visible and masked patch indices, all rows in one call.

Inverse-block masking (Section 3, with EAT's constants) draws what stays visible: square blocks around uniform centres.
Every row shows exactly int(N * (1 - ratio)) patches: blocks are kept whole in the order drawn, the last one is trimmed
where they exceed the count, and single random patches fill what is missing. Seeded by (seed, step, rank).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from audiobat.config import MaskConfig


class Masks(NamedTuple):
    """Patch indices of each of R rows, both ascending and together all N patches."""

    visible: Tensor  # [R, n] int64
    masked: Tensor  # [R, N - n] int64


def seeded_generator(device: torch.device, *numbers: int) -> torch.Generator:
    """A generator on `device` whose stream is a function of `numbers` alone, such as (seed, step, rank)."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:  # SplitMix64, so that neighbouring steps and ranks share nothing
        state = (state ^ (number & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 31)) * 0x94D049BB133111EB % 2**64
    return torch.Generator(device).manual_seed(state >> 1)


def visible_count(patches: int, ratio: float) -> int:
    """Patches that stay visible out of `patches`: int(N * (1 - ratio)), at least one, at least one masked."""
    return min(max(int(patches * (1 - ratio)), 1), patches - 1)


def block_count(patches: int, config: MaskConfig) -> int:
    """Blocks drawn per row: int(N * (1 - ratio + adjust) / block area), at least one."""
    return max(int(patches * (1 - config.ratio + config.adjust) / config.block_size**2), 1)


def draw_masks(rows: int, grid: tuple[int, int], config: MaskConfig, generator: torch.Generator) -> Masks:
    """Draw the masks of `rows` clones over a (T, F) patch grid on the generator's device."""
    patches = grid[0] * grid[1]
    device = generator.device
    priority = torch.rand(rows, patches, generator=generator, device=device)
    if config.kind == "inverse_block":
        priority += _first_block(rows, grid, config, generator)
    order = priority.argsort(dim=1)
    shown = visible_count(patches, config.ratio)
    return Masks(order[:, :shown].sort(dim=1).values, order[:, shown:].sort(dim=1).values)


def _first_block(rows: int, grid: tuple[int, int], config: MaskConfig, generator: torch.Generator) -> Tensor:
    """For each patch the number of the first block that covers it, or the block count where none does: [R, N]."""
    device, patches = generator.device, grid[0] * grid[1]
    blocks = block_count(patches, config)
    centre = torch.randint(patches, (rows, blocks, 1), generator=generator, device=device)
    patch = torch.arange(patches, device=device)
    before = config.block_size // 2
    time = patch // grid[1] - centre // grid[1] + before  # [R, blocks, N], 0 at the block's first column
    frequency = patch % grid[1] - centre % grid[1] + before
    covered = (time >= 0) & (time < config.block_size) & (frequency >= 0) & (frequency < config.block_size)
    number = torch.arange(blocks, device=device)[:, None]
    return torch.where(covered, number, blocks).amin(dim=1)
