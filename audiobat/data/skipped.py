"""skipped.csv: which clips a run could not read, and why; complete also after a kill, and over all ranks."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from audiobat.data.csv_text import csv_text, unescape
from audiobat.engine.files import write_atomic
from audiobat.engine.ranks import Ranks

HEADER = ("path", "reason")


class SkippedList:
    """The list of a run that may be killed and resumed, and of all its ranks."""

    def __init__(self, path: Path, ranks: Ranks) -> None:
        self.path, self.ranks = path, ranks
        self.clips = read_skipped(path)  # key -> reason, of the parts of the run that came before

    def gather(self, found: Mapping[str, str]) -> None:
        """Add what each rank has `found`, key -> reason; every rank must call it at the same point.

        Called before each checkpoint, it keeps the list complete: what a killed run found later, the next one finds.
        """
        for part in self.ranks.gather(dict(found)):
            self.add(part)

    def add(self, found: Mapping[str, str]) -> None:
        """Add what this rank has found; rank 0 writes the list."""
        before = len(self.clips)
        self.clips |= found
        if len(self.clips) > before and self.ranks.is_main:
            write_skipped(self.path, self.clips)


def write_skipped(path: str | Path, skipped: Mapping[str, str], beside: Path | None = None) -> None:
    """Write a CSV (`path,reason`) of the clips left out, whole or not at all; `beside` is as for `write_atomic`."""
    write_atomic(path, csv_text([HEADER, *sorted(skipped.items())]), beside)


def read_skipped(path: Path) -> dict[str, str]:
    """What `write_skipped` wrote; nothing if it is not there, and without lines that are damaged."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        lines = (line.replace("\0", "") for line in file)
        rows = [(unescape(row[0]), unescape(row[1])) for row in csv.reader(lines) if len(row) == len(HEADER)]
    return dict(row for row in rows if row != HEADER)
