"""Members to the volumes of one shard: tar files whose bytes depend on the members alone, renamed when complete."""

from __future__ import annotations

import os
import tarfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from audiobat.data.shards import beside, volume_path

BLOCK = 512  # bytes: what headers and members are padded to
END = bytes(2 * BLOCK)
VOLUME_BYTES = 1 << 30  # a volume that is longer takes no further recording


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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file, path in zip(self._volumes, self._paths, strict=True):
            with suppress(OSError):  # a full disk, which is why we are here, refuses what is still in the buffer
                file.close()
            beside(path).unlink(missing_ok=True)

    def begin(self) -> int:
        """Begin a recording; returns the place to give to `undo`."""
        if not self._volumes or self._volumes[-1].tell() > VOLUME_BYTES:
            self._paths.append(volume_path(self._folder, self._number, len(self._paths)))
            self._volumes.append(beside(self._paths[-1]).open("wb", buffering=1 << 20))
        return self._volumes[-1].tell()

    def undo(self, place: int) -> None:
        """Take back what was added since `begin`."""
        self._volumes[-1].seek(place)
        self._volumes[-1].truncate()

    def add(self, name: str, data: bytes) -> tuple[int, int]:
        """Add a member; returns its volume and the offset of its first byte there, right after its header."""
        file = self._volumes[-1]
        file.write(header(name, len(data)))
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


def header(name: str, size: int) -> bytes:
    """A member's header, of time, owner and group 0; a name beyond 100 bytes goes before it, in GNU's way.

    Of all ways to write long names, GNU's and PAX's are read everywhere; GNU's leaves the name's bytes as they are.
    """
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
