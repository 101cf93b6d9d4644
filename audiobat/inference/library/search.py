"""`audiobat search`: which rows of a table of embeddings sound like a given sound.

In: a table that `embed` wrote, and an audio file or a part of it. Out: the windows that are nearest to it by the cosine
around the table's mean, the best first, as a table or as clips.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from audiobat.config import check
from audiobat.data.columns import Strings
from audiobat.data.embeddings import EmbeddingTable
from audiobat.engine.files import replacing
from audiobat.engine.ranks import pick_device
from audiobat.errors import AudiobatError, counted
from audiobat.inference.library.graph import open_for_search
from audiobat.inference.library.query import Query, load_model
from audiobat.inference.library.recordings import Recordings, clip_name
from audiobat.inference.library.vectors import Ids, nearest_first
from audiobat.inference.writers import TRACKS, Output, Prediction, pick_format, write_csv
from audiobat.models.features import Encoder

SPARE = 10  # times as many rows are looked at as are asked for, since those that overlap are left out
CLIPS_TABLE = "found.csv"  # beside clips


def search(
    index: str | Path,
    query: str | Path,
    *,
    top: int = 20,
    start: float = 0.0,
    end: float | None = None,
    out: str | Path | None = None,
    format: Literal["auto", "csv", "parquet", "jsonl", "audacity", "raven", "clips"] = "auto",
    model: str | Path | Encoder | None = None,
    data: str | Path | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    overwrite: bool = False,
) -> list[Prediction]:
    """Find the windows of a library that sound most like a sound; returns them, the nearest first.

    A window that overlaps a nearer one of its recording is left out, and so is the query itself where the library holds
    it. The score is the cosine to the nearest of the query's windows, both around the library's mean.

    Args:
        index: the table that `audiobat embed` wrote: .npz, .parquet or .csv.
        query: an audio file.
        top: windows to find, at most.
        start: seconds into `query` at which the sound begins.
        end: seconds at which it ends; None: at the end of `query`.
        out: .csv, .parquet, .jsonl, .txt or .selections.txt as for `audiobat predict`; a name without an ending is a
            folder of clips to hear; None: the result is printed.
        format: of `out`; `auto`: by its ending.
        model: the model that made `index`; None: the one that it names.
        data: where the recordings of `index` are, for clips; None: where they were embedded.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        trust_remote_code: run the Python files that come with the model, if it has any; read them first.
        overwrite: replace `out` if it exists, which is an error otherwise.

    Raises:
        AudiobatError: a table, a sound or a model that cannot be read, or that do not belong together; `out` exists.
    """
    check(top > 0, "top", top, "it must be positive")
    sound = Query(Path(query), start, end)
    out = None if out is None else Path(out)
    clips = format == "clips" or (out is not None and format == "auto" and not out.suffix)
    if out is not None:  # before the model runs
        check_out(out, format, clips, overwrite)
    library = open_for_search(index)
    table = library.table
    place = pick_device(device)
    encoder = load_model(table, model, place, trust_remote_code)
    own = is_query(table, sound)
    count = SPARE * top + int(own.sum())
    scores = library.cosines(library.unit(sound.embed(encoder, table, place)), count)
    scores[own] = -np.inf
    rows = without_overlap(table, nearest_first(scores), scores, top)
    label = sound.file.stem
    found = [
        Prediction(str(table.paths[row]), float(table.starts[row]), float(table.ends[row]), label, float(scores[row]))
        for row in rows
    ]
    recordings = Recordings(table, data)
    if out is None:
        print_found(found)
    elif clips:
        write_clips(out, found, recordings)
        print(f"{out}: {counted(len(found), 'clip')} to hear, the nearest first; {out / CLIPS_TABLE} lists them")
    else:
        write_table(out, format, found, encoder.sample_rate, recordings, overwrite)
        print(f"{out}: {counted(len(found), 'window')}")
    return found


def check_out(out: Path, format: str, clips: bool, overwrite: bool) -> None:
    """Raise an AudiobatError unless `out` is free, or may be replaced."""
    if not clips:
        pick_format(out, format)
    if not out.exists() or (clips and out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise AudiobatError(f"{out} exists: choose another --out, or replace it with --overwrite.")
    if clips and not (out / CLIPS_TABLE).exists():
        raise AudiobatError(f"{out} holds something else than clips of a search: choose another --out.")


def is_query(table: EmbeddingTable, query: Query) -> NDArray[np.bool_]:
    """[R] whether a row overlaps the query in the query's own file."""
    own = os.path.realpath(query.file)
    like = table.paths[np.char.endswith(table.paths, query.file.name)]
    same = [name for name in np.unique(like).tolist() if PurePath(name).name == query.file.name]
    same = [name for name in same if os.path.realpath(os.path.join(table.meta.get("root", ""), name)) == own]
    end = np.inf if query.end is None else query.end
    overlaps: NDArray[np.bool_] = (table.starts < end) & (table.ends > query.start) & np.isin(table.paths, same)
    return overlaps


def without_overlap(table: EmbeddingTable, order: Ids, scores: NDArray[np.float32], top: int) -> list[int]:
    """The first `top` rows of `order` that overlap no earlier one of their recording."""
    taken: dict[str, list[int]] = {}
    rows: list[int] = []
    for row in order.tolist():
        if len(rows) == top or scores[row] == -np.inf:
            break
        others = taken.setdefault(str(table.paths[row]), [])
        if all(table.ends[row] <= table.starts[i] or table.starts[row] >= table.ends[i] for i in others):
            others.append(row)
            rows.append(row)
    return rows


def print_found(found: Sequence[Prediction]) -> None:
    """A line for each row."""
    for number, row in enumerate(found, start=1):
        print(f"{number:4d}  {row.score:.3f}  {row.start:9.2f} - {row.end:9.2f} s  {row.file}")


def write_table(
    out: Path, format: str, found: Sequence[Prediction], rate: int, recordings: Recordings, overwrite: bool
) -> None:
    """Write what was found as `audiobat predict` writes: ranked, or recording by recording in tracks.

    `rate` is the model's, in Hz.
    """
    names = list(dict.fromkeys(row.file for row in found))
    form = pick_format(out, format)
    output = Output(out, form, Strings.of_texts(names), rate / 2, overwrite)
    if form not in TRACKS:
        output.write(iter(found), (), {})
        return
    places = {name: place for place, name in enumerate(names)}
    by_recording = sorted(found, key=lambda row: (places[row.file], row.start))
    output.write(iter(by_recording), (), {name: recordings.rate(name, rate) for name in names})


def write_clips(out: Path, found: Sequence[Prediction], recordings: Recordings) -> None:
    """Write a folder with a clip of each row, named by its place and its score, and the table."""
    with replacing(out) as beside:
        beside.mkdir()
        for number, row in enumerate(found, start=1):
            name = clip_name(number, row.file, row.start, f"{row.score:.3f}")
            recordings.write_clip(beside / name, row.file, row.start, row.end)
        write_csv(beside / CLIPS_TABLE, found)
