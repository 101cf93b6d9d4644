"""Masks as EAT's data loader draws them; draws are not the same, so statistics of many masks are compared."""

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import torch

from audiobat.config import PretrainConfig, from_dict
from audiobat.config.recipes import load_recipe
from audiobat.config.registry import class_for
from audiobat.pretraining.masks.base import seeded_generator

from ..plain import masks
from .base import Row, difference

DRAWN = 2_000  # masks


def masks_of(recipe: str) -> tuple[torch.Tensor, tuple[int, int]]:
    """Where [DRAWN, N] the student sees under a recipe, and its grid."""
    config = from_dict(PretrainConfig, load_recipe(recipe))
    columns, rows = config.model.grid
    drawing = class_for(config.mask).build(config.mask, config.model)
    drawn = drawing.draw(DRAWN, (columns, rows), seeded_generator(torch.device("cpu"), 0))
    return torch.zeros(DRAWN, columns * rows).scatter_(1, drawn.visible, 1.0).bool(), (columns, rows)


@cache
def eats_masks(columns: int, rows: int, ratio: float, adjust: float) -> masks.Cells:
    """The same from the plain formulas."""
    rng = np.random.default_rng(0)
    return np.stack([masks.eat_row(columns, rows, ratio, adjust, 5, rng) for _ in range(DRAWN)])


def rows_of(recipe: str, what: str, source: str, ratio: float = 0.8, adjust: float = 0.07) -> Iterator[Row]:
    seen, (columns, rows) = masks_of(recipe)
    wanted = eats_masks(columns, rows, ratio, adjust)

    def row(compared: str, value: Callable[[masks.Cells], float | np.ndarray], tolerance: float) -> Row:
        a, b = torch.tensor(value(seen.numpy())), torch.tensor(value(wanted))
        return Row(what, source, compared, difference(a.double(), b.double()), tolerance=tolerance)

    # Tolerances are four standard errors of a difference.
    yield row("visible cells of each mask", lambda x: x.sum(1), 0.0)
    yield row("whole 5 x 5 squares of a mask", lambda x: masks.whole_squares(x, columns, rows, 5), 0.11)
    yield row("visible neighbours of visible cells", lambda x: masks.visible_neighbours(x, columns, rows), 0.015)
    yield row("visibility of each frequency row", lambda x: x.reshape(-1, columns, rows).mean((0, 1)), 0.055)


def rows() -> Iterator[Row]:
    yield from rows_of("eat_base", "EAT's masks", "EAT, its data loader")
    yield from rows_of("eat_large", "EAT-large's masks", "EAT, its data loader and large config", 0.75, 0.1)
    yield from rows_of("bat_base_released", "The masks of BAT's release", "BAT's release")
