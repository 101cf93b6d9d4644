"""Recordings that only FFmpeg reads (m4a, mp4, aac, webm, wma, ...): mono samples at their own rate, through PyAV.

In: a path or an open file. Out: [S] float32, mean over channels. PyAV is the extra `codec`; its wheels bring FFmpeg.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from audiobat.errors import AudiobatError

CODEC_EXTENSIONS = frozenset(
    {".3g2", ".3gp", ".aac", ".ac3", ".amr", ".ape", ".asf", ".avi", ".eac3", ".flv", ".m4a", ".m4b", ".m4v", ".mka"}
    | {".mkv", ".mov", ".mp2", ".mp4", ".mpeg", ".mpg", ".spx", ".tta", ".webm", ".wma", ".wmv", ".wv"}
)
# No playlist, which would open other files, and no format that arbitrary bytes or a text could be taken for.
CONTAINERS = "aac,ac3,aiff,amr,ape,asf,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,tta,wav,wv"
OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
# PyAV raises them too: values it cannot hold, seeks out of the file, streams that were not there at its beginning.
ODD_ERRORS = (ValueError, RuntimeError, OSError, IndexError)
PREROLL = Fraction(1, 2)  # seconds decoded before a part: decoders need a few frames to settle (80 ms for Opus)


class CalmFile:
    """An open file for decoders in C, through which no Python exception can pass: a seek out of the file, as damaged
    headers ask for, returns -1.
    """

    def __init__(self, file: Any) -> None:
        for method in ("read", "readinto", "tell"):
            if hasattr(file, method):
                setattr(self, method, getattr(file, method))
        self._seek = file.seek

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move as a file does; -1 where that place does not exist."""
        try:
            return int(self._seek(offset, whence))
        except (OSError, ValueError):
            return -1


