"""`audiobat atlas`: a map of a library, on which sounds that are alike lie near each other, in clusters.

In: a table that `embed` wrote and, to hear and to name its points, the recordings. Out: a folder with map.json, of the
format that `evaluation.report.sound_map` describes, and clips/. `audiobat report` makes a page of it.

The layout is t-SNE of the cosines to each row's nearest rows (openTSNE), from the two main components; clusters are
those of density on the map (HDBSCAN of scikit-learn, which comes with it).
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiobat.config import check
from audiobat.engine.files import replacing, write_atomic
from audiobat.engine.progress import Progress
from audiobat.errors import AudiobatError, counted
from audiobat.evaluation.report.sound_map import FILE, FORMAT
from audiobat.inference.library.neighbours import nearest_rows
from audiobat.inference.library.recordings import Recordings
from audiobat.inference.library.vectors import Ids, Library, open_library

CLIPS = "clips"
PERPLEXITY = 15.0  # about how many neighbours a point is kept near
NEIGHBOURS = 45  # three times as many shape the layout, as is usual
EARLY, STEPS = 250, 500  # of the descent: with the attraction exaggerated, and without
SHOWN = 50  # steps between two lines of progress
LEAST_CLUSTER = 5  # points


def atlas(
    index: str | Path,
    out: str | Path,
    *,
    points: int = 5000,
    clips: int = 1000,
    data: str | Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Draw a map of a library on which sounds that are alike lie near each other; returns its map.json.

    `audiobat report` makes a page of the folder. Labels of the recordings, or of events in them, where there are any,
    name the clusters.

    Args:
        index: the table that `audiobat embed` wrote: .npz, .parquet or .csv.
        out: a folder for the map.
        points: rows on the map, at most, evenly over the library; a page stays smooth with 5,000.
        clips: points that can be played, at most, evenly over the map; a clip takes some 30 KB.
        data: where the recordings of `index` are; None: where they were embedded.
        seed: of the layout.
        overwrite: replace the map in `out`, which is an error otherwise.

    Raises:
        AudiobatError: a table or recordings that cannot be read; `out` exists; openTSNE is missing.
    """
    check(points >= 2, "points", points, "use 2 or more")
    check(clips >= 0, "clips", clips, "use 0 or more")
    if importlib.util.find_spec("openTSNE") is None:
        raise AudiobatError("A map needs openTSNE: pip install 'audiobat[library]'.")
    out = Path(out)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (overwrite and (out / FILE).exists()))):
        what = "is no folder of a map" if not (out / FILE).exists() else "holds a map"
        hint = "choose another --out" if not (out / FILE).exists() else "choose another --out, or give --overwrite"
        raise AudiobatError(f"{out} {what}: {hint}.")
    library = thinned(open_library(index), points)
    table, recordings = library.table, Recordings(library.table, data)
    if clips:
        recordings.clip_id(str(table.paths[0]))  # are they there at all? The layout takes a minute
    places = lay_out(library, seed)
    with replacing(out) as beside:
        (beside / CLIPS).mkdir(parents=True)
        plain = {
            "format": FORMAT,
            "points": places.tolist(),
            "cluster": clusters_of(places).tolist(),
            "label": recordings.labels(),
            "file": table.paths.tolist(),
            "start": table.starts.tolist(),
            "end": table.ends.tolist(),
            "clip": write_clips(beside, library, recordings, clips),
        }
        write_atomic(beside / FILE, json.dumps(plain))
    print(f"{out}: a map of {len(places):,} sounds; audiobat report {out} --out page makes a page of it")
    return out / FILE


def evenly(rows: int, count: int) -> Ids:
    """`count` of `rows` rows, or all, evenly spread."""
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).astype(np.int64))


def thinned(library: Library, points: int) -> Library:
    """The library of some of its rows; those that match nothing are left out."""
    rows = np.flatnonzero(library.rows.any(1))
    rows = rows[evenly(len(rows), points)]
    table = library.table
    columns = {name: getattr(table, name)[rows] for name in ("paths", "starts", "ends", "vectors")}
    return replace(library, table=replace(table, **columns))


def lay_out(library: Library, seed: int) -> NDArray[np.float64]:
    """Points [R, 2]."""
    import openTSNE

    ids, cosines = nearest_rows(library, NEIGHBOURS, "compare embeddings")
    places = main_components(library.rows)
    perplexity = min(PERPLEXITY, ids.shape[1] / 3)
    if perplexity < 1:  # three rows or fewer
        return places
    distances = np.sqrt(np.maximum(0, 2 - 2 * cosines.astype(np.float64)))  # of unit vectors
    near = openTSNE.nearest_neighbors.PrecomputedNeighbors(ids, distances)
    affinities = openTSNE.affinity.PerplexityBasedNN(knn_index=near, perplexity=perplexity, n_jobs=1)
    with Progress("lay out", total=EARLY + STEPS, unit="step") as bar:

        def show(_step: int, _error: float, _places: Any) -> None:
            bar.advance(SHOWN)

        start = openTSNE.TSNEEmbedding(
            openTSNE.initialization.rescale(places, inplace=True),
            affinities,
            random_state=seed,
            callbacks=show,
            callbacks_every_iters=SHOWN,
        )
        early = start.optimize(EARLY, exaggeration=12, momentum=0.5)
        return np.asarray(early.optimize(STEPS, momentum=0.8), np.float64)


def main_components(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rows [R, D] along the two directions in which they spread most: [R, 2], each direction with a fixed sign."""
    centred = rows.astype(np.float64) - rows.mean(0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    chosen = directions[:, -2:][:, ::-1]
    signs = np.sign(chosen[np.abs(chosen).argmax(0), np.arange(chosen.shape[1])])
    places = np.zeros((len(rows), 2))
    places[:, : chosen.shape[1]] = centred @ (chosen * signs)
    return places


def clusters_of(places: NDArray[np.float64]) -> NDArray[np.int64]:
    """The cluster of each point, the largest 0; -1: none."""
    from sklearn.cluster import HDBSCAN

    least = max(LEAST_CLUSTER, len(places) // 200)
    if len(places) <= least:
        return np.full(len(places), -1)
    found = np.asarray(HDBSCAN(min_cluster_size=least, copy=True).fit(places).labels_, np.int64)
    found[found < 0] = -1
    sizes = np.bincount(found[found >= 0])
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return np.where(found >= 0, rank[found] if len(sizes) else -1, -1)


def write_clips(out: Path, library: Library, recordings: Recordings, count: int) -> Sequence[str | None]:
    """Write clips of some rows below `out`; returns the name of each row's, None where it has none.

    Recordings that cannot be read are told, and have none.
    """
    table = library.table
    names: list[str | None] = [None] * len(library)
    rows = evenly(len(library), count) if count else np.zeros(0, np.int64)
    broken: dict[str, str] = {}  # recording to what is wrong
    with Progress("write clips", total=len(rows), unit="clip", shown=count > 0) as bar:
        for row in rows.tolist():
            name, path = f"{CLIPS}/{row}.mp3", str(table.paths[row])
            try:
                recordings.write_clip(out / name, path, float(table.starts[row]), float(table.ends[row]))
                names[row] = name
            except AudiobatError as error:
                broken[path] = str(error)
            bar.advance()
    if broken:
        example = next(iter(broken.values()))
        warnings.warn(f"{counted(len(broken), 'recording')} cannot be read and gave no clips: {example}", stacklevel=3)
    return names
