"""A table of embeddings to disk: one .parquet, .npz or .csv, chunk by chunk."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from audiobat.errors import AudiobatError

Rows: TypeAlias = dict[str, NDArray[Any]]  # path, start, end [R] and embedding [R, D]


def pick_writer(out: Path) -> Callable[[Path, Iterator[Rows]], None]:
    """The function that writes a table of the type that the ending of `out` names."""
    writers = {".parquet": write_parquet, ".npz": write_npz, ".csv": write_csv}
    if out.suffix.lower() not in writers:
        raise AudiobatError(f"--out {out} ends in {out.suffix or 'nothing'}: use one of {', '.join(writers)}.")
    if out.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise AudiobatError(f"--out {out} needs pyarrow: install 'audiobat[parquet]', or write .npz or .csv.")
    out.parent.mkdir(parents=True, exist_ok=True)
    return writers[out.suffix.lower()]


def write_parquet(path: Path, chunks: Iterator[Rows]) -> None:
    """Write the table as Parquet, one row group for each chunk."""
    import pyarrow
    import pyarrow.parquet

    writer = None
    for rows in chunks:
        columns = {name: rows[name] for name in ("path", "start", "end")}
        columns |= {f"e{i}": rows["embedding"][:, i] for i in range(rows["embedding"].shape[1])}
        table = pyarrow.table(columns)
        writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


def write_csv(path: Path, chunks: Iterator[Rows]) -> None:
    """Write the table as CSV; nine digits give every float32 back."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for number, rows in enumerate(chunks):
            if number == 0:
                writer.writerow(["path", "start", "end", *(f"e{i}" for i in range(rows["embedding"].shape[1]))])
            for name, start, end, vector in zip(*rows.values(), strict=True):
                writer.writerow([name, start, end, *(f"{value:.9g}" for value in vector)])


def write_npz(path: Path, chunks: Iterator[Rows]) -> None:
    """Write the table as arrays path, start, end [R] and embedding [R, D]."""
    parts = list(chunks)
    with path.open("wb") as file:
        columns = {name: np.concatenate([rows[name] for rows in parts]) for name in parts[0]}
        np.savez(file, allow_pickle=False, **columns)
