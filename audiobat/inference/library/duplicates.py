"""`audiobat duplicates`: which recordings of a library are copies of one another, whole or in part.

In: a table that `embed` wrote, and the recordings. Out: pairs of recordings, where they match, and how well.

A high cosine is no proof: recordings of one machine or one bird come as near as copies do, and a copy with noise does
not. So the table only proposes pairs, in an order, and their audio decides. Proposed are the nearest rows of every row
in other recordings, first those that are near for their surroundings: the distance is divided by the mean distances of
both rows to their neighbours. The audio of two rows is moved along one another (`alignment`). What counts as a match is
calibrated on the library: the limit lies three quarters of the way from the correlation that 19 of 20 pairs of
mere neighbours stay below to 1. Pairs are listened to until hardly any match.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiobat.data.csv_text import write_csv
from audiobat.engine.files import replacing
from audiobat.engine.progress import Progress
from audiobat.errors import AudiobatError, counted
from audiobat.inference.library.alignment import Alignment, align
from audiobat.inference.library.neighbours import nearest_rows
from audiobat.inference.library.recordings import Recordings
from audiobat.inference.library.vectors import Ids, Library, open_library

NEIGHBOURS = 10  # of each row, that are proposed
BLOCK_PAIRS = 500  # after so many pairs the share of matches is looked at
FEW = 0.01  # share of matches in a block with which listening ends
MERE = 400  # pairs of mere neighbours, for the limit
MOST_BELOW = 95  # percent of them stay below what the limit is reckoned from
WAY = 0.75  # from there to 1, the limit
RATE = 16_000  # Hz at which stretches are compared, where the table does not say its model's
HELD = 64  # stretches in memory


class Duplicate(NamedTuple):
    """Two recordings that hold the same sound; the fields are the columns of the table."""

    file: str
    start: float  # seconds, of what was compared and matches
    end: float
    copy: str
    copy_start: float
    copy_end: float
    seconds: float  # of the whole recording, as far as it was embedded
    copy_seconds: float
    correlation: float  # 0 to 1
    cosine: float


def duplicates(
    index: str | Path,
    *,
    out: str | Path | None = None,
    data: str | Path | None = None,
    overwrite: bool = False,
) -> list[Duplicate]:
    """Find recordings of a library that are copies of one another, whole or in part; returns pairs, the surest first.

    Copies may be encoded anew, softer, noisy, trimmed or begin earlier, but not be faster or of another pitch.

    Args:
        index: the table that `audiobat embed` wrote: .npz, .parquet or .csv.
        out: a CSV of the pairs; None: they are printed.
        data: where the recordings of `index` are; None: where they were embedded.
        overwrite: replace `out` if it exists, which is an error otherwise.

    Raises:
        AudiobatError: a table or recordings that cannot be read; `out` exists.
    """
    out = None if out is None else Path(out)
    if out is not None and out.suffix.lower() != ".csv":
        raise AudiobatError(f"--out {out} ends in {out.suffix or 'nothing'}: name a .csv.")
    if out is not None and out.exists() and not overwrite:
        raise AudiobatError(f"{out} exists: choose another --out, or replace it with --overwrite.")
    library = open_library(index)
    recordings = Recordings(library.table, data)
    recordings.clip_id(str(library.table.paths[0]))  # are they there at all?
    found = find(library, recordings)
    if out is None:
        for pair in found:
            places = f"{pair.file} from {pair.start:.2f} s  =  {pair.copy} from {pair.copy_start:.2f} s"
            print(f"{pair.correlation:.3f}  {places}")
        if not found:
            print("No recording holds the same sound as another one.")
    else:
        with replacing(out) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            write_csv(file, [Duplicate._fields, *found])
        print(f"{out}: {counted(len(found), 'pair')} of recordings that hold the same sound")
    return found


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of rows of different recordings, each pair of recordings once."""

    first: Ids  # [P]
    second: Ids  # [P]
    cosines: NDArray[np.float32]  # [P]


def find(library: Library, recordings: Recordings) -> list[Duplicate]:
    """The pairs whose audio matches, the surest first."""
    ids, cosines = nearest_rows(library, NEIGHBOURS, "compare embeddings", other_recordings=True)
    ear = Ear(library, recordings)
    mere = mere_neighbours(library, ids, cosines)
    heard: list[Alignment] = []
    matches: list[Duplicate] = []
    pairs = propose(library, ids, cosines)
    with Progress("compare audio", total=len(mere.first) + len(pairs.first), unit="pair") as bar:
        for first, second in zip(mere.first.tolist(), mere.second.tolist(), strict=True):
            heard.append(ear.align(first, second))
            bar.advance()
        limit = matching(np.array([alignment.correlation for alignment in heard]))
        since = 0
        for number, (first, second, cosine) in enumerate(rows_of(pairs), start=1):
            alignment = ear.align(first, second)
            if alignment.correlation >= limit:
                matches.append(ear.duplicate(first, second, alignment, cosine))
                since += 1
            bar.advance(1, f"{len(matches)} match")
            if number % BLOCK_PAIRS == 0:
                if since < FEW * BLOCK_PAIRS:
                    bar.advance(0, f"{len(matches)} match, hardly any of the last {BLOCK_PAIRS}: the rest is left out")
                    break
                since = 0
    if ear.broken:
        broken = counted(len(ear.broken), "recording")
        warnings.warn(f"{broken} cannot be read, such as {min(ear.broken)}.", stacklevel=3)
    return sorted(matches, key=lambda pair: (-pair.correlation, pair.file, pair.copy))


