"""One tar of recordings, as WebDataset has them, to its clips: each with its place in the tar and what is known of it.

A recording is a member with the extension of audio. What describes it has its name with another extension, wherever in
the tar it stands: `a/b.flac`, `a/b.json`. Where there is none, it is what WebDataset groups with it, by the name up to
the first dot: `b.audio.flac`, `b.json`.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from audiobat.data.remote import is_remote, read_range
from audiobat.data.sources.folders import is_audio
from audiobat.data.sources.tar_fields import DESCRIPTIONS, Fields, read_json, read_text
from audiobat.data.sources.tar_members import WINDOW, Notes, Read, Window, list_members
from audiobat.errors import AudiobatError

DESCRIPTION_BYTES = 1 << 20  # a description that is longer is passed over
REMOTE_WINDOW = 1 << 20  # bytes that are fetched at once from a URL: every request takes its time


class TarFile(NamedTuple):
    """A tar that is there."""

    path: str  # absolute, or a URL
    size: int  # bytes
    version: str  # another one where the file has changed


class TarClip(NamedTuple):
    """A recording in a tar."""

    name: str  # as it would be called in a folder; unique in the tar
    offset: int  # of its first byte
    size: int  # bytes
    fields: Fields  # of KEY.json
    texts: dict[str, str]  # of KEY.cls and KEY.txt, by their extensions


@dataclass(frozen=True)
class TarListing:
    """What a tar holds."""

    clips: list[TarClip]
    notes: Notes
    others: set[str]  # extensions of members that are neither audio nor a description


def list_tar(file: TarFile, advance: Callable[[int], None]) -> TarListing:
    """List the recordings of a tar; `advance` is told of every byte that is passed.

    Raises:
        AudiobatError: the file cannot be read, is compressed, or is no tar.
    """
    notes, others = Notes(), set[str]()
    found: list[tuple[str, int, int, int]] = []  # name, how many of this name came before, offset, size
    count: dict[str, int] = defaultdict(int)
    descriptions = {extension: _Descriptions() for extension in DESCRIPTIONS}
    passed = 0
    with _opened(file) as read:
        for member in list_members(read, file.size, file.path, notes):
            advance(member.offset - passed)
            passed = member.offset
            name = clean(member.name)
            if name is None:
                continue
            extension = os.path.splitext(name)[1].lower()
            if is_audio(name):
                found.append((name, count[name], member.offset, member.size))
                count[name] += 1
            elif extension not in descriptions:
                others.add(extension)
            elif member.size > DESCRIPTION_BYTES:
                why = f"descriptions are longer than {DESCRIPTION_BYTES:,} bytes, and are passed over"
                notes.add(why, f"{name} in {file.path}")
            else:
                parse = read_json if extension == ".json" else read_text
                value = parse(read(member.offset, member.size), f"{name} in {file.path}", notes)
                descriptions[extension].add(name, value)
    advance(file.size - passed)
    clips = []
    names = distinct([name for name, *_ in found])
    for own_name, (name, number, offset, size) in zip(names, found, strict=True):
        fields, *texts = (descriptions[extension].of(name, number) for extension in DESCRIPTIONS)
        named = {extension[1:]: str(text) for extension, text in zip(DESCRIPTIONS[1:], texts, strict=True) if text}
        own = fields if isinstance(fields, Fields) else Fields()
        clips.append(TarClip(own_name, offset, size, own, named))
        if number:
            notes.add("recordings share the name of an earlier one, and are told by #2", f"{name} in {file.path}")
    return TarListing(clips, notes, others)


class _Descriptions:
    """The members of one extension that describe recordings."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[Fields | str]] = {}  # name without extension -> all members of that name
        self._by_key: dict[str, list[Fields | str]] | None = None  # only those that are alone with their key

    def add(self, name: str, value: Fields | str) -> None:
        self._by_name.setdefault(os.path.splitext(name)[0], []).append(value)

    def of(self, recording: str, number: int) -> Fields | str | None:
        """What is said of the recording that has `number` others of its name before it."""
        values = self._by_name.get(os.path.splitext(recording)[0])
        if values is None:
            if self._by_key is None:
                names: dict[str, list[str]] = {}
                for name in self._by_name:
                    names.setdefault(key_of(name), []).append(name)
                self._by_key = {key: self._by_name[alone[0]] for key, alone in names.items() if len(alone) == 1}
            values = self._by_key.get(key_of(recording))
        return values[min(number, len(values) - 1)] if values else None


def clean(name: str) -> str | None:
    """A member's name as a path below its tar; None for a hidden file, such as those that macOS adds."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return None if not parts or any(part.startswith(".") for part in parts) else "/".join(parts)


def key_of(name: str) -> str:
    """The key that WebDataset groups members by: the name up to the first dot behind its folder."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"


def distinct(names: Sequence[str]) -> list[str]:
    """The names, of which the second, third, ... of one name get a number: `a.wav`, `a#2.wav`."""
    taken, numbers = set(names), dict[str, int]()
    found = []
    for name in names:
        numbers[name] = number = numbers.get(name, 0) + 1
        if number > 1:
            stem, extension = os.path.splitext(name)
            while (longer := f"{stem}#{number}{extension}") in taken:
                number += 1
            taken.add(longer)
            numbers[name] = number
        found.append(name if number == 1 else longer)
    return found


@contextmanager
def _opened(file: TarFile) -> Iterator[Read]:
    """A function that reads ranges of the file."""
    if is_remote(file.path):
        # Behind the end nothing is asked for, so that a server's shorter answer is an error, and told as one.
        yield Window(lambda start, count: _fetch(file, start, min(count, file.size - start)), REMOTE_WINDOW)
        return
    try:
        descriptor = os.open(file.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise AudiobatError(f"{file.path} cannot be read ({error.strerror}): check its permissions.") from None
    try:
        yield Window(lambda start, count: os.pread(descriptor, count, start), WINDOW)
    except OSError as error:
        raise AudiobatError(f"{file.path} cannot be read ({error.strerror}): copy or download it again.") from None
    finally:
        os.close(descriptor)


def _fetch(file: TarFile, start: int, count: int) -> bytes:
    return read_range(file.path, start, count) if count > 0 else b""
