"""Rows on their way to a table: parts in OUT.parts/, so that a run killed at any instant goes on where it stopped.

Parts follow one another in the order of the clips. A part counts while the files it was made from stay as they were.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from audiobat.data.clip_table import ClipTable
from audiobat.data.windows import FileStamp, file_stamp
from audiobat.engine.files import write_atomic
from audiobat.errors import AudiobatError

Rows: TypeAlias = dict[str, NDArray[Any]]  # columns of one length; `row` is the clip's
Place: TypeAlias = tuple[int, int]  # a clip's row and a window of it

SETTINGS = "settings.json"
CHUNK_ROWS = 4096  # rows that `Journal.read` gives at once, whatever the parts hold


@dataclass
class Part:
    """What became of consecutive windows."""

    rows: Rows
    state: Rows
    next: Place  # of the window after them
    stamps: dict[int, FileStamp | None]  # of the clips' files, by row
    broken: dict[int, str]  # row -> reason


class Journal:
    """The parts of one run.

    Attributes:
        next: the window that comes after the last part.
        state: what the last part's writer asked to be kept.
        broken: clips that cannot be read (row -> reason) as far as the parts go.

    Raises:
        AudiobatError: the folder holds parts of other settings, and `overwrite` is not given.
    """

    def __init__(self, folder: Path, clips: ClipTable, settings: Mapping[str, Any], overwrite: bool) -> None:
        self.folder, self._clips = folder, clips
        self._begin(dict(settings), overwrite)
        self.next: Place = (0, 0)
        self.state: Rows = {}
        self.broken: dict[int, str] = {}
        self._parts: list[Path] = []
        for path in sorted(folder.glob("*.npz")):
            if path != self._path(len(self._parts)) or not self._adopt(path):
                path.unlink()

    def _begin(self, settings: dict[str, Any], overwrite: bool) -> None:
        record = self.folder / SETTINGS
        if record.exists():
            before = json.loads(record.read_text(encoding="utf-8"))
            changed = [name for name in settings if before.get(name) != settings[name]]
            if changed and not overwrite:
                what = " and ".join(changed)
                raise AudiobatError(f"{self.folder} was begun with another {what}: use the same, or give --overwrite.")
            if changed:
                for path in self.folder.glob("*.npz"):  # the record stays longest: no part is ever taken for another's
                    path.unlink()
        elif self.folder.exists() and {path.name for path in self.folder.iterdir()} - {f"{SETTINGS}.tmp"}:
            raise AudiobatError(f"{self.folder} holds other files: move it away, or choose another --out.")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(record, json.dumps(settings))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.npz"

    def _adopt(self, path: Path) -> bool:
        """Go on after the part at `path`, if it is whole and its files are the same as then."""
        try:
            with np.load(path, allow_pickle=False) as part:
                meta = json.loads(part["meta"].tobytes())
                if tuple(meta["first"]) != self.next:
                    return False
                state = {name.removeprefix("state."): part[name] for name in part.files if name.startswith("state.")}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return False
        for row, key, found in meta["files"]:
            if row >= len(self._clips) or self._clips.keys[row] != key or found != _plain(file_stamp(self._clips, row)):
                return False
        self._parts.append(path)
        self.next, self.state = tuple(meta["next"]), state
        self.broken |= {int(row): reason for row, reason in meta["broken"].items()}
        return True

    def add(self, part: Part) -> None:
        """Keep a part: all of it or nothing."""
        files = [[row, self._clips.keys[row], found] for row, found in part.stamps.items()]
        meta = {"first": self.next, "next": part.next, "files": files, "broken": part.broken}
        packed = io.BytesIO()
        arrays = {f"rows.{name}": values for name, values in part.rows.items()}
        arrays |= {f"state.{name}": values for name, values in part.state.items()}
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        np.savez(packed, allow_pickle=False, **arrays)
        path = self._path(len(self._parts))
        write_atomic(path, packed.getvalue())
        self._parts.append(path)
        self.next, self.state = part.next, part.state
        self.broken |= part.broken

    def read(self) -> Iterator[Rows]:
        """All rows but those of broken clips, in chunks of CHUNK_ROWS; the last one may be empty."""
        held: list[Rows] = []
        for path in self._parts:
            with np.load(path, allow_pickle=False) as part:
                rows = {n.removeprefix("rows."): part[n] for n in part.files if n.startswith("rows.")}
            if not rows:
                continue
            keep = ~np.isin(rows["row"], list(self.broken))
            held.append({name: values[keep] for name, values in rows.items()})
            while sum(len(rows["row"]) for rows in held) > CHUNK_ROWS:
                joined = join_rows(held)
                yield {name: values[:CHUNK_ROWS] for name, values in joined.items()}
                held = [{name: values[CHUNK_ROWS:] for name, values in joined.items()}]
        if held:
            yield join_rows(held)

    def close(self) -> None:
        """Remove the parts: the table is written."""
        shutil.rmtree(self.folder)


def join_rows(parts: Sequence[Rows]) -> Rows:
    """Several lots of rows as one."""
    return {name: np.concatenate([rows[name] for rows in parts]) for name in parts[0]}


def sibling(out: Path, ending: str) -> Path:
    """OUT.ending, beside `out`."""
    return out.with_name(f"{out.name}.{ending}")


@contextmanager
def told_when_full(out: Path) -> Iterator[None]:
    """Turn the system's refusal to write into one sentence; what is finished stays."""
    try:
        yield
    except OSError as error:
        raise AudiobatError(
            f"{error.filename or out} cannot be written ({error.strerror}): fix that; the same command goes on from "
            "what is done."
        ) from error


def _plain(found: tuple[int, int] | None) -> list[int] | None:
    """A stamp as JSON gives it back."""
    return None if found is None else list(found)
