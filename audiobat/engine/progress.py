"""Progress of a phase on stderr: a bar on a terminal, else a plain line at most every ten seconds."""

from __future__ import annotations

import sys
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress

LINE_SECONDS = 10.0  # between two plain lines


class Progress:
    """Shows the name of a phase, how much of it is done, the rate and the time left.

    Use it as a context manager: `with Progress("embed", total=len(clips), unit="clip") as bar: ... bar.advance()`.
    `done` is where a resumed phase starts; `limit` is the number of seconds after which the phase ends whatever is
    done, if there is one: then what is shown as the end is what the rate so far will reach. `shown=False` shows nothing
    (every rank but the first).
    """

    def __init__(
        self,
        phase: str,
        total: int,
        unit: str = "step",
        *,
        done: int = 0,
        limit: float | None = None,
        shown: bool = True,
    ) -> None:
        self.phase, self.total, self.unit, self.done, self.limit = phase, total, unit, done, limit
        self._first = done
        self._note = ""
        self._shown = shown
        self._bar: RichProgress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        self._start = self._last_line = monotonic()
        if self._shown and sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
            self._bar = RichProgress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task(self.phase, total=self.total, completed=self.done, state=self._state())
            self._bar.start()
        elif self._shown:
            self._line(self._state())
        return self

    def skip(self, n: int) -> None:
        """Count `n` units that were done before: the rate is that of the others."""
        self.done += n
        self._first += n

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more units; a `note` (say, the loss) stays beside the rate until the next one."""
        self.done += n
        self._note = note or self._note
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, total=self._reach()[0], state=self._state())
        elif self._shown and monotonic() - self._last_line >= LINE_SECONDS:
            self._line(self._state())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        word = "finished" if error is None and self.done >= self.total else "stopped"
        state = f"{self.done}/{self.total} {self.unit}s, {word} after {duration(monotonic() - self._start)}"
        state += f", {self._note}" if self._note else ""
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, state=state)
            self._bar.stop()
        elif self._shown:
            self._line(state)

    def _line(self, state: str) -> None:
        self._last_line = monotonic()
        print(f"{self.phase}: {state}", file=sys.stderr, flush=True)

    def _state(self) -> str:
        """`120/400 steps, 3.1 steps/s, 1 min 30 s left, loss 0.5`; under a limit `120 of about 400 steps, ...`."""
        reach, rate, left = self._reach()
        ended_by_limit = reach < self.total
        parts = [f"{self.done}{' of about ' if ended_by_limit else '/'}{reach} {self.unit}s"]
        if rate > 0:
            parts += [f"{rate:.3g} {self.unit}s/s", f"{duration(left)} left"]
        return ", ".join([*parts, self._note] if self._note else parts)

    def _reach(self) -> tuple[int, float, float]:
        """How many units will be done when the phase ends, the units a second so far, and the seconds that are left."""
        elapsed, made = monotonic() - self._start, self.done - self._first
        if made <= 0 or elapsed <= 0:
            return self.total, 0.0, 0.0
        rate = made / elapsed
        left = max(0, self.total - self.done) / rate
        if self.limit is None or elapsed + left <= self.limit:
            return self.total, rate, left
        left = max(0.0, self.limit - elapsed)
        return min(self.total, self.done + round(rate * left)), rate, left


def duration(seconds: float) -> str:
    """Seconds in words, two units at most: `42 s`, `3 min 05 s`, `2 h 10 min`, `3 d 04 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"
