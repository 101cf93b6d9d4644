"""One open clip: its length, and any spans of its samples, from one handle on its file; the lengths of all.

In: a clip table and a clip_id (a clip's place in it). Out: mono float32 samples [S] at any rate. A clip lies in a loose
file, in a tar shard, in a Parquet file, or in an object store, of which the other files know nothing.

Shards are read by offset (`pread`), so that any order costs the same, and processes share nothing but the page cache.
"""

from __future__ import annotations

import functools
import math
import os
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray

from audiobat.audio.read import open_audio, read_span
from audiobat.audio.sound_file import OpenAudio
from audiobat.data.clip_table import ClipLocation, ClipTable
from audiobat.data.remote import fetched, is_remote, read_range
from audiobat.data.shards import member_stem
from audiobat.data.sources.parquet import AUDIO, open_parquet
from audiobat.engine.progress import Progress
from audiobat.errors import AudiobatError

TAR_BLOCK = 512  # bytes of a tar header, which stands right before its member
NAME, SIZE, MAGIC = slice(0, 100), slice(124, 136), slice(257, 262)  # fields of a tar header
PCM = ".pcm"  # headerless 16-bit samples at the table's rate
PCM_BYTES = 2
FLAC_MAGIC = b"fLaC"
OPEN_SHARDS = 128  # kept open in each process
ROW_GROUPS = 2  # of Parquet files, kept in each process
READ_SAMPLES = 1 << 21  # of a long recording in memory at once, at its own rate: 8 MiB
READERS = 8  # clips that are opened at the same time for their lengths
SHOWN = 200  # clips; fewer are measured without a bar

Samples = NDArray[np.float32]


class OpenClip:
    """A clip whose file is open; `open_clip` makes it. Any number of spans can be read, in any order."""

    def __init__(self, audio: OpenAudio, name: str, location: ClipLocation, ends: bool) -> None:
        self._audio = audio
        self._name = name
        self._begin = location.begin  # seconds into the recording at which the clip begins
        self._limit = location.seconds if ends else None  # where the clip ends although its recording may go on
        self._seconds: float | None = None  # not known yet

    @property
    def rate(self) -> int:
        """The recording's own sample rate, Hz."""
        return self._audio.rate

    @property
    def channels(self) -> int:
        """How many channels the recording has; what is read is their mean."""
        return self._audio.channels

    @property
    def seconds(self) -> float:
        """Length of the clip: of its recording, whatever a list says, or of the part that the table cuts out of it."""
        if self._seconds is None:
            left = max(0.0, self._audio.samples() / self._audio.rate - self._begin)
            self._seconds = left if self._limit is None else min(left, self._limit)
        return self._seconds

    def read(self, sample_rate: int, start: float = 0.0, seconds: float | None = None) -> Samples:
        """Samples [S] at `sample_rate` Hz, from `start` seconds into the clip on, for `seconds` (None: to its end).

        Raises:
            AudiobatError: as for `load_audio`.
        """
        if self._limit is not None:
            left = self._limit - start
            seconds = left if seconds is None else min(seconds, left)
        return read_span(self._audio, self._name, sample_rate, self._begin + start, seconds)

    def blocks(self, sample_rate: int) -> Iterator[Samples]:
        """The whole clip, block by block in constant memory, resampled without seams: what `read` gives at once."""
        total = round(self.seconds * self.rate)
        # The stream keeps what the filter needs of the block before, so that blocks join without seams; it must know
        # which block is the last, to give the rest.
        stream = None if self.rate == sample_rate else soxr.ResampleStream(self.rate, sample_rate, 1, "float32", "HQ")
        for first in range(0, total, READ_SAMPLES):
            block = self.read(self.rate, first / self.rate, READ_SAMPLES / self.rate)
            last = len(block) < READ_SAMPLES or first + READ_SAMPLES >= total  # a damaged file may hold less
            yield block if stream is None else stream.resample_chunk(block, last=last)
            if last:
                break


