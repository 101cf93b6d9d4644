"""A folder or a CSV to a clip table: which recordings there are, their labels, and which of them train or test a probe.

Everything that reads clips knows them through `ClipTable` alone. Nothing here opens an audio file.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiobat.audio import AUDIO_EXTENSIONS
from audiobat.errors import AudiobatError, did_you_mean

SPLITS = ("train", "valid", "test")
TEST_SHARE = 0.2  # of clips that come without splits or folds
LABEL_COLUMNS = ("label", "labels")

Row = dict[str, str]


@dataclass(frozen=True, eq=False)
class ClipTable:
    """n clips, one entry each in every field."""

    paths: list[Path]  # absolute
    keys: list[str]  # unique; the path relative to the folder or CSV
    labels: NDArray[np.bool_] | None = None  # [n, C]
    classes: tuple[str, ...] = ()  # C names, sorted
    splits: NDArray[np.str_] | None = None  # [n], each one of SPLITS
    folds: NDArray[np.int64] | None = None  # [n]
    seconds: NDArray[np.float64] | None = None  # [n]
    columns: dict[str, NDArray[np.str_]] = field(default_factory=dict)  # further columns of the CSV, [n] each

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def single_label(self) -> bool:
        """Whether every clip has exactly one label."""
        return self.labels is not None and bool((self.labels.sum(axis=1) == 1).all())

    def select(self, rows: NDArray[Any] | Sequence[int] | Sequence[bool]) -> ClipTable:
        """Keep the clips at `rows`, a boolean mask [n] or indices, in that order; classes stay as they are."""
        chosen = np.arange(len(self))[np.asarray(rows)] if len(rows) else np.arange(0)
        return ClipTable(
            paths=[self.paths[i] for i in chosen],
            keys=[self.keys[i] for i in chosen],
            labels=None if self.labels is None else self.labels[chosen],
            classes=self.classes,
            splits=None if self.splits is None else self.splits[chosen],
            folds=None if self.folds is None else self.folds[chosen],
            seconds=None if self.seconds is None else self.seconds[chosen],
            columns={name: values[chosen] for name, values in self.columns.items()},
        )

    def sha256(self) -> str:
        """Digest of keys, classes, labels, splits and folds: what a result depends on besides the audio."""
        digest = hashlib.sha256()
        for name in ("keys", "classes", "labels", "splits", "folds"):
            value = getattr(self, name)
            digest.update(f"{name}:".encode())
            if isinstance(value, list | tuple):
                digest.update("\0".join(value).encode())
            elif value is not None:
                digest.update("\0".join(map(str, value.astype(int) if name == "labels" else value)).encode())
        return digest.hexdigest()

    def describe(self) -> str:
        """Clips, hours, classes with their balance, splits and folds, in a few lines of text."""
        hours = "" if self.seconds is None else f", {self.seconds.sum() / 3600:.2f} h"
        lines = [f"{len(self):,} clips{hours}"]
        if self.labels is not None and self.classes:
            counts = self.labels.sum(axis=0)
            most, least = int(counts.argmax()), int(counts.argmin())
            kind = "one label per clip" if self.single_label else f"{self.labels.sum() / len(self):.2f} labels per clip"
            lines.append(
                f"{len(self.classes)} classes, {kind}; clips per class from {counts[least]:,} ({self.classes[least]}) "
                f"to {counts[most]:,} ({self.classes[most]})"
            )
        for name, values in (("splits", self.splits), ("folds", self.folds)):
            if values is not None:
                lines.append(f"{name}: " + ", ".join(f"{v} {n:,}" for v, n in sorted(Counter(values.tolist()).items())))
        return "\n".join(lines)


def read_clips(source: str | Path) -> ClipTable:
    """Read the clips of a folder of audio (any depth, sorted by path) or of a CSV.

    A CSV has a header row with `path` (relative to the CSV) and may have `label` or `labels` (several joined by ';'),
    `split` (train, valid, test), `fold` (whole numbers) and `seconds`; further columns are kept as text.

    Raises:
        AudiobatError: nothing there, no audio in the folder, a CSV without rows or a `path` column, a value that its
            column does not allow, a clip listed twice, no listed file exists.
    """
    source = Path(source).absolute()
    if source.is_dir():
        keys = _audio_files(source)
        return ClipTable(paths=[source / key for key in keys], keys=keys)
    if not source.exists():
        raise AudiobatError(f"There is no folder or CSV {source}: check the path.")
    if source.suffix.lower() != ".csv":
        raise AudiobatError(f"{source} is no CSV: give a folder of audio, or a .csv with a `path` column.")
    return _table_of_rows(source, *_read_rows(source))


def read_labelled_clips(source: str | Path) -> ClipTable:
    """Read clips that have labels: a CSV with a label column, or a folder of class folders.

    A folder holds one folder per class, or `train` and `test` (and `valid`) that hold the class folders.

    Raises:
        AudiobatError: as for `read_clips`; no label column, no label in any row, audio outside the class folders.
    """
    table = read_clips(source)
    if Path(source).is_dir():
        return _label_by_folder(table, Path(source))
    if table.labels is None:
        columns = ", ".join(_read_rows(Path(source))[0])
        raise AudiobatError(f"{source} has no `label` column (it has {columns}): add one, labels joined by ';'.")
    if not table.labels.any():
        raise AudiobatError(f"{source}: column `label` is empty in every row: fill it in, labels joined by ';'.")
    return table


def split_for_probe(table: ClipTable, test_fold: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the clips that train a probe, and of those that test it.

    With `test_fold`: that fold tests, all others train. Else by the split column (valid clips are left out). A table
    with neither splits nor folds is cut 80 to 20, stratified by each clip's first class, by a hash of the keys.

    Raises:
        AudiobatError: no such fold, folds without `test_fold`, an empty split, a split whose clips all have the same
            labels.
    """
    if table.labels is None:
        raise AudiobatError("The clips have no labels: a probe needs a CSV with a `label` column or class folders.")
    train, test = _split_masks(table, table.labels, test_fold)
    for name, mask in (("train", train), ("test", test)):
        if not mask.any():
            raise AudiobatError(f"Split {name} has no clips: mark some of the {len(table)} clips as {name}.")
        if (table.labels[mask] == table.labels[mask][0]).all():
            names = ";".join(np.array(table.classes)[table.labels[mask][0]]) or "no label"
            raise AudiobatError(
                f"All {mask.sum()} clips of split {name} have the same label ({names}): "
                "a probe needs at least two classes in each split."
            )
    return np.flatnonzero(train), np.flatnonzero(test)


