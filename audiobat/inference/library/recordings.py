"""The audio of a table's rows, and clips written from it.

In: a table of embeddings, which says where its recordings are. Out: samples, WAV and MP3 files.
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
from audiobat.data.sources.read import read_labelled_clips
from audiobat.errors import AudiobatError
from audiobat.finetuning.window_labels import labels_of
from audiobat.inference.window_pass import list_clips

MP3_RATES = (16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # Hz
MP3_RATE = 44_100  # of clips of any other rate
NAME_LETTERS = 60  # of a recording's name in that of a clip


class Recordings:
    """The recordings of a table, found where they were embedded or, if they have moved since, in `data`."""

    def __init__(self, table: EmbeddingTable, data: str | Path | None = None) -> None:
        self._table, self._data = table, data

    def _where(self) -> str:
        where = self._table.meta.get("data") if self._data is None else self._data
        if where is None:
            raise AudiobatError(f"{self._table.source} does not say where its recordings are: give --data.")
        return str(where)

    @cached_property
    def clips(self) -> ClipTable:
        """The clips that were embedded.

        Raises:
            AudiobatError: the table does not say where they are, or they are not there.
        """
        where = self._where()
        try:
            return list_clips(where)
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
            raise AudiobatError(
                f"{self._where()} holds no {path}, which {self._table.source} lists: give another --data."
            )
        return self._clip_ids[path]

    def rate(self, path: str, default: int) -> int:
        """The sample rate of a recording, Hz; `default` where it cannot be read."""
        try:
            with open_clip(self.clips, self.clip_id(path)) as clip:
                return clip.rate
        except AudiobatError:
            return default

    def labels(self) -> list[str | None]:
        """The labels of each row [R], several joined by `;`; None: it has none.

        Where the labels of a recording have times, a row has those that `finetune --features` would teach it.
        """
        names: list[str | None] = [None] * len(self._table)
        try:
            clips = read_labelled_clips(self._where())
        except AudiobatError:  # a source of no labels
            return names
        rows_of: dict[str, list[int]] = {}
        for row, path in enumerate(self._table.paths.tolist()):
            rows_of.setdefault(path, []).append(row)
        for clip_id, key in enumerate(clips.keys):
            rows = rows_of.get(key, [])
            spans = self._table.starts[rows], self._table.ends[rows]
            for row, labels in zip(rows, labels_of(clips, clip_id, *spans), strict=True):
                names[row] = ";".join(sorted(labels)) or None
        return names

    def read(self, path: str, start: float, end: float, rate: int | None = None) -> tuple[NDArray[np.float32], int]:
        """Samples [S] of a recording between two times in seconds, and their rate: `rate`, or the recording's own."""
        with open_clip(self.clips, self.clip_id(path)) as clip:
            rate = clip.rate if rate is None else rate
            return clip.read(rate, max(0.0, start), end - max(0.0, start)), rate

    def write_clip(self, file: Path, path: str, start: float, end: float) -> None:
        """Write a part of a recording: a .wav of 16 bits at the recording's rate, or an .mp3, which browsers play."""
        with open_clip(self.clips, self.clip_id(path)) as clip:
            mp3 = file.suffix == ".mp3"
            rate = MP3_RATE if mp3 and clip.rate not in MP3_RATES else clip.rate
            samples = clip.read(rate, start, end - start)
        soundfile.write(file, samples, rate, format="MP3" if mp3 else "WAV", subtype=None if mp3 else "PCM_16")


def clip_name(number: int, path: str, start: float, *words: str) -> str:
    """`003 0.91 night-4 12.5s.wav`: a file name that sorts by number and says where a clip is from."""
    stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in PurePath(path).stem)[:NAME_LETTERS]
    return " ".join([f"{number:03d}", *words, stem, f"{start:g}s.wav"])