@contextmanager
def open_clip(table: ClipTable, clip_id: int) -> Iterator[OpenClip]:
    """Open the clip at place `clip_id` of a table; its file is opened, or fetched, once.

    Raises:
        AudiobatError: as for `open_audio`; a shard that is gone, was cut short or does not hold the clip.
    """
    location, key = table.location(clip_id), table.keys[clip_id]
    ends = table.begins is not None and location.seconds is not None  # the clip is a part of its recording
    # Prepared shards tell the rate of their members; members of other tars are whole files, which tell it themselves.
    prepared = location.size is not None and location.sample_rate is not None
    if prepared and _is_pcm(location, key):
        yield OpenClip(_PcmMember(location), key, location, ends)
        return
    name = location.path if location.offset is None else f"{location.path}: {key}"
    with _source(location, key) as source, open_audio(source, name, is_right=prepared) as audio:
        yield OpenClip(audio, name, location, ends)


def read_clip(
    table: ClipTable, clip_id: int, sample_rate: int, start: float = 0.0, seconds: float | None = None
) -> Samples:
    """Open a clip, read one span as `OpenClip.read` does, and close it."""
    with open_clip(table, clip_id) as clip:
        return clip.read(sample_rate, start, seconds)


class Length(NamedTuple):
    """What an open clip says of itself."""

    seconds: float  # NaN: it cannot be read
    rate: int
    channels: int
    error: str = ""


def measure(table: ClipTable) -> list[Length]:
    """The length and rate of every clip, [n]: of prepared shards from their table, of all else from the files."""
    if table.sizes is not None and table.sample_rates is not None and table.seconds is not None:
        both = zip(table.seconds.tolist(), table.sample_rates.tolist(), strict=True)
        return [Length(seconds, rate, 1) for seconds, rate in both]

    def one(clip_id: int) -> Length:
        try:
            with open_clip(table, clip_id) as clip:
                return Length(clip.seconds, clip.rate, clip.channels)
        except AudiobatError as error:
            return Length(math.nan, 0, 0, str(error))

    found: list[Length] = []
    with Progress("open", len(table), "file", shown=len(table) >= SHOWN) as bar, ThreadPoolExecutor(READERS) as pool:
        for length in pool.map(one, range(len(table))):
            found.append(length)
            bar.advance()
    return found


class _PcmMember:
    """A shard's member that holds headerless 16-bit samples; see `OpenAudio`. Only the bytes asked for are read."""

    def __init__(self, location: ClipLocation) -> None:
        assert location.sample_rate is not None
        self._location = location
        self.rate, self.channels = location.sample_rate, 1

    def samples(self) -> int:
        return (self._location.size or 0) // PCM_BYTES

    def read(self, first: int, count: int | None) -> Samples:
        left = max(0, self.samples() - first)
        count = left if count is None else min(count, left)
        at = (self._location.offset or 0) + first * PCM_BYTES
        data = _read_bytes(self._location.path, at, count * PCM_BYTES)
        samples: Samples = np.multiply(np.frombuffer(data, "<i2"), np.float32(2.0**-15), dtype=np.float32)
        return samples  # in [-1, 1)


def _is_pcm(location: ClipLocation, key: str) -> bool:
    """Whether the shard's member at the table's offset holds headerless samples, from its tar header.

    Raises:
        AudiobatError: the header is not the clip's, so that the table belongs to another shard.
    """
    assert location.offset is not None
    assert location.size is not None
    header = _read_bytes(location.path, max(0, location.offset - TAR_BLOCK), TAR_BLOCK)
    name = header[NAME].rstrip(b"\0").decode(errors="replace")
    cut = len(name.encode()) >= NAME.stop  # of a long name, the header has the beginning only
    # Shards of earlier versions have names that are as long as the keys.
    agree = name.startswith(f"{member_stem(key)}.") or (cut and f"{key}.".startswith(name[:64]))
    size = header[SIZE].strip(b" \0").lstrip(b"0")
    if header[MAGIC] != b"ustar" or size != b"%o" % location.size or not agree:
        raise AudiobatError(
            f"{location.path} does not hold clip {key} at byte {location.offset}: the index is of another shard, "
            "copy both again or prepare the data again."
        )
    if cut:  # the ending is not there: the first bytes tell
        return _read_bytes(location.path, location.offset, len(FLAC_MAGIC)) != FLAC_MAGIC
    return name.endswith(PCM)


