"""Audio files of any length to a table of embeddings: one row (path, start, end, e0 .. eD-1) for each window.

Finished files are kept in OUT.parts/ until all are done, so that a run killed at any instant goes on where it stopped.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from audiobat.audio import pad_batch, windows
from audiobat.commands.table import Parts, Rows, pick_writer
from audiobat.config import check
from audiobat.data.build import clip_table
from audiobat.data.dataset import check_skipped, write_skipped
from audiobat.data.index import ClipTable
from audiobat.data.sources import read_clips
from audiobat.data.store import clip_duration, read_clip
from audiobat.encoder import pool_features
from audiobat.errors import AudiobatError
from audiobat.features import Encoder
from audiobat.hub import weights_sha256
from audiobat.models import load_encoder
from audiobat.progress import Progress
from audiobat.train.dist import pick_device

PART_WINDOWS = 256  # a part is written after the file that completes so many windows
CLIP_SECONDS = 10.0  # window of an encoder that names no longest clip


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
    device: str = "auto",
    trust_remote_code: bool = False,
    overwrite: bool = False,
) -> Path:
    """Embed every window of every file of `data` into the table `out`; returns its path.

    Files that cannot be read are listed, with the reason, in `out`.skipped.csv.

    Args:
        model: whatever `audiobat.load` takes, `hf:NAME_OR_FOLDER`, `my_file.py:MyEncoder`, or an encoder.
        data: an audio file, a .txt list of files (relative to it), or whatever `read_clips` takes: a folder, a CSV or
            Parquet file, prepared shards, NAME:FOLDER.
        out: .parquet or .csv with columns path, start, end (seconds), e0 to eD-1; or .npz with arrays path, start, end
            [R] and embedding [R, D].
        layer: block to read, 1 to the model's depth, or -1 for the last.
        pool: `mean` over valid patches, or the `cls` token, which masked latent regression trains little.
        window_seconds: length of a window; None: the model's longest clip.
        hop_seconds: step between windows; None: the window.
        batch_size: windows that are computed at once.
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
    hop = window if hop_seconds is None else hop_seconds
    embedder = Embedder(encoder, layer, pool, window, hop, batch_size, where)
    parts = Parts(sibling(out, "parts"), embedder.settings(), overwrite)
    todo = [row for row, key in enumerate(clips.keys) if key not in parts.home]
    broken: dict[str, str] = {}
    seen = done = 0  # files, windows

    def tell(count: int) -> None:
        nonlocal done
        done += count
        bar.advance(0, f"{done} windows")

    skipped = sibling(out, "skipped.csv")
    skipped.unlink(missing_ok=True)
    with Progress("embed", total=len(clips), unit="file", done=len(clips) - len(todo)) as bar:
        for group in embedder.grouped(clips, todo):
            parts.add(embedder.rows(clips, group, tell))
            broken |= group.broken
            seen += group.files
            bar.advance(group.files)
            if broken:
                write_skipped(skipped, broken)
            check_skipped(broken, seen, len(clips))
    beside = sibling(out, "tmp")
    write(beside, parts.read(clips.keys))
    beside.replace(out)
    shutil.rmtree(parts.folder)
    return out


def list_clips(data: str | Path) -> ClipTable:
    """The clips that `data` means."""
    source = Path(data)
    if not source.is_file() or source.suffix.lower() in (".csv", ".parquet"):
        return read_clips(data)
    if source.suffix.lower() != ".txt":
        return clip_table("", [str(source)])
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise AudiobatError(f"{source} is not UTF-8 text (byte {error.start}): save it in UTF-8.") from None
    files = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not files:
        raise AudiobatError(f"{source} lists no files: write one path on each line.")
    return clip_table(source.parent, files)


def sibling(out: Path, ending: str) -> Path:
    """OUT.ending, beside `out`."""
    return out.with_name(f"{out.name}.{ending}")


@dataclass(frozen=True)
class Window:
    """A stretch of a clip, in samples at its own rate."""

    name: str
    row: int  # of the clip table
    start: int
    end: int
    rate: int


@dataclass(frozen=True)
class Group:
    """Windows of consecutive files, done together; `broken` maps a file that cannot be read to the reason."""

    files: int
    windows: list[Window]
    broken: dict[str, str]


