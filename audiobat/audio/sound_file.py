"""A recording opened by libsndfile, or several behind one another in a file, as one.

In: a path or an open file, and what `contents` has found in it. Out: mono samples [S] at the recording's own rate, from
any place. Samples are read in blocks, so that memory follows the samples that are there, not the number that a damaged
header claims.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiobat.audio.codec import CalmFile, decoding
from audiobat.audio.contents.look import Part
from audiobat.audio.contents.raw import RawFile, Span, View
from audiobat.errors import AudiobatError

Samples: TypeAlias = NDArray[np.float32]

BLOCK = 1 << 20  # values read at once, over all channels: 4 MiB, whatever a header claims
# Seconds after which a decoder has forgotten where it began: a frame of MP3 takes bits from those before it.
PREROLL = {"MPEG_LAYER_I": 0.5, "MPEG_LAYER_II": 0.5, "MPEG_LAYER_III": 0.5, "OPUS": 0.5}
UNKNOWN = 2**63 - 1  # frames that libsndfile reports for a header without a length


class OpenAudio(Protocol):
    """An open recording, of which any parts can be read one after another.

    Attributes:
        rate: its own sample rate, Hz.
        channels: how many the file has; what is read is their mean.
    """

    rate: int
    channels: int

    def read(self, first: int, count: int | None) -> Samples:
        """Samples [S] from `first` on, at most `count` (None: to the end), mono; empty if it ends before `first`."""
        ...

    def samples(self) -> int:
        """Its length in samples."""
        ...


class SoundFile:
    """A recording opened by libsndfile, a context manager; see `OpenAudio`."""

    def __init__(
        self, source: str | Path | CalmFile | View, name: str, length: int | None = None, last_page: int = 0
    ) -> None:
        """`length` and `last_page` are those of the `Part` that `source` is."""
        self._source, self._name = source, name
        self._file = _ForwardFile(source)
        self._block = max(1, BLOCK // self._file.channels)  # samples
        self.rate, self.channels = int(self._file.samplerate), int(self._file.channels)
        self._frames = int(self._file.frames) if length is None else min(length, int(self._file.frames))
        self._length = self._frames if self._frames != UNKNOWN else None
        self._last_page = last_page
        # FLAC without a length in its header cannot seek beyond its end without breaking, so that it is read forwards.
        self._seeks = self._file.can_seek() and self._length is not None
        self._position = 0  # the next sample that libsndfile gives

    def __enter__(self) -> SoundFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, first: int, count: int | None) -> Samples:
        """Samples from `first` on; see `OpenAudio`."""
        if first != self._position and (self._length is None or first < self._length):
            self._go_to(first)
        blocks = list(self._blocks(first, count))
        return blocks[0] if len(blocks) == 1 else np.concatenate([*blocks, np.zeros(0, np.float32)])

    def samples(self) -> int:
        """Its length; where the header does not tell, all of it is decoded once."""
        if self._length is None:
            self._go_to(0)
            self._length = sum(map(len, self._blocks(0, None)))
        return self._length

    def _go_to(self, first: int) -> None:
        """Make `first` the next sample: by a seek or, where the format has none, by decoding all before it."""
        begin = max(0, first - round(PREROLL.get(self._file.subtype, 0.0) * self.rate))
        if self._seeks and not begin <= self._position <= first:
            with decoding(self._name, (soundfile.SoundFileError,)):
                if self._file.subtype == "VORBIS":
                    # In libsndfile 1.2 a seek forwards leads to other samples, but not from the beginning; and on the
                    # last page it misses by what that page lacks.
                    self._file.seek(0)
                    begin = min(begin, max(0, self._frames - self._last_page - 1))
                self._file.seek(begin)
            self._position = begin
        elif first < self._position:
            self._file.close()
            if not isinstance(self._source, str | Path):
                self._source.seek(0)
            with decoding(self._name, (soundfile.SoundFileError,)):  # the file may be gone by now
                self._file = _ForwardFile(self._source)
            self._position = 0
        for _ in self._blocks(self._position, first - self._position):
            pass

    def _blocks(self, first: int, count: int | None) -> Iterator[Samples]:
        """The next samples, which begin at `first`, in pieces of at most BLOCK values over all channels."""
        left = max(0, self._frames - first)
        left = left if count is None else min(left, count)
        with decoding(self._name, (soundfile.SoundFileError,)):
            while left and first == self._position:  # not where the recording ended on the way to `first`
                size = min(left, self._block)
                block = self._file.read(out=np.empty((size, self._file.channels), np.float32))  # [S, C]
                self._position, first = self._position + len(block), first + len(block)
                yield _mean(block)
                left -= len(block)
                if len(block) < size:
                    break
        if left and self._file.format == "FLAC" and self._frames != UNKNOWN:
            raise AudiobatError(f"{self._name} is damaged ({left} samples are missing): copy or encode it again.")


class JoinedFile:
    """The recordings of one file as one, opened by libsndfile in their turn, a context manager; see `OpenAudio`."""

    def __init__(self, file: RawFile, parts: Sequence[Part], name: str) -> None:
        self.closing = ExitStack()  # what is to be closed with it
        self._raw, self._parts, self._name = file, parts, name
        self._lengths: list[int] = []  # samples of the first parts, as far as they are known
        self._number, self._open = 0, self._open_part(0)
        self.rate, self.channels = self._open.rate, self._open.channels

    def __enter__(self) -> JoinedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.__exit__()
        self.closing.close()

    def read(self, first: int, count: int | None) -> Samples:
        """Samples from `first` on; see `OpenAudio`."""
        pieces = [np.zeros(0, np.float32)]
        begin = 0  # of the part
        for number in range(len(self._parts)):
            left = None if count is None else count - sum(map(len, pieces))
            if left == 0:
                break
            length = self._length(number)
            if first < begin + length:
                pieces.append(self._part(number).read(max(0, first - begin), left))
            begin += length
        return np.concatenate(pieces)

    def samples(self) -> int:
        """Its length, that of all parts."""
        return sum(map(self._length, range(len(self._parts))))

    def _length(self, number: int) -> int:
        while len(self._lengths) <= number:
            self._lengths.append(self._part(len(self._lengths)).samples())
        return self._lengths[number]

    def _part(self, number: int) -> SoundFile:
        """A part, opened in place of the one that was open."""
        if number != self._number:
            with decoding(self._name, (soundfile.SoundFileError,)):
                part = self._open_part(number)
            self._open.__exit__()
            self._number, self._open = number, part
            if part.rate != self.rate:
                raise AudiobatError(
                    f"{self._name} is recordings of {self.rate} and {part.rate} Hz behind one another: cut it there."
                )
        return self._open

    def _open_part(self, number: int) -> SoundFile:
        part = self._parts[number]
        spans = (Span(self._raw.size, 0),) if part.spans is None else part.spans
        return SoundFile(View(self._raw, spans), self._name, part.length, part.last_page)


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
    """soundfile's reader without its seek after every read to where the file already is, which FLAC pays for."""

    def seekable(self) -> bool:
        return False

    def can_seek(self) -> bool:
        return bool(super().seekable())


def _mean(block: Samples) -> Samples:
    """Average [S, C] over channels; whole columns at a time, 30 times faster than NumPy's mean of short rows."""
    mono = block[:, 0]
    if block.shape[1] > 1:
        mono = mono.copy()
        with np.errstate(all="ignore"):  # infinities are found later
            for channel in range(1, block.shape[1]):
                mono += block[:, channel]
        mono /= block.shape[1]
    return mono
