"""Bytes of a recording at any place, and a file put together from spans of it, with other bytes between them.

In: an open file. Out: `RawFile` for those who look into it, `View` for libsndfile.
"""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SEARCHED = 1 << 20  # bytes searched at once
# Where a file is looked at for whether it is one recording, whose numbers ascend: with more places near its ends, since
# the shorter of two recordings may be there.
SAMPLED = (0.0, 0.01, 0.03, 0.1, 0.23, 0.38, 0.52, 0.69, 0.83, 0.91, 0.97, 0.99)


class RawFile:
    """The bytes of a file, or of its part from `begin` to `end`, at any place; places count from `begin`."""

    def __init__(self, source: Any, begin: int = 0, end: int | None = None) -> None:
        """`source` is an open file whose `seek` does not raise, such as a CalmFile."""
        self._source = source
        if end is None:
            end = max(0, source.seek(0, os.SEEK_END))
        self.begin, self.size = begin, max(0, end - begin)

    def at(self, place: int, count: int) -> bytes:
        """`count` bytes from `place` on; fewer where the file ends."""
        count = min(count, self.size - place)
        if place < 0 or count <= 0:
            return b""
        if self._source.seek(self.begin + place) < 0:
            return b""
        return bytes(self._source.read(count))

    def part(self, begin: int, end: int | None = None) -> RawFile:
        """The part from `begin` on, to `end` (None: to the end)."""
        return RawFile(self._source, self.begin + begin, self.begin + (self.size if end is None else end))

    def find_all(self, wanted: bytes, first: int = 0) -> Iterator[int]:
        """Every place from `first` on at which the bytes `wanted` stand."""
        for start in range(first, self.size, SEARCHED):
            data = self.at(start, SEARCHED + len(wanted) - 1)
            found = data.find(wanted)
            while found >= 0:
                yield start + found
                found = data.find(wanted, found + 1)


@dataclass(frozen=True)
class Span:
    """`size` bytes of a view: those of the file from `begin` on, or `data`, or zeros."""

    size: int
    begin: int | None = None
    data: bytes | None = None


class View:
    """A file that can be read and sought, made of spans of another one."""

    def __init__(self, file: RawFile, spans: Sequence[Span]) -> None:
        self._file, self._spans = file, spans
        self._ends = list(itertools.accumulate(span.size for span in spans))
        self._position = 0

    @property
    def size(self) -> int:
        """Bytes of all spans."""
        return self._ends[-1] if self._ends else 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move as a file does; -1 where that place does not exist."""
        place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if place < 0:
            return -1
        self._position = place
        return place

    def tell(self) -> int:
        """The place of the next byte."""
        return self._position

    def read(self, count: int = -1) -> bytes:
        """The next `count` bytes (-1: all); fewer at the end."""
        left = self.size - self._position if count < 0 else min(count, self.size - self._position)
        pieces = []
        while left > 0:
            number = bisect.bisect_right(self._ends, self._position)
            span = self._spans[number]
            skip = self._position - (self._ends[number] - span.size)
            size = min(left, span.size - skip)
            if span.data is not None:
                piece = span.data[skip : skip + size]
            else:
                piece = bytes(size) if span.begin is None else self._file.at(span.begin + skip, size)
            pieces.append(piece)
            self._position += len(piece)
            left -= len(piece)
            if len(piece) < size:  # the file has become shorter
                break
        return b"".join(pieces)


@dataclass(frozen=True)
class Found:
    """A recording at the beginning of a file, as libsndfile is to be given it."""

    spans: tuple[Span, ...] | None = None  # None: the bytes as they are
    behind: int | None = None  # byte at which another recording begins; None: there is no other
    odd: str = ""  # what is wrong with its header, for the user; empty: nothing
    length: int | None = None  # samples, where libsndfile does not know
    last_page: int = 0  # samples at the end to which libsndfile does not find exactly


def patched(size: int, *patches: tuple[int, bytes]) -> tuple[Span, ...]:
    """The first `size` bytes of a file, with other bytes at some places, which ascend."""
    spans, place = [], 0
    for at, data in patches:
        spans += [Span(at - place, place), Span(len(data), data=data)]
        place = at + len(data)
    return (*spans, Span(max(0, size - place), place))


def tags_end(file: RawFile) -> int:
    """The byte behind the ID3 tags with which a file begins."""
    place = 0
    while (head := file.at(place, 10))[:3] == b"ID3" and len(head) == 10:
        size = 0
        for byte in head[6:]:
            size = size << 7 | byte & 0x7F
        place += 10 + size + (10 if head[5] & 16 else 0)
    return place


def tags_begin(file: RawFile) -> int:
    """The byte behind the frames: the file's end, or where the tags of ID3, APE or Lyrics3 begin behind them."""
    end = file.size
    if file.at(end - 128, 3) == b"TAG":
        end -= 128
    if file.at(end - 9, 9) == b"LYRICS200":
        digits = file.at(end - 15, 6)
        end -= 15 + int(digits) if digits.isdigit() else 0
    ape = file.at(end - 32, 32)
    if ape[:8] == b"APETAGEX":
        end -= int.from_bytes(ape[12:16], "little") + (32 if ape[23] & 0x80 else 0)
    return max(0, end)
