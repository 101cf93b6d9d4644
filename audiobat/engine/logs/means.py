"""Running means of named scalars: statistics of steps in, one number of each for a row of the log out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from audiobat.engine.ranks import Ranks


class Means:
    """Running means of named scalars, kept on the device: `add` does not wait for the device, `pop` waits once."""

    def __init__(self, state: Mapping[str, tuple[float, int]] | None = None) -> None:
        self._sums: dict[str, Tensor | float] = {name: total for name, (total, _) in (state or {}).items()}
        self._counts: dict[str, int] = {name: count for name, (_, count) in (state or {}).items()}

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Add one value of each name; a name need not come at every step."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + (
                value.detach().float() if isinstance(value, Tensor) else value
            )
            self._counts[name] = self._counts.get(name, 0) + 1

    def state(self, ranks: Ranks) -> dict[str, tuple[float, int]]:
        """Sum (the mean of the ranks' sums) and count of every name: a resumed run goes on with `Means(state)`."""
        if not self._sums:
            return {}
        sums = torch.stack([torch.as_tensor(s, dtype=torch.float32, device=ranks.device) for s in self._sums.values()])
        totals = ranks.reduce(sums, "mean").tolist()
        return {name: (total, self._counts[name]) for name, total in zip(self._sums, totals, strict=True)}

    def values(self, ranks: Ranks) -> dict[str, float]:
        """The mean of every name over steps and ranks since the last `pop`."""
        return {name: total / count for name, (total, count) in self.state(ranks).items()}

    def pop(self, ranks: Ranks) -> dict[str, float]:
        """The same, and begin anew."""
        values = self.values(ranks)
        self._sums, self._counts = {}, {}
        return values
