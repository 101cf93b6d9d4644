"""Random numbers of a step: its seed in; for each row of the global batch the same numbers on any number of ranks.

What a layer draws for a row, such as a dropped path, depends on (seed, step, the row's place in the global batch):
every rank draws for all ranks' rows from one stream, and takes its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from audiobat.engine.ranks import own_rows, place

_shared: dict[torch.device, torch.Generator] = {}  # of several ranks: by device, in the same state on each


def seed_step(seed: int, step: int, device: torch.device) -> None:
    """Seed what is random in a step: torch's own generators, and on several ranks the stream that they share.

    torch's own generators are seeded otherwise on each rank, so that a plain `nn.Dropout` drops something else on each.
    """
    rank, ranks = place()
    if ranks == 1:
        torch.manual_seed(step_seed(seed, step, 0))
        return
    torch.manual_seed(step_seed(seed, step, 1 + rank))
    _shared[device] = torch.Generator(device).manual_seed(step_seed(seed, step, 0))


def draw_rows(draw: Callable[[int, torch.Generator | None], Tensor], rows: int, device: torch.device) -> Tensor:
    """This rank's `rows` of what `draw(count, generator)` makes, [count, ...], for the rows of all ranks together.

    One process, or a model outside of a training step, draws from torch's own generator, as torch's layers do.
    """
    ranks = place()[1]
    if ranks == 1 or device not in _shared:
        return draw(rows, None)
    return own_rows(draw(rows * ranks, _shared[device]))


def step_seed(seed: int, step: int, stream: int) -> int:
    """The seed of one stream of random numbers in one step."""
    digest = hashlib.blake2b(f"{seed}/{step}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # 63 bits
