"""Audio files of any length to a table of embeddings: one row (path, start, end, e0 .. eD-1) for each window.

Windows are those of `audio.windows` at the model's rate. OUT.parts/ keeps what is done, so that a run that was killed
goes on where it stopped, to the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from audiobat.config import check
from audiobat.data.clip_table import ClipTable
from audiobat.data.windows import Window
from audiobat.engine.ranks import pick_device
from audiobat.engine.run_folder import sole_use
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.inference.embedding_table import pick_writer
from audiobat.inference.journal import Journal, Rows, sibling, told_when_full
from audiobat.inference.recordings import list_clips, longest_clip
from audiobat.inference.window_pass import Cut, run_pass
from audiobat.models.encoder import pool_features
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
    """Embed every window of every file of `data` into the table `out`; returns its path.

    Files that cannot be read are listed, with the reason, in `out`.skipped.csv.

    Args:
        model: a release or run folder, shipped weights by name, `hub:OWNER/NAME`, a checkpoint of BAT, EAT, SSLAM,
            Audio-MAE or BEATs, `hf:NAME_OR_FOLDER`, `my_file.py:MyEncoder`, or an encoder object.
        data: an audio file, a .txt list of files (relative to it), a folder, a CSV or Parquet file with a path column,
            prepared shards, or NAME:FOLDER of a public data set.
        out: .parquet or .csv with columns path, start, end (seconds), e0 to eD-1; or .npz with arrays path, start, end
            [R] and embedding [R, D].
        layer: block to read, 1 to the model's depth, or -1 for the last.
        pool: `mean` over valid patches, or the `cls` token, which masked latent regression trains little.
        window_seconds: length of a window; None: the model's longest clip.
        hop_seconds: step between windows; None: the window.
        batch_size: windows that are computed at once.
        workers: threads that decode ahead; 0: none.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        trust_remote_code: let a Hugging Face model run the Python files that come with it.
        overwrite: replace `out`, which is an error if it exists otherwise.

    Raises:
        AudiobatError: a bad argument, nothing to embed, more than 5% of the files unreadable, parts of other settings.
    """
    out = Path(out)
    write = pick_writer(out)
    if out.is_dir():
        raise AudiobatError(f"--out {out} is a folder: name a file for the table.")
    if out.exists() and not overwrite:
        raise AudiobatError(f"{out} exists: choose another --out, or replace it with --overwrite.")
    clips = list_clips(data)
    where = pick_device(device)
    encoder = load_encoder(model, "cpu", trust_remote_code) if isinstance(model, str | Path) else model
    if isinstance(encoder, nn.Module):
        encoder.to(where).eval()
    window = longest_clip(encoder) if window_seconds is None else window_seconds
    cut = Cut(encoder.sample_rate, window, window if hop_seconds is None else hop_seconds, batch_size, workers)
    task = EmbedTask(encoder, layer, pool)
    with told_when_full(out), sole_use(sibling(out, "parts")):
        journal = Journal(sibling(out, "parts"), clips, task.settings(cut), overwrite)
        run_pass("embed", task, clips, cut, journal, where, sibling(out, "skipped.csv"))
        beside = sibling(out, "tmp")
        write(beside, named(journal.read(), clips))
        beside.replace(out)
        journal.close()
    return out


@dataclass(frozen=True)
class EmbedTask:
    """An encoder and how its features become rows."""

    encoder: Encoder
    layer: int
    pool: str

    def __post_init__(self) -> None:
        depth, layer = self.encoder.depth, self.layer
        check(layer == -1 or 1 <= layer <= depth, "layer", layer, f"use 1 to {depth}, or -1 for the last")
        check(self.pool in ("mean", "cls"), "pool", self.pool, "choose mean or cls")

    def settings(self, cut: Cut) -> dict[str, Any]:
        """What the values of a row depend on, besides the audio."""
        weights = weights_sha256(self.encoder) if isinstance(self.encoder, nn.Module) else type(self.encoder).__name__
        return {
            "verb": "embed",
            "model": weights,
            "layer": self.layer,
            "pool": self.pool,
            "window_seconds": cut.window_seconds,
            "hop_seconds": cut.hop_seconds,
        }

    def compute(self, waveform: Tensor, lengths: Tensor) -> Sequence[NDArray[np.float32]]:
        """One vector [D] for each window of [B, S]."""
        features = self.encoder.forward_intermediates(waveform, lengths)
        return list(pool_features(features, self.pool, self.layer).float().cpu().numpy())

    def rows(self, window: Window, value: NDArray[np.float32]) -> Rows:
        """The row of a window."""
        rate = self.encoder.sample_rate
        return {
            "row": np.array([window.clip_id]),
            "start": np.array([window.start / rate]),
            "end": np.array([(window.start + len(window.samples)) / rate]),
            "embedding": value[None],
        }

    def state(self) -> Rows:
        """Nothing: a window stands by itself."""
        return {}

    def restore(self, state: Rows) -> None:
        """Nothing to remember."""


def named(chunks: Iterator[Rows], clips: ClipTable) -> Iterator[Rows]:
    """Rows with the clips' names, `path`, in the place of their numbers."""
    for rows in chunks:
        names = np.array([clips.keys[row] for row in rows["row"].tolist()], dtype=np.str_)
        yield {"path": names, **{name: values for name, values in rows.items() if name != "row"}}
