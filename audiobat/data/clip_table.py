"""The clip table: which clips there are, where their bytes are, and what is known of each. Columns in, columns out.

Whatever reads clips gets a `ClipTable` and clip_ids: a clip_id is a clip's place in its table, from 0. The files of
`sources/` make tables; a table saved to disk opens by memory mapping, whatever its length. Nothing here opens an audio
file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiobat.data.columns import Ragged, Strings, map_array, narrow, pack, unpack
from audiobat.engine.files import read_json, replacing
from audiobat.errors import AudiobatError

FORMAT = "audiobat-clips-1"
HEADER = "table.json"  # written last: a folder without it is no table
SPLITS = ("train", "valid", "test")
EVENT = np.dtype([("label", "<i4"), ("onset", "<f8"), ("offset", "<f8")])  # seconds from the clip's start
NAMES_SHOWN = 5
LENGTHS_DIFFER = 0.5  # seconds by which a list's length is another than the recording's, not a rounded one


@dataclass(frozen=True)
class ClipLocation:
    """Where a clip's bytes are."""

    path: str  # of a file, or a URL
    offset: int | None  # first byte in a shard, or the row of a Parquet file; None: the whole file
    size: int | None  # bytes in a shard
    begin: float  # seconds into the recording at which the clip begins
    seconds: float | None  # length of the clip; None: to the recording's end
    sample_rate: int | None  # Hz, if known