def rows_of(pairs: Pairs) -> Iterator[tuple[int, int, float]]:
    """First row, second row and cosine of each pair."""
    return zip(pairs.first.tolist(), pairs.second.tolist(), pairs.cosines.tolist(), strict=True)


def propose(library: Library, ids: Ids, cosines: NDArray[np.float32]) -> Pairs:
    """Neighbours as pairs, first those that are near for their surroundings; of two recordings the first pair alone."""
    rows, count = ids.shape
    valid = cosines > -2
    distance = np.sqrt(np.maximum(1e-6, 1 - np.where(valid, cosines, np.nan).clip(-1, 1)))  # of rows, up to a factor
    usual = np.nanmean(np.where(valid.any(1, keepdims=True), distance, 2.0), 1)  # [R] from a row to its neighbours
    first, second = np.repeat(np.arange(rows), count)[valid.ravel()], ids[valid]
    near = distance[valid] ** 2 / (usual[first] * usual[second])
    recordings = np.unique(library.table.paths, return_inverse=True)[1]
    order = np.argsort(near, kind="stable")
    first, second = first[order], second[order]
    a, b = recordings[first], recordings[second]
    _, once = np.unique(
        np.minimum(a, b).astype(np.int64) * (recordings.max() + 1) + np.maximum(a, b), return_index=True
    )
    once.sort()
    return Pairs(np.minimum(first, second)[once], np.maximum(first, second)[once], cosines[valid][order][once])


def mere_neighbours(library: Library, ids: Ids, cosines: NDArray[np.float32]) -> Pairs:
    """Pairs that are alike, but hardly copies: rows all over the library, each with the last of its neighbours.

    Of another recording than the nearest neighbour's: that one may well be a copy.
    """
    recordings = np.unique(library.table.paths, return_inverse=True)[1]
    mere = (cosines > -2) & (recordings[ids] != recordings[ids[:, :1]])  # [R, K]
    rows = np.flatnonzero(mere.any(1))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(MERE, len(rows))).astype(np.int64))]
    last = ids.shape[1] - 1 - mere[rows, ::-1].argmax(1)
    return Pairs(rows, ids[rows, last], cosines[rows, last])


def matching(mere: NDArray[np.float64]) -> float:
    """The correlation from which on a pair matches, by those of mere neighbours."""
    usual = float(np.percentile(mere, MOST_BELOW)) if len(mere) else 0.0
    return usual + WAY * (1 - usual)


class Ear:
    """Listens to rows: reads their audio, and compares two.

    Attributes:
        broken: recordings that cannot be read; they match nothing.
    """

    def __init__(self, library: Library, recordings: Recordings) -> None:
        self._table, self._recordings = library.table, recordings
        self._rate = int(self._table.meta.get("sample_rate", RATE))
        self.broken: set[str] = set()
        self._read = functools.lru_cache(HELD)(self._stretch)
        names, inverse = np.unique(self._table.paths, return_inverse=True)
        ends = np.zeros(len(names))
        np.maximum.at(ends, inverse, self._table.ends)
        self._seconds = ends[inverse]  # [R] of the recording

    def _begin(self, row: int) -> float:
        """Where the stretch around a row begins: half a row earlier, as windows of copies lie elsewhere."""
        return max(0.0, float(self._table.starts[row]) - self._margin(row))

    def _margin(self, row: int) -> float:
        return max(1.0, float(self._table.ends[row] - self._table.starts[row]) / 2)

    def _stretch(self, row: int) -> NDArray[np.float32]:
        end = min(float(self._seconds[row]), float(self._table.ends[row]) + self._margin(row))
        path = str(self._table.paths[row])
        try:
            return self._recordings.read(path, self._begin(row), end, self._rate)[0]
        except AudiobatError:
            self.broken.add(path)
            return np.zeros(1, np.float32)  # matches nothing

    def align(self, first: int, second: int) -> Alignment:
        """How well the audio around two rows matches."""
        return align(self._read(first), self._read(second), self._rate)

    def duplicate(self, first: int, second: int, alignment: Alignment, cosine: float) -> Duplicate:
        """The line of two rows that match."""
        shift = alignment.shift / self._rate
        start, copy_start = self._begin(first) + max(0.0, shift), self._begin(second) + max(0.0, -shift)
        lengths = (len(self._read(row)) / self._rate for row in (first, second))
        left = min(
            length - skipped for length, skipped in zip(lengths, (max(0.0, shift), max(0.0, -shift)), strict=True)
        )
        return Duplicate(
            str(self._table.paths[first]),
            *(round(start, 4), round(start + left, 4)),
            str(self._table.paths[second]),
            *(round(copy_start, 4), round(copy_start + left, 4)),
            *(float(self._seconds[first]), float(self._seconds[second])),
            *(round(alignment.correlation, 4), round(cosine, 4)),
        )