@contextmanager
def decoding(name: str, kinds: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turn a decoder's errors into one sentence."""
    try:
        yield
    except kinds as error:
        raise AudiobatError(f"{name} is damaged ({reason(error)}): copy or encode it again.") from error


def reason(error: Exception) -> str:
    """A decoder's message, without a number or the file's name."""
    message = str(getattr(error, "strerror", None) or getattr(error, "error_string", None) or error)
    if message.startswith("File does not exist"):  # libsndfile's message for an .mp3 without a frame
        return "Format not recognised"
    return message.strip().rstrip(".")


class UnknownFormat(AudiobatError):
    """FFmpeg does not know it either."""


class CodecFile:
    """A recording opened by FFmpeg, a context manager.

    Attributes:
        rate: its sample rate, Hz, as its first frame has it.
        channels: how many its first frame has.

    Raises:
        AudiobatError: PyAV is missing; FFmpeg does not know the format; there is no audio in it, or it is damaged.
    """

    def __init__(self, source: str | Path | BinaryIO, name: str) -> None:
        self._name = name
        try:
            import av
        except ImportError:
            raise AudiobatError(f"{name} needs FFmpeg to be read: pip install audiobat[codec].") from None
        self._av: Any = av
        self._errors = (av.FFmpegError, *ODD_ERRORS)
        self._closing = ExitStack()
        with self._closing:
            opened = io.FileIO(source) if isinstance(source, str | Path) else nullcontext(source)
            self._file = CalmFile(self._closing.enter_context(opened))
            self._open()
            self.rate, self.channels = int(self._head[0].sample_rate), int(self._head[0].layout.nb_channels)
            self._closing = self._closing.pop_all()

    def __enter__(self) -> CodecFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def read(self, first: int, count: int | None) -> NDArray[np.float32]:
        """Samples from `first` on, at most `count` (None: to the end); empty if it ends before `first`."""
        pieces = cut_blocks(self._sought(first), first, count) or cut_blocks(self._from_start(), first, count)
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    def samples(self) -> int:
        """Its length in samples, found by decoding its end: headers tell it roughly, some formats not at all."""
        stream, container = self._stream, self._container
        seconds = stream.duration * stream.time_base if stream.duration else Fraction(container.duration or 0, 10**6)
        for blocks in (self._sought(round(seconds * self.rate)), self._from_start()):
            end = max((position + len(block) for position, block in blocks), default=0)
            if end:
                return end
        return 0

    def _open(self) -> None:
        """Open it at its beginning and decode two frames, which tell the rate and the frames' usual size."""
        self._file.seek(0)
        try:
            self._container = self._av.open(self._file, metadata_errors="ignore", options=OPTIONS)
        except self._errors as error:
            raise UnknownFormat(f"{self._name} cannot be read as audio ({reason(error)}): encode it again.") from error
        self._closing.callback(self._container.close)
        if not self._container.streams.audio:
            raise AudiobatError(f"{self._name} has no audio in it, only pictures or text: leave it out.")
        self._stream = self._container.streams.audio[0]
        self._frames = self._decode()
        self._head = list(itertools.islice(self._frames, 2))
        if not self._head:
            raise AudiobatError(f"{self._name} has no samples: give audio that is not empty.")
        self._moved = False

    def _decode(self) -> Iterator[Any]:
        with decoding(self._name, self._errors):
            yield from self._container.decode(self._stream)

    def _from_start(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Every (position, block [S]) of the recording, counted from its first sample."""
        if self._moved:
            self._open()
        self._moved = True
        position = 0
        for frame in itertools.chain(self._head, self._frames):
            block = self._mono(frame)
            yield position, block
            position += len(block)

    def _sought(self, first: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """(position, block [S]) from a little before `first` on; nothing where the format cannot seek there."""
        origin, start = self._head[0].pts, Fraction(first, self.rate) - PREROLL
        if start <= 0 or origin is None:
            return
        self._moved = True
        try:
            self._container.seek(origin + int(start / self._stream.time_base), stream=self._stream)
        except (self._av.FFmpegError, OverflowError):
            return
        after = 0  # the previous frame's end
        for frame in self._decode():
            if frame.pts is not None:
                position = self._position(frame, (frame.pts - origin) * self._stream.time_base * self.rate, after)
            elif after:  # as the last frame of WMA
                position = after
            else:
                return
            after = position + frame.samples
            yield position, self._mono(frame)

    def _position(self, frame: Any, at: Fraction, after: int) -> int:
        """Where a frame begins, in samples: `at`, by its time stamp, but Matroska and others count in milliseconds.

        Finer than a millisecond are the grid on which the equally long frames of most codecs lie, and the end of the
        frame before.
        """
        tick = self._stream.time_base * self.rate
        first, size = int(self._head[0].samples), int(self._head[-1].samples)
        grid = first + size * round((at - first) / size)
        if frame.samples == size and abs(grid - at) <= tick:
            return grid
        return after if abs(after - at) <= tick else round(at)

    def _mono(self, frame: Any) -> NDArray[np.float32]:
        """One frame, any sample format, to float32 [S]."""
        if frame.sample_rate != self.rate:
            raise AudiobatError(
                f"{self._name} changes from {self.rate} to {frame.sample_rate} Hz on its way: encode it again."
            )
        with decoding(self._name, self._errors):
            values = frame.to_ndarray()  # [C, S], or [1, S * C]
        channels = values if frame.format.is_planar else values.reshape(frame.samples, -1).T
        scale = 1.0
        if values.dtype.kind in "iu":
            scale = 2.0 ** (8 * values.dtype.itemsize - 1)
        middle = scale if values.dtype.kind == "u" else 0.0
        with np.errstate(all="ignore"):  # infinities are found later
            mono = channels.mean(axis=0, dtype=np.float64 if values.dtype.itemsize > 2 else np.float32)
            samples: NDArray[np.float32] = ((mono - middle) / scale).astype(np.float32)
        return samples


def cut_blocks(
    blocks: Iterable[tuple[int, NDArray[np.float32]]], first: int, count: int | None
) -> list[NDArray[np.float32]]:
    """The samples from `first` on, at most `count`; nothing if the blocks begin after `first` or end before it."""
    pieces: list[NDArray[np.float32]] = []
    kept = 0
    for position, block in blocks:
        skip = 0 if pieces else first - position
        if skip < 0:
            return []
        piece = block[skip:] if count is None else block[skip : skip + count - kept]
        if len(piece):
            pieces.append(piece)
            kept += len(piece)
        if kept == count:
            break
    return pieces
