"""The audio of a table's rows, and clips written from it.

In: a table of embeddings, which says where its recordings are. Out: samples, WAV files.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path, PurePath

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiobat.data.clip import open_clip
from audiobat.data.clip_table import ClipTable
from audiobat.data.embeddings import EmbeddingTable
from audiobat.errors import AudiobatError
from audiobat.inference.window_pass import list_clips

NAME_LETTERS = 60  # of a recording's name in that of a clip


class Recordings:
    """The recordings of a table, found where they were embedded or, if they have moved since, in `data`."""

    def __init__(self, table: EmbeddingTable, data: str | Path | None = None) -> None:
        self._table, self._data = table, data

    @cached_property
    def clips(self) -> ClipTable:
        """The clips that were embedded.

        Raises:
            AudiobatError: the table does not say where they are, or they are not there.
        """
        data = self._data if self._data is not None else self._table.meta.get("data")
        if data is None:
            raise AudiobatError(f"{self._table.source} does not say where its recordings are: give --data.")
        try:
            return list_clips(data)
        except AudiobatError as error:
            if self._data is not None:
                raise
            raise AudiobatError(f"The recordings of {self._table.source} are gone ({error}) Give --data.") from None

    @cached_property
    def _clip_ids(self) -> dict[str, int]:
        return {key: clip_id for clip_id, key in enumerate(self.clips.keys)}

    def clip_id(self, path: str) -> int:
        """The clip of a recording that the table calls `path`."""
        if path not in self._clip_ids:
            where = self._data if self._data is not None else self._table.meta.get("data")
            raise AudiobatError(f"{where} holds no {path}, which {self._table.source} lists: give another --data.")
        return self._clip_ids[path]

    def read(self, path: str, start: float, end: float, rate: int | None = None) -> tuple[NDArray[np.float32], int]:
        """Samples [S] of a recording between two times in seconds, and their rate: `rate`, or the recording's own."""
        with open_clip(self.clips, self.clip_id(path)) as clip:
            rate = clip.rate if rate is None else rate
            return clip.read(rate, max(0.0, start), end - max(0.0, start)), rate

    def write_clip(self, file: Path, path: str, start: float, end: float) -> None:
        """Write a part of a recording as a WAV file of 16 bits at the recording's rate."""
        samples, rate = self.read(path, start, end)
        soundfile.write(file, samples, rate, "PCM_16", format="WAV")


def clip_name(number: int, path: str, start: float, *words: str) -> str:
    """`003 0.91 night-4 12.5s.wav`: a file name that sorts by number and says where a clip is from."""
    stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in PurePath(path).stem)[:NAME_LETTERS]
    return " ".join([f"{number:03d}", *words, stem, f"{start:g}s.wav"])
