"""Tables of embeddings: a row (path, start, end, e0 .. eD-1) for each window of each recording, and what made them.

In: rows in chunks, and facts on the model and the windows. Out: .parquet, .npz or .csv, and any of them read again. The
facts are in the table itself: in Parquet the schema's metadata `audiobat`, in .npz an array `meta`, each as JSON;
beside a CSV, which has no room for them, in NAME.csv.json.
"""

from __future__ import annotations

import csv
import importlib.util
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from audiobat.data.clip_table import join
from audiobat.data.csv_text import escape, unescape
from audiobat.engine.files import check_zip, read_json, replacing, write_atomic
from audiobat.errors import AudiobatError

Columns: TypeAlias = dict[str, NDArray[Any]]  # path, start, end [R] and embedding [R, D]

PLACES = ("path", "start", "end")
META = "audiobat"  # the key of Parquet's metadata
AGAIN = "make it anew with `audiobat embed`"


@dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """R windows and their vectors, in the order of the recordings.

    Attributes:
        source: the file.
        paths: [R] the recording of each window, by its name in the data that were embedded.
        starts: [R] seconds into it.
        ends: [R] seconds.
        vectors: [R, D].
        meta: what made them: model (its name or folder), weights (sha256), layer (1 to depth), pool, sample_rate (Hz),
            window_seconds, hop_seconds, data (as --data gave it) and root (the folder that paths are relative to);
            empty in tables of earlier versions.
    """

    source: Path
    paths: NDArray[np.str_]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    vectors: NDArray[np.float32]
    meta: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.paths)

    def audio(self, row: int) -> str:
        """Where the recording of a row is: a path or a URL."""
        return join(str(self.meta.get("root", "")), str(self.paths[row]))


def read_embeddings(path: str | Path) -> EmbeddingTable:
    """The table in a .parquet, .npz or .csv file that `audiobat embed` wrote.

    Raises:
        AudiobatError: no such file, one of another kind, a damaged one, or numbers that are not finite.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None or not path.is_file():
        what = "no such file" if reader else f"it ends in {path.suffix}" if path.suffix else "it has no ending"
        raise AudiobatError(
            f"{path} is no table of embeddings ({what}): name a {', '.join(READERS)} of `audiobat embed`."
        )
    need_pyarrow(path, "read")
    try:
        columns, meta = reader(path)
        places = [np.asarray(columns[name]) for name in PLACES]
        vectors = np.asarray(columns["embedding"], np.float32)
        starts, ends = (place.astype(np.float64) for place in places[1:])
        if vectors.ndim != 2 or any(place.shape != vectors.shape[:1] for place in places):
            raise ValueError("its columns differ in length")
    except AudiobatError:
        raise
    except Exception as error:  # a damaged or foreign file can fail anywhere in the readers
        reason = f"no column {error}" if isinstance(error, KeyError) else error
        raise AudiobatError(f"{path} cannot be read as a table of embeddings ({reason}): {AGAIN}.") from None
    if not all(np.isfinite(values).all() for values in (starts, ends, vectors)):
        raise AudiobatError(f"{path} holds numbers that are not finite: {AGAIN}.")
    return EmbeddingTable(path, places[0].astype(np.str_), starts, ends, vectors, meta)


def check_table_name(out: Path) -> None:
    """Raise an AudiobatError unless a table can be written under the name `out`."""
    if out.suffix.lower() not in WRITERS:
        raise AudiobatError(f"--out {out} ends in {out.suffix or 'nothing'}: use one of {', '.join(WRITERS)}.")
    if out.is_dir():
        raise AudiobatError(f"--out {out} is a folder: name a file for the table.")
    need_pyarrow(out, "write")


def write_embeddings(out: Path, chunks: Iterator[Columns], meta: Mapping[str, Any]) -> None:
    """Write rows in chunks, and what made them, to the table `out`, whole or not at all."""
    with replacing(out) as beside:
        WRITERS[out.suffix.lower()](beside, chunks, json.dumps(meta))
        if out.suffix.lower() == ".csv":
            write_atomic(sidecar(out), json.dumps(meta))


def need_pyarrow(path: Path, verb: str) -> None:
    """Raise an AudiobatError if `path` is a Parquet file and nothing here reads or writes such files."""
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise AudiobatError(f"{path} needs pyarrow: pip install 'audiobat[parquet]', or {verb} .npz or .csv.")


def sidecar(table: Path) -> Path:
    """The file beside a CSV that holds what made it."""
    return table.with_name(f"{table.name}.json")


def _write_parquet(path: Path, chunks: Iterator[Columns], meta: str) -> None:
    """A row group for each chunk."""
    import pyarrow
    import pyarrow.parquet

    writer = None
    for rows in chunks:
        columns = {name: rows[name] for name in PLACES}
        columns |= {f"e{i}": rows["embedding"][:, i] for i in range(rows["embedding"].shape[1])}
        table = pyarrow.table(columns)
        writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema.with_metadata({META: meta}))
        writer.write_table(table.replace_schema_metadata({META: meta}))
    if writer:
        writer.close()


def _write_csv(path: Path, chunks: Iterator[Columns], meta: str) -> None:
    """Nine digits are enough to give back every float32."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for number, rows in enumerate(chunks):
            if number == 0:
                writer.writerow([*PLACES, *(f"e{i}" for i in range(rows["embedding"].shape[1]))])
            for name, start, end, vector in zip(*rows.values(), strict=True):
                writer.writerow([escape(name), start, end, *(f"{value:.9g}" for value in vector)])


