"""A kept index beside a large table: it finds the nearest of millions of rows without reading them.

In: a table of more than KEPT_ROWS rows. Out: TABLE.index/, a folder with a graph of near rows (usearch's HNSW, numbers
of 16 bits) and what else a search needs of the table. It is made once, goes on where it was killed, and is made anew
when the table changes. It finds nearly all of the nearest rows; below KEPT_ROWS, and where usearch is not installed,
search is exact.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiobat.data.clip_table import crc32_of
from audiobat.data.embeddings import EmbeddingTable
from audiobat.engine.files import read_json, remove, replacing, write_atomic
from audiobat.engine.progress import Progress
from audiobat.errors import AudiobatError
from audiobat.inference.library.vectors import Library, Vectors, blocks, open_library

KEPT_ROWS = 200_000  # up to here an exact search takes a fraction of a second
LINKS, ADD_DEPTH, FIND_DEPTH = 16, 128, 128  # of the graph: links of a row; rows looked at when one is added or sought
SAVE_SECONDS = 60.0  # between two saves of a graph that is being made
FACTS, GRAPH = "facts.json", "graph.usearch"
COLUMNS = ("paths", "starts", "ends", "mean")  # each a .npy
FORMAT = "audiobat-index-1"
AGAIN = "remove the folder, and it is made anew"


@dataclass(frozen=True, eq=False)
class GraphLibrary(Library):
    """A library whose rows are in a graph; `table.vectors` holds none of them."""

    graph: Any

    def cosines(self, queries: Vectors, count: int) -> Vectors:
        """[R] of each row with the nearest of `queries`, where it is among the `count` nearest of one; else -inf."""
        best = np.full(len(self), -np.inf, np.float32)
        found = self.graph.search(queries, min(count, len(self)))
        keys, scores = np.atleast_2d(found.keys).astype(np.int64), 1 - np.atleast_2d(found.distances)
        for row_keys, row_scores in zip(keys, scores, strict=True):
            best[row_keys] = np.maximum(best[row_keys], row_scores)
        return best


def open_for_search(index: str | Path) -> Library:
    """The library of a table: by its kept index if it is large, else by its rows.

    Raises:
        AudiobatError: as for `open_library`; an index that is damaged.
    """
    index = Path(index)
    folder = index.with_name(f"{index.name}.index")
    if not index.is_file() or importlib.util.find_spec("usearch") is None:
        library = open_library(index)
        if len(library) > KEPT_ROWS:
            print(f"{index}: a kept index answers sooner: pip install 'audiobat[library]'.", file=sys.stderr)
        return library
    status = index.stat()
    stamp = {"format": FORMAT, "table": [status.st_size, status.st_mtime_ns]}
    facts = read_json(folder / FACTS, AGAIN) if (folder / FACTS).exists() else {}
    if {name: facts.get(name) for name in stamp} != stamp or "crc" not in facts:
        library = open_library(index)
        if len(library) <= KEPT_ROWS:
            return library
        facts = build(library, folder, stamp)
    return open_graph(index, folder, facts)


def build(library: Library, folder: Path, stamp: dict[str, Any]) -> dict[str, Any]:
    """Make the index of a library in `folder`, from what an earlier try has saved; returns its facts."""
    if not (folder / FACTS).exists() or read_json(folder / FACTS, AGAIN) != stamp:  # another table's, or none
        remove(folder)
        folder.mkdir()
        write_atomic(folder / FACTS, json.dumps(stamp))
    graph = new_graph(library.rows.shape[1])
    if (folder / GRAPH).exists():
        graph.load(str(folder / GRAPH))
    done, saved = len(graph), monotonic()
    with Progress("make the index", total=len(library), unit="row", done=done) as bar:
        for at in blocks(len(library) - done):
            rows = np.arange(at.start, at.stop) + done
            graph.add(rows, library.rows[rows])
            if monotonic() - saved > SAVE_SECONDS:
                save(graph, folder)
                saved = monotonic()
            bar.advance(len(rows))
    save(graph, folder)
    table = library.table
    columns: tuple[NDArray[Any], ...] = (table.paths, table.starts, table.ends, library.mean)
    for name, values in zip(COLUMNS, columns, strict=True):
        with replacing(folder / f"{name}.npy") as beside, beside.open("wb") as file:
            np.save(file, np.asarray(values))
    facts = stamp | {"meta": dict(table.meta), "crc": {name: crc32_of(folder / name) for name in files()}}
    write_atomic(folder / FACTS, json.dumps(facts))
    return facts


def open_graph(index: Path, folder: Path, facts: dict[str, Any]) -> GraphLibrary:
    """The library of a finished index, mapped from the disk."""
    for name in files():  # the graph's own code trusts what it reads
        if not (folder / name).is_file() or crc32_of(folder / name) != facts["crc"].get(name):
            raise AudiobatError(f"{folder / name} is damaged: {AGAIN}.")
    paths, starts, ends, mean = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in COLUMNS)
    graph = new_graph(len(mean))
    graph.view(str(folder / GRAPH))
    graph.expansion_search = FIND_DEPTH
    empty = np.zeros((0, len(mean)), np.float32)
    return GraphLibrary(EmbeddingTable(index, paths, starts, ends, empty, facts["meta"]), np.asarray(mean), graph)


def new_graph(dim: int) -> Any:
    """An empty graph of unit vectors."""
    from usearch.index import Index

    return Index(ndim=dim, metric="cos", dtype="f16", connectivity=LINKS, expansion_add=ADD_DEPTH)


def save(graph: Any, folder: Path) -> None:
    """Write a graph, whole or not at all."""
    with replacing(folder / GRAPH) as beside:
        graph.save(str(beside))


def files() -> list[str]:
    """Names of the files whose content is checked."""
    return [GRAPH, *(f"{name}.npy" for name in COLUMNS)]
