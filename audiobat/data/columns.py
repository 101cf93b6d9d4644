"""Columns of a clip table that memory-map from disk: lists of numbers of any length, and text.

Two flat arrays in place of millions of Python objects: opening costs nothing, and processes share the pages.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tokenize import TokenError
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

CHUNK = 1 << 16  # lists gathered at once, so that `take` needs little memory beside its result

R = TypeVar("R", bound="Ragged")


@dataclass(frozen=True, eq=False)
class Ragged:
    """n lists of numbers (or of records); list i is values[offsets[i] : offsets[i + 1]]."""

    offsets: NDArray[np.integer[Any]]  # [n + 1], from 0 to len(values)
    values: NDArray[Any]

    @classmethod
    def of(cls, lists: Sequence[Sequence[Any]], dtype: DTypeLike) -> Ragged:
        """Lists of Python values as one column."""
        lengths = np.fromiter((len(part) for part in lists), np.int64, len(lists))
        flat = [value for part in lists for value in part]
        return Ragged(_ends(lengths), np.array(flat, dtype))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, (type(self), pack(self.offsets), pack(self.values))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of each list, [n]."""
        return np.diff(self.offsets).astype(np.int64)

    def row(self, index: int) -> NDArray[Any]:
        """List `index`."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def take(self, indices: NDArray[np.int64]) -> Self:
        """The lists at `indices`, in that order."""
        starts, lengths = self.offsets[:-1][indices].astype(np.int64), self.lengths[indices]
        offsets = _ends(lengths)
        values = np.empty(offsets[-1], self.values.dtype)
        for at in range(0, len(indices), CHUNK):
            count = lengths[at : at + CHUNK]
            first, last = offsets[at], offsets[at + len(count)]
            shift = np.repeat(starts[at : at + CHUNK] - offsets[at : at + len(count)], count)
            values[first:last] = self.values[shift + np.arange(first, last)]
        return type(self)(offsets, values)


class Strings(Ragged):
    """n texts: lists of UTF-8 bytes. Indexing and iterating give `str`."""

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> Strings:
        """Texts as one column."""
        encoded = [text.encode() for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return cls(_ends(lengths), np.frombuffer(b"".join(encoded), np.uint8))

    def __getitem__(self, index: int) -> str:
        data: bytes = self.row(range(len(self))[index]).tobytes()
        return data.decode()

    def __iter__(self) -> Iterator[str]:
        for at in range(0, len(self), CHUNK):
            offsets = self.offsets[at : at + CHUNK + 1].tolist()
            data = self.values[offsets[0] : offsets[-1]].tobytes()
            for start, end in pairwise(offsets):
                yield data[start - offsets[0] : end - offsets[0]].decode()

    def tolist(self) -> list[str]:
        """All texts."""
        return list(self)


def join_ragged(parts: Sequence[R]) -> R:
    """Columns one after another."""
    ends = np.cumsum([0, *(part.offsets[-1] for part in parts)])
    offsets = [part.offsets[:-1] + end for part, end in zip(parts, ends[:-1], strict=True)]
    values = np.concatenate([part.values for part in parts])
    return type(parts[0])(np.concatenate([*offsets, ends[-1:]]).astype(np.int64), values)


def narrow(array: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the smallest type that holds them, so that large tables stay in the page cache."""
    if array.dtype.kind not in "iu" or not array.size or array.min() < 0:
        return array
    return array.astype(np.min_scalar_type(int(array.max())))


def map_array(path: str) -> NDArray[Any]:
    """Map a .npy file into memory, read-only, or read an empty one, which cannot be mapped; a ValueError if damaged."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        array = np.load(path, allow_pickle=False)
        if array.size:
            raise
    except (EOFError, TokenError) as error:  # a file of no bytes; a header that is no Python
        raise ValueError(f"{path} is damaged") from error
    return array


def pack(value: Any) -> Any:
    """A value as it is pickled: an array that is a whole mapped file goes to another process as the file's Path."""
    whole = isinstance(value, np.memmap) and isinstance(value.base, mmap.mmap)
    return Path(str(value.filename)) if whole else value


def unpack(packed: Any) -> Any:
    """The value again."""
    return map_array(str(packed)) if isinstance(packed, Path) else packed


def _unpack(kind: type[Ragged], offsets: Any, values: Any) -> Any:
    return kind(unpack(offsets), unpack(values))


def _ends(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Offsets [n + 1] of lists of these lengths [n]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
