"""Any one file of annotations to its rows; its content says which form it has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audiobat.data.sources.annotations.audacity import is_track, read_track
from audiobat.data.sources.annotations.forms import form_of, rows_of
from audiobat.data.sources.annotations.rows import Annotations
from audiobat.data.sources.annotations.text_table import TextTable, parse_table, plain_name, read_text, separator_of
from audiobat.data.sources.annotations.textgrid import is_textgrid, read_textgrid
from audiobat.data.sources.parquet import open_parquet
from audiobat.errors import AudiobatError

PREDICTION = ("file", "start", "end", "label")  # columns of a file without lines, which names none
TEXT_ENDINGS = (".txt", ".csv", ".tsv", ".textgrid")
HEAD = 1 << 16  # bytes from which the form of a text is told: what is none may be of any size


def read_file(path: Path, label_column: str | None = None) -> Annotations | None:
    """The annotations in a file; None if it is of no known form. A text that is empty holds none, and names no form.

    Raises:
        AudiobatError: a file of a known form with a row that cannot be used.
    """
    ending = path.suffix.lower()
    if not path.is_file():  # a pipe of that name would be waited for
        return None
    if ending == ".parquet":
        return _rows(_parquet(path), label_column)
    if ending == ".jsonl":
        return _rows(_json_lines(path), label_column)
    if ending not in TEXT_ENDINGS:
        return None
    head = read_text(path, HEAD)
    if not head.strip():
        return Annotations(path, "", [])
    if is_textgrid(head):
        return read_textgrid(path, read_text(path), label_column)
    if is_track(head):
        return read_track(path, read_text(path))
    separator = separator_of(head, form_of)
    return None if separator is None else _rows(parse_table(path, read_text(path), separator), label_column)


def _rows(table: TextTable, label_column: str | None) -> Annotations | None:
    form = form_of(list(table.columns))
    return None if form is None else rows_of(table, form, label_column)


def _parquet(path: Path) -> TextTable:
    file = open_parquet(path)
    names = file.schema_arrow.names
    known = form_of(list(map(plain_name, names))) is not None
    return _of_records(path, names, file.read().to_pylist() if known else [])


def _json_lines(path: Path) -> TextTable:
    rows: list[dict[str, Any]] = []
    for line, content in enumerate(read_text(path).split("\n"), start=1):
        if content.strip():
            try:
                rows.append(dict(json.loads(content)))
                json.dumps(rows[-1], ensure_ascii=False).encode()  # fails for an escape that is half of a letter
            except (ValueError, TypeError, RecursionError):
                raise AudiobatError(f"{path}, row {line}: it holds no JSON object: write one on each line.") from None
    return _of_records(path, list(rows[0] if rows else PREDICTION), rows)


def _of_records(path: Path, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> TextTable:
    """Records as the text table that would hold them."""
    columns = {plain_name(name): ["" if row.get(name) is None else str(row[name]) for row in rows] for name in names}
    return TextTable(path, tuple(names), columns, list(range(1, len(rows) + 1)))
