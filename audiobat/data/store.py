"""A row of a clip table to its samples: from a loose file, a shard, a Parquet file, or an object store.

Shards are read by offset (`pread`), so that any order costs the same, and processes share nothing but the page cache.
A member's tar header is read with it: an index that points elsewhere is found out at once.
"""

from __future__ import annotations

import functools
import os
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiobat.audio.read import audio_duration, decode_pcm, load_audio, resample
from audiobat.data.clip_table import ClipTable, Place
from audiobat.data.remote import is_remote, read_range
from audiobat.data.sources.parquet import AUDIO, open_parquet
from audiobat.errors import AudiobatError

BLOCK = 512  # bytes of a tar header, right before its member
NAME, SIZE, MAGIC = slice(0, 100), slice(124, 136), slice(257, 262)  # fields of a tar header
PCM = ".pcm"  # headerless 16-bit samples at the table's rate
PCM_BYTES = 2
FLAC_MAGIC = b"fLaC"
OPEN_SHARDS = 128  # kept open in each process
ROW_GROUPS = 2  # of Parquet files, kept in each process

Samples = NDArray[np.float32]


def read_clip(
    table: ClipTable, row: int, sample_rate: int, start: float = 0.0, seconds: float | None = None
) -> Samples:
    """Read a clip, or a part of it, as mono float32 [S] at `sample_rate` Hz.

    Args:
        table: the clips.
        row: which one.
        sample_rate: Hz of the result.
        start: where to begin, in seconds from the clip's start.
        seconds: how much to read; None: to the clip's end.

    Raises:
        AudiobatError: as for `load_audio`; a shard that is gone, was cut short or does not hold the clip.
    """
    place = table.place(row)
    if place.size is not None:
        return _read_member(place, table.keys[row], sample_rate, start, seconds)
    if table.begins is not None and place.seconds is not None:  # a window of a recording: nothing beyond its end
        left = place.seconds - start
        seconds = left if seconds is None else min(seconds, left)
    return load_audio(_file(place, table.keys[row]), sample_rate, place.begin + start, seconds)


def clip_duration(table: ClipTable, row: int) -> tuple[float, int]:
    """Seconds and sample rate of a clip: the table's word or, where it has none, that of the recording's header."""
    place = table.place(row)
    if place.seconds is not None and place.sample_rate is not None:
        return place.seconds, place.sample_rate
    seconds, rate = audio_duration(_file(place, table.keys[row]))
    return (seconds - place.begin if place.seconds is None else place.seconds), rate


def _read_member(place: Place, key: str, sample_rate: int, start: float, seconds: float | None) -> Samples:
    assert place.offset is not None
    assert place.size is not None
    if not _holds_pcm(place, _member_name(place, key)):
        return load_audio(_read_bytes(place.path, place.offset, place.size), sample_rate, start, seconds)
    rate, total = place.sample_rate or sample_rate, place.size // PCM_BYTES
    first = round(start * rate)
    if first >= total:
        raise AudiobatError(f"{key} lasts {total / rate:g} s: it has no audio from {start:g} s on.")
    count = total - first if seconds is None else min(total - first, max(1, round(seconds * rate)))
    samples = decode_pcm(_read_bytes(place.path, place.offset + first * PCM_BYTES, count * PCM_BYTES))
    return resample(samples, rate, sample_rate)


def _member_name(place: Place, key: str) -> str:
    """Name of the shard's member that begins where the table says, checked against the clip."""
    assert place.offset is not None
    assert place.size is not None
    header = _read_bytes(place.path, place.offset - BLOCK, BLOCK)
    name = header[NAME].rstrip(b"\0").decode(errors="replace")
    size = header[SIZE].strip(b" \0").lstrip(b"0")
    if header[MAGIC] != b"ustar" or size != b"%o" % place.size or not _agree(name, key):
        raise AudiobatError(
            f"{place.path} does not hold clip {key} at byte {place.offset}: the index is of another shard, "
            "copy both again or prepare the data again."
        )
    return name


def _agree(name: str, key: str) -> bool:
    """Whether a member of this name is the clip's; of a long name, the header has the beginning."""
    return name.startswith(f"{key}.") or (_is_cut(name) and f"{key}.".startswith(name[:64]))


def _is_cut(name: str) -> bool:
    return len(name.encode()) >= NAME.stop


def _holds_pcm(place: Place, name: str) -> bool:
    """Whether a member is headerless samples: by its name's ending or, where that is cut off, by its first bytes."""
    assert place.offset is not None
    if _is_cut(name):
        return _read_bytes(place.path, place.offset, len(FLAC_MAGIC)) != FLAC_MAGIC
    return name.endswith(PCM)


def _file(place: Place, key: str) -> str | bytes:
    """What holds the recording: the path of a loose file, else its bytes."""
    if place.offset is not None and place.size is None:
        return _parquet_cell(place.path, place.offset, key)
    if place.offset is not None and place.size is not None:
        return _read_bytes(place.path, place.offset, place.size)
    return read_range(place.path) if is_remote(place.path) else place.path


def _read_bytes(path: str, offset: int, size: int) -> bytes:
    """`size` bytes of a shard from `offset` on."""
    data = read_range(path, offset, size) if is_remote(path) else _pread(path, offset, size)
    if len(data) != size:
        raise AudiobatError(f"{path} was cut short: it ends before byte {offset + size}; copy or prepare it again.")
    return data


def _pread(path: str, offset: int, size: int) -> bytes:
    try:
        return os.pread(_shards.descriptor(path), size, max(0, offset))
    except OSError as error:
        raise AudiobatError(f"{path} cannot be read ({error.strerror}): copy or prepare the shard again.") from error


class _OpenShards:
    """Descriptors of the shards used last; reading at an offset leaves no trace in them, so that forks may share."""

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
    """The bytes column of a row group; a random order reads groups again and again: prepare such data first."""
    file = open_parquet(path)
    return file.read_row_group(group, columns=[f"{AUDIO}.bytes"]).column(AUDIO).combine_chunks().field("bytes")
