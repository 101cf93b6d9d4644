"""Files and folders are written beside their place and renamed: at any instant they are there whole, or not at all.

A process that is killed at any instant leaves the old file or the new one, and at most a sibling that ends in .tmp,
which the next write to the same place removes, and in a run folder the next start of the run. `read_json` reads what
may have been damaged since.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from audiobat.config.checks import LONGEST_NUMBER, is_deep
from audiobat.errors import AudiobatError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LARGEST_JSON = 64 * 2**20  # bytes: room for the names of a million classes


def write_atomic(path: str | Path, content: str | bytes, beside: Path | None = None) -> None:
    """Write text (as UTF-8) or bytes to the file `path`, flushed to the disk before the rename; its folder exists.

    Where several processes may write one file at the same moment, each gives a sibling of its own, `beside`.
    """
    path = Path(path)
    beside = path.with_name(path.name + ".tmp") if beside is None else beside
    try:
        with beside.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # without this a power loss may keep the rename and lose the bytes
        beside.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # those of a full disk name no file
        with suppress(OSError):
            beside.unlink(missing_ok=True)  # on a full disk there is no room for half a file
        raise


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
    except Exception as error:
        if (refused := error if isinstance(error, OSError) else full_disk(error)) is None:
            raise
        reason = refused.strerror or refused
        raise AudiobatError(f"{refused.filename or place} cannot be written ({reason}): {hint}.") from error


def full_disk(error: BaseException) -> OSError | None:
    """The error of a full disk, or of a quota or a limit, that an error is or has hidden; None if there is none.

    zipfile and torch raise errors of their own when they cannot write.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in FULL:
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def check_zip(path: Path) -> None:
    """Raise an error unless all members of a zip file match their checksums, which readers of tensors do not compare.

    A damaged file can fail anywhere in the readers: with ValueError, zipfile.BadZipFile or another error.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} does not match its checksum")


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


def read_json(file: Path, hint: str = "copy or download it again") -> dict[str, Any]:
    """The object in a JSON file; AudiobatError with a hint if it cannot be read or holds anything else."""
    try:
        if file.exists() and not file.is_file():  # a pipe would be waited for
            raise OSError("it is no plain file")
        if file.stat().st_size > LARGEST_JSON:
            raise OSError(f"it is larger than {LARGEST_JSON >> 20} MiB")
        value = json.loads(file.read_text(encoding="utf-8"), parse_int=_short_int)
        if is_deep(value):
            raise ValueError("lists within lists without end")
    except RecursionError:
        raise AudiobatError(f"{file} cannot be read as JSON (lists within lists without end): {hint}.") from None
    except (OSError, ValueError) as error:
        raise AudiobatError(f"{file} cannot be read as JSON ({error}): {hint}.") from None
    if not isinstance(value, dict):
        raise AudiobatError(f"{file} holds no JSON object: {hint}.")
    return value


def _short_int(digits: str) -> int:
    """A whole number that can be computed with as a float, too."""
    if len(digits) > LONGEST_NUMBER:
        raise ValueError("a number has too many digits")
    return int(digits)
