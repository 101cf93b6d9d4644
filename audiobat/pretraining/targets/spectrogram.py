"""The spectrogram itself as target: its patches, each standardised (Audio-MAE); there is no teacher."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from audiobat.config import ModelConfig, TargetConfig
from audiobat.models.encoder import AudioEncoder
from audiobat.pretraining.targets.base import Targets, TargetSource, standardise_features, standardise_tokens


class SpectrogramTargets(TargetSource):
    """Patches of the spectrogram, flattened; nothing to learn, no cls target."""

    has_cls_target: ClassVar[bool] = False

    def __init__(self, config: TargetConfig, model: ModelConfig, student: AudioEncoder) -> None:
        super().__init__(config, model, student)
        self.patch_size = model.encoder.patch_size
        self.width = self.patch_size[0] * self.patch_size[1]

    @torch.no_grad()
    def forward(
        self,
        spectrogram: Tensor,
        valid: Tensor | None = None,
        waveform: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Targets:
        """Spectrogram [B, T, F] to Targets [B, N, frames * bins]."""
        patches = F.unfold(spectrogram.float().unsqueeze(1), self.patch_size, stride=self.patch_size).mT  # [B, N, P]
        weight = None if valid is None else valid.unsqueeze(-1)
        _, variance = standardise_tokens(patches, weight, self.config.norm_eps)
        return Targets(standardise_features(patches, self.config.norm_eps), None, variance.mean())
