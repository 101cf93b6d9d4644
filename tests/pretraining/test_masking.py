"""Masks: exact counts, disjointness, seeds, and block statistics near EAT's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from audiobat.config import MaskConfig, ModelConfig
from audiobat.config.registry import class_for, kinds
from audiobat.pretraining.masks.base import Masks, seeded_generator, visible_count
from audiobat.pretraining.masks.inverse_block import block_count, first_blocks

CPU = torch.device("cpu")
BASE_GRID = (64, 8)


def draw_masks(count: int, grid: tuple[int, int], config: MaskConfig, generator: torch.Generator) -> Masks:
    return class_for(config).build(config, ModelConfig()).draw(count, grid, generator)


@settings(max_examples=40)
@given(
    columns=st.integers(2, 40),
    rows=st.integers(1, 9),
    ratio=st.floats(0.05, 0.95),
    block=st.integers(1, 6),
    kind=st.sampled_from(kinds("mask")),
    seed=st.integers(0, 2**40),
)
def test_every_row_shows_the_same_count_and_splits_the_patches(columns, rows, ratio, block, kind, seed):
    config = MaskConfig(kind=kind, ratio=ratio, block_size=block)
    masks = draw_masks(6, (columns, rows), config, seeded_generator(CPU, seed))
    patches = columns * rows
    assert masks.visible.shape == (6, visible_count(patches, ratio))
    together = torch.cat([masks.visible, masks.masked], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(patches).expand(6, -1))
    assert (masks.visible.diff(dim=1) > 0).all()
    assert (masks.masked.diff(dim=1) > 0).all()


def test_base_recipe_counts_are_eats():
    assert visible_count(512, 0.8) == 102
    assert block_count(BASE_GRID, MaskConfig()) == 5


def test_masks_are_a_function_of_the_numbers_that_seed_them():
    def draw(*numbers):
        return draw_masks(32, BASE_GRID, MaskConfig(), seeded_generator(CPU, *numbers)).visible

    assert torch.equal(draw(1, 2, 3), draw(1, 2, 3))
    for other in [(1, 2, 4), (1, 3, 3), (2, 2, 3), (2, 1, 3)]:
        assert not torch.equal(draw(1, 2, 3), draw(*other))


def test_rows_of_one_call_differ():
    visible = draw_masks(64, BASE_GRID, MaskConfig(), seeded_generator(CPU, 0)).visible
    assert len({tuple(row) for row in visible.tolist()}) == 64


def blocks_of_eat(count: int, grid: tuple[int, int], config: MaskConfig, generator: torch.Generator) -> Tensor:
    """Which patches [R, N] blocks cover by EAT's rule, which moves a block's coordinates outside to the edge."""
    columns, rows = grid
    centres = torch.randint(columns * rows, (count, block_count(grid, config), 1), generator=generator)
    offsets = torch.arange(-(config.block_size // 2), (config.block_size + 1) // 2)
    times = (centres // rows + offsets).clamp(0, columns - 1)[..., :, None]  # [R, blocks, 5, 1]
    frequencies = (centres % rows + offsets).clamp(0, rows - 1)[..., None, :]
    covered = torch.zeros(count, columns * rows, dtype=torch.bool)
    return covered.scatter_(1, (times * rows + frequencies).flatten(1), True)


@pytest.mark.parametrize("grid", [BASE_GRID, (13, 4), (20, 1), (3, 7)])
@pytest.mark.parametrize("block", [3, 4, 5])
def test_to_move_a_block_to_the_edge_is_to_cut_it_off_there(grid, block):
    config = MaskConfig(block_size=block)
    ours = first_blocks(500, grid, config, seeded_generator(CPU, 5)) < block_count(grid, config)
    assert torch.equal(ours, blocks_of_eat(500, grid, config, seeded_generator(CPU, 5)))


def test_block_union_matches_the_published_simulation():
    """20,000 rows of EAT's masks: union mean 95.7, sd 11.7, from 41 to 125 patches, 29% above 102."""
    config = MaskConfig()
    first = first_blocks(20_000, BASE_GRID, config, seeded_generator(CPU, 7))
    union = (first < block_count(BASE_GRID, config)).sum(1).float()
    assert union.mean().item() == pytest.approx(95.7, abs=0.5)
    assert union.std().item() == pytest.approx(11.7, abs=0.4)
    assert union.min().item() == pytest.approx(41, abs=4)
    assert union.max().item() == 125
    assert (union > 102).float().mean().item() == pytest.approx(0.29, abs=0.02)


@pytest.mark.parametrize(("trim", "squares"), [("last", 2.58), ("random", 1.98)])
def test_whole_squares_that_are_visible(trim, squares):
    """Squares of 5 x 5 visible patches a mask, measured beside EAT's code: 1.98 there, 2.58 where blocks stay whole."""
    visible = draw_masks(5_000, BASE_GRID, MaskConfig(trim=trim), seeded_generator(CPU, 7)).visible
    shown = torch.zeros(5_000, 512).scatter_(1, visible, 1.0).view(-1, 1, *BASE_GRID)
    whole = functional.avg_pool2d(shown, 5, stride=1) > 0.999
    assert whole.sum().item() / 5_000 == pytest.approx(squares, abs=0.06)


