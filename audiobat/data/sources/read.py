"""Any source that --data names, to a clip table: folders, lists, tars, shards, annotations, a public data set.

`read_clips` takes all that hold audio, `read_labelled_clips` demands labels too, and `read_annotations` does without
audio. An audio file is opened in one case alone: for its length, where events may lie behind its end.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path

from audiobat.data.clip_table import ClipTable
from audiobat.data.shards import is_prepared, open_prepared
from audiobat.data.sources.annotations.tables import annotated_folder, annotation_file
from audiobat.data.sources.catalog import find_data_set
from audiobat.data.sources.folders import NoLabels, is_audio, label_by_folder, read_folder, walk
from audiobat.data.sources.inside import events_inside
from audiobat.data.sources.lists import read_columns, table_of_columns
from audiobat.data.sources.parquet import read_parquet
from audiobat.data.sources.relabel import read_label_map, relabel, with_labels
from audiobat.data.sources.tars import find_tars, read_tars, tars_below
from audiobat.errors import AudiobatError


def read_clips(source: str | Path, annotated: bool = False) -> ClipTable:
    """Read the clips of any source.

    Args:
        source: a folder of audio (any depth, sorted by path); a folder or URL that `audiobat prepare` wrote; a CSV or
            Parquet file; tars of recordings, as WebDataset has them: a .tar, a pattern such as `{000..012}.tar`, a
            folder of them, a .txt that lists them, URLs too; or NAME:FOLDER, a public data set such as
            `esc50:/data/ESC-50-master`.
        annotated: read annotations beside recordings, too, or one file of them. A pass over audio needs none, and may
            find a million texts.

    A CSV has a header row with `path` (relative to the CSV) and may have `label` or `labels` (several joined by ';'),
    `split` (train, valid, test), `fold` (whole numbers) and `seconds`; further columns are kept as text. With columns
    `onset` and `offset` a row is an event, and the rows of a file are one clip. In a Parquet file, `audio` may hold the
    files themselves, and `labels` may be lists.

    Raises:
        AudiobatError: nothing there, no audio in the folder, a CSV without rows or a `path` column, a value that its
            column does not allow, a clip listed twice, no listed file exists.
    """
    return _read(source, annotated=annotated)[0]


def read_labelled_clips(
    source: str | Path,
    label_column: str | None = None,
    background: Collection[str] = (),
    label_map: str | Path | None = None,
) -> ClipTable:
    """Read clips that have labels.

    Args:
        source: as for `read_clips`; a folder of recordings with annotations beside them, see `annotations/`; one file
            of annotations; a folder of class folders, also once it is prepared, or `train` and `test` (and `valid`)
            that hold class folders.
        label_column: the column that holds the labels, of a list, of annotations, of shards; None: the usual one.
        background: labels that are no class: a clip or a span that has no other is background.
        label_map: a CSV of columns `from` and `to`: labels that get another name, or an empty one, and are dropped.

    Raises:
        NoLabels: no label column, audio outside the class folders.
        AudiobatError: as for `read_clips`; no label in any row; what cannot be used in annotations; no event that lies
            inside its recording.
    """
    table = relabelled(_read_labelled(source, label_column), background, label_map)
    if table.labels is None or not len(table.labels.values):
        raise AudiobatError(f"{source}: none of its {len(table)} clips has a label: name some, labels joined by ';'.")
    return events_inside(table, source)


def read_annotations(
    source: str | Path,
    label_column: str | None = None,
    background: Collection[str] = (),
    label_map: str | Path | None = None,
) -> ClipTable:
    """Read labels alone, of predictions as of people: as `read_labelled_clips`, but no recording needs to be there.

    A recording in which there is nothing is a clip without labels and events. Where rows have scores, so have events,
    in `event_scores`. Keys are the recordings' paths as the source has them.

    Raises:
        AudiobatError: as for `read_labelled_clips`.
    """
    path = Path(source)
    table = annotation_file(path, label_column, has_audio=False) if path.is_file() else None
    if table is None and path.is_file() and path.suffix.lower() == ".csv":
        path = path.absolute()
        table = table_of_columns(path, read_columns(path), label_name=label_column, has_audio=False)
    return relabelled(_read_labelled(source, label_column) if table is None else table, background, label_map)


def relabelled(table: ClipTable, background: Collection[str], label_map: str | Path | None) -> ClipTable:
    """The table with its labels renamed, dropped, or taken as background: see `read_labelled_clips`."""
    names = {} if label_map is None else read_label_map(Path(label_map))
    return relabel(table, names, background) if names or background else table


def _read_labelled(source: str | Path, label_column: str | None) -> ClipTable:
    """The clips with the labels that their source has."""
    table, in_folders = _read(source, label_column, annotated=True)
    if table.labels is None and in_folders:
        return label_by_folder(table, Path(source))
    if table.labels is None:
        columns = ", ".join(["path", *table.columns])
        raise NoLabels(f"{source} has no `label` column (it has {columns}): add one, labels joined by ';'.")
    if not len(table.labels.values):
        raise AudiobatError(f"{source}: column `label` is empty in every row: fill it in, labels joined by ';'.")
    return table


def _read(source: str | Path, label_column: str | None = None, annotated: bool = False) -> tuple[ClipTable, bool]:
    """The clips, and whether the class of one without labels is the folder that it lies in."""
    if (tars := find_tars(source)) is not None:
        return with_labels(read_tars(str(source), tars), label_column, source), True
    named = find_data_set(str(source))
    if named is not None:
        data_set, folder = named
        return with_labels(data_set.read(folder), label_column, source), False
    if is_prepared(source):
        return with_labels(open_prepared(source), label_column, source), True
    source = Path(source).absolute()
    if source.is_dir():
        files, refused = walk(source)
        if annotated and (table := annotated_folder(source, sorted(files), label_column)) is not None:
            return table, False
        tars = tars_below(source, sorted(files))
        if tars and not any(map(is_audio, files)):
            for name in refused:
                warnings.warn(f"{source / name} cannot be listed: tars in it are not read.", stacklevel=2)
            return with_labels(read_tars(str(source), tars), label_column, source), True
        if tars:
            warnings.warn(f"{source} holds audio files and {len(tars)} tars: only the files are read.", stacklevel=2)
        return with_labels(read_folder(source, files, refused), label_column, source), True
    if not source.exists():
        raise AudiobatError(f"There is no folder, CSV, Parquet or tar file {source}: check the path.")
    ending = source.suffix.lower()
    if annotated and (table := annotation_file(source, label_column)) is not None:
        return table, False
    if ending == ".parquet":
        return read_parquet(source, label_column), False
    if ending != ".csv":
        raise AudiobatError(f"{source} is no list of clips: give a folder of audio, or a .csv or .parquet of `path`s.")
    return table_of_columns(source, read_columns(source), label_name=label_column), False
