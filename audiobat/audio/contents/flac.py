"""FLAC: whether its header's count is right, and whether other recordings follow it in the file.

In: a file that begins with `fLaC`. Out: the file with no count in its header, where its last frame ends behind the
count, so that libsndfile reads to the end; and where the next recording begins. Frames carry the number of their first
sample, and checksums (RFC 9639, Section 9).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from audiobat.audio.contents.raw import SAMPLED, Found, RawFile, Span, tags_begin, tags_end

MAGIC = b"fLaC"
NEXT = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # with the header of STREAMINFO, its first block
COUNT = slice(21, 26)  # bytes that hold the number of samples, in their last 36 bits
HEADER = 16  # bytes of a frame's header, at most
SYNC = re.compile(b"\xff[\xf8\xf9]")
WINDOW, MAX_WINDOW = 1 << 15, 1 << 20  # bytes in which a frame begins, where the header does not say; and at most
MAX_BLOCKS = 1000  # of metadata
TRIED = 4  # frame headers whose frames' checksums are computed
BLOCKS = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)}, **{code: 256 << code - 8 for code in range(8, 16)}}


def table(bits: int, polynomial: int) -> list[int]:
    """The remainders of all bytes, for a checksum that is computed byte by byte."""
    top, mask = 1 << bits - 1, (1 << bits) - 1
    remainders = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
        remainders.append(value)
    return remainders


CRC8, CRC16 = table(8, 0x07), table(16, 0x8005)


class Frame(NamedTuple):
    """A frame's header."""

    place: int  # its first byte
    first: int  # its first sample
    end: int  # the sample behind its last one


class _Stream:
    """The frames of the recording with which the file begins."""

    def __init__(self, file: RawFile) -> None:
        self._file = file
        head = file.at(0, 42)
        self.samples = int.from_bytes(head[COUNT], "big") & (1 << 36) - 1  # 0: not known
        self._block = int.from_bytes(head[10:12], "big")  # samples of a frame where all have the same
        largest = int.from_bytes(head[15:18], "big")  # frame, in bytes; 0: not known
        self.begin = _metadata_end(file)
        self.window = min(largest + HEADER, MAX_WINDOW) if largest else WINDOW

    def frames(self, place: int, count: int, backwards: bool = False) -> Iterator[Frame]:
        """Frames that begin within `count` bytes from `place` on, known by the checksums of their headers."""
        data = self._file.at(place, count + HEADER)
        places = (found.start() for found in SYNC.finditer(data))
        for at in reversed(list(places)) if backwards else places:
            frame = self._frame(place + at, data[at : at + HEADER])
            if frame is not None:
                yield frame

    def _frame(self, place: int, head: bytes) -> Frame | None:
        """The frame whose header these bytes begin with; None: this is no header."""
        if len(head) < HEADER or head[2] >> 4 == 0 or head[2] & 15 == 15 or head[3] & 1:
            return None
        ones = 8 - (head[4] ^ 0xFF).bit_length()  # the number is written as UTF-8 writes a letter's
        if ones in (1, 8):
            return None
        at = 5 + max(0, ones - 1)
        number = head[4] & 0x7F >> ones
        for byte in head[5:at]:
            number = number << 6 | byte & 0x3F
        code, size = head[2] >> 4, {6: 1, 7: 2}.get(head[2] >> 4, 0)  # bytes that tell the frame's length
        length = int.from_bytes(head[at : at + size], "big") + 1 if size else BLOCKS[code]
        at += size + {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)  # bytes that tell the sample rate
        if crc(head[:at], CRC8, 8) != head[at]:
            return None
        first = number * self._block if head[1] == 0xF8 else number
        return Frame(place, first, first + length)


def look_at_flac(file: RawFile, joined: bool) -> Found:
    """What a FLAC file is; `joined`: it is part of a file that holds several recordings."""
    begin = tags_end(file)
    stream = _Stream(file.part(begin))
    behind = None
    if joined or not _in_order(file.part(begin), stream):
        behind = next((place for place in file.find_all(MAGIC, begin + 4) if NEXT.match(file.at(place, 8))), None)
    end = tags_begin(file.part(0, behind))
    own = file.part(begin, end)
    if not stream.samples:  # all is decoded once, and tags behind it are no frames
        return Found(None if end == file.size else (Span(end - begin, begin),), behind)
    last = []
    for frame in stream.frames(max(0, own.size - stream.window), stream.window, backwards=True):
        if frame.end == stream.samples:
            return Found(behind=behind)
        last.append(frame)
    for frame in last[:TRIED]:
        if frame.end > stream.samples and not crc(own.at(frame.place, MAX_WINDOW), CRC16, 16):
            no_count = (int.from_bytes(own.at(COUNT.start, 5), "big") >> 36 << 36).to_bytes(5, "big")
            spans = (Span(COUNT.start, begin), Span(5, data=no_count), Span(own.size - COUNT.stop, begin + COUNT.stop))
            return Found(spans, behind, "its header counts too few samples")
    return Found(behind=behind)


def _in_order(file: RawFile, stream: _Stream) -> bool:
    """Whether frames found all over the file follow one another as those of one recording do."""
    before = None
    for share in SAMPLED:
        place = stream.begin + int(share * (file.size - stream.begin))
        frame = next(stream.frames(place, 2 * stream.window), None)
        if frame is None:
            return file.size - place < 2 * stream.window  # there is none where the last one has begun
        if before is not None and frame.place > before.place and frame.first <= before.first:
            return False
        before = frame
    return True


def _metadata_end(file: RawFile) -> int:
    """Where the first frame stands, behind the blocks of metadata."""
    place = len(MAGIC)
    for _ in range(MAX_BLOCKS):
        head = file.at(place, 4)
        place += 4 + int.from_bytes(head[1:], "big")
        if len(head) < 4 or head[0] & 0x80:
            break
    return min(place, file.size)


def crc(data: bytes, remainders: list[int], bits: int) -> int:
    """The checksum of some bytes; 0 where they end in their own."""
    value, mask = 0, (1 << bits) - 1
    for byte in data:
        value = value << 8 & mask ^ remainders[value >> bits - 8 ^ byte]
    return value
