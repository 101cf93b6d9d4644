"""Recordings of any length to a table of embeddings: a row (path, start, end, e0 .. eD-1) for each window.

In: an encoder and recordings. Out: .parquet, .npz or .csv (`data.embeddings`). Windows are those of `data.windows` at
the model's rate. OUT.parts/ keeps what is done, so that a run that was killed goes on where it stopped, to the same
bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from audiobat.config import check
from audiobat.data.clip_table import ClipTable
from audiobat.data.embeddings import check_table_name, write_embeddings
from audiobat.data.windows import Window
from audiobat.engine.ranks import launch
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.inference.journal import CLIP_ID, Count, Journal, Rows, is_finished
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

    Files that cannot be read are left out and listed, with the reason, in `out`.skipped.csv.

    Args:
        model: a release or run folder, shipped weights by name, `hub:OWNER/NAME`, a checkpoint of BAT, EAT, SSLAM,
            Audio-MAE or BEATs, `hf:NAME_OR_FOLDER`, `FILE.onnx@RATE`, `my_file.py:MyEncoder`, `baseline:NAME`,
            or an encoder object.
        data: an audio file, a .txt list of files (relative to it), a folder, a CSV or Parquet file with a path column,
            prepared shards, tars of recordings as WebDataset has them, or NAME:FOLDER of a public data set.
        out: .parquet or .csv with columns path, start, end (seconds), e0 to eD-1; or .npz with arrays path, start, end
            [R] and embedding [R, D]. It says, too, which model, layer and windows made it (`data.embeddings`).
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
        AudiobatError: a bad argument, nothing to embed, no file that can be read, parts of other settings.
    """
    out = Path(out)
    check_table_name(out)
    if is_finished(out) and not overwrite:
        raise AudiobatError(f"{out} exists: choose another --out, or replace it with --overwrite.")
    clips = list_clips(data)
    with launch(device) as ranks:
        encoder = load_encoder(model, "cpu", trust_remote_code) if isinstance(model, str | Path) else model
        if isinstance(encoder, nn.Module):
            encoder.to(ranks.device).eval()
        windows = Windows.of(encoder, window_seconds, hop_seconds, batch_size, workers)
        task = EmbedTask(encoder, layer, pool)
        weights = weights_sha256(encoder) if isinstance(encoder, nn.Module) else type(encoder).__name__
        settings = {"verb": "embed", "model": weights, "layer": layer, "pool": pool}
        meta = {
            "model": _absolute(model) if isinstance(model, str | Path) else type(encoder).__name__,
            "weights": weights,
            "layer": layer if layer > 0 else encoder.depth,
            "pool": pool,
            "sample_rate": encoder.sample_rate,
            "window_seconds": windows.window_seconds,
            "hop_seconds": windows.hop_seconds,
            "data": _absolute(data),
            "root": clips.root if "://" in clips.root else os.path.abspath(clips.root),
        }

        def write(journal: Journal) -> Count:
            count = Count()
            write_embeddings(out, with_paths(count(journal.read()), clips), meta)
            return count

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

    def compute(self, waveform: Tensor, lengths: Tensor) -> Sequence[NDArray[np.float32] | None]:
        """A vector [D] for each window of [B, S]; None: it is not finite."""
        layer = self.layer
        if isinstance(self.encoder, BaseEncoder):  # one of somebody else's may know no `indices`
            features = self.encoder.forward_intermediates(waveform, lengths, [layer if layer < 0 else layer - 1])
            layer = -1
        else:
            features = self.encoder.forward_intermediates(waveform, lengths)
        vectors = pool_features(features, self.pool, layer).float().cpu().numpy()
        return [vector if np.isfinite(vector).all() else None for vector in vectors]

    def rows(self, window: Window, value: NDArray[np.float32]) -> Rows:
        """The row of a window."""
        rate = self.encoder.sample_rate
        return {
            CLIP_ID: np.array([window.clip_id]),
            "start": np.array([window.start / rate]),
            "end": np.array([(window.start + len(window.samples)) / rate]),
            "embedding": value[None],  # [1, D]
        }


def _absolute(name: str | Path) -> str:
    """The absolute path of a file or folder; any other name, such as that of shipped weights, as it is."""
    return os.path.abspath(name) if os.path.exists(name) else str(name)


def with_paths(chunks: Iterator[Rows], clips: ClipTable) -> Iterator[Rows]:
    """Rows with a column `path`, the clips' names, in place of the clip ids."""
    for rows in chunks:
        names = np.array([clips.keys[clip_id] for clip_id in rows[CLIP_ID].tolist()], dtype=np.str_)
        yield {"path": names, **{name: values for name, values in rows.items() if name != CLIP_ID}}