def _source(location: ClipLocation, key: str) -> AbstractContextManager[str | bytes | BinaryIO]:
    """What `open_audio` reads the recording from: the path of a loose file, a copy of a remote file, or bytes."""
    if location.offset is not None and location.size is not None:
        return nullcontext(_read_bytes(location.path, location.offset, location.size))
    if location.offset is not None:
        return nullcontext(_parquet_cell(location.path, location.offset, key))
    return fetched(location.path) if is_remote(location.path) else nullcontext(location.path)


def _read_bytes(path: str, offset: int, size: int) -> bytes:
    """`size` bytes of a shard from `offset` on."""
    try:
        data = read_range(path, offset, size) if is_remote(path) else _read_local(path, offset, size)
    except OSError as error:
        raise AudiobatError(f"{path} cannot be read ({error.strerror}): copy or prepare the shard again.") from error
    if len(data) != size:
        raise AudiobatError(f"{path} was cut short: it ends before byte {offset + size}; copy or prepare it again.")
    return data


def _read_local(path: str, offset: int, size: int) -> bytes:
    """`size` bytes of a file, of which one call gives up to 2 GiB; none if the file ends before."""
    descriptor = _shards.descriptor(path)
    if os.fstat(descriptor).st_size < offset + size:  # before memory is asked for: a damaged tar may claim any size
        return b""
    parts = [os.pread(descriptor, size, offset)]
    while parts[-1] and (left := size - sum(map(len, parts))):
        parts.append(os.pread(descriptor, left, offset + size - left))
    return b"".join(parts)


class _OpenShards:
    """Descriptors of the shards used last; `pread` moves no position, so that forked processes may share them."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, int] = OrderedDict()

    def descriptor(self, path: str) -> int:
        if path in self._open:
            self._open.move_to_end(path)
        else:
            self._open[path] = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            if len(self._open) > OPEN_SHARDS:
                os.close(self._open.popitem(last=False)[1])
        return self._open[path]


_shards = _OpenShards()


def _parquet_cell(path: str, row: int, key: str) -> bytes:
    """The file inside row `row` of a Parquet file's `audio` column."""
    ends = _row_ends(path)
    group = int(np.searchsorted(ends, row, side="right"))
    if group >= len(ends):
        raise AudiobatError(f"{path} has {ends[-1] if len(ends) else 0} rows and no row {row} for clip {key}.")
    data = _row_group(path, group)[row - (int(ends[group - 1]) if group else 0)].as_py()
    if not data:
        raise AudiobatError(f"{path}, row {row}: clip {key} has no bytes in column `{AUDIO}`: download it again.")
    return bytes(data)


@functools.lru_cache(OPEN_SHARDS)
def _row_ends(path: str) -> NDArray[np.int64]:
    metadata = open_parquet(path).metadata
    return np.cumsum([metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)], dtype=np.int64)


@functools.lru_cache(ROW_GROUPS)
def _row_group(path: str, group: int) -> Any:
    """The bytes column of a row group. A random order reads each group many times: prepare such data first."""
    import pyarrow

    file = open_parquet(path)
    try:
        column = file.read_row_group(group, columns=[f"{AUDIO}.bytes"]).column(AUDIO)
    except (OSError, pyarrow.ArrowException) as error:
        raise AudiobatError(f"{path}, row group {group}, cannot be read ({error}): download it again.") from error
    return column.combine_chunks().field("bytes")
