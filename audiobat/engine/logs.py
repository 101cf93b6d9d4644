"""The log of a run: rows of numbers in metrics.jsonl, sentences in log.txt and on the terminal; means of statistics."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from audiobat.engine.files import write_atomic
from audiobat.engine.ranks import Ranks


class RunLog:
    """The log of one run folder, continued at `start_step`; only the main rank writes.

    Rows of metrics.jsonl beyond `start_step`, and a last line that was cut off by a kill, are dropped: the run does
    those steps again, and no step appears twice.
    """

    def __init__(self, folder: str | Path, start_step: int = 0, *, main: bool = True) -> None:
        self.folder = Path(folder)
        self._main = main
        if not main:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        metrics = self.folder / "metrics.jsonl"
        if metrics.exists():
            kept = [line for line in metrics.read_text().splitlines() if _step_of(line) <= start_step]
            write_atomic(metrics, "".join(line + "\n" for line in kept))
        self._metrics = metrics.open("a")
        self._text = (self.folder / "log.txt").open("a")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._main:
            self._metrics.close()
            self._text.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row, which has a `step`, to metrics.jsonl and, in short, to log.txt; JSON has null for NaN."""
        if not self._main:
            return
        clean = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}
        print(json.dumps(clean), file=self._metrics, flush=True)
        short = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()}
        self._stamp("  ".join(f"{name} {value}" for name, value in short.items()))

    def say(self, sentence: str) -> None:
        """Append a sentence to log.txt and show it on the terminal."""
        if self._main:
            self._stamp(sentence)
            print(sentence, file=sys.stderr, flush=True)

    def note(self, sentence: str) -> None:
        """Append a sentence to log.txt alone."""
        if self._main:
            self._stamp(sentence)

    def _stamp(self, text: str) -> None:
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=self._text, flush=True)


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

    def pop(self, ranks: Ranks) -> dict[str, float]:
        """The mean of every name over steps and ranks since the last call."""
        state = self.state(ranks)
        self._sums, self._counts = {}, {}
        return {name: total / count for name, (total, count) in state.items()}


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf  # a line that was cut off when the run was killed
