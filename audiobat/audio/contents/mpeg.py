"""MP3: how many frames a file holds, where its tag does not say so, and where another recording follows.

In: a file of MPEG frames, with or without ID3 and other tags around them. Out: the file itself if its Xing
tag is right about it, as a look at its ends and at a few frames tells; else its frames, counted, without what stands
between them.

libsndfile stops where the tag says and, without a tag, where it guesses from the first frame's size. So a wrong tag
gets the right numbers, and behind a file without one stand as many zeros as the guess needs to reach its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from audiobat.audio.contents.raw import SAMPLED, SEARCHED, Found, RawFile, Span, tags_begin, tags_end

LOW = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
KBITS = {  # kbit/s by the header's number, for MPEG 1 or not, and the layer; 0: free format, any rate that is constant
    (True, 1): tuple(range(0, 449, 32)),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): LOW,
    (False, 3): LOW,
}
RATES = (44_100, 48_000, 32_000)  # Hz, of MPEG 1
DIVISORS = {3: 1, 2: 2, 0: 4}  # of the rates, by version: MPEG 1, 2, 2.5
LARGEST = 8_192  # bytes of a frame, of free format too
JUNK = 1 << 16  # bytes before the first frame that are passed over
WINDOW = 1 << 16  # bytes at each of SAMPLED in which the frames of a large file are counted
WHOLE, SHARE = 0.03, 0.25  # by which that count may differ from the tag's, of all of a file or of its windows
FEW = 5  # frames by which it may differ
TAGS = (b"Xing", b"Info")
LAME_PADDING = 21  # byte of LAME's part of the tag where delay and padding begin, 12 bits each


class Frame(NamedTuple):
    """A frame's header."""

    place: int
    size: int  # bytes
    samples: int
    kind: bytes  # what all frames of a recording have in common: version, layer, rate, mono or not


class Tag(NamedTuple):
    """The first frame's tag: that of Xing and LAME, or that of Fraunhofer, which counts for nothing here."""

    frames: int  # 0: not told
    size: int  # bytes of all frames; 0: not told
    padding: int  # byte of the frame where LAME's delay and padding begin; 0: nowhere
    fields: int  # byte of the frame where the number of frames stands


@dataclass
class _Run:
    """The frames of a recording, in spans that have no other bytes between them."""

    spans: list[list[int]] = field(default_factory=list)  # first byte, and the byte behind the last
    frames: int = 0
    largest: int = 0  # bytes
    behind: int | None = None  # where another recording begins

    def add(self, frame: Frame) -> None:
        """Count a frame."""
        if not self.spans or self.spans[-1][1] != frame.place:
            self.spans.append([frame.place, frame.place])
        self.spans[-1][1] += frame.size
        self.frames += 1
        if frame.size > self.largest:
            self.largest = frame.size

    @property
    def size(self) -> int:
        """Bytes of all frames."""
        return sum(end - begin for begin, end in self.spans)

    def bytes(self) -> list[Span]:
        """Where all frames stand."""
        return [Span(end - begin, begin) for begin, end in self.spans]


def look_at_mpeg(file: RawFile, named: bool) -> Found | None:
    """What a file of MPEG frames is; None: it is no such file. `named`: its name says that it is one."""
    begin = tags_end(file)
    frames = _Frames(file)
    first = next(frames.walk(begin, begin + (JUNK if named or begin else 1)), None)
    if first is None:
        return None
    tag = frames.tag(first)
    if tag is not None and tag.frames and tag.size and _is_plausible(frames, first, tag, tags_begin(file)):
        return Found()
    run = _count(frames, first)
    if tag is not None and tag.frames == run.frames and len(run.spans) == 1:
        return Found(behind=run.behind)
    if tag is None or not tag.frames:
        if not run.frames:
            return None
        zeros = Span(max(0, (run.frames + 2) * run.largest - run.size))
        return Found((*run.bytes(), zeros), run.behind, "", run.frames * first.samples)
    return Found(_right_tag(file, first, tag, run), run.behind, "its tag does not count its frames")


