"""Files of annotations and the recordings they are of, to a clip table whose recordings have events."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from audiobat.data.build import clip_table
from audiobat.data.clip_table import ClipTable
from audiobat.data.columns import Ragged
from audiobat.data.sources.annotations.forms import PREDICTIONS
from audiobat.data.sources.annotations.matching import Recordings
from audiobat.data.sources.annotations.one_file import TEXT_ENDINGS, read_file
from audiobat.data.sources.annotations.rows import Annotations, Row
from audiobat.data.sources.folders import is_audio
from audiobat.errors import AudiobatError

LAYER = ".svl"
BEHIND = re.compile(r"(\.Table\.\d+)?\.selections\.txt$|\.BirdNET\..*$|\.[^.]*$", re.IGNORECASE)  # a recording's name


def annotated_folder(folder: Path, files: Sequence[str], label_column: str | None = None) -> ClipTable | None:
    """The recordings of a folder that have annotations, in tables beside them or in tables of many of them.

    A table without events makes its recording a negative. Recordings without a table are left out, with a warning:
    nobody has said what is in them. A folder without recordings has those that its tables name.

    Args:
        folder: where all are.
        files: paths of its files, relative to it.
        label_column: the tables' column with the classes; None: the one that each form has.

    Returns:
        None if no file holds annotations.

    Raises:
        AudiobatError: a row that cannot be used, a table that may belong to several recordings, tables of two programs
            for one recording, none of the recordings is there.
    """
    keys = [name for name in files if is_audio(name)]
    recordings = Recordings(folder, keys)
    names = [name for name in files if name.lower().endswith(TEXT_ENDINGS)]
    tables = {name: table for name in names if (table := read_file(folder / name, label_column)) is not None}
    if keys:  # a table of predictions that somebody keeps beside the recordings is no annotation of them
        tables = {n: table for n, table in tables.items() if table.form != PREDICTIONS or recordings.beside(n)}
    if layers := [name for name in files if name.lower().endswith(LAYER) and recordings.beside(name)]:
        _warn(
            f"{folder}: {len(layers)} layers of Sonic Visualiser, such as {layers[0]}, are not read: export them as "
            "CSV, and make a list with columns path, onset, offset, label of them."
        )
    if not any(table.form for table in tables.values()):
        return None
    return _gather(folder, tables, recordings, keys)


def annotation_file(path: Path, label_column: str | None = None, has_audio: bool = True) -> ClipTable | None:
    """The recordings that one file of annotations is of: see `annotated_folder`.

    `has_audio`: they lie beside it, or at the paths that it gives; False: they are but names.
    """
    table = read_file(path, label_column)
    if table is None or not table.form:
        return None
    folder = path.parent
    if not has_audio and not table.rows and table.form == PREDICTIONS:
        return clip_table(folder, [], events=[])
    keys: list[str] = []
    if has_audio:
        listed = [file for file in table.files if os.path.isfile(folder / file)]
        keys = list(dict.fromkeys([*listed, *filter(is_audio, os.listdir(folder))]))
        if not keys:
            example = table.files[0] if table.files else "the one of its name"
            raise AudiobatError(f"{path}: its recordings, such as {example}, are not in {folder}: put it beside them.")
    return _gather(folder, {path.name: table}, Recordings(folder, keys), keys, alone=True)


def _gather(
    folder: Path, tables: dict[str, Annotations], recordings: Recordings, keys: Sequence[str], alone: bool = False
) -> ClipTable:
    """The clip table of all rows; `alone`: recordings that it is not of need no word."""
    rows: dict[str, list[Row]] = {}
    first: dict[str, Annotations] = {}  # table of each recording
    lost: list[str] = []  # recordings that are not there, and tables of none
    for name, table in tables.items():
        by_file: dict[str, list[Row]] = {}
        for row in table.rows:
            by_file.setdefault(row.file, []).append(row)
        for file, key in (_places(name, table, recordings) if keys else _names(name, table)).items():
            if key is None:
                lost += [f"{file} of {name}" if file else name]
                continue
            before = first.setdefault(key, table)
            if before.form != table.form and before.form and table.form:
                raise AudiobatError(
                    f"{key} has annotations of two programs, {before.path} ({before.form}) and {table.path} "
                    f"({table.form}): keep one of them in {folder}."
                )
            rows.setdefault(key, []).extend(by_file.get(file, ()))
    if not rows:
        raise AudiobatError(f"{folder} has no recording for its annotations, such as {lost[0]}: put them together.")
    if lost:
        _warn(f"{folder}: annotations of {len(lost)} recordings that are not there are left out, such as {lost[0]}.")
    if without := [key for key in keys if key not in rows and not alone]:
        _warn(
            f"{folder}: {len(without)} of {len(keys)} recordings have no annotations and are left out, such as "
            f"{without[0]}: a table without rows says that a recording holds no event."
        )
    return _table(folder, {key: rows[key] for key in sorted(rows)})


def _places(name: str, table: Annotations, recordings: Recordings) -> dict[str, str | None]:
    """The recording of each path that a table names; empty path: the one that the table lies beside."""
    beside = recordings.beside(name)
    places = {file: recordings.named(file, table.path) for file in table.files}
    if len(places) == 1 and None in places.values():  # renamed, or of another format now: the table's own name tells
        places = dict.fromkeys(places, beside)
    if beside is not None or (table.form and not places):  # an empty text beside no recording is nobody's
        places[""] = beside
    return places


def _names(name: str, table: Annotations) -> dict[str, str | None]:
    """What a table calls its recordings, where none of them is there."""
    folder = name.rpartition("/")[0]
    near = f"{folder}/" if folder else ""
    if near and len(table.files) == 1:
        return {table.files[0]: near + table.files[0].rpartition("/")[2]}
    return {file: file for file in table.files} or {"": near + BEHIND.sub("", name.rpartition("/")[2])}


def _table(folder: Path, rows: dict[str, list[Row]]) -> ClipTable:
    unique = {key: list({(row.onset, row.offset, row.label): row for row in own}.values()) for key, own in rows.items()}
    if twice := sum(map(len, rows.values())) - sum(map(len, unique.values())):
        _warn(f"{folder}: {twice} rows repeat another one, label and times, and count once.")
    table = clip_table(
        folder,
        list(unique),
        events=[[(row.label, row.onset, row.offset) for row in own] for own in unique.values()],
    )
    scores = Ragged.of([[row.score for row in own] for own in unique.values()], np.float64)
    known = any(not math.isnan(row.score) for own in unique.values() for row in own)
    return replace(table, event_scores=scores) if known else table


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=5)
