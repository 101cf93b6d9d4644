"""Any source that --data names, to a clip table: folders, lists, tars, prepared shards, a public data set.

`read_clips` takes them all; `read_labelled_clips` demands labels too. Nothing here opens an audio file.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from audiobat.data.clip_table import ClipTable
from audiobat.data.shards import is_prepared, open_prepared
from audiobat.data.sources.catalog import find_data_set
from audiobat.data.sources.folders import is_audio, label_by_folder, read_folder, walk
from audiobat.data.sources.lists import read_columns, table_of_columns
from audiobat.data.sources.parquet import read_parquet
from audiobat.data.sources.tars import find_tars, read_tars, tars_below
from audiobat.errors import AudiobatError


def read_clips(source: str | Path) -> ClipTable:
    """Read the clips of any source.

    Args:
        source: a folder of audio (any depth, sorted by path); a folder or URL that `audiobat prepare` wrote; a CSV or
            Parquet file; tars of recordings, as WebDataset has them: a .tar, a pattern such as `{000..012}.tar`, a
            folder of them, a .txt that lists them, URLs too; or NAME:FOLDER, a public data set such as
            `esc50:/data/ESC-50-master`.

    A CSV has a header row with `path` (relative to the CSV) and may have `label` or `labels` (several joined by ';'),
    `split` (train, valid, test), `fold` (whole numbers) and `seconds`; further columns are kept as text. With columns
    `onset` and `offset` a row is an event, and the rows of a file are one clip. In a Parquet file, `audio` may hold the
    files themselves, and `labels` may be lists.

    Raises:
        AudiobatError: nothing there, no audio in the folder, a CSV without rows or a `path` column, a value that its
            column does not allow, a clip listed twice, no listed file exists.
    """
    return _read(source)[0]


def read_labelled_clips(source: str | Path) -> ClipTable:
    """Read clips that have labels: as `read_clips`, or a folder of class folders, also once it is prepared.

    A folder holds one folder per class, or `train` and `test` (and `valid`) that hold the class folders.

    Raises:
        AudiobatError: as for `read_clips`; no label column, no label in any row, audio outside the class folders.
    """
    table, in_folders = _read(source)
    if table.labels is None and in_folders:
        return label_by_folder(table, Path(source))
    if table.labels is None:
        columns = ", ".join(["path", *table.columns])
        raise AudiobatError(f"{source} has no `label` column (it has {columns}): add one, labels joined by ';'.")
    if not len(table.labels.values):
        raise AudiobatError(f"{source}: column `label` is empty in every row: fill it in, labels joined by ';'.")
    return table


def _read(source: str | Path) -> tuple[ClipTable, bool]:
    """The clips, and whether the class of one without labels is the folder that it lies in."""
    if (tars := find_tars(source)) is not None:
        return read_tars(str(source), tars), True
    named = find_data_set(str(source))
    if named is not None:
        data_set, folder = named
        return data_set.read(folder), False
    if is_prepared(source):
        return open_prepared(source), True
    source = Path(source).absolute()
    if source.is_dir():
        files, refused = walk(source)
        tars = tars_below(source, sorted(files))
        if tars and not any(map(is_audio, files)):
            for name in refused:
                warnings.warn(f"{source / name} cannot be listed: tars in it are not read.", stacklevel=2)
            return read_tars(str(source), tars), True
        if tars:
            warnings.warn(f"{source} holds audio files and {len(tars)} tars: only the files are read.", stacklevel=2)
        return read_folder(source, files, refused), True
    if not source.exists():
        raise AudiobatError(f"There is no folder, CSV, Parquet or tar file {source}: check the path.")
    if source.suffix.lower() == ".parquet":
        return read_parquet(source), False
    if source.suffix.lower() != ".csv":
        raise AudiobatError(f"{source} is no list of clips: give a folder of audio, or a .csv or .parquet of `path`s.")
    return table_of_columns(source, read_columns(source)), False
