"""Any source that --data names, to a clip table: a folder, class folders, a list, prepared shards, a public data set.

`read_clips` takes them all; `read_labelled_clips` demands labels too. Nothing here opens an audio file.
"""

from __future__ import annotations

from pathlib import Path

from audiobat.data.clip_table import ClipTable
from audiobat.data.shards import is_prepared, open_prepared
from audiobat.data.sources.catalog import find_data_set
from audiobat.data.sources.folders import label_by_folder, read_folder
from audiobat.data.sources.lists import read_columns, table_of_columns
from audiobat.data.sources.parquet import read_parquet
from audiobat.errors import AudiobatError


def read_clips(source: str | Path) -> ClipTable:
    """Read the clips of any source.

    Args:
        source: a folder of audio (any depth, sorted by path); a folder or URL that `audiobat prepare` wrote; a CSV or
            Parquet file; or NAME:FOLDER, a public data set such as `esc50:/data/ESC-50-master`.

    A CSV has a header row with `path` (relative to the CSV) and may have `label` or `labels` (several joined by ';'),
    `split` (train, valid, test), `fold` (whole numbers) and `seconds`; further columns are kept as text. With columns
    `onset` and `offset` a row is an event, and the rows of a file are one clip. In a Parquet file, `audio` may hold the
    files themselves, and `labels` may be lists.

    Raises:
        AudiobatError: nothing there, no audio in the folder, a CSV without rows or a `path` column, a value that its
            column does not allow, a clip listed twice, no listed file exists.
    """
    named = find_data_set(str(source))
    if named is not None:
        data_set, folder = named
        return data_set.read(folder)
    if is_prepared(source):
        return open_prepared(source)
    source = Path(source).absolute()
    if source.is_dir():
        return read_folder(source)
    if not source.exists():
        raise AudiobatError(f"There is no folder, CSV or Parquet file {source}: check the path.")
    if source.suffix.lower() == ".parquet":
        return read_parquet(source)
    if source.suffix.lower() != ".csv":
        raise AudiobatError(f"{source} is no list of clips: give a folder of audio, or a .csv or .parquet of `path`s.")
    return table_of_columns(source, read_columns(source))


def read_labelled_clips(source: str | Path) -> ClipTable:
    """Read clips that have labels: as `read_clips`, or a folder of class folders, also once it is prepared.

    A folder holds one folder per class, or `train` and `test` (and `valid`) that hold the class folders.

    Raises:
        AudiobatError: as for `read_clips`; no label column, no label in any row, audio outside the class folders.
    """
    table = read_clips(source)
    if table.labels is None and (Path(source).is_dir() or is_prepared(source)):
        return label_by_folder(table, Path(source))
    if table.labels is None:
        columns = ", ".join(["path", *table.columns])
        raise AudiobatError(f"{source} has no `label` column (it has {columns}): add one, labels joined by ';'.")
    if not len(table.labels.values):
        raise AudiobatError(f"{source}: column `label` is empty in every row: fill it in, labels joined by ';'.")
    return table
