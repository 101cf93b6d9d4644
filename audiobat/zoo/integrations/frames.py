"""One layer of an encoder as one vector for each column of time, as HEAR, X-ARES and MTEB need it; long audio in parts.

In: waveforms [B, S] of one length. Out: [B, T, D], the mean over frequency, evenly spaced.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from audiobat.errors import AudiobatError
from audiobat.models.features import NOT_FINITE, Encoder, LayerFeatures
from audiobat.zoo.load import load_encoder

DEFAULT = "bat_nano"
STRETCH_SECONDS = 20.0  # longer audio runs in such stretches: ten minutes need the memory of twenty seconds


class FrameEmbedder(nn.Module):
    """Frames of `layer` (1 to depth, or -1) of a frozen encoder: an object, or a name as `--model` takes it."""

    def __init__(self, model: str | Path | Encoder = DEFAULT, layer: int = -1) -> None:
        super().__init__()
        self.encoder = load_encoder(model) if isinstance(model, str | Path) else model
        if layer != -1 and not 1 <= layer <= self.encoder.depth:
            raise AudiobatError(f"layer is {layer}: use 1 to {self.encoder.depth}, or -1 for the last.")
        self.layer = layer if layer < 0 else layer - 1
        self.hop_seconds = hop_of(self.encoder)

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform [B, S] at the encoder's rate, on its device, to frames [B, T, D] in float32."""
        rate, total = self.encoder.sample_rate, waveform.shape[-1]
        columns = max(1, round(STRETCH_SECONDS / self.hop_seconds))
        stretch, hop = round(columns * self.hop_seconds * rate), round(self.hop_seconds * rate)
        parts: list[Tensor] = []
        start = 0
        # A column reads at most two hops: each stretch has one hop more than it uses, and the last part at least two.
        while start + stretch + 2 * hop < total:
            piece = waveform[:, start : start + stretch + hop]
            parts.append(time_vectors(self.encoder.forward_intermediates(piece))[self.layer, :, :columns])
            start += stretch
        parts.append(time_vectors(self.encoder.forward_intermediates(waveform[:, start:]))[self.layer])
        return torch.cat(parts, dim=1).float()


def check_finite(frames: Tensor) -> Tensor:
    """The frames [B, T, D] of a batch; raises AudiobatError with a clip's place in it if any of them is NaN."""
    for place in (~frames.isfinite().flatten(1).all(1)).nonzero().flatten().tolist():
        raise AudiobatError(f"Clip {place} of the batch: {NOT_FINITE}")
    return frames


def time_vectors(features: LayerFeatures) -> Tensor:
    """The valid columns of clips of one length, each the mean over its frequencies: [L, B, T, D]."""
    columns = int(features.valid[0].unflatten(0, features.grid).any(1).sum())
    by_column: Tensor = features.patch_tokens.unflatten(2, features.grid)
    return by_column[:, :, :columns].mean(3)


@torch.no_grad()
def hop_of(encoder: Encoder) -> float:
    """Seconds between the starts of two columns."""
    first = next(encoder.parameters(), torch.empty(0)) if isinstance(encoder, nn.Module) else torch.empty(0)
    times = encoder.forward_intermediates(torch.zeros(1, 4 * encoder.sample_rate, device=first.device)).frame_times
    if len(times) < 2:
        raise AudiobatError("The encoder has one column for 4 s: kits that want frames cannot use it.")
    return round(float(times[1] - times[0]), 6)
