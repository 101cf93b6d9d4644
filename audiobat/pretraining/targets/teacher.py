"""The EMA teacher (Section 3): normalised averages of its layers' outputs, layer by layer, no stack of layers held."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Self

import torch
from torch import Tensor

from audiobat.config import ModelConfig, TargetConfig
from audiobat.engine.sharding import own_part
from audiobat.models.encoder import AudioEncoder
from audiobat.pretraining.cost import embedding_flops, encoder_cost
from audiobat.pretraining.targets.base import (
    Targets,
    TargetSource,
    masked_mean,
    standardise_features,
    standardise_tokens,
)


class Teacher(TargetSource):
    """An exponential moving average of the student's encoder; a subclass says which output of a block is the target."""

    def __init__(self, config: TargetConfig, model: ModelConfig, student: AudioEncoder) -> None:
        super().__init__(config, model, student)
        self.encoder = copy.deepcopy(student).requires_grad_(False).eval()

    @staticmethod
    @abstractmethod
    def output_of(block: Tensor, mlp: Tensor) -> Tensor:
        """Choose between a block's output (Eq. 4) and its MLP's output before the residual (Eq. 3), [B, 1 + n, D]."""

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: the teacher never drops paths."""
        return super().train(False)

    def decay_at(self, step: int) -> float:
        """EMA decay after `step` updates: linear from ema_start to ema_end over ema_steps, then constant."""
        share = min(step / self.config.ema_steps, 1.0)
        return self.config.ema_start + share * (self.config.ema_end - self.config.ema_start)

    @torch.no_grad()
    def update(self, student: AudioEncoder, step: int) -> None:
        """Move every parameter towards the student's, after its update number `step`."""
        pairs = zip(self.encoder.parameters(), student.parameters(), strict=True)
        mine, theirs = ([own_part(parameter) for parameter in side] for side in zip(*pairs, strict=True))
        torch._foreach_lerp_(mine, theirs, 1 - self.decay_at(step))  # one launch for all parameters

    @torch.no_grad()
    def forward(
        self,
        spectrogram: Tensor,
        valid: Tensor | None = None,
        waveform: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Targets:
        """Spectrogram [B, T, F] of whole clips, `valid` bool [B, N] where there is padding, to Targets."""
        return self.of_tokens(self.encoder.embed_patches(spectrogram), valid)

    @torch.no_grad()
    def of_tokens(self, tokens: Tensor, valid: Tensor | None = None, patches: Tensor | None = None) -> Targets:
        """Targets of patch tokens [B, n, D] with their positions: whole clips, or of them the `patches` [1, n]."""
        depth, eps = self.encoder.depth, self.config.norm_eps
        first = 0 if self.config.layers is None else depth - self.config.layers
        first_cls = first if self.config.cls_layers is None else depth - self.config.cls_layers
        sums: dict[int, Tensor] = {}  # by the layer at which they begin: patches and cls may average different layers
        variance = torch.zeros((), device=tokens.device)
        weight = None if valid is None else valid.unsqueeze(-1)  # [B, n, 1]
        for layer, (block, mlp) in enumerate(self.encoder.run_blocks(tokens, valid, patches)):
            if layer < min(first, first_cls):
                continue
            output = self.output_of(block, mlp)[:, 1:].float()  # [B, n, D], without cls
            normed, spread = standardise_tokens(output, weight, eps)
            if layer >= first:
                variance += spread.mean()
            for begin in {first, first_cls}:
                if layer >= begin:
                    sums[begin] = normed.clone() if begin not in sums else sums[begin].add_(normed)
        means = {begin: standardise_features(total / (depth - begin), eps) for begin, total in sums.items()}
        # The cls target is the mean of the patch targets (Section 3): the teacher's own cls token is not used.
        return Targets(means[first], masked_mean(means[first_cls], weight)[:, 0], variance / (depth - first))

    def flops(self, clips: int, patches: int) -> float:
        """The teacher's forward pass over all patches of each clip."""
        model = self.encoder.config
        return encoder_cost(model, clips, patches).flops + embedding_flops(model, clips, patches)
