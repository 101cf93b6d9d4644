"""A Parquet file as a list of clips: `path` as in a CSV, or `audio` with the files themselves (extra `parquet`)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from audiobat.data.build import clip_table
from audiobat.data.clip_table import ClipTable
from audiobat.data.remote import is_remote, open_url
from audiobat.data.sources.lists import (
    LABEL_COLUMNS,
    OF_FILES,
    check_column,
    check_header,
    known_values,
    split_labels,
    table_of_columns,
)
from audiobat.errors import AudiobatError

AUDIO = "audio"  # column of {bytes, path} structs, as Hugging Face's data sets have it


def read_parquet(source: Path, label_column: str | None = None) -> ClipTable:
    """The clips of a Parquet file: those that its `path` column names, or those inside its `audio` column.

    Labels, by default in a column `label` or `labels`, are text joined by ';', lists of text, or numbers of Hugging
    Face's `ClassLabel`. Everything else, errors too, is as in a CSV.
    """
    file = open_parquet(source)
    names = [name for name in file.schema_arrow.names if name != AUDIO]
    inside = AUDIO in file.schema_arrow.names and "path" not in names
    leaves = [file.schema.column(i).path for i in range(len(file.schema))]
    if not inside:
        check_header(source, names)
    elif f"{AUDIO}.bytes" not in leaves:
        raise AudiobatError(f"{source}: column `{AUDIO}` has no `bytes` of files: write {{bytes, path}} into each row.")
    if not (rows := file.metadata.num_rows):
        raise AudiobatError(f"{source} lists no clips: write a row for each.")
    wanted = [f"{AUDIO}.path"] if inside and f"{AUDIO}.path" in leaves else []
    data = file.read(columns=[*names, *wanted]).to_pydict()
    if label_column is not None:
        check_column(source, label_column, names)
    label_name = label_column or next((name for name in LABEL_COLUMNS if name in data), None)
    lists = None
    if label_name is not None:
        classes = class_names(file.schema_arrow, label_name)
        lists = [_label_list(source, row, value, classes) for row, value in enumerate(data.pop(label_name))]
    audio = data.pop(AUDIO, None) or [None] * rows
    columns = {name: ["" if value is None else str(value) for value in values] for name, values in data.items()}
    if not inside:
        return table_of_columns(source, columns, lists)
    table = clip_table(
        source.parent,
        [source.name] * rows,
        keys=[  # the file's own name, after the row, which makes it unique
            f"{source.stem}/{row:06d}_{Path(str((part or {}).get('path') or 'clip')).name}"
            for row, part in enumerate(audio)
        ],
        labels=lists,
        **known_values(source, columns, first=0),
        columns={name: values for name, values in columns.items() if name not in OF_FILES},
    )
    return replace(table, offsets=np.arange(rows, dtype=np.int64))


def open_parquet(source: str | Path) -> Any:
    """A `pyarrow.parquet.ParquetFile` of a path or URL; AudiobatError without pyarrow, or for a damaged file."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise AudiobatError(f"{source}: Parquet needs pyarrow: pip install 'audiobat[parquet]'.") from None
    try:
        return pyarrow.parquet.ParquetFile(open_url(str(source)) if is_remote(source) else source)
    except (OSError, pyarrow.ArrowException) as error:
        raise AudiobatError(f"{source} is no readable Parquet file ({error}): download or write it again.") from None


def class_names(schema: Any, column: str) -> list[str]:
    """The names that the numbers in a column stand for: of a `ClassLabel` in what Hugging Face's `datasets` notes.

    Args:
        schema: a `pyarrow.Schema`; its metadata `huggingface` describes each column.
        column: numbers, or lists of them.

    Returns:
        None of them for a column of anything else.
    """
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        while isinstance(feature, list) or "names" not in feature:  # the feature of what a list holds
            feature = feature[0] if isinstance(feature, list) else feature["feature"]
        return [str(name) for name in feature["names"]] if feature["_type"] == "ClassLabel" else []
    except (KeyError, IndexError, TypeError, ValueError, RecursionError):
        return []


def _label_list(source: Path, row: int, value: Any, classes: list[str]) -> list[str]:
    """The labels of a row; `classes` are the names of those that are numbers. -1 is Hugging Face's "not known"."""
    if value is None:
        return []
    if isinstance(value, str):
        return split_labels(value)
    if classes and isinstance(value, int):
        value = [value]
    if classes and isinstance(value, list) and all(isinstance(number, int) for number in value):
        if unknown := [number for number in value if not -1 <= number < len(classes)]:
            raise AudiobatError(f"{source}, row {row}: its label is {unknown[0]}, and there are {len(classes)} names.")
        return [classes[number] for number in value if number >= 0]
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return value
    raise AudiobatError(f"{source}, row {row}: its label is {value!r}: use text, or a list of text.")
