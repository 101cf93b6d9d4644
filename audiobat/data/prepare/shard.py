"""One shard on the disk: members to tar files whose bytes depend on the members alone, and the index beside them.

The index is written last: with it, the shard is done.
"""

from __future__ import annotations

import io
import os
import tarfile
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from audiobat.data.columns import Ragged, Strings
from audiobat.data.shards import SHARDS, ShardPlan, beside, index_path, volume_path, write_shared
from audiobat.engine.files import check_zip

BLOCK = 512  # bytes: what headers and members are padded to
END = bytes(2 * BLOCK)
VOLUME_BYTES = 1 << 30  # a volume that is longer takes no further recording

STORED_AS = {"clip_ids": "rows"}  # names in the file, where they differ from the fields'


class ShardWriter:
    """Writes the members of one recording after another; a context manager, which removes what was not finished.

    Attributes:
        sizes: bytes of each finished volume.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._number = folder, number
        self._volumes: list[BinaryIO] = []
        self._paths: list[Path] = []
        self.sizes: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file, path in zip(self._volumes, self._paths, strict=True):
            with suppress(OSError):  # on a full disk, closing fails to write what is still in the buffer
                file.close()
            beside(path).unlink(missing_ok=True)

    def begin(self) -> int:
        """Begin a recording; returns the position to give to `undo`."""
        if not self._volumes or self._volumes[-1].tell() > VOLUME_BYTES:
            self._paths.append(volume_path(self._folder, self._number, len(self._paths)))
            self._volumes.append(beside(self._paths[-1]).open("wb", buffering=1 << 20))
        return self._volumes[-1].tell()

    def undo(self, position: int) -> None:
        """Take back what was added since `begin`."""
        self._volumes[-1].seek(position)
        self._volumes[-1].truncate()

    def add(self, name: str, data: bytes) -> tuple[int, int]:
        """Add a member; returns its volume and the offset of its first byte there, right after its header.

        The header has time, owner and group 0. The name has at most 100 bytes: what goes before a header for a longer
        one, in GNU's way or in PAX's, some readers of WebDataset's format do not know.
        """
        file = self._volumes[-1]
        member = tarfile.TarInfo(name)
        member.size = len(data)
        file.write(member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        offset = file.tell()
        file.write(data)
        file.write(bytes(-len(data) % BLOCK))
        return len(self._volumes) - 1, offset

    def finish(self) -> list[str]:
        """Bring all to the disk, rename it, and return the names of the volumes; those without members are left out."""
        while self._volumes and not self._volumes[-1].tell():
            self._volumes.pop().close()
            beside(self._paths.pop()).unlink()
        for file in self._volumes:
            file.write(END)
            self.sizes.append(file.tell())
            file.flush()
            os.fsync(file.fileno())
            file.close()
        for path in self._paths:
            os.replace(beside(path), path)
        return [path.name for path in self._paths]


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The content of a shard: m clips of the source or windows of them, in V volumes; k clips were skipped."""

    plan: str  # digest of the plan that it belongs to
    number: int  # of the shard
    volumes: Strings  # [V] names of the tar files
    volume_sizes: NDArray[np.int64]  # [V] bytes
    keys: Strings  # [m]
    clip_ids: NDArray[np.int64]  # [m] in the source's table
    starts: NDArray[np.int64]  # [m] samples into the clip of the source
    volume_ids: NDArray[np.int64]  # [m]
    offsets: NDArray[np.int64]  # [m] first byte in the volume
    sizes: NDArray[np.int64]  # [m] bytes
    lengths: NDArray[np.int64]  # [m] samples
    hashes: NDArray[np.uint64]  # [m, 2] of the samples
    loud: NDArray[np.bool_]  # [m] whether samples beyond full scale were cut off there
    labels: Ragged | None  # [m] class indices, int32
    events: Ragged | None  # [m] EVENTs
    skipped: NDArray[np.int64]  # [k] clip_ids in the source's table
    reasons: Strings  # [k]

    def ends(self) -> dict[int, int]:
        """The sample behind the last one, of each clip of the source."""
        return dict(zip(self.clip_ids.tolist(), (self.starts + self.lengths).tolist(), strict=True))

    def save(self, folder: Path) -> None:
        """Write it beside its shard, whole or not at all."""
        arrays: dict[str, Any] = {}
        for f in fields(self):
            name, value = STORED_AS.get(f.name, f.name), getattr(self, f.name)
            if isinstance(value, Ragged):
                arrays |= {f"{name}.offsets": value.offsets, f"{name}.values": value.values}
            elif value is not None:
                arrays[name] = value
        packed = io.BytesIO()
        np.savez(packed, allow_pickle=False, **arrays)
        write_shared(index_path(folder, self.number), packed.getvalue())


def load_index(folder: Path, number: int, plan: ShardPlan) -> ShardIndex | None:
    """The index of a shard; None if the shard is not done: no index, one of another plan, a volume missing or cut."""
    try:
        check_zip(index_path(folder, number))
        with np.load(index_path(folder, number), allow_pickle=False) as arrays:
            found: dict[str, Any] = {"labels": None, "events": None}
            for f in fields(ShardIndex):
                name = STORED_AS.get(f.name, f.name)
                if name in arrays:
                    found[f.name] = arrays[name].item() if arrays[name].ndim == 0 else arrays[name]
                elif f"{name}.offsets" in arrays:
                    kind = Ragged if name in ("labels", "events") else Strings
                    found[f.name] = kind(arrays[f"{name}.offsets"], arrays[f"{name}.values"])
            index = ShardIndex(**found)
        sizes = [os.path.getsize(folder / SHARDS / name) for name in index.volumes]
    except Exception:  # a damaged file can fail anywhere in the readers
        return None
    belongs = (index.plan, index.number) == (plan.digest, number)
    return index if belongs and sizes == index.volume_sizes.tolist() else None
