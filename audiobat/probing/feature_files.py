"""A folder of frozen features on disk: mapped, checksummed chunk by chunk; any part of it may be lost at any time.

    FOLDER/KEY/features.f32     the values of all chunks, mapped for reading
    FOLDER/KEY/00000016.json    the chunk that begins with clip 16: which clips, where, checksum; written last

KEY is a digest of the encoder's weights and settings, of the clip table and of this format.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import nn

from audiobat.data.clip_table import ClipTable
from audiobat.data.windows import file_stamp
from audiobat.engine.files import write_atomic
from audiobat.errors import AudiobatError
from audiobat.models.features import Encoder
from audiobat.models.identity import digest_of, encoder_facts
from audiobat.probing.feature_store import FLOAT_BYTES, Chunk, ClipIds

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

FORMAT = "audiobat-features-2"
VALUES = "features.f32"
SAME = 0.02  # relative distance up to which features of two devices or precisions are of one encoder
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
GB = 1e9


class FeatureFiles:
    """The folder of one encoder and table, locked while it is open: a second run waits, then finds all there."""

    def __init__(self, folder: str | Path, encoder: Encoder, table: ClipTable) -> None:
        self.folder = Path(folder) / cache_key(encoder, table)
        self.table = table
        self._end = 0  # floats in use
        self._kept: list[tuple[int, Chunk]] = []  # where a chunk's values begin, and the chunk without them

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.folder / VALUES, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise AudiobatError(f"{self.folder} cannot be written ({error.strerror}): give another --cache.") from None
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"another run fills {self.folder}: waiting for it", file=sys.stderr, flush=True)
                fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)  # and with it the lock

    def load(
        self, cuts: Sequence[ClipIds], skipped: dict[str, str], again: Callable[[ClipIds], Chunk | None]
    ) -> list[ClipIds]:
        """Find what is there, check it, and return the cuts whose chunks are to be computed.

        Args:
            cuts: ids of the clips of each chunk.
            skipped: receives key -> reason of the unreadable clips of the chunks that are there.
            again: computes a chunk, to check that the encoder still gives the same features.
        """
        found = [self._read(cut) for cut in cuts]
        first = next((i for i, chunk in enumerate(found) if chunk is not None), None)
        if first is None:
            return list(cuts)
        offset, chunk, _ = found[first]  # type: ignore[misc]
        if not alike(replace(chunk, values=self._values(offset, chunk)), again(cuts[first])):
            print(f"{self.folder} is of another version of the encoder: computed again", file=sys.stderr, flush=True)
            for cut in cuts:
                self._index(cut).unlink(missing_ok=True)
            return list(cuts)
        for entry in found:
            if entry is not None:
                self._kept.append(entry[:2])
                self._end = max(self._end, entry[0] + entry[1].floats)
                skipped.update(entry[2])
        return [cut for cut, entry in zip(cuts, found, strict=True) if entry is None]

    def keep(self, cut: ClipIds, chunk: Chunk, skipped: dict[str, str], left: int) -> None:
        """Write the chunk of a cut, with the reasons why clips of it are missing; `left` clips are still to come.

        Raises:
            AudiobatError: the disk is full, or cannot hold what is to come.
        """
        data = np.ascontiguousarray(chunk.values).data.cast("B")
        try:
            self._check_room(chunk, left)
            _write_at(self._file, data, self._end * FLOAT_BYTES)
            os.fsync(self._file)
            text = json.dumps(
                {
                    "format": FORMAT,
                    "clips": self._identity(cut),
                    "offset": self._end,
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "rows": chunk.clip_ids.tolist(),
                    "sizes": chunk.sizes.tolist(),
                    "valid": base64.b64encode(np.packbits(chunk.valid).tobytes()).decode(),
                    "times": chunk.times.tolist(),
                    "shape": chunk.shape.tolist(),
                    "skipped": skipped,
                }
            )
            write_atomic(self._index(cut), f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}\n")
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise self._no_room("is full") from None
        self._kept.append((self._end, replace(chunk, values=np.empty(0, np.float32))))
        self._end += chunk.values.size

    def chunks(self) -> list[Chunk]:
        """All chunks, their values in one map of the file, which outlives this object."""
        if not self._kept:
            return []
        mapped = np.memmap(self.folder / VALUES, np.float32, "r")
        return [replace(chunk, values=mapped[at : at + chunk.floats]) for at, chunk in self._kept]

    def _check_room(self, chunk: Chunk, left: int) -> None:
        """Raise now, not after hours, if the clips to come do not fit, unless they are far shorter than these."""
        shortest = int(np.diff(chunk.spans[0]).min()) * FLOAT_BYTES
        free = shutil.disk_usage(self.folder).free
        if shortest * left > free:
            raise self._no_room(f"has {free / GB:.3g} GB left, and the features take {shortest * left / GB:.3g} GB")

    def _no_room(self, what: str) -> AudiobatError:
        return AudiobatError(
            f"The disk of {self.folder} {what}: make room and start again, which goes on from here, or give a --cache "
            "on another disk, or none."
        )

    def _index(self, cut: ClipIds) -> Path:
        return self.folder / f"{cut[0]:08d}.json"

    def _read(self, cut: ClipIds) -> tuple[int, Chunk, dict[str, str]] | None:
        """Where a chunk begins, the chunk without its values, and its unreadable clips; None if any of it is wrong."""
        path = self._index(cut)
        if not path.exists():
            return None
        try:
            digest, text, _ = path.read_text(encoding="utf-8").split("\n")
            if digest != hashlib.sha256(text.encode()).hexdigest():
                raise ValueError("its list is damaged")
            known = json.loads(text)
            sizes = np.array(known["sizes"], np.int64)
            packed = np.frombuffer(base64.b64decode(known["valid"]), np.uint8)
            chunk = Chunk(
                np.array(known["rows"], np.int64),
                sizes,
                np.unpackbits(packed, count=int(sizes.sum())).astype(bool),
                np.array(known["times"], np.float32),
                np.array(known["shape"], np.int64),
                np.empty(0, np.float32),
            )
            if known["clips"] != self._identity(cut):
                raise ValueError("its audio files have changed")
            if known["sha256"] != hashlib.sha256(self._values(known["offset"], chunk).data).hexdigest():
                raise ValueError("its values are damaged")
        except (ValueError, KeyError, OSError) as error:
            print(f"{path}: {error}; computed again", file=sys.stderr, flush=True)
            return None
        return known["offset"], chunk, known["skipped"]

    def _values(self, offset: int, chunk: Chunk) -> NDArray[np.float32]:
        """A chunk's values, mapped; ValueError if the file ends before they do."""
        return np.memmap(self.folder / VALUES, np.float32, "r", offset * FLOAT_BYTES, (chunk.floats,))

    def _identity(self, cut: ClipIds) -> str:
        """Digest of a cut's clips: keys, sizes and times of their files, so that a replaced file is noticed."""
        digest = hashlib.sha256()
        for clip_id in cut.tolist():
            digest.update(f"{self.table.keys[clip_id]}\0{file_stamp(self.table, clip_id)}\n".encode())
        return digest.hexdigest()


def cache_key(encoder: Encoder, table: ClipTable) -> str:
    """Digest of everything that the features depend on besides the audio and the code.

    Raises:
        AudiobatError: the encoder is no torch module, so its weights cannot be told from others.
    """
    if not isinstance(encoder, nn.Module):
        raise AudiobatError(
            f"{type(encoder).__name__} is no torch module, so its weights have no digest: leave --cache out."
        )
    return digest_of({"format": FORMAT, "clips": table.sha256()} | encoder_facts(encoder))


def alike(kept: Chunk, now: Chunk | None) -> bool:
    """Whether two chunks of the same clips are of one encoder; devices and precisions differ by less than `SAME`."""
    if now is None or kept.shape.tolist() != now.shape.tolist() or kept.sizes.tolist() != now.sizes.tolist():
        return False
    return bool(np.linalg.norm(kept.values - now.values) <= SAME * np.linalg.norm(now.values))


def _write_at(file: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
