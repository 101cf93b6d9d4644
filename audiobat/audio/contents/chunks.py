"""Files made of chunks, WAV, RF64, W64, AIFF and CAF, and AU: where their samples end.

In: a file. Out: the file with the right size in the header of its samples, where that size was never filled in (power
loss, streams), does not fit into its 32 bits, or is smaller than what stands there. A size is right if behind the
samples other chunks reach to the end of the file, or nothing stands there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from audiobat.audio.contents.raw import Found, RawFile, Span, patched


@dataclass(frozen=True)
class Layout:
    """How a container writes its chunks."""

    first: int  # byte of the first chunk
    samples: bytes  # name of the chunk that holds the samples
    width: int  # bytes of a chunk's size
    order: Literal["little", "big"]
    align: int  # chunks begin at multiples of it
    whole: bool = False  # whether a chunk's size counts its name and size, too

    @property
    def head(self) -> int:
        """Bytes of a chunk's name and size."""
        return len(self.samples) + self.width

    def chunk_end(self, file: RawFile, place: int) -> int | None:
        """Where the chunk at `place` ends, as its size says; None: it has no size that can be."""
        size = int.from_bytes(file.at(place, self.head)[-self.width :], self.order)
        end = place + size + (0 if self.whole else self.head)
        return None if end < place + self.head else end


W64_SAMPLES = b"data" + bytes.fromhex("f3acd3118cd100c04f8edb8a")  # a GUID
RIFF = Layout(12, b"data", 4, "little", 2)
LAYOUTS = {  # by the first four bytes
    b"RIFF": RIFF,
    b"RF64": RIFF,
    b"BW64": RIFF,
    b"RIFX": Layout(12, b"data", 4, "big", 2),
    b"FORM": Layout(12, b"SSND", 4, "big", 2),
    b"caff": Layout(8, b"data", 8, "big", 1),
    b"riff": Layout(40, W64_SAMPLES, 8, "little", 8, whole=True),
}
AU = b".snd"
IN_64_BITS = (b"RF64", b"BW64")
DS64_SIZE = 28  # byte at which RF64 has the size of its samples
UNKNOWN = 2**32 - 1  # the size of a stream's samples, or of those whose size RF64 has elsewhere
NAME = re.compile(rb"[ -~]{4}")
# Names of chunks that stand behind samples. One of any other name must end exactly where the file does.
USUAL = re.compile(
    b"LIST|list|INFO|id3 |ID3 |bext|iXML|axml|chna|cue |smpl|inst|plst|fact|PEAK|JUNK|junk|PAD |FLLR|levl|acid|strc"
    b"|DISP|wamd|guan|afsp|SAUR|_PMX|umid|cart|MARK|INST|COMT|NAME|AUTH|ANNO|\\(c\\) |APPL|MIDI|COMM|info|strg|mark"
    b"|free|uuid"
)
MAX_CHUNKS = 10_000
TAIL = 1 << 20  # bytes at a file's end that are searched for chunks
SLACK = 256  # bytes behind the samples that are neither a chunk nor sound, such as an MP3's tag
UNTOLD = "its header does not tell where the samples end"
CUT = "it ends before its header says"