def _split_masks(
    table: ClipTable, labels: NDArray[np.bool_], test_fold: int | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    if test_fold is not None:
        folds = [] if table.folds is None else sorted(set(table.folds.tolist()))
        if table.folds is None or test_fold not in folds:
            there = f"the folds are {', '.join(map(str, folds))}" if folds else "the clips have no `fold` column"
            raise AudiobatError(f"There is no test fold {test_fold}: {there}.")
        return table.folds != test_fold, table.folds == test_fold
    if table.splits is not None:
        return table.splits == "train", table.splits == "test"
    if table.folds is not None:
        folds = sorted(set(table.folds.tolist()))
        raise AudiobatError(f"The clips have folds but no splits: choose a test fold, {', '.join(map(str, folds))}.")
    test = _hashed_share(table.keys, labels.argmax(axis=1))
    return ~test, test


def _hashed_share(keys: Sequence[str], groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark TEST_SHARE of each group's clips, at least one of two or more, chosen by the hash of their keys."""
    members: dict[int, list[int]] = defaultdict(list)
    for i in sorted(range(len(keys)), key=lambda i: hashlib.sha256(keys[i].encode()).digest()):
        members[int(groups[i])].append(i)
    test = np.zeros(len(keys), dtype=bool)
    for indices in members.values():
        count = max(round(TEST_SHARE * len(indices)), int(len(indices) > 1))
        test[indices[:count]] = True
    return test


def _audio_files(folder: Path) -> list[str]:
    """Sorted paths, relative to `folder`, of all audio files below it; hidden files are no clips."""
    keys = [
        (Path(where) / name).relative_to(folder).as_posix()
        for where, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in AUDIO_EXTENSIONS and not name.startswith(".")
    ]
    if not keys:
        searched = " ".join(sorted(AUDIO_EXTENSIONS))
        raise AudiobatError(f"Folder {folder} has no audio files: put some there, of type {searched}.")
    for key in keys:  # tables and records are UTF-8
        if any("\udc80" <= letter <= "\udcff" for letter in key):
            shown = os.fsencode(key).decode(errors="backslashreplace")
            raise AudiobatError(f"{folder}: the name of {shown} is not UTF-8: rename it.")
    return sorted(keys)


def _label_by_folder(table: ClipTable, folder: Path) -> ClipTable:
    parts = [key.split("/") for key in table.keys]
    top = {p[0] for p in parts if len(p) > 1}
    has_splits = {"train", "test"} <= top <= set(SPLITS)
    depth = 1 if has_splits else 0  # of the class in the path
    for key, p in zip(table.keys, parts, strict=True):
        if len(p) < depth + 2:
            raise AudiobatError(f"{folder / key} lies in no class folder: move it into the folder of its class.")
    labels, classes = _label_matrix([[p[depth]] for p in parts])
    splits = np.array([p[0] for p in parts]) if has_splits else None
    return ClipTable(paths=table.paths, keys=table.keys, labels=labels, classes=classes, splits=splits)


def _read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Header and rows of a CSV in UTF-8."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
            columns = list(reader.fieldnames or [])
    except UnicodeDecodeError as error:
        raise AudiobatError(f"{path} is not UTF-8 text (byte {error.start}): save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise AudiobatError(
            f"{path} is not valid CSV after line {reader.line_num} ({error}): mend its quotes."
        ) from error
    if "path" not in columns:
        hint = did_you_mean("path", columns)
        raise AudiobatError(
            f"{path} has no `path` column (it has {', '.join(columns) or 'nothing'}): "
            f"name the column of file names `path` in the first row{hint}, columns separated by commas."
        )
    for name, count in Counter(columns).items():
        if count > 1:
            raise AudiobatError(f"{path} has {count} columns `{name}`: keep one, or rename the others.")
    if not rows:
        raise AudiobatError(f"{path} lists no clips: add a row for each below the header.")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise AudiobatError(f"{path}, row {number}, does not have {len(columns)} values: quote commas in values.")
        if not row["path"].strip():
            raise AudiobatError(f"{path}, row {number}: column `path` is empty: name the file or remove the row.")
    return columns, rows


def _table_of_rows(source: Path, columns: list[str], rows: list[Row]) -> ClipTable:
    keys = [os.path.normpath(row["path"].strip()) for row in rows]
    _check_unique(source, keys, rows)
    paths = [source.parent / key for key in keys]
    if not any(path.exists() for path in paths):
        raise AudiobatError(
            f"{source}: none of the {len(paths)} listed files exists, such as {paths[0]}: check `path`."
        )
    label_column = next((name for name in LABEL_COLUMNS if name in columns), None)
    labels: NDArray[np.bool_] | None = None
    classes: tuple[str, ...] = ()
    if label_column:
        labels, classes = _label_matrix([_split_labels(row[label_column]) for row in rows])
    known = {"path", "split", "fold", "seconds", label_column}
    return ClipTable(
        paths=paths,
        keys=keys,
        labels=labels,
        classes=classes,
        splits=_splits(source, rows) if "split" in columns else None,
        folds=_numbers(source, rows, "fold", int, "a whole number") if "fold" in columns else None,
        seconds=_numbers(source, rows, "seconds", float, "a number of seconds") if "seconds" in columns else None,
        columns={name: np.array([row[name] for row in rows]) for name in columns if name not in known},
    )


def _check_unique(source: Path, keys: list[str], rows: list[Row]) -> None:
    first: dict[str, int] = {}
    for i, key in enumerate(keys):
        file = os.path.normpath(source.parent / key)  # an absolute path may name the same file as a relative one
        before = rows[first.setdefault(file, i)]
        for column in ("split", "fold"):
            if before.get(column) != rows[i].get(column):
                raise AudiobatError(
                    f"{source} lists {key} in {column} {before[column]} (row {first[file] + 2}) "
                    f"and in {column} {rows[i][column]} (row {i + 2}): keep one."
                )
        if first[file] != i:
            raise AudiobatError(
                f"{source} lists {key} twice (rows {first[file] + 2} and {i + 2}): keep one row, labels joined by ';'."
            )


def _split_labels(text: str) -> list[str]:
    return [label.strip() for label in text.split(";") if label.strip()]


def _label_matrix(labels: Sequence[Iterable[str]]) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Label names of n clips to a matrix [n, C] and the C sorted names."""
    classes = tuple(sorted({name for names in labels for name in names}))
    column = {name: c for c, name in enumerate(classes)}
    matrix = np.zeros((len(labels), len(classes)), dtype=bool)
    for i, names in enumerate(labels):
        matrix[i, [column[name] for name in names]] = True
    return matrix, classes


def _splits(source: Path, rows: list[Row]) -> NDArray[np.str_]:
    values = [row["split"].strip() for row in rows]
    for number, value in enumerate(values, start=2):
        if value not in SPLITS:
            raise AudiobatError(
                f"{source}, row {number}: split is {value!r}: use {', '.join(SPLITS)}{did_you_mean(value, SPLITS)}."
            )
    return np.array(values)


def _numbers(source: Path, rows: list[Row], column: str, kind: type, meaning: str) -> NDArray[Any]:
    values = []
    for number, row in enumerate(rows, start=2):
        try:
            values.append(kind(row[column]))
        except ValueError as error:
            raise AudiobatError(f"{source}, row {number}: {column} is {row[column]!r}: use {meaning}.") from error
    return np.array(values)
