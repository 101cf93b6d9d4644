"""An encoder with a head, as fine-tuning makes it: waveform to logits of classes, for a clip or its patch columns."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from audiobat.config import TaggerConfig
from audiobat.models.encoder import BaseEncoder
from audiobat.models.features import LayerFeatures
from audiobat.models.heads import build_head


class Tagger(nn.Module):
    """`encoder` and `head`, and what the head's logits mean; both are public, so that either serves alone."""

    def __init__(self, encoder: BaseEncoder, config: TaggerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.head = build_head(config.head, encoder.dim, encoder.depth, len(config.classes), rows=encoder.freq_patches)

    def save_pretrained(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write a release with the head in it: as `AudioEncoder.save_pretrained`, and head.safetensors."""
        from audiobat.zoo.release import save_new

        save_new(folder, self, overwrite)

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, device: str = "cpu", trust_remote_code: bool = False
    ) -> Tagger:
        """As `audiobat.zoo.release.load_tagger`: a release with a head, the run that made it, or `hub:OWNER/NAME`."""
        from audiobat.zoo.release import load_tagger

        return load_tagger(name_or_folder, device, trust_remote_code)

    @property
    def sample_rate(self) -> int:
        """Hz, of the waveforms."""
        return self.encoder.sample_rate

    @property
    def classes(self) -> tuple[str, ...]:
        """Names [C], in the order of the logits."""
        return self.config.classes

    @property
    def task(self) -> Literal["clip", "frame"]:
        """What the head was trained to label."""
        return self.config.task

    @property
    def multi_label(self) -> bool:
        """Whether several classes may be there at once."""
        return self.config.multi_label

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Waveform [B, S], of any length, with its `lengths` [B] in samples (None: all S), to logits [B, C].

        A head that labels frames says of a clip what it says of the frame where it is surest of a class.
        """
        features = self.encoder.forward_intermediates(waveform, lengths)
        if self.task == "clip":
            logits: Tensor = self.head(features)
            return logits
        return surest_frame(self.frame_logits(features), features)

    def frames(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [B, T, C] of the patch columns, zeros on padding, and the second [T] at which each column starts.

        A head that was trained on clips answers too, as well as it can.
        """
        features = self.encoder.forward_intermediates(waveform, lengths)
        return self.frame_logits(features), features.frame_times

    def frame_logits(self, features: LayerFeatures) -> Tensor:
        """Logits [B, T, C] of the patch columns of `features`, zeros on padding."""
        logits: Tensor = self.head.frames(features)  # type: ignore[operator]
        return logits

    def scores(self, logits: Tensor) -> Tensor:
        """Probabilities of logits [..., C]: each by itself, or summing to one where a class excludes the others."""
        return logits.sigmoid() if self.multi_label else logits.softmax(-1)


def surest_frame(frame_logits: Tensor, features: LayerFeatures) -> Tensor:
    """Greatest of the frames' logits [B, T, C], class by class, padding left out: [B, C]."""
    padding = ~valid_columns(features)[:, :, None]
    return frame_logits.masked_fill(padding, -torch.inf).amax(1)


def valid_columns(features: LayerFeatures) -> Tensor:
    """Which patch columns hold any of a clip, [B, T]."""
    valid: Tensor = features.valid.unflatten(1, features.grid).any(2)
    return valid
