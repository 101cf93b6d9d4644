"""Which recording a file of annotations belongs to by its name, and which one a row in it names by its path.

Raven calls the table of `a.wav` `a.Table.1.selections.txt`, BirdNET-Analyzer `a.BirdNET.selection.table.txt`, and
`audiobat predict` `a.wav.selections.txt`. Paths inside tables are those of the machine on which they were written.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from audiobat.errors import AudiobatError


class Recordings:
    """The recordings of a folder, found by what tables call them."""

    def __init__(self, folder: Path, keys: Sequence[str]) -> None:
        self.folder = folder
        self._by_name: dict[str, list[str]] = defaultdict(list)  # in lower case, with the ending and without
        for key in keys:
            name = key.rpartition("/")[2].lower()
            for known in {name, os.path.splitext(name)[0]}:
                self._by_name[known].append(key)

    def beside(self, table: str) -> str | None:
        """The recording whose name `table`, a path relative to the folder, begins with; None if there is none.

        One in the same folder comes first, and then the longest name.

        Raises:
            AudiobatError: several recordings have the name.
        """
        folder, _, name = table.rpartition("/")
        stems = list(_stems(name.lower()))
        for near in (True, False):
            for stem in stems:
                found = [key for key in self._by_name.get(stem, ()) if not near or key.rpartition("/")[0] == folder]
                if found:
                    return self._only(found, f"{self.folder / table} may belong to")
        return None

    def named(self, path: str, table: Path) -> str | None:
        """The recording that `path`, from a row of `table`, means: that of its name, and of its folders if several are.

        Raises:
            AudiobatError: several recordings have the name, and their folders do not tell which is meant.
        """
        parts = path.lower().split("/")
        found = self._by_name.get(parts[-1]) or self._by_name.get(os.path.splitext(parts[-1])[0], [])
        if len(found) > 1:
            shared = [_shared_end(key.lower().split("/")[:-1], parts[:-1]) for key in found]
            found = [key for key, count in zip(found, shared, strict=True) if count == max(shared)]
        return self._only(found, f"{table} names {path}, which may be") if found else None

    def _only(self, found: Iterable[str], what: str) -> str:
        first, *others = sorted(found)
        if others:
            raise AudiobatError(f"{what} {first} or {others[0]} in {self.folder}: give recordings names of their own.")
        return first


def _stems(name: str) -> Iterator[str]:
    """`a.wav.selections.txt` without its ending, without the last two, ..., the longest first."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _shared_end(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    while count < min(len(one), len(other)) and one[-1 - count] == other[-1 - count]:
        count += 1
    return count
