"""Look into a file: what recordings it holds, and what libsndfile is to be given for each.

In: a file. Out: its recordings, one after another; one without spans is the file itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from audiobat.audio.contents.chunks import AU, LAYOUTS, look_at_au, look_at_chunks
from audiobat.audio.contents.flac import MAGIC as FLAC
from audiobat.audio.contents.flac import look_at_flac
from audiobat.audio.contents.mpeg import look_at_mpeg
from audiobat.audio.contents.ogg import MAGIC as OGG
from audiobat.audio.contents.ogg import look_at_ogg
from audiobat.audio.contents.raw import Found, RawFile, Span, tags_end

MPEG_NAME = re.compile(r"\.(mp3|mpga)$", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """A recording of a file; see `Found`."""

    spans: tuple[Span, ...] | None  # None: the whole file as it is
    length: int | None
    last_page: int


def look_into(file: RawFile, name: str) -> tuple[Sequence[Part], str]:
    """The recordings that a file holds, and in words what is odd about its header, if anything is."""
    parts: list[Part] = []
    odd = ""
    begin: int | None = 0
    while begin is not None:
        rest = file.part(begin)
        found = _look(rest, name, joined=begin > 0)
        if found is None:
            break
        spans = found.spans
        if spans is None and (begin or found.behind is not None):
            spans = (Span(rest.size if found.behind is None else found.behind, 0),)
        if spans is not None:
            spans = tuple(span if span.begin is None else replace(span, begin=span.begin + begin) for span in spans)
        parts.append(Part(spans, found.length, found.last_page))
        odd = odd or found.odd
        begin = None if found.behind is None else begin + found.behind
    if len(parts) > 1:
        odd = f"it is {len(parts)} recordings, one behind another"
    return parts or [Part(None, None, 0)], odd


def _look(file: RawFile, name: str, joined: bool) -> Found | None:
    kind = file.at(0, 4)
    if kind in LAYOUTS:
        return look_at_chunks(file)
    if kind == AU:
        return look_at_au(file)
    if kind == OGG[:4]:
        return look_at_ogg(file, joined)
    if file.at(tags_end(file), 4) == FLAC:
        return look_at_flac(file, joined)
    if kind[:3] == b"ID3" or kind[:1] == b"\xff" or MPEG_NAME.search(name):
        return look_at_mpeg(file, bool(MPEG_NAME.search(name)) or joined)
    return None
