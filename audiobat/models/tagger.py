"""An encoder with a head that fine-tuning trained: waveform to logits of classes, for a clip or its patch columns."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from audiobat.config import TaggerConfig
from audiobat.models.encoder import BaseEncoder
from audiobat.models.features import LayerFeatures
from audiobat.models.heads import build_head, check_teaches


class Tagger(nn.Module):
    """An `encoder`, a `head` on it, and `config`, which names the classes of the logits."""

    def __init__(self, encoder: BaseEncoder, config: TaggerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        check_teaches(config.head.kind)
        self.head = build_head(config.head, encoder.dim, encoder.depth, len(config.classes), encoder.freq_patches)

    def save_pretrained(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write a release, as `AudioEncoder.save_pretrained` does, with head.safetensors besides."""
        from audiobat.zoo.release import save_new

        save_new(folder, self, overwrite)

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, device: str = "cpu", trust_remote_code: bool = False
    ) -> Tagger:
        """Read a release with a head, a fine-tuning's run folder, or `hub:OWNER/NAME` (`zoo.release.load_tagger`)."""
        from audiobat.zoo.release import load_tagger

        return load_tagger(name_or_folder, device, trust_remote_code)

    @property
    def sample_rate(self) -> int:
        """Hz, of the waveforms that it takes."""
        return self.encoder.sample_rate

    @property
    def classes(self) -> tuple[str, ...]:
        """Names [C], in the order of the logits."""
        return self.config.classes

    @property
    def task(self) -> Literal["clip", "frame"]:
        """Whether the head was trained to label clips or patch columns."""
        return self.config.task

    @property
    def multi_label(self) -> bool:
        """Whether several classes may be present at once: then each has a sigmoid, else they share a softmax."""
        return self.config.multi_label

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Waveform [B, S], of any length, with its `lengths` [B] in samples (None: all S), to logits [B, C].

        A head that labels frames gives a clip the logit of its surest frame, class by class.
        """
        features = self.encoder.forward_intermediates(waveform, lengths)
        if self.task == "clip":
            logits: Tensor = self.head(features)
            return logits
        return surest_frame(self.frame_logits(features), features)

    def frames(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [B, T, C] of the patch columns, zeros on padding, and the second [T] at which each column starts.

        A head that was trained on clips gives logits of columns too, by the same parameters.
        """
        features = self.encoder.forward_intermediates(waveform, lengths)
        return self.frame_logits(features), features.frame_times

    def frame_logits(self, features: LayerFeatures) -> Tensor:
        """Logits [B, T, C] of the patch columns of `features`, zeros on padding."""
        return self.head.frames(features)

    def scores(self, logits: Tensor) -> Tensor:
        """Probabilities of logits [..., C]: of each class by itself, or summing to one if not `multi_label`."""
        return logits.sigmoid() if self.multi_label else logits.softmax(-1)


def surest_frame(frame_logits: Tensor, features: LayerFeatures) -> Tensor:
    """The greatest logit of each class over the frames [B, T, C] that are not padding: [B, C]."""
    padding = ~valid_columns(features)[:, :, None]
    return frame_logits.masked_fill(padding, -torch.inf).amax(1)


def valid_columns(features: LayerFeatures) -> Tensor:
    """Which patch columns hold part of a clip, [B, T]; the others are padding alone."""
    valid: Tensor = features.valid.unflatten(1, features.grid).any(2)
    return valid
