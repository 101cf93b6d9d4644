"""Recordings of any length to a table of embeddings: a row (path, start, end, e0 .. eD-1) for each window.

In: an encoder and recordings. Out: .parquet, .npz or .csv. Windows are those of `data.windows` at the model's rate.
OUT.parts/ keeps what is done, so that a run that was killed goes on where it stopped, to the same bytes.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from audiobat.config import check
from audiobat.data.clip_table import ClipTable
from audiobat.data.csv_text import escape
from audiobat.data.windows import Window
from audiobat.engine.files import replacing
from audiobat.engine.ranks import launch
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.inference.journal import CLIP_ID, Journal, Rows, is_finished
from audiobat.inference.window_pass import Task, Windows, list_clips, make_table
from audiobat.models.encoder import BaseEncoder, pool_features
from audiobat.models.features import Encoder
from audiobat.zoo.load import load_encoder


def embed(
    model: str | Path | Encoder,
    data: str | Path,
    out: str | Path,
    *,
    layer: int = -1,
    pool: Literal["mean", "cls"] = "mean",
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    batch_size: int = 16,
    workers: int = 2,
    device: str = "auto",
    trust_remote_code: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write an embedding of every window of every recording of `data` to the table `out`; returns its path.

    Files that cannot be read are listed, with the reason, in `out`.skipped.csv.

    Args:
        model: a release or run folder, shipped weights by name, `hub:OWNER/NAME`, a checkpoint of BAT, EAT, SSLAM,
            Audio-MAE or BEATs, `hf:NAME_OR_FOLDER`, `my_file.py:MyEncoder`, or an encoder object.
        data: an audio file, a .txt list of files (relative to it), a folder, a CSV or Parquet file with a path column,
            prepared shards, tars of recordings as WebDataset has them, or NAME:FOLDER of a public data set.
        out: .parquet or .csv with columns path, start, end (seconds), e0 to eD-1; or .npz with arrays path, start, end
            [R] and embedding [R, D].
        layer: block to read, 1 to the model's depth, or -1 for the last.
        pool: `mean` over valid patches, or the `cls` token, which masked latent regression trains little.
        window_seconds: length of a window; None: the longest clip that the model takes.
        hop_seconds: step between windows; None: the window.
        batch_size: windows that are computed at once, at most; on a CPU no more than 20 s of audio for each thread.
        workers: threads that decode ahead; 0: none.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        trust_remote_code: run the Python files that come with the model, if it has any; read them first.
        overwrite: replace `out` if it exists, which is an error otherwise.

    Raises:
        AudiobatError: a bad argument, nothing to embed, more than 5% of the files unreadable, parts of other settings.
    """
    out = Path(out)
    write_table = pick_writer(out)
    if out.is_dir():
        raise AudiobatError(f"--out {out} is a folder: name a file for the table.")
    if is_finished(out) and not overwrite:
        raise AudiobatError(f"{out} exists: choose another --out, or replace it with --overwrite.")
    clips = list_clips(data)
    with launch(device) as ranks:
        encoder = load_encoder(model, "cpu", trust_remote_code) if isinstance(model, str | Path) else model
        if isinstance(encoder, nn.Module):
            encoder.to(ranks.device).eval()
        windows = Windows.of(encoder, window_seconds, hop_seconds, batch_size, workers)
        task = EmbedTask(encoder, layer, pool)
        settings = {
            "verb": "embed",
            "model": weights_sha256(encoder) if isinstance(encoder, nn.Module) else type(encoder).__name__,
            "layer": layer,
            "pool": pool,
        }

        def write(journal: Journal) -> None:
            with replacing(out) as beside:
                write_table(beside, with_paths(journal.read(), clips))

        make_table("embed", out, task, clips, windows, settings, overwrite, ranks, write)
    return out


@dataclass(frozen=True)
class EmbedTask(Task):
    """An encoder, and how the features of a window become a vector."""

    encoder: Encoder
    layer: int
    pool: str

    def __post_init__(self) -> None:
        depth, layer = self.encoder.depth, self.layer
        check(layer == -1 or 1 <= layer <= depth, "layer", layer, f"use 1 to {depth}, or -1 for the last")
        check(self.pool in ("mean", "cls"), "pool", self.pool, "choose mean or cls")

    def compute(self, waveform: Tensor, lengths: Tensor) -> Sequence[NDArray[np.float32]]:
        """A vector [D] for each window of [B, S]."""
        layer = self.layer
        if isinstance(self.encoder, BaseEncoder):  # one of somebody else's may know no `indices`
            features = self.encoder.forward_intermediates(waveform, lengths, [layer if layer < 0 else layer - 1])
            layer = -1
        else:
            features = self.encoder.forward_intermediates(waveform, lengths)
        return list(pool_features(features, self.pool, layer).float().cpu().numpy())

    def rows(self, window: Window, value: NDArray[np.float32]) -> Rows:
        """The row of a window."""
        rate = self.encoder.sample_rate
        return {
            CLIP_ID: np.array([window.clip_id]),
            "start": np.array([window.start / rate]),
            "end": np.array([(window.start + len(window.samples)) / rate]),
            "embedding": value[None],  # [1, D]
        }


def with_paths(chunks: Iterator[Rows], clips: ClipTable) -> Iterator[Rows]:
    """Rows with a column `path`, the clips' names, in place of the clip ids."""
    for rows in chunks:
        names = np.array([clips.keys[clip_id] for clip_id in rows[CLIP_ID].tolist()], dtype=np.str_)
        yield {"path": names, **{name: values for name, values in rows.items() if name != CLIP_ID}}


def pick_writer(out: Path) -> Callable[[Path, Iterator[Rows]], None]:
    """The function that writes a table in the format that the ending of `out` names."""
    writers = {".parquet": write_parquet, ".npz": write_npz, ".csv": write_csv}
    if out.suffix.lower() not in writers:
        raise AudiobatError(f"--out {out} ends in {out.suffix or 'nothing'}: use one of {', '.join(writers)}.")
    if out.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise AudiobatError(f"--out {out} needs pyarrow: install 'audiobat[parquet]', or write .npz or .csv.")
    out.parent.mkdir(parents=True, exist_ok=True)
    return writers[out.suffix.lower()]


def write_parquet(path: Path, chunks: Iterator[Rows]) -> None:
    """Write the table as Parquet, a row group for each chunk."""
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
    """Write the table as CSV; nine digits are enough to give back every float32."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for number, rows in enumerate(chunks):
            if number == 0:
                writer.writerow(["path", "start", "end", *(f"e{i}" for i in range(rows["embedding"].shape[1]))])
            for name, start, end, vector in zip(*rows.values(), strict=True):
                writer.writerow([escape(name), start, end, *(f"{value:.9g}" for value in vector)])


def write_npz(path: Path, chunks: Iterator[Rows]) -> None:
    """Write the table as arrays path, start, end [R] and embedding [R, D]."""
    parts = list(chunks)
    with path.open("wb") as file:
        columns = {name: np.concatenate([rows[name] for rows in parts]) for name in parts[0]}
        np.savez(file, allow_pickle=False, **columns)
