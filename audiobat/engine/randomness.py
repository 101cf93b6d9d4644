"""Random numbers of a step: its seed in; for each row of the global batch the same numbers on any number of ranks.

What a layer draws for a row, such as a dropped path, depends on (seed, step, the row's place in the global batch):
every rank draws for all ranks' rows from one stream, and takes its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from audiobat.engine.ranks import counts_of_ranks, place

_parts: RowParts | None = None  # of rows that run part after part, while one of them runs
_shared: dict[torch.device, Tensor] = {}  # of several ranks: the state of their common stream on a device


def seed_step(seed: int, step: int, device: torch.device) -> None:
    """Seed what is random in a step: torch's own generators, and on several ranks the stream that they share.

    torch's own generators are seeded otherwise on each rank, so that a plain `nn.Dropout` drops something else on each.
    """
    rank, ranks = place()
    if ranks == 1:
        torch.manual_seed(step_seed(seed, step, 0))
        return
    torch.manual_seed(step_seed(seed, step, 1 + rank))
    _shared[device] = torch.Generator(device).manual_seed(step_seed(seed, step, 0)).get_state()


def draw_rows(draw: Callable[[int], Tensor], rows: int, device: torch.device, even: bool = True) -> Tensor:
    """This rank's `rows` of what `draw(count)` draws, [count, ...], for the rows of all ranks together.

    Args:
        draw: makes random numbers on `device` by torch's own generator.
        rows: of this rank.
        device: where they are.
        even: every rank has as many rows. If not, the ranks first tell each other how many, so that all must call it.

    A process that is alone, or a model outside of a training step, draws for its own rows, as torch's layers do.
    """
    return _draw_part(draw, rows, device, even)


def in_parts() -> bool:
    """Whether one of several parts of a batch runs, whose layers draw what they would draw for the whole."""
    return _parts is not None


def leave_draws_out_of_graphs() -> None:
    """Let `torch.compile` call `draw_rows` and not look into it: from part to part, and on other ranks, it differs."""
    global _draw_part
    _draw_part = torch.compiler.disable(_draw_part)  # no decorator: that would load the compiler, for a second, always


def _draw_part(draw: Callable[[int], Tensor], rows: int, device: torch.device, even: bool) -> Tensor:
    return _draw(draw, rows, device, even) if _parts is None else _parts.draw(draw, even)


class RowParts:
    """Lets `rows` of a batch, if they run part after part, draw what they would draw all at once.

    The n-th draw of each part is for all rows and begins where the n-th of the first part did. What a layer draws by
    itself, such as a plain `nn.Dropout`, goes on from part to part.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.rows, self._device = rows, device
        self._states: list[tuple[Tensor, Tensor | None]] = []  # before each draw: of torch's own stream, of the ranks'
        self._next = 0  # of the draws of this part
        self._places = torch.arange(rows, device=device)

    @contextmanager
    def part(self, places: Tensor) -> Iterator[None]:
        """Within it run the rows at `places` [k] of the batch."""
        global _parts
        _parts, self._places, self._next = self, places, 0
        try:
            yield
        finally:
            _parts = None

    def draw(self, draw: Callable[[int], Tensor], even: bool) -> Tensor:
        """The rows of this part of what `draw_rows` draws for all."""
        own, device = _generator(self._device), self._device
        now = own.get_state(), _shared.get(device)
        is_first = self._next == len(self._states)
        if is_first:
            self._states.append(now)
        else:
            self._go_to(*self._states[self._next])
        self._next += 1
        drawn = _draw(draw, self.rows, device, even)[self._places]
        if not is_first:
            self._go_to(*now)
        return drawn

    def _go_to(self, own: Tensor, common: Tensor | None) -> None:
        _generator(self._device).set_state(own)
        if common is not None:
            _shared[self._device] = common


def _draw(draw: Callable[[int], Tensor], rows: int, device: torch.device, even: bool) -> Tensor:
    rank, ranks = place()
    if ranks == 1 or device not in _shared:
        return draw(rows)
    counts = [rows] * ranks if even else counts_of_ranks(rows)
    with _shared_stream(device):
        return draw(sum(counts))[sum(counts[:rank]) :][:rows]


@contextmanager
def _shared_stream(device: torch.device) -> Iterator[None]:
    """Let torch's own generator of a device go on with the shared stream, and then as if nothing had been drawn."""
    own = _generator(device)
    before = own.get_state()
    own.set_state(_shared[device])
    try:
        yield
    finally:
        _shared[device] = own.get_state()
        own.set_state(before)


def _generator(device: torch.device) -> torch.Generator:
    """Torch's own generator of a device."""
    return torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator


def step_seed(seed: int, step: int, stream: int) -> int:
    """The seed of one stream of random numbers in one step."""
    digest = hashlib.blake2b(f"{seed}/{step}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # 63 bits