@dataclass(frozen=True)
class Embedder:
    """An encoder and how its features become rows."""

    encoder: Encoder
    layer: int
    pool: str
    window_seconds: float
    hop_seconds: float
    batch_size: int
    device: torch.device

    def __post_init__(self) -> None:
        depth, window = self.encoder.depth, self.window_seconds
        check(
            self.layer == -1 or 1 <= self.layer <= depth, "layer", self.layer, f"use 1 to {depth}, or -1 for the last"
        )
        check(self.pool in ("mean", "cls"), "pool", self.pool, "choose mean or cls")
        check(window > 0, "window_seconds", window, "it must be positive")
        check(0 < self.hop_seconds <= window, "hop_seconds", self.hop_seconds, f"use more than 0, at most {window:g}")
        check(self.batch_size > 0, "batch_size", self.batch_size, "it must be positive")

    def settings(self) -> dict[str, Any]:
        """What the values of a row depend on, besides the audio."""
        weights = weights_sha256(self.encoder) if isinstance(self.encoder, nn.Module) else type(self.encoder).__name__
        return {
            "model": weights,
            "layer": self.layer,
            "pool": self.pool,
            "window_seconds": self.window_seconds,
            "hop_seconds": self.hop_seconds,
        }

    def grouped(self, clips: ClipTable, rows: Sequence[int]) -> Iterator[Group]:
        """Cut clips into windows, in groups of at least PART_WINDOWS: what groups hold does not depend on kills."""
        group = Group(0, [], {})
        for row in rows:
            try:
                found = self.cut(clips, row)
            except AudiobatError as error:
                found, group.broken[clips.keys[row]] = [], str(error)
            group = Group(group.files + 1, group.windows + found, group.broken)
            if len(group.windows) >= PART_WINDOWS:
                yield group
                group = Group(0, [], {})
        if group.files:
            yield group

    def cut(self, clips: ClipTable, row: int) -> list[Window]:
        """The windows of one clip, from the table or the file's header alone."""
        seconds, rate = clip_duration(clips, row)
        if not seconds:
            raise AudiobatError(f"{clips.path(row)} has no samples: give audio that is not empty.")
        spans = windows(
            round(seconds * rate), *(max(1, round(s * rate)) for s in (self.window_seconds, self.hop_seconds))
        )
        return [Window(clips.keys[row], row, start, end, rate) for start, end in spans]

    def rows(self, clips: ClipTable, group: Group, report: Callable[[int], object]) -> Rows:
        """Embed the windows of a group; a file that fails in one of its windows has no rows, but a broken entry."""
        vectors: list[NDArray[np.float32]] = []
        kept: list[Window] = []
        for first in range(0, len(group.windows), self.batch_size):
            batch, waveforms = [], []
            for window in group.windows[first : first + self.batch_size]:
                try:
                    waveforms.append(torch.from_numpy(self.read(clips, window)))
                    batch.append(window)
                except AudiobatError as error:
                    group.broken.setdefault(window.name, str(error))
            if batch:
                vectors.append(self.vectors(waveforms))
                kept += batch
            report(len(batch))
        whole = np.array([window.name not in group.broken for window in kept], dtype=bool)
        kept = [window for window, keep in zip(kept, whole, strict=True) if keep]
        return {
            "path": np.array([window.name for window in kept]),
            "start": np.array([window.start / window.rate for window in kept]),
            "end": np.array([window.end / window.rate for window in kept]),
            "embedding": np.concatenate(vectors)[whole] if vectors else np.empty((0, self.encoder.dim), np.float32),
        }

    def read(self, clips: ClipTable, window: Window) -> NDArray[np.float32]:
        """The samples of one window alone, at the encoder's rate."""
        seconds = (window.end - window.start) / window.rate
        return read_clip(clips, window.row, self.encoder.sample_rate, window.start / window.rate, seconds)

    @torch.inference_mode()
    def vectors(self, waveforms: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """One vector for each waveform, [B, D]."""
        waveform, lengths = pad_batch(waveforms)
        features = self.encoder.forward_layers(waveform.to(self.device), lengths.to(self.device))
        pooled: NDArray[np.float32] = pool_features(features, self.pool, self.layer).float().cpu().numpy()
        return pooled


def longest_clip(encoder: Encoder) -> float:
    """Seconds of the longest clip that fits the encoder at once, in whole hundredths."""
    samples = getattr(encoder, "max_samples", None)
    return CLIP_SECONDS if samples is None else math.floor(samples / encoder.sample_rate * 100) / 100
