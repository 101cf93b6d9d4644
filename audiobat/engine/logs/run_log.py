"""The log of a run: rows of numbers in metrics.jsonl and in its sinks, sentences in log.txt and on the terminal."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from audiobat.engine.files import write_atomic
from audiobat.engine.logs.sinks import SINKS, Row, Sink, numbers_of


class RunLog:
    """The log of one run folder, continued at `start_step`; only the main rank writes.

    Dropped from metrics.jsonl are rows beyond `start_step`, as the run does those steps again; the partial row of a run
    that was stopped in the middle of it, as it goes on in the next one; and lines that are no rows, such as one that a
    kill cut off.

    Args:
        folder: of the run.
        start_step: the steps that are done.
        main: whether this is the main rank.
        sinks: programs that get the rows, too, keys of `SINKS`; one that fails is told once, and then left out.
        config: of the run, as plain values, for sinks that show it.
    """

    def __init__(
        self,
        folder: str | Path,
        start_step: int = 0,
        *,
        main: bool = True,
        sinks: Sequence[str] = (),
        config: Row | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._main = main
        self._sinks: dict[str, Sink] = {}
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
        before = [numbers_of(row) for row in rows if not row.get("partial")]
        for name in sinks:
            with self._tolerant(name):
                self._sinks[name] = SINKS[name](self.folder, start_step, config or {}, before)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._main:
            for name in list(self._sinks):
                with self._tolerant(name):
                    self._sinks[name].close(failed=kind is not None)
            self._metrics.close()
            self._text.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row, which has a whole `step`, to metrics.jsonl, to sinks and, in short, to log.txt; NaN is null."""
        if not self._main:
            return
        clean = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}
        print(json.dumps(clean), file=self._metrics, flush=True)
        short = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()}
        self._stamp("  ".join(f"{name} {value}" for name, value in short.items()))
        for name in list(self._sinks) if not row.get("partial") else ():  # a partial row goes on in the next run
            with self._tolerant(name):
                self._sinks[name].write(numbers_of(clean))

    def say(self, sentence: str) -> None:
        """Append a sentence to log.txt and show it on the terminal."""
        if self._main:
            self._stamp(sentence)
            print(sentence, file=sys.stderr, flush=True)

    def note(self, sentence: str) -> None:
        """Append a sentence to log.txt alone."""
        if self._main:
            self._stamp(sentence)

    @contextmanager
    def _tolerant(self, sink: str) -> Iterator[None]:
        """Leave out a sink that fails in this block: no drawing is worth a run."""
        try:
            yield
        except Exception as error:
            self._sinks.pop(sink, None)
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(". ")
            self.say(f"Warning: {sink} fails ({reason}): the run goes on without it, and metrics.jsonl has every row.")

    def _stamp(self, text: str) -> None:
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=self._text, flush=True)


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
