"""EAT's masks, as the loader of its code draws them: a row of True where the student sees the cell."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Cells = NDArray[np.bool_]


def eat_row(columns: int, rows: int, ratio: float, adjust: float, side: int, rng: np.random.Generator) -> Cells:
    """Visible squares around random cells, and then random cells shown or hidden until the number is right."""
    cells = columns * rows
    keep = 1 - ratio
    centres = int(cells * (keep + adjust) / side**2)
    seen = np.zeros((columns, rows), bool)
    for centre in rng.integers(cells, size=centres):  # a cell may be drawn twice
        for dt in range(-(side // 2), side - side // 2):
            for df in range(-(side // 2), side - side // 2):
                t = min(max(centre // rows + dt, 0), columns - 1)
                f = min(max(centre % rows + df, 0), rows - 1)
                seen[t, f] = True
    flat = seen.ravel()
    excess = int(flat.sum()) - int(cells * keep)
    change = rng.choice(np.flatnonzero(flat == (excess > 0)), abs(excess), replace=False)
    flat[change] = not excess > 0
    return flat


def whole_squares(seen: Cells, columns: int, rows: int, side: int) -> float:
    """How many squares of the grid are visible as a whole, on average over rows of masks [R, N]."""
    squares = sliding_window_view(seen.reshape(-1, columns, rows), (side, side), axis=(1, 2))
    return float(squares.all((-1, -2)).sum() / len(seen))


def visible_neighbours(seen: Cells, columns: int, rows: int) -> float:
    """How often the next cell in time of a visible one is visible, too."""
    grid = seen.reshape(-1, columns, rows)
    return float((grid[:, 1:] & grid[:, :-1]).sum() / grid[:, :-1].sum())
