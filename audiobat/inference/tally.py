"""How far a pass has come over all ranks, and which clips cannot be read: what each rank adds is seen by all.

In: what a rank has done with each pool of windows. Out: sums over the ranks, the share that a free rank takes next, and
OUT.skipped.csv. No rank waits for another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from audiobat.data.clip_table import ClipTable
from audiobat.data.loader import check_any_readable
from audiobat.data.skipped import write_skipped
from audiobat.engine.ranks import Ranks

UNREADABLE = "unreadable"  # the store's entry of the clips that cannot be read: a line of JSON, [key, reason], each


class Tally:
    """Sums over all ranks, as far as this rank has heard of them.

    Attributes:
        clips: that are done, unreadable ones among them.
        windows: that were computed by this command.
        unreadable: key -> reason, of the clips that cannot be read.
    """

    def __init__(self, table: ClipTable, ranks: Ranks, skipped: Path) -> None:
        """`skipped` is the file that lists unreadable clips; an older one is removed. Every rank must be here."""
        self._table, self._skipped = table, skipped
        self._beside = None if ranks.is_main else skipped.with_name(f"{skipped.name}.{ranks.rank}.tmp")
        if ranks.is_main:
            skipped.unlink(missing_ok=True)
        self._store = ranks.shared()
        self.clips = self.windows = 0
        self.unreadable: dict[str, str] = {}

    def take(self) -> int:
        """The number of the next share that no rank has taken, from 0."""
        return int(self._store.add("taken", 1)) - 1

    def add(self, clips: int, windows: int, broken: Mapping[int, str]) -> None:
        """Count `clips` clips that are done and `windows` windows; `broken` are the unreadable ones, id to reason.

        Raises:
            AudiobatError: all clips are done, and none of them can be read.
        """
        for clip_id, reason in broken.items():
            line = json.dumps([self._table.keys[clip_id], reason]) + "\n"
            self._store.append(UNREADABLE, line)  # type: ignore[attr-defined]
        self.windows = self._store.add("windows", windows)
        self._store.add("broken", len(broken))
        self.clips = self._store.add("clips", clips)
        if self._store.add("broken", 0) > len(self.unreadable):  # counted when it is in the list, before its clip is
            lines = self._store.get(UNREADABLE).decode().splitlines()
            self.unreadable |= dict(map(json.loads, lines[len(self.unreadable) :]))
            write_skipped(self._skipped, self.unreadable, self._beside)
        if self.clips == len(self._table):
            check_any_readable(self.unreadable, len(self._table))