def _write_npz(path: Path, chunks: Iterator[Columns], meta: str) -> None:
    """Arrays path, start, end [R], embedding [R, D] and meta, a text."""
    parts = list(chunks)
    with path.open("wb") as file:
        columns = {name: np.concatenate([rows[name] for rows in parts]) for name in parts[0]}
        np.savez(file, allow_pickle=False, **columns, meta=np.array(meta))


def _read_parquet(path: Path) -> tuple[Columns, dict[str, Any]]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    vectors = [table[name].to_numpy() for name in _vector_names(table.column_names)]
    columns = {name: table[name].to_numpy() for name in PLACES} | {"embedding": np.stack(vectors, 1)}
    return columns, json.loads((table.schema.metadata or {}).get(META.encode(), b"{}"))


def _read_npz(path: Path) -> tuple[Columns, dict[str, Any]]:
    check_zip(path)
    with np.load(path, allow_pickle=False) as arrays:
        needed = (*PLACES, "embedding")
        if missing := [name for name in needed if name not in arrays.files]:
            raise KeyError(missing[0])
        columns = {name: arrays[name] for name in needed}
        return columns, json.loads(str(arrays["meta"])) if "meta" in arrays.files else {}


def _read_csv(path: Path) -> tuple[Columns, dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        places = [header.index(name) for name in PLACES]
        width = [header.index(name) for name in _vector_names(header)]
        names: list[str] = []
        numbers: list[NDArray[np.float64]] = []
        for row in rows:
            names.append(unescape(row[places[0]]))
            numbers.append(np.array([row[i] for i in (*places[1:], *width)], np.float64))
    table = np.stack(numbers)
    columns = {"path": np.array(names), "start": table[:, 0], "end": table[:, 1], "embedding": table[:, 2:]}
    return columns, read_json(sidecar(path)) if sidecar(path).exists() else {}


def _vector_names(header: Sequence[str]) -> list[str]:
    """The columns e0, e1, ..., as far as they go without a gap."""
    known = set(header)
    return list(itertools.takewhile(known.__contains__, (f"e{i}" for i in itertools.count())))


WRITERS = {".parquet": _write_parquet, ".npz": _write_npz, ".csv": _write_csv}
READERS = {".parquet": _read_parquet, ".npz": _read_npz, ".csv": _read_csv}