def look_at_chunks(file: RawFile) -> Found | None:
    """What a file is whose first bytes are among LAYOUTS; None: no samples are found in it."""
    kind = file.at(0, 4)
    layout = LAYOUTS[kind]
    place = _samples_chunk(file, layout)
    if place is None:
        return None
    begin = place + layout.head
    field, width, least = begin - layout.width, layout.width, layout.head * layout.whole
    if kind in IN_64_BITS and file.at(12, 4) == b"ds64" and file.at(field, 4) == b"\xff" * 4:
        field, width = DS64_SIZE, 8
    claimed = int.from_bytes(file.at(field, width), layout.order) - least
    size, behind = _measure(file, layout, begin, claimed)
    if size == claimed:
        return Found(behind=behind)
    if kind == b"RIFF" and size >= UNKNOWN:  # more than its 32 bits can say
        sizes = (size + begin).to_bytes(8, "little") + size.to_bytes(8, "little") + bytes(12)
        head = b"RF64" + b"\xff" * 4 + b"WAVEds64" + len(sizes).to_bytes(4, "little") + sizes
        before = Span(len(head), data=head), Span(field - 12, 12), Span(4, data=b"\xff" * 4)
        spans: tuple[Span, ...] = (*before, Span(size, begin))
    else:
        value = min(size + least, 2 ** (8 * width) - 1).to_bytes(width, layout.order)
        spans = patched(begin + size, (field, value))
    cut = size < claimed < 2 ** (8 * width - 1) and begin + size == file.size
    return Found(spans, behind, CUT if cut else UNTOLD)


def look_at_au(file: RawFile) -> Found | None:
    """What an AU file is: nothing can stand behind its samples, so that they reach to its end."""
    begin, claimed = (int.from_bytes(file.at(at, 4), "big") for at in (4, 8))
    if claimed == UNKNOWN or claimed >= file.size - begin:
        return Found()
    return Found(patched(file.size, (8, b"\xff" * 4)), odd=UNTOLD)


def _samples_chunk(file: RawFile, layout: Layout) -> int | None:
    """Where the chunk of samples begins."""
    place: int | None = layout.first
    for _ in range(MAX_CHUNKS):
        if place is None or place + layout.head > file.size:
            return None
        if file.at(place, len(layout.samples)) == layout.samples:
            return place
        place = _aligned(layout.chunk_end(file, place), layout)
    return None


def _aligned(place: int | None, layout: Layout) -> int | None:
    return None if place is None else place + -place % layout.align


def _measure(file: RawFile, layout: Layout, begin: int, claimed: int) -> tuple[int, int | None]:
    """How many bytes of samples stand from `begin` on, and where another recording begins behind them."""
    rest = file.size - begin
    # A size of 32 bits that ran over lacks multiples of 2 ** 32.
    over = range(claimed + (rest - claimed >> 32 << 32), claimed, -(2**32)) if layout.width == 4 else ()
    for size in (claimed, *over):
        if size == rest:
            return size, None
        if 0 <= size < rest:
            end = _chunks_end(file, layout, begin + size)
            if end is not None:
                return size, end if end < file.size else None
    if 0 < claimed < rest and (rest - claimed <= SLACK or not any(file.at(begin + claimed, TAIL))):
        return claimed, None
    return _first_of_tail(file, layout, begin) - begin, None


def _chunks_end(file: RawFile, layout: Layout, place: int) -> int | None:
    """Where the chunks from `place` on end: at the file's end, or at another recording; None: these are no chunks."""
    for start in {place + -place % layout.align, place}:  # some leave out the byte that makes it even
        at: int | None = start
        for _ in range(MAX_CHUNKS):
            if at is None or at + layout.head > file.size:
                break
            name = file.at(at, 12)
            if name[:4] in LAYOUTS and (layout.first != 12 or name[8:] in (b"WAVE", b"AIFF", b"AIFC")):
                return at
            end = layout.chunk_end(file, at) if NAME.match(name) else None
            if end is not None and end > file.size + layout.align:  # cut short, or no chunk
                end = file.size if USUAL.match(name) else None
            at = _aligned(end, layout)
        if at is not None and at + layout.head > file.size:
            return file.size
    return None


def _first_of_tail(file: RawFile, layout: Layout, begin: int) -> int:
    """Where the chunks begin that reach to the file's end, found from its end; the file's end if there are none."""
    first = max(begin, file.size - TAIL)
    ends = set(range(file.size, file.size + layout.align))
    for found in reversed(list(USUAL.finditer(file.at(first, TAIL)))):
        end = layout.chunk_end(file, first + found.start())
        if end in ends or _aligned(end, layout) in ends:
            ends.add(first + found.start())
    return min(ends)
