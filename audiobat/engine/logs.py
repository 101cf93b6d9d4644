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

    Dropped from metrics.jsonl are rows beyond `start_step`, as the run does those steps again; the partial row of a run
    that was stopped in the middle of it, as it goes on in the next one; and lines that are no rows, such as one that a
    kill cut off.
    """

    def __init__(self, folder: str | Path, start_step: int = 0, *, main: bool = True) -> None:
        self.folder = Path(folder)
        self._main = main
        if not main:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        metrics = self.folder / "metrics.jsonl"
        rows, damaged = read_rows(metrics)
        if metrics.exists():
            kept = [row for row in rows if row["step"] <= start_step and not row.get("partial")]
            write_atomic(metrics, "".join(json.dumps(row) + "\n" for row in kept))
        self._metrics = metrics.open("a", encoding="utf-8")
        self._text = (self.folder / "log.txt").open("a", encoding="utf-8")
        if damaged:
            self.say(f"Warning: {metrics} had {damaged} lines that are no rows: they are taken out.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._main:
            self._metrics.close()
            self._text.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row, which has a whole `step`, to metrics.jsonl and, in short, to log.txt; JSON has null for NaN."""
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

    def values(self, ranks: Ranks) -> dict[str, float]:
        """The mean of every name over steps and ranks since the last `pop`."""
        return {name: total / count for name, (total, count) in self.state(ranks).items()}

    def pop(self, ranks: Ranks) -> dict[str, float]:
        """The same, and begin anew."""
        values = self.values(ranks)
        self._sums, self._counts = {}, {}
        return values


def read_rows(file: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows of a metrics.jsonl, none if it is not there, and how many of its lines are no rows.

    A last line without its end does not count: a run that was killed leaves one.
    """
    whole, _, _ = file.read_bytes().rpartition(b"\n") if file.exists() else (b"", b"", b"")
    rows, damaged = [], 0
    for line in whole.split(b"\n") if whole else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and type(row.get("step")) is int:
            rows.append(row)
        else:
            damaged += 1
    return rows, damaged