def test_random_trimming_hides_patches_of_all_blocks_alike():
    def draw(trim):
        config = MaskConfig(trim=trim)
        visible = draw_masks(2_000, BASE_GRID, config, seeded_generator(CPU, 4)).visible
        return torch.zeros(2_000, 512).scatter_(1, visible, 1.0).bool()

    generator = seeded_generator(CPU, 4)
    torch.rand(2_000, 512, generator=generator)
    first = first_blocks(2_000, BASE_GRID, MaskConfig(), generator)
    last, random = draw("last"), draw("random")
    too_many = (first < 5).sum(1) > 102
    assert torch.equal(last[~too_many], random[~too_many])
    assert not (random & (first == 5))[too_many].any()  # only patches of blocks are left
    for block in (0, 1, 2):  # the share of a block that is left: of the first as of the others
        kept = random[too_many][first[too_many] == block].float().mean().item()
        assert kept == pytest.approx((102 / (first < 5).sum(1)[too_many]).mean().item(), abs=0.02)
        assert last[too_many][first[too_many] == block].all()


@settings(max_examples=40)
@given(
    columns=st.integers(20, 80),
    rows=st.integers(1, 9),
    ratio=st.floats(0.3, 0.9),
    block=st.integers(2, 6),
    seed=st.integers(0, 2**40),
)
def test_blocks_hold_the_share_that_ratio_and_adjust_ask_for(columns, rows, ratio, block, seed):
    """As many blocks, of the size that the grid leaves them, as fit into the share; on one row, spans of time."""
    config, grid = MaskConfig(ratio=ratio, block_size=block), (columns, rows)
    area, wanted = min(block, columns) * min(block, rows), columns * rows * (1 - ratio + config.adjust)
    blocks = block_count(grid, config)
    assert blocks * area <= wanted < (blocks + 1) * area or blocks == 1
    first = first_blocks(100, grid, config, seeded_generator(CPU, seed)).unflatten(1, grid) == 0  # the first block
    assert first.sum((1, 2)).max() == area
    if rows <= (block + 1) // 2:  # any centre reaches all rows
        assert (first.any(2) == first.all(2)).all()
        starts = first[:, :, 0].int().diff(dim=1, prepend=torch.zeros(100, 1)) == 1
        assert (starts.sum(1) == 1).all()


@pytest.mark.parametrize("grid", [(64, 1), (64, 2), (63, 3), (64, 4), (128, 1), (313, 1)])
def test_few_visible_patches_of_a_low_grid_are_filler(grid):
    """Blocks hold at least 0.8 of what is visible, about as on the base grid; one block of a row of 64 holds 0.4."""

    def of_blocks(grid):
        generator = seeded_generator(CPU, 2)
        union = (first_blocks(2_000, grid, MaskConfig(), generator) < block_count(grid, MaskConfig())).sum(1)
        count = visible_count(grid[0] * grid[1], 0.8)
        return (union.clamp(max=count) / count).mean().item()

    assert of_blocks(grid) > 0.8
    assert of_blocks(BASE_GRID) == pytest.approx(0.92, abs=0.01)


@pytest.mark.parametrize(("block", "side"), [(3, 3), (4, 4)])
def test_one_block_that_is_as_large_as_what_is_visible_is_shown_whole(block, side):
    """A mask of one block, of exactly so many patches as may be visible: the visible patches are that block."""
    grid = (20, 20)
    config = MaskConfig(ratio=1 - (side**2 + 0.5) / 400, adjust=0.0, block_size=block)
    assert (visible_count(400, config.ratio), block_count(grid, config)) == (side**2, 1)
    visible = draw_masks(300, grid, config, seeded_generator(CPU, 3)).visible
    times, frequencies = visible // 20, visible % 20
    inside = (times.amin(1) > 0) & (times.amax(1) < 19) & (frequencies.amin(1) > 0) & (frequencies.amax(1) < 19)
    whole = inside & (times.amax(1) - times.amin(1) < side) & (frequencies.amax(1) - frequencies.amin(1) < side)
    # A centre off the edges (at least 14 x 14 of 400 places) gives a whole block; random patches never lie so close.
    assert whole.float().mean() > 0.4
    assert len({tuple(row) for row in visible[whole].tolist()}) > 50


def test_a_block_of_even_size_reaches_further_back_than_forward():
    """A centre on the first column leaves two of four columns inside the grid, one on the last column leaves three."""
    grid = (20, 20)
    config = MaskConfig(ratio=0.96, adjust=0.0, block_size=4)
    covered = first_blocks(4000, grid, config, seeded_generator(CPU, 3)).unflatten(1, grid) == 0
    for other in (2, 1):  # along time, then along frequency
        columns = covered.any(other)
        assert columns[columns[:, 0]].sum(1).min() == 2
        assert columns[columns[:, -1]].sum(1).min() == 3


def test_visible_patches_cluster_more_than_random_ones():
    def neighbours(kind):
        masks = draw_masks(500, BASE_GRID, MaskConfig(kind=kind), seeded_generator(CPU, 1))
        shown = torch.zeros(500, 512).scatter_(1, masks.visible, 1.0).view(500, *BASE_GRID)
        return (shown[:, 1:] * shown[:, :-1]).sum().item()

    assert neighbours("inverse_block") > 2.5 * neighbours("random")