@dataclass(frozen=True, eq=False)
class ClipTable:
    """n clips, one entry each in every column."""

    keys: Strings  # unique
    files: Strings  # the distinct files; relative to `root`, absolute, or URLs
    file_ids: NDArray[np.int32]  # [n] which of `files` holds the clip
    root: str = ""  # folder or URL
    offsets: NDArray[np.int64] | None = None  # [n] first byte in a shard, or row of a Parquet file; None: whole files
    sizes: NDArray[np.int64] | None = None  # [n] bytes in its shard
    begins: NDArray[np.float64] | None = None  # [n] seconds into the recording; None: from the start
    seconds: NDArray[np.float64] | None = None  # [n]; NaN: not known
    sample_rates: NDArray[np.int32] | None = None  # [n] Hz
    labels: Ragged | None = None  # [n] lists of class indices, int32
    classes: tuple[str, ...] = ()  # C names
    events: Ragged | None = None  # [n] lists of EVENT
    event_scores: Ragged | None = None  # [n] lists of float64, one for each event; NaN: it has none
    splits: NDArray[np.str_] | None = None  # [n], each one of SPLITS
    folds: NDArray[np.int64] | None = None  # [n]
    hashes: NDArray[np.uint64] | None = None  # [n, 2] of the samples: equal where the audio is
    columns: dict[str, Strings] = field(default_factory=dict)  # all else that a source has, such as `group`

    def __len__(self) -> int:
        return len(self.keys)

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: columns that are mapped from disk go to other processes as the paths of their files."""
        return {f.name: pack(getattr(self, f.name)) for f in fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: unpack(value) for name, value in state.items()})

    @property
    def single_label(self) -> bool:
        """Whether every clip has exactly one label."""
        return self.labels is not None and bool((self.labels.lengths == 1).all())

    def path(self, clip_id: int) -> str:
        """The file (or URL) that holds a clip."""
        return join(self.root, self.files[int(self.file_ids[clip_id])])

    def location(self, clip_id: int) -> ClipLocation:
        """Where the bytes of a clip are."""
        seconds = None if self.seconds is None or np.isnan(self.seconds[clip_id]) else float(self.seconds[clip_id])
        rate = 0 if self.sample_rates is None else int(self.sample_rates[clip_id])
        return ClipLocation(
            self.path(clip_id),
            None if self.offsets is None else int(self.offsets[clip_id]),
            None if self.sizes is None else int(self.sizes[clip_id]),
            0.0 if self.begins is None else float(self.begins[clip_id]),
            seconds,
            rate or None,
        )

    def targets(self) -> NDArray[np.bool_]:
        """Labels as a matrix [n, C], for tables that are small enough to probe; for large ones, `labels` takes less."""
        if self.labels is None:
            raise AudiobatError("The clips have no labels: give a CSV with a `label` column, or class folders.")
        matrix = np.zeros((len(self), len(self.classes)), dtype=bool)
        matrix[np.repeat(np.arange(len(self)), self.labels.lengths), self.labels.values] = True
        return matrix

    def misjudges(self, clip_id: int, seconds: float) -> bool:
        """Whether the table has another length than these seconds for a clip that is a whole recording."""
        if self.begins is not None or self.seconds is None:
            return False
        return abs(float(self.seconds[clip_id]) - seconds) > LENGTHS_DIFFER  # not of NaN

    def label_counts(self) -> NDArray[np.int64]:
        """Clips of each class, [C]."""
        values = np.zeros(0, np.int32) if self.labels is None else self.labels.values
        return np.bincount(values, minlength=len(self.classes))

    def select(self, clips: NDArray[Any] | Sequence[int] | Sequence[bool]) -> ClipTable:
        """The table of some clips, a boolean mask [n] or clip_ids, in that order; classes and files stay."""
        chosen = np.arange(len(self))[np.asarray(clips)] if len(clips) else np.arange(0)
        changed: dict[str, Any] = {"columns": {name: column.take(chosen) for name, column in self.columns.items()}}
        for name in CLIP_FIELDS:
            value = getattr(self, name)
            if value is not None:
                changed[name] = value.take(chosen) if isinstance(value, Ragged) else value[chosen]
        return replace(self, **changed)

    def sha256(self) -> str:
        """Digest of all that a result depends on besides the audio: keys, labels, splits, folds, cuts of recordings."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        cut = () if self.begins is None else ("begins", "seconds")  # else seconds only repeat what the files say
        for name in ("keys", "labels", "events", "splits", "folds", *cut):
            value = getattr(self, name)
            if value is not None:
                digest.update(f"\n{name}:".encode())
                for array in (value.offsets, value.values) if isinstance(value, Ragged) else (value,):
                    # The same bytes for the same values, whatever type holds them.
                    if array.dtype.kind == "U":
                        digest.update("\0".join(array.tolist()).encode())
                    else:
                        digest.update((array.astype("<i8") if array.dtype.kind in "iu" else array).tobytes())
        return digest.hexdigest()

    def file_sizes(self) -> NDArray[np.int64]:
        """Bytes of each of `files`; -1: it is not there, or a URL."""
        sizes = np.full(len(self.files), -1, np.int64)
        for i, name in enumerate(self.files):
            with suppress(OSError, ValueError):  # ValueError: a zero byte in the name
                sizes[i] = os.stat(join(self.root, name)).st_size
        return sizes

    def missing(self) -> NDArray[np.int64]:
        """clip_ids whose local file is not there, or too short to hold the clip."""
        local = np.array(["://" not in join(self.root, name) for name in self.files], bool)
        needed = 0 if self.offsets is None or self.sizes is None else self.offsets.astype(np.int64) + self.sizes
        short = self.file_sizes()[self.file_ids] < needed
        return np.flatnonzero(short & local[self.file_ids])

    def duplicates(self) -> list[NDArray[np.int64]]:
        """Groups of clip_ids with the same audio, each ascending; none if the table has no hashes."""
        if self.hashes is None:
            return []
        _, which, counts = np.unique(self.hashes, axis=0, return_inverse=True, return_counts=True)
        order = np.argsort(which, kind="stable")
        groups = np.split(order, np.cumsum(counts)[:-1])
        return sorted((group for group in groups if len(group) > 1), key=lambda group: int(group[0]))

    def describe(self) -> str:
        """Clips, hours, classes and their balance, splits, folds, missing and duplicate clips, in a few lines."""
        known = np.zeros(0) if self.seconds is None else self.seconds[~np.isnan(self.seconds)]
        hours = f", {known.sum() / 3600:,.2f} h" if len(known) else ""
        partly = f" (of the {len(known):,} whose length is known)" if 0 < len(known) < len(self) else ""
        lines = [f"{len(self):,} clips{hours}{partly} in {len(self.files):,} files"]
        lines += self._describe_labels()
        for name in ("splits", "folds", "sample_rates"):
            values = getattr(self, name)
            if values is not None:
                parts, counts = np.unique(values, return_counts=True)
                listed = ", ".join(f"{part} {count:,}" for part, count in zip(parts.tolist(), counts, strict=True))
                lines.append(f"{name.replace('_', ' ')}: {listed}")
        missing = self.missing()
        example = f", such as {self.path(int(missing[0]))}" if len(missing) else ""
        lines.append(f"missing: {len(missing):,} clips{example}")
        copies = f"{sum(len(group) - 1 for group in self.duplicates()):,} clips have the audio of an earlier one"
        lines.append(f"duplicates: {'not known before `audiobat prepare`' if self.hashes is None else copies}")
        return "\n".join(lines)

    def _describe_labels(self) -> list[str]:
        if self.labels is None or not self.classes:
            return []
        counts = self.label_counts()
        present = np.flatnonzero(counts)
        kind = "one label per clip" if self.single_label else f"{counts.sum() / max(1, len(self)):.2f} labels per clip"
        lines = [f"{len(present)} of {len(self.classes)} classes present, {kind}"]
        if len(present):
            ranked = present[np.argsort(-counts[present], kind="stable")]
            shown = [f"{self.classes[c]} {counts[c]:,}" for c in ranked]
            most, least = ", ".join(shown[:NAMES_SHOWN]), ", ".join(shown[-NAMES_SHOWN:])
            lines.append(f"most clips: {most}; fewest: {least}")
        if self.events is not None:
            lines.append(f"{len(self.events.values):,} events with onset and offset")
        return lines

    def save(self, folder: str | Path) -> None:
        """Write the table into `folder`, whole or not at all; what was there goes. `root` is not written."""
        stored = {name: value for name in STORED_FIELDS if (value := getattr(self, name)) is not None}
        header = {
            "format": FORMAT,
            "clips": len(self),
            "sha256": self.sha256(),
            "fields": list(stored),
            "classes": self.classes,
            "columns": list(self.columns),
        }
        with replacing(folder) as beside:
            beside.mkdir(parents=True)
            for name, value in {**stored, **{f"column_{i}": c for i, c in enumerate(self.columns.values())}}.items():
                if isinstance(value, Ragged):
                    _save(beside / f"{name}.offsets.npy", value.offsets)
                    _save(beside / f"{name}.values.npy", value.values)
                else:
                    _save(beside / f"{name}.npy", value)
            header["crc32"] = {path.name: crc32_of(path) for path in sorted(beside.iterdir())}
            (beside / HEADER).write_text(json.dumps(header, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


TEXT_FIELDS = {"keys", "files"}
RAGGED_FIELDS = {"labels", "events", "event_scores"}
STORED_FIELDS = tuple(f.name for f in fields(ClipTable) if f.name not in ("root", "classes", "columns"))
CLIP_FIELDS = tuple(name for name in STORED_FIELDS if name != "files")


def open_table(folder: str | Path, root: str) -> ClipTable:
    """Map a saved table into memory; its files lie below `root`.

    Raises:
        AudiobatError: no table there, of another format, damaged, or with a file that lies outside `root`.
    """
    folder = Path(folder)
    try:
        header = read_json(folder / HEADER)
        if header["format"] != FORMAT:
            raise AudiobatError(f"{folder} is of format {header['format']}, not {FORMAT}: prepare it again.")
        if unknown := set(header["fields"]) - set(STORED_FIELDS):
            raise ValueError(f"unknown column {sorted(unknown)[0]}")
        for name, crc in header.get("crc32", {}).items():  # tables of earlier versions have none
            if os.path.basename(name) != name or crc32_of(folder / name) != crc:
                raise ValueError(f"{name} does not match its checksum")
        values: dict[str, Any] = {}
        for name in header["fields"]:
            kind = Strings if name in TEXT_FIELDS else Ragged if name in RAGGED_FIELDS else None
            values[name] = map_array(str(folder / f"{name}.npy")) if kind is None else _open_ragged(folder / name, kind)
        columns = {name: _open_ragged(folder / f"column_{i}", Strings) for i, name in enumerate(header["columns"])}
        table = ClipTable(root=root, classes=tuple(map(str, header["classes"])), columns=columns, **values)
        _check(table, header["clips"])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise AudiobatError(f"{folder} is no readable clip table ({error}): prepare it again.") from None
    return table


def _save(path: Path, array: NDArray[Any]) -> None:
    """Write an array as numpy does, but with the reason in the error where that fails."""
    packed = io.BytesIO()
    np.save(packed, narrow(array))
    path.write_bytes(packed.getbuffer())


def crc32_of(path: Path) -> int:
    """The CRC-32 of a file's bytes."""
    crc = 0
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            crc = zlib.crc32(part, crc)
    return crc


def table_files(header: bytes) -> list[str]:
    """Names of the files of a saved table, its header apart, from the header's bytes."""
    try:
        plain = json.loads(header)
        if not set(plain["fields"]) <= set(STORED_FIELDS):
            raise ValueError("unknown columns")
        lists = [name for name in plain["fields"] if name in TEXT_FIELDS | RAGGED_FIELDS]
        lists += [f"column_{i}" for i in range(len(plain["columns"]))]
        flat = [name for name in plain["fields"] if name not in lists]
    except (ValueError, KeyError, TypeError) as error:
        raise AudiobatError(f"The clip table has no readable {HEADER} ({error}): prepare the data again.") from None
    return [f"{name}.npy" for name in flat] + [f"{name}.{part}.npy" for name in lists for part in ("offsets", "values")]


def join(root: str, name: str) -> str:
    """Path or URL of file `name` below `root`; absolute paths and URLs are what they are."""
    if not root or "://" in name:
        return name
    return f"{root.rstrip('/')}/{name}" if "://" in root else os.path.join(root, name)


def _check(table: ClipTable, clips: int) -> None:
    """Raise a ValueError if columns contradict each other or lead out of the folder."""
    for name in CLIP_FIELDS:
        value = getattr(table, name)
        if value is not None and len(value) != clips:
            raise ValueError(f"{name} has {len(value)} entries for {clips} clips")
    for value in (*(getattr(table, n) for n in (*TEXT_FIELDS, *RAGGED_FIELDS)), *table.columns.values()):
        if value is not None and (value.offsets[0] != 0 or value.offsets[-1] != len(value.values)):
            raise ValueError("a list column was cut short")
    if table.labels is not None and len(table.labels.values):
        low, high = int(table.labels.values.min()), int(table.labels.values.max())
        if low < 0 or high >= len(table.classes):
            raise ValueError(f"its labels run from {low} to {high}, its classes are {len(table.classes)}")
    if len(table.file_ids) and not 0 <= int(table.file_ids.min()) <= int(table.file_ids.max()) < len(table.files):
        raise ValueError("a clip lies in a file that is not listed")
    for name in table.files:
        if os.path.isabs(name) or "://" in name or ".." in name.split("/"):
            raise ValueError(f"its file {name} lies outside the folder")


def _open_ragged(path: Path, kind: type[Ragged]) -> Any:
    return kind(map_array(f"{path}.offsets.npy"), map_array(f"{path}.values.npy"))