class _Frames:
    """The frames of a file, read forwards."""

    def __init__(self, file: RawFile) -> None:
        self.file = file
        self._data, self._begin = b"", 0  # the bytes read last, and where they stand
        self._step = 2 * LARGEST  # bytes that are read next: more and more, as mostly the first frame is asked for only
        self._known: dict[bytes, tuple[int, int]] = {}  # size and samples by a header's middle bytes
        self._free = 0  # bytes of a frame of free format without its padding

    def frame(self, place: int) -> Frame | None:
        """The frame whose header is at `place`; None: there is no header, or it is cut short."""
        at = self._at(place)
        head = self._data[at : at + 4]
        if len(head) < 4 or head[0] != 0xFF:
            return None
        known = self._known.get(head[1:3])
        if known is None:
            known = self._known[head[1:3]] = measure(head[1], head[2])
        size, samples = known
        if samples and not head[2] >> 4:
            self._free = self._free or self._free_size(at)
            size = self._free + size if self._free else 0
        if not size or place + size > self.file.size:
            return None
        return Frame(place, size, samples, bytes((head[1] & 0xFE, head[2] & 0x0C, head[3] >= 0xC0)))

    def _free_size(self, at: int) -> int:
        """Bytes from one header of free format to the next one like it, without padding; 0: there is none."""
        data = self._data[at : at + LARGEST]
        for begin in range(4, len(data) - 4):
            if data[begin] == 0xFF and data[begin + 1] == data[1] and (data[begin + 2] ^ data[2]) & 0xFC == 0:
                return begin - measure(data[1], data[2])[0]
        return 0

    def walk(self, place: int, until: int | None = None) -> Iterator[Frame]:
        """All frames from `place` on, before `until`. Behind other bytes, only one that another follows is a frame."""
        sure = False
        until = self.file.size if until is None else min(until, self.file.size)
        while place < until:
            frame = self.frame(place)
            if frame is not None and not sure:
                after = self.frame(frame.place + frame.size)
                if (after is None or after.kind != frame.kind) and frame.place + frame.size < self.file.size:
                    frame = None
            if frame is not None:
                yield frame
                sure, place = True, place + frame.size
                continue
            sure, place = False, self._next_sync(place + 1)

    def _at(self, place: int) -> int:
        """Where the bytes of a frame at `place` begin in those read last, which are read on where they are not."""
        at = place - self._begin
        if 0 <= at <= len(self._data) - LARGEST or (at >= 0 and self._begin + len(self._data) == self.file.size):
            return at
        self._data, self._begin = self.file.at(place, self._step), place
        self._step = min(4 * self._step, SEARCHED)
        return 0

    def _next_sync(self, place: int) -> int:
        """The next place at which a header may stand; the file's end if there is none."""
        while place < self.file.size:
            found = self._data.find(b"\xff", self._at(place))
            if found >= 0:
                return self._begin + found
            if not self._data:
                break
            place = self._begin + len(self._data)
        return self.file.size

    def tag(self, frame: Frame) -> Tag | None:
        """The tag that a frame holds in place of sound; None: it holds sound."""
        mono, first = frame.kind[2], frame.kind[0] & 0x18 == 0x18  # MPEG 1
        at = 4 + ((17 if mono else 32) if first else (9 if mono else 17))
        begin = self._at(frame.place)
        if self._data[begin + at : begin + at + 4] not in TAGS and self._data[begin + 36 : begin + 40] != b"VBRI":
            return None
        data = self._data[begin : begin + frame.size]
        if data[at : at + 4] not in TAGS or at + 16 > len(data):
            return Tag(0, 0, 0, 0)
        flags = int.from_bytes(data[at + 4 : at + 8], "big")
        fields = at + 8
        numbers = []
        for bit in (1, 2):
            numbers.append(int.from_bytes(data[at + 8 : at + 12], "big") if flags & bit else 0)
            at += 4 if flags & bit else 0
        lame = at + 8 + (100 if flags & 4 else 0) + (4 if flags & 8 else 0)
        padding = lame + LAME_PADDING if any(data[lame : lame + 4]) and lame + LAME_PADDING + 3 <= len(data) else 0
        return Tag(numbers[0], numbers[1], padding, fields)


def measure(second: int, third: int) -> tuple[int, int]:
    """Bytes and samples of a frame by its header's second and third byte, of free format only the bytes of its padding;
    0 samples: this is no header.
    """
    version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
    bits, rate = third >> 4, third >> 2 & 3
    if second < 0xE0 or version not in DIVISORS or layer == 4 or bits == 15 or rate == 3:
        return 0, 0
    samples = {1: 384, 2: 1152, 3: 1152 if version == 3 else 576}[layer]
    slot = 4 if layer == 1 else 1  # bytes of which a frame is made
    bytes_a_second = KBITS[version == 3, layer][bits] * 125
    size = samples * bytes_a_second * DIVISORS[version] // (RATES[rate] * slot) * slot
    return size + slot * (third >> 1 & 1), samples


def _count(frames: _Frames, first: Frame) -> _Run:
    """The frames of the recording that begins with `first`, its tag left out."""
    run = _Run()
    for frame in frames.walk(first.place):
        other = frame.kind != first.kind or frames.tag(frame) is not None
        if other and frame.place > first.place:
            run.behind = frame.place
            break
        if not other:
            run.add(frame)
    return run


def _is_plausible(frames: _Frames, first: Frame, tag: Tag, end: int) -> bool:
    """Whether the file ends where the tag says, and its frames are about as large as the tag says."""
    begin, file = first.place + first.size, frames.file
    if end - first.place - tag.size not in (0, first.size):  # some do not count the tag's own frame
        return False
    head = file.at(begin, 2)
    size = max(1, end - begin)
    if size <= len(SAMPLED) * WINDOW:
        count, expected, tolerance = file.at(begin, size).count(head), tag.frames, WHOLE
    else:
        windows = [file.at(begin + int(share * (size - WINDOW)), WINDOW) for share in SAMPLED]
        count, tolerance = sum(window.count(head) for window in windows), SHARE
        expected = tag.frames * len(windows) * WINDOW // size
    return abs(count - expected) <= FEW + tolerance * expected


def _right_tag(file: RawFile, first: Frame, tag: Tag, run: _Run) -> tuple[Span, ...]:
    """The frames behind their tag, with the right numbers in it. Where the end is, no padding is known to be."""
    data = bytearray(file.at(first.place, first.size))
    data[tag.fields : tag.fields + 4] = run.frames.to_bytes(4, "big")
    if tag.size:
        data[tag.fields + 4 : tag.fields + 8] = (first.size + run.size).to_bytes(4, "big")
    if tag.padding:
        data[tag.padding + 1] &= 0xF0
        data[tag.padding + 2] = 0
    return (Span(len(data), data=bytes(data)), *run.bytes())
