"""s3prl and SUPERB: an `UpstreamExpert` that gives all layers; s3prl's downstream models learn a weight for each.

In a file that runs s3prl (docs/kits.md has one whose stand-ins let s3prl 0.4.18 run beside today's torchaudio):

    from s3prl import hub
    from audiobat.zoo.integrations.s3prl import UpstreamExpert
    hub.audiobat = lambda ckpt=None, **more: UpstreamExpert(ckpt, **more)  # then `--upstream audiobat -k bat_nano`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from audiobat.audio.read import pad_batch
from audiobat.errors import AudiobatError
from audiobat.zoo.integrations.frames import DEFAULT, hop_of
from audiobat.zoo.load import load_encoder

RATE = 16_000  # Hz, of all audio in SUPERB


class UpstreamExpert(nn.Module):
    """An encoder as s3prl's upstream; `ckpt` names it as `--model` does. Gradients flow, for --upstream_trainable."""

    def __init__(self, ckpt: str | None = None, model_config: str | None = None, **_: Any) -> None:
        super().__init__()
        if model_config is not None:
            raise AudiobatError(f"model_config is {model_config!r}: a model has its own config, so give -k alone.")
        self.encoder = load_encoder(ckpt or DEFAULT)
        if self.encoder.sample_rate != RATE:
            raise AudiobatError(
                f"s3prl's audio has {RATE} Hz and {ckpt} needs {self.encoder.sample_rate} Hz: choose another model."
            )
        self.hop = round(hop_of(self.encoder) * RATE)

    def get_downsample_rates(self, key: str) -> int:
        """Samples from one frame to the next, for every `key`."""
        return self.hop

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """Waveforms [S_b] at 16 kHz to `hidden_states`: L tensors [B, T, D], the mean over frequency.

        Where a shorter clip has ended it has its last frame again. s3prl counts a frame for each hop that a clip has
        begun, one more than a model that leaves out the rest, and repeats the last frame of a clip that is alone, too.
        """
        waveform, lengths = pad_batch(wavs)
        features = self.encoder.forward_intermediates(waveform, lengths.to(waveform.device))
        frames = features.patch_tokens.unflatten(2, features.grid).mean(3)  # [L, B, T, D]
        counts = features.valid.unflatten(1, features.grid).any(2).sum(1, keepdim=True)  # [B, 1]
        times = torch.arange(frames.shape[2], device=frames.device).minimum(counts - 1)  # [B, T]
        return {"hidden_states": list(frames.gather(2, times[None, :, :, None].expand_as(frames)))}
