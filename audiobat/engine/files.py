"""Files and folders are written beside their place and renamed: at any instant they are there whole, or not at all.

A process that is killed at any instant leaves the old file or the new one, and at most a sibling that ends in .tmp,
which the next write to the same place removes, and in a run folder the next start of the run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audiobat.errors import AudiobatError


def write_atomic(path: str | Path, content: str | bytes, beside: Path | None = None) -> None:
    """Write text (as UTF-8) or bytes to the file `path`, flushed to the disk before the rename; its folder exists.

    Where several processes may write one file at the same moment, each gives a sibling of its own, `beside`.
    """
    path = Path(path)
    beside = path.with_name(path.name + ".tmp") if beside is None else beside
    with beside.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())  # without this a power loss may keep the rename and lose the bytes
    beside.replace(path)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a sibling path to write a file or a folder to; it takes the place of `path` when the block ends.

    If the block raises, the sibling is removed and `path` stays as it was. The folder above is made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    restore(path)  # or the old copy of a killed process would lie there for ever
    remove(beside)
    try:
        yield beside
        if path.is_dir() and beside.is_dir():  # a folder cannot be renamed over another; a file is never put over one
            old = old_copy(path)
            remove(old)
            path.rename(old)
            beside.rename(path)
            remove(old)
        else:
            beside.replace(path)
    except BaseException:
        restore(path)
        remove(beside)
        raise


@contextmanager
def errors_of_writing(place: Path, hint: str = "fix that") -> Iterator[None]:
    """Turn a full disk, or another refusal to write `place` or a file in it, into one sentence."""
    try:
        yield
    except OSError as error:
        raise AudiobatError(f"{error.filename or place} cannot be written ({error.strerror}): {hint}.") from error


def restore(folder: str | Path) -> None:
    """Put back the folder that a process took away in `replacing` before it was killed between the two renames."""
    old = old_copy(Path(folder))
    if old.exists() and not Path(folder).exists():
        old.rename(folder)


def clear_leftovers(place: Path) -> None:
    """Remove what a killed process was writing at `place` or in it; no other may be at work there."""
    for leftover in (place.with_name(place.name + ".tmp"), *(place.rglob("*.tmp") if place.is_dir() else ())):
        remove(leftover)


def old_copy(folder: Path) -> Path:
    """Where `replacing` puts the old folder for the instant between its two renames."""
    return folder.with_name(folder.name + ".old.tmp")


def remove(path: str | Path) -> None:
    """Remove a file or a folder, if it is there."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
