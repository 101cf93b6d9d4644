"""A sound to vectors that can be compared with a table's, by the model that made the table.

In: an audio file, or a part of it, and the table. Out: that model, and a vector for each window of the sound, cut as
the table's were.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from audiobat.audio.read import open_audio, read_span
from audiobat.data.embeddings import EmbeddingTable
from audiobat.data.windows import Window, cut_windows
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.inference.embed import EmbedTask
from audiobat.inference.window_pass import Windows, compute
from audiobat.models.features import Encoder
from audiobat.zoo.load import load_encoder

BATCH_SIZE = 16


@dataclass(frozen=True)
class Query:
    """A sound, or the part of it between two times.

    Raises:
        AudiobatError: no such part.
    """

    file: Path
    start: float = 0.0  # seconds
    end: float | None = None  # None: to the end

    def __post_init__(self) -> None:
        if not 0 <= self.start < math.inf:
            raise AudiobatError(f"--start {self.start:g}: give seconds into {self.file}, from 0.")
        if self.end is not None and not self.start < self.end < math.inf:
            raise AudiobatError(f"--end {self.end:g} is not behind --start {self.start:g}: give a later one.")

    def embed(self, encoder: Encoder, table: EmbeddingTable, device: torch.device) -> NDArray[np.float32]:
        """A vector for each window, [Q, D], of the layer that the table was made of.

        Raises:
            AudiobatError: audio that cannot be read or is empty.
        """
        with open_audio(self.file) as audio:
            seconds = None if self.end is None else self.end - self.start
            samples = read_span(audio, str(self.file), encoder.sample_rate, self.start, seconds)
        if not len(samples):
            raise AudiobatError(f"{self.file} has no samples: give a sound that is not empty.")
        window, hop = table.meta.get("window_seconds"), table.meta.get("hop_seconds")
        if window is None:  # a table of an earlier version: most rows are whole windows
            window = min(float(np.median(table.ends - table.starts)), len(samples) / encoder.sample_rate)
        windows = Windows.of(encoder, window, hop, BATCH_SIZE, 0)
        cut = enumerate(cut_windows([samples], windows.length, windows.hop, windows.least))
        parts = [Window(0, number, at, part, False, None, encoder.sample_rate) for number, (at, part) in cut]
        task = EmbedTask(encoder, table.meta.get("layer", -1), table.meta.get("pool", "mean"))
        vectors = np.stack(compute(task, parts, windows, device))
        if not np.isfinite(vectors).all():
            raise AudiobatError(f"The model gives {self.file} numbers that are not finite: it cannot be compared.")
        return vectors


def load_model(
    table: EmbeddingTable, model: str | Path | Encoder | None, device: torch.device, trust_remote_code: bool
) -> Encoder:
    """The encoder that made a table, on `device`: the one that the table names, unless `model` is given.

    Raises:
        AudiobatError: a table that names no model; a model that cannot be loaded, or that did not make the table.
    """
    named = table.meta.get("model") if model is None else model
    if named is None:
        raise AudiobatError(f"{table.source} does not say which model made it: give --model.")
    if not table.meta:
        warnings.warn(
            f"{table.source} does not say which layer made it: taken for the mean of the last one.", stacklevel=2
        )
    try:
        encoder = load_encoder(named, "cpu", trust_remote_code) if isinstance(named, str | Path) else named
    except AudiobatError as error:
        if model is not None:
            raise
        raise AudiobatError(f"The model that made {table.source} cannot be loaded ({error}) Give --model.") from None
    dim = table.vectors.shape[1]
    if encoder.dim != dim:
        raise AudiobatError(f"{table.source} holds {dim} numbers a row, the model makes {encoder.dim}: give --model.")
    if isinstance(encoder, nn.Module):
        if table.meta.get("weights", "") not in ("", weights_sha256(encoder)):
            raise AudiobatError(
                f"{table.source} was made by other weights than those of the model: give --model the one that made it, "
                "or embed the recordings anew."
            )
        encoder.to(device).eval()
    return encoder
