"""The rows of a table of embeddings as unit vectors around their mean, and which of them are nearest to others.

In: a table [R, D]. Out: ids and cosines of the nearest rows. Some coordinates of an encoder are large for every sound;
without the mean, cosines tell what is special about a sound.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiobat.data.embeddings import EmbeddingTable, read_embeddings
from audiobat.errors import AudiobatError, counted

BLOCK_ROWS = 16384  # compared at once
ROUNDING = 1e-6  # of the mean's length: a row that is no farther from it has no direction

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Library:
    """R rows and their unit vectors.

    Attributes:
        table: where each row lies; its vectors are the unit vectors [R, D], and rows that match nothing are zeros.
        mean: [D] of the rows as `embed` wrote them.
    """

    table: EmbeddingTable
    mean: Vectors

    def __len__(self) -> int:
        return len(self.table)

    @property
    def rows(self) -> Vectors:
        """Unit vectors [R, D]."""
        return self.table.vectors

    def unit(self, vectors: Vectors) -> Vectors:
        """Vectors [Q, D] of the same model as unit vectors around the mean of the table."""
        return scaled(vectors - self.mean)

    def cosines(self, queries: Vectors, count: int) -> Vectors:
        """[R] of each row with the nearest of `queries` [Q, D], which are unit vectors; -inf where a row is zeros.

        Of how many rows the cosine must be right, `count`, matters to libraries that do not look at all of them.
        """
        best = np.empty(len(self), np.float32)
        for at in blocks(len(self)):
            rows = self.rows[at]
            best[at] = np.where(rows.any(1), (rows @ queries.T).max(1), -np.inf)
        return best


def open_library(index: str | Path) -> Library:
    """The library of a table that `audiobat embed` wrote.

    Raises:
        AudiobatError: as for `read_embeddings`; fewer than two rows.
    """
    table = read_embeddings(index)
    if len(table) < 2:
        rows = counted(len(table), "row")
        raise AudiobatError(f"{index} holds {rows}: embed more recordings, there is nothing to compare.")
    silent = ~table.vectors.any(1)  # no encoder makes such a row: something else filled it in
    if silent.any():
        zeros = counted(int(silent.sum()), "row")
        warnings.warn(f"{index} holds {zeros} of zeros: left out, as zeros match nothing.", stacklevel=2)
    if silent.all():
        raise AudiobatError(f"{index} holds nothing but zeros: make it anew with `audiobat embed`.")
    mean = table.vectors[~silent].mean(0, dtype=np.float64).astype(np.float32)
    for at in blocks(len(table)):  # in place: a second copy would double the memory
        table.vectors[at] = scaled(table.vectors[at] - mean, ROUNDING * float(np.linalg.norm(mean)))
    table.vectors[silent] = 0
    if not table.vectors.any():
        raise AudiobatError(f"{index} holds the same vector in every row: there is nothing to compare.")
    return Library(table, mean)


def scaled(vectors: Vectors, least: float = 0.0) -> Vectors:
    """Vectors [Q, D] of length 1; those of length `least` and less become 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > least)
    return scaled


def blocks(rows: int, size: int | None = None) -> Iterator[slice]:
    """Slices of `size` rows, BLOCK_ROWS unless given, that together cover `rows` rows."""
    size = BLOCK_ROWS if size is None else size
    return (slice(at, min(at + size, rows)) for at in range(0, rows, size))


def nearest_first(scores: NDArray[Any]) -> Ids:
    """The places of scores, the highest first; of equal ones the first."""
    return np.argsort(-scores, kind="stable")
