"""CSVs, lines and JSON of public data sets to Python values; a BOM and Windows line ends are accepted.

A file that is missing or not what it should be is an AudiobatError that names it.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiobat.data.clip_table import ClipTable
from audiobat.errors import AudiobatError

AGAIN = "copy or unpack the data set again"


def find_folder(folder: Path, marker: str, patterns: Sequence[str] = ("*",)) -> Path:
    """`folder` if it holds `marker`, else the one folder below it that matches a pattern and does."""
    if (folder / marker).exists():
        return folder
    found = sorted(path.parents[marker.count("/")] for p in patterns for path in folder.glob(f"{p}/{marker}"))
    if len(found) > 1:
        raise AudiobatError(f"{folder} holds several: {', '.join(path.name for path in found)}: name one of them.")
    if not found:
        raise AudiobatError(f"{folder} has no {marker}: name the folder that holds it, or {AGAIN}.")
    return found[0]


def read_text(path: Path) -> str:
    """A text file in UTF-8; a BOM is dropped, line ends become newlines."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise AudiobatError(f"{path} is not UTF-8 text (byte {error.start}): {AGAIN}.") from error
    except OSError as error:
        raise AudiobatError(f"{path} cannot be read ({error.strerror}): {AGAIN}.") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text that are not blank, without the space around them; there must be some."""
    lines = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    if not lines:
        raise AudiobatError(f"{path} is empty: {AGAIN}.")
    return lines


def read_rows(path: Path, needed: Sequence[str] = ()) -> list[dict[str, str]]:
    """The rows of a CSV by the names in its header, without the space around values; row i is the file's row i + 2.

    Raises:
        AudiobatError: a `needed` column is not there, a row of another length, broken quotes, no rows.
    """
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(read_text(path)), strict=True) if row] or [[]]
    except csv.Error as error:
        raise AudiobatError(f"{path} is not valid CSV ({error}): fix its quotes.") from error
    header = [name.strip() for name in header]
    for name in needed:
        if name not in header:
            raise AudiobatError(f"{path} has no column `{name}` (it has {', '.join(header) or 'nothing'}): {AGAIN}.")
    if not rows:
        raise AudiobatError(f"{path} lists nothing below its header: {AGAIN}.")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise AudiobatError(f"{path}, row {number}, has {len(row)} values for {len(header)} columns: {AGAIN}.")
    return [dict(zip(header, map(str.strip, row), strict=True)) for row in rows]


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise AudiobatError(f"{path} is not valid JSON (line {error.lineno}: {error.msg}): {AGAIN}.") from error
    except RecursionError:
        raise AudiobatError(f"{path} is not valid JSON (lists within lists without end): {AGAIN}.") from None


def check_some_there(table: ClipTable, source: Path) -> ClipTable:
    """The table, unless `source` lists a file outside the folder, or none of its files is there."""
    for name in table.files:
        if os.path.isabs(name) or ".." in name.split("/"):
            raise AudiobatError(f"{source} lists {name}, which leaves the folder {table.root}: {AGAIN}.")
    if len(table.missing()) == len(table):
        raise AudiobatError(
            f"{source}: none of the {len(table):,} listed files is there, such as {table.path(0)}: {AGAIN}."
        )
    return table
