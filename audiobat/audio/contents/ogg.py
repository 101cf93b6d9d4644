"""Ogg: whether other recordings follow the first in the file, how far libsndfile finds exactly in Vorbis, and FLAC
without its pages.

In: a file that begins with a page. Out: where the next recording begins; of FLAC, which libsndfile reads in Ogg as some
programs write it only and in which FFmpeg misses the place, what the pages hold: a FLAC file. Pages carry the number of
their stream, their own number within it, and the place of their last sample (RFC 3533).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from audiobat.audio.contents.raw import SAMPLED, Found, RawFile, Span

MAGIC = b"OggS\0"
FIRST = b"OggS\0\x02"  # the first page of a stream
VORBIS, FLAC = b"\x01vorbis", b"\x7fFLAC"  # with which the first page of a stream begins behind its header
BEFORE_FLAC = 9  # bytes before what is the beginning of a FLAC file
HEADER = 27  # bytes of a page before the sizes of its pieces
LARGEST = HEADER + 255 + 255 * 255  # bytes of a page
STEP = 1 << 13  # bytes read at once
STREAMS = 64  # that sound at once


class Page(NamedTuple):
    """A page's header."""

    place: int
    body: int  # the byte behind its header
    end: int  # the byte behind it
    first: bool  # of its stream
    sample: int  # behind its last one; -1: no sample ends in it
    stream: int
    number: int


def look_at_ogg(file: RawFile, joined: bool) -> Found:
    """What an Ogg file is; `joined`: it is part of a file that holds several recordings."""
    streams: set[int] = set()
    place = 0
    vorbis, flac = False, None
    while len(streams) < STREAMS and (page := _page(file, place)) is not None and page.first:
        streams.add(page.stream)
        begin = file.at(page.body, len(VORBIS))
        vorbis |= begin.startswith(VORBIS)
        flac = page.stream if begin.startswith(FLAC) else flac
        place = page.end
    behind = None
    if joined or not _in_order(file, streams):
        behind = next(file.find_all(FIRST, place), None)
    own = file if behind is None else file.part(0, behind)
    if flac is not None:
        return Found(_without_pages(own, flac), behind)
    if not vorbis:
        return Found(behind=behind)
    ends = [page.sample for page in _pages(own, own.size - 2 * LARGEST) if page.sample >= 0]
    # Of a last page that is not full libsndfile takes the last sample for that of a full one.
    return Found(behind=behind, last_page=ends[-1] - ends[-2] if len(ends) > 1 else own.size)


def _without_pages(file: RawFile, stream: int) -> tuple[Span, ...]:
    """What the pages of a stream of FLAC hold."""
    spans = []
    place = 0
    while (page := _page(file, place) or next(_pages(file, place), None)) is not None:
        if page.stream == stream:
            begin = page.body + (BEFORE_FLAC if page.first else 0)
            spans.append(Span(max(0, min(page.end, file.size) - begin), begin))
        place = page.end
    return tuple(spans)


def _page(file: RawFile, place: int) -> Page | None:
    """The page at `place`; None: there is none."""
    head = file.at(place, HEADER)
    if len(head) < HEADER or not head.startswith(MAGIC):
        return None
    stream, number = (int.from_bytes(head[at : at + 4], "little") for at in (14, 18))
    sample = int.from_bytes(head[6:14], "little", signed=True)
    body = place + HEADER + head[26]
    return Page(place, body, body + sum(file.at(place + HEADER, head[26])), bool(head[5] & 2), sample, stream, number)


def _pages(file: RawFile, begin: int) -> Iterator[Page]:
    """Pages that begin from `begin` on, within twice the largest page."""
    end = min(file.size, begin + 2 * LARGEST)
    for place in range(max(0, begin), end, STEP):
        data = file.at(place, STEP + len(MAGIC) - 1)
        at = data.find(MAGIC)
        while at >= 0:
            page = _page(file, place + at)
            if page is not None:
                yield page
            at = data.find(MAGIC, at + 1)


def _in_order(file: RawFile, streams: set[int]) -> bool:
    """Whether pages found all over the file, and its last one, follow one another as those of one recording do."""
    before: dict[int, Page] = {}
    sampled = (next(_pages(file, int(share * file.size)), None) for share in SAMPLED)
    for page in (*sampled, *_pages(file, file.size - LARGEST)):
        if page is None:
            continue
        known = before.get(page.stream, page)
        if page.stream not in streams or (known.place < page.place and known.number >= page.number):
            return False
        before[page.stream] = page
    return True
