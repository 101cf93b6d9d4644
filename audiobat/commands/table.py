"""A table of embeddings on its way to disk: rows in OUT.parts/ until all are done, then one .parquet, .npz or .csv."""

from __future__ import annotations

import csv
import importlib.util
import io
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from audiobat.errors import AudiobatError
from audiobat.train.logs import write_atomic

Rows: TypeAlias = dict[str, NDArray[Any]]  # path, start, end [R] and embedding [R, D]


class Parts:
    """The rows of finished files, in the folder OUT.parts; `home` tells which part holds a file."""

    def __init__(self, folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
        self.folder = folder
        self.home: dict[str, Path] = {}
        record = folder / "settings.json"
        if record.exists():
            before = json.loads(record.read_text(encoding="utf-8"))
            changed = [name for name in settings if before.get(name) != settings[name]]
            if changed and not overwrite:
                what = " and ".join(changed)
                raise AudiobatError(f"{folder} was begun with another {what}: use the same, or give --overwrite.")
            if changed:
                shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(record, json.dumps(settings))
        for path in sorted(folder.glob("*.npz")):
            with np.load(path) as part:
                self.home |= dict.fromkeys(part["path"].tolist(), path)

    def add(self, rows: Rows) -> None:
        """Keep the rows of a group."""
        if not len(rows["path"]):
            return
        path = self.folder / f"{len(set(self.home.values())):08d}.npz"
        packed = io.BytesIO()
        np.savez(packed, allow_pickle=False, **rows)
        write_atomic(path, packed.getvalue())
        self.home |= dict.fromkeys(rows["path"].tolist(), path)

    def read(self, names: Iterable[str]) -> Iterator[Rows]:
        """The rows of the files `names` in that order, in chunks no larger than a part."""
        done = (name for name in names if name in self.home)
        for path, group in itertools.groupby(done, key=self.home.__getitem__):
            with np.load(path) as part:
                rows = dict(part)
            order = np.concatenate([np.flatnonzero(rows["path"] == name) for name in group])
            yield {name: values[order] for name, values in rows.items()}


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
