"""What a pass over recordings has made so far, as files in OUT.parts/: a run that was killed goes on from there.

In: the rows of consecutive windows. Out: parts, NUMBER.npz, in the order of the clips, and the rows of all of them. A
part counts as long as the audio files that it was made from have not changed.

Several ranks work on shares, which are consecutive clips with parts of their own, FIRST_CLIP-NUMBER.npz; the shares are
listed in settings.json, so that any number of ranks goes on with them. One process alone makes one share of all clips.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from audiobat.data.clip_table import ClipTable
from audiobat.data.windows import FileStamp, file_stamp
from audiobat.engine.files import check_zip, read_json, write_atomic
from audiobat.engine.ranks import Ranks
from audiobat.errors import AudiobatError, counted, name_some

Rows: TypeAlias = dict[str, NDArray[Any]]  # rows of a table as columns of one length [R, ...]
WindowId: TypeAlias = tuple[int, int]  # a clip's place in the clip table, and a window's place in the clip

CLIP_ID = "row"  # the column of clip ids; parts of earlier versions have it under this name
SETTINGS = "settings.json"
SHARED = "shares"  # the field of the first clips of shares
CHUNK_ROWS = 4096  # rows that `Journal.read` gives at once, however many a part holds
SHARES = 64  # of clips for several ranks, at least, so that the last ones do not wait long for one another
SHARE_CLIPS = 256  # in a share, at most
OTHER_LENGTH = "of another length than the list's `seconds`, and read to the end"
NAMES_SHOWN = 3  # of clips, in a closing line


@dataclass
class Seen:
    """What a pass has seen of some clips."""

    stamps: dict[int, FileStamp | None] = field(default_factory=dict)  # clip id: its file's size and time
    broken: dict[int, str] = field(default_factory=dict)  # clip id: the reason why it cannot be read
    loud: set[int] = field(default_factory=set)  # clips with a window that is not silent
    short: set[int] = field(default_factory=set)  # clips that are shorter than a window
    misjudged: set[int] = field(default_factory=set)  # clips that are not as long as the clips' list says

    def __ior__(self, other: Seen) -> Self:
        for name, found in vars(other).items():
            getattr(self, name).update(found)
        return self


class Share:
    """Consecutive clips and the parts made of them, which one process reads and writes.

    Attributes:
        first: the first clip.
        end: the clip behind the last.
        next: the window after the last part.
        state: the state that the last part holds.
        broken: clip id -> reason, of the clips up to `next` that cannot be read.
        parts: files.
    """

    def __init__(self, folder: Path, clips: ClipTable, first: int, end: int) -> None:
        self._folder, self._clips = folder, clips
        self.first, self.end = first, end
        self.next: WindowId = (first, 0)
        self.state: Rows = {}
        self.broken: dict[int, str] = {}
        self.parts: list[Path] = []
        self._prefix = f"{first:08d}-" if first else ""
        for path in sorted(folder.glob(f"{self._prefix}{'[0-9]' * 8}.npz")):
            if path != self._path(len(self.parts)) or not self._continue_after(path):
                path.unlink()  # and with it every later part, which now follows a gap

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._prefix}{number:08d}.npz"

    def _continue_after(self, path: Path) -> bool:
        """Take over the part at `path` if it is whole, comes next, and its audio files are unchanged."""
        try:
            check_zip(path)
            with np.load(path, allow_pickle=False) as part:
                meta = json.loads(part["meta"].tobytes())
                if tuple(meta["first"]) != self.next:
                    return False
                state = {name.removeprefix("state."): part[name] for name in part.files if name.startswith("state.")}
        except Exception:  # a damaged file can fail anywhere in the readers
            return False
        for clip_id, key, found in meta["files"]:
            if clip_id >= len(self._clips) or self._clips.keys[clip_id] != key:
                return False
            stamp = file_stamp(self._clips, clip_id)
            if found != (None if stamp is None else list(stamp)):  # JSON gives a list back
                return False
        self.parts.append(path)
        self.next, self.state = tuple(meta["next"]), state
        self.broken |= {int(clip_id): reason for clip_id, reason in meta["broken"].items()}
        return True

    def add(self, rows: Rows, state: Rows, following: WindowId, seen: Seen) -> None:
        """Write a part, whole or not at all: the rows that consecutive windows gave, up to the window `following`.

        `state` is what the task remembers of these windows, such as an event that has not ended.
        """
        files = [[clip_id, self._clips.keys[clip_id], found] for clip_id, found in seen.stamps.items()]
        meta = {"first": self.next, "next": following, "files": files, "broken": seen.broken}
        meta["silent"] = sorted(seen.stamps.keys() - seen.loud - seen.broken.keys())
        meta |= {"short": sorted(seen.short), "misjudged": sorted(seen.misjudged)}
        packed = io.BytesIO()
        arrays = {f"rows.{name}": values for name, values in rows.items()}
        arrays |= {f"state.{name}": values for name, values in state.items()}
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        np.savez(packed, allow_pickle=False, **arrays)
        path = self._path(len(self.parts))
        write_atomic(path, packed.getvalue())
        self.parts.append(path)
        self.next, self.state = following, state
        self.broken |= seen.broken


class Journal:
    """All parts of one run, and the settings that they were made with; every rank has one, and rank 0 begins it.

    Attributes:
        firsts: the first clip of each share; the clips of a share end where the next one begins.
        parts: files of all shares in their order, once `finish` was called.
        broken: clip id -> reason, of all clips that cannot be read, once `finish` was called.

    Raises:
        AudiobatError: the folder holds parts of other settings and `overwrite` is not given, or other files.
    """

    def __init__(
        self, folder: Path, clips: ClipTable, settings: Mapping[str, Any], overwrite: bool, ranks: Ranks
    ) -> None:
        self.folder, self._clips = folder, clips
        self.firsts = [0]
        self.parts: list[Path] = []
        self.broken: dict[int, str] = {}
        if ranks.is_main:
            self._begin(dict(settings), overwrite, ranks.world_size > 1)
        self.firsts = ranks.gather(self.firsts)[0]

    def _begin(self, settings: dict[str, Any], overwrite: bool, several: bool) -> None:
        record = self.folder / SETTINGS
        if record.exists():
            before = read_json(record, f"remove {self.folder}, or copy it again")
            changed = [name for name in settings if before.get(name) != settings[name]]
            if changed and not overwrite:
                names = " and ".join(changed)
                raise AudiobatError(f"{self.folder} was begun with another {names}: use the same, or give --overwrite.")
            if changed:
                for path in self.folder.glob("*.npz"):  # before the record changes: no part may pass for another run's
                    path.unlink()
            else:
                self.firsts = [first for first in before.get(SHARED, [0]) if first < len(self._clips)]
        elif self.folder.exists() and {path.name for path in self.folder.iterdir()} - {f"{SETTINGS}.tmp"}:
            raise AudiobatError(f"{self.folder} holds other files: move it away, or choose another --out.")
        self.folder.mkdir(parents=True, exist_ok=True)
        if several and len(self.firsts) == 1:
            self._divide()
        shares = {SHARED: self.firsts} if len(self.firsts) > 1 else {}
        write_atomic(record, json.dumps(settings | shares))

    def _divide(self) -> None:
        """Cut the clips into shares; those that one process has made parts of stay one share.

        Shares depend on the clips alone, so that any number of ranks makes the same rows.
        """
        done, clips = self.share(0).next[0], len(self._clips)
        size = min(max(1, clips // SHARES), SHARE_CLIPS)
        self.firsts += [first for first in range(size, clips, size) if first > done]

    def share(self, number: int) -> Share:
        """The share of this number, from 0, with the parts that it has."""
        end = [*self.firsts, len(self._clips)][number + 1]
        return Share(self.folder, self._clips, self.firsts[number], end)

    def finish(self, parts: Iterable[tuple[int, Sequence[Path], Mapping[int, str]]]) -> None:
        """Take in the first clip, the parts and the broken clips of every share, once all are done."""
        for _, paths, broken in sorted(parts, key=lambda share: share[0]):
            self.parts += paths
            self.broken |= broken

    def read(self, columns: Sequence[str] = ()) -> Iterator[Rows]:
        """All rows in chunks of CHUNK_ROWS, without those of clips that broke later; the last chunk may be empty.

        `columns` are those wanted besides the clip ids; (): all.
        """
        held: list[Rows] = []
        for path in self.parts:
            with np.load(path, allow_pickle=False) as part:
                names = [name.removeprefix("rows.") for name in part.files if name.startswith("rows.")]
                wanted = (CLIP_ID, *columns) if columns else names
                rows = {name: part[f"rows.{name}"] for name in names if name in wanted}
            if not rows:  # all clips of the part were broken
                continue
            keep = ~np.isin(rows[CLIP_ID], list(self.broken))
            held.append({name: values[keep] for name, values in rows.items()})
            while sum(len(rows[CLIP_ID]) for rows in held) > CHUNK_ROWS:
                joined = join_rows(held)
                yield {name: values[:CHUNK_ROWS] for name, values in joined.items()}
                held = [{name: values[CHUNK_ROWS:] for name, values in joined.items()}]
        if held:
            yield join_rows(held)

    def closing_lines(self, out: Path, window_seconds: float) -> Iterator[str]:
        """Which clips could not be read, are silent, shorter than a window, or not as long as their list says.

        To be asked once all is done; `out` is the table.
        """
        if self.broken:
            some = f"{len(self.broken):,} of {counted(len(self._clips), 'file')}"
            yield f"skipped: {some} cannot be read, as {skipped_list(out)} tells one by one"
        odd = ("silent", f"shorter than a window of {window_seconds:g} s", OTHER_LENGTH)
        for what, clip_ids in zip(odd, self._silent_short_and_misjudged(), strict=True):
            if clip_ids:
                names = name_some((self._clips.keys[clip_id] for clip_id in clip_ids), NAMES_SHOWN)
                yield f"{what}: {counted(len(clip_ids), 'file')}: {names}"

    def _silent_short_and_misjudged(self) -> tuple[list[int], list[int], list[int]]:
        silent, loud, short, misjudged = set[int](), set[int](), set[int](), set[int]()
        for path in self.parts:
            with np.load(path, allow_pickle=False) as part:
                meta = json.loads(part["meta"].tobytes())
            quiet = set(meta.get("silent", ()))  # parts of earlier versions do not say
            silent |= quiet
            loud |= {clip_id for clip_id, *_ in meta["files"]} - quiet
            short |= set(meta.get("short", ()))
            misjudged |= set(meta.get("misjudged", ()))
        return sorted(silent - loud), sorted(short - self.broken.keys()), sorted(misjudged - self.broken.keys())

    def close(self) -> None:
        """Remove the parts, once the table is written; the last ones first, as a kill may leave some, without a gap."""
        for path in reversed(self.parts):
            path.unlink()
        shutil.rmtree(self.folder)


@dataclass
class Count:
    """Counts rows on their way into a table, and the clips that they are of."""

    rows: int = 0
    clips: set[int] = field(default_factory=set)

    def __call__(self, chunks: Iterable[Rows]) -> Iterator[Rows]:
        """The same chunks of rows."""
        for rows in chunks:
            self.rows += len(rows[CLIP_ID])
            self.clips.update(rows[CLIP_ID].tolist())
            yield rows

    def line(self, out: Path) -> str:
        """The line that says where the table is and what is in it."""
        return f"{out}: {counted(self.rows, 'row')} of {counted(len(self.clips), 'file')}"


def join_rows(parts: Sequence[Rows]) -> Rows:
    """The rows of several tables with the same columns, one after another."""
    return {name: np.concatenate([rows[name] for rows in parts]) for name in parts[0]}


def sibling(out: Path, ending: str) -> Path:
    """OUT.ending, beside `out`."""
    return out.with_name(f"{out.name}.{ending}")


def skipped_list(out: Path) -> Path:
    """The list of the clips that could not be read for the table `out`; there only if there are any."""
    return sibling(out, "skipped.csv")


def is_finished(out: Path) -> bool:
    """Whether the table `out` is there and no run that writes it was killed before it had removed its parts."""
    return out.exists() and not sibling(out, "parts").exists()
