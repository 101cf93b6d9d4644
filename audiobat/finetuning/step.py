"""One step of fine-tuning: a batch of crops to the loss of an encoder with its head; and which weights are kept.

Augmentation is a function of (seed, step, rank), as all else that is random in a step, so resuming needs a step number.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from audiobat.audio.augment import augment_spectrogram, augment_waveform
from audiobat.config import FinetuneConfig
from audiobat.data.loader import CropBatch
from audiobat.finetuning.labels import Labels
from audiobat.finetuning.layer_rates import own_encoder, train_only_what_is_read
from audiobat.models.losses import Loss, smooth, soft_loss
from audiobat.models.tagger import Tagger, valid_columns


class Finetuning(nn.Module):
    """The tagger that learns, its moving average if asked for, and a copy of the best so far if something validates.

    All three are in the state that a checkpoint keeps. `validate` returns the score of a tagger in eval mode; it is
    called every `select.every` steps and after the last.
    """

    def __init__(
        self,
        tagger: Tagger,
        labels: Labels,
        loss: Loss,
        config: FinetuneConfig,
        rank: int = 0,
        validate: Callable[[Tagger, int], float] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.loss, self.rank, self.validate = config, loss, rank, validate
        self.labels = labels
        self.tagger = tagger
        self.ema = None if config.train.ema_decay is None else follower(tagger)
        self.best = None if validate is None else follower(tagger)
        self.best_score: Tensor
        self.best_step: Tensor
        self.register_buffer("best_score", torch.tensor(-torch.inf, dtype=torch.float64))
        self.register_buffer("best_step", torch.tensor(0))
        self.frozen = False
        set_drop_path(tagger, config.train.drop_path)

    @property
    def last(self) -> Tagger:
        """What the weights of now stand for: their moving average, if there is one."""
        return self.tagger if self.ema is None else self.ema

    def kept(self, which: Literal["last", "best"]) -> tuple[Tagger, int, float | None]:
        """After the last step: these weights, the steps done when they were there, and their validation if it chose."""
        if which == "last":
            return self.last, self.config.train.steps, None
        assert self.best is not None
        return self.best, int(self.best_step), float(self.best_score)

    def freeze(self, frozen: bool) -> None:
        """Let the head alone learn, on the features of an encoder in eval mode; or everything."""
        self.frozen = frozen
        train_only_what_is_read(self.tagger)
        if frozen:
            self.tagger.encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> Finetuning:
        """Copies stay in eval mode, and so does a frozen encoder: it drops no paths."""
        super().train(mode)
        for still in (self.ema, self.best, self.tagger.encoder if self.frozen else None):
            if still is not None:
                still.eval()
        return self

    def forward(self, batch: CropBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of global step `step`, mean over clips (or patch columns) and classes; no further numbers."""
        encoder, augment = own_encoder(self.tagger), self.config.augment
        rng = np.random.default_rng((self.config.train.seed, step, self.rank))
        with torch.no_grad():
            waveform = augment_waveform(batch.waveform, batch.lengths, augment, rng)
            spectrogram, frames = encoder.frontend(waveform, batch.lengths)
            targets = self.labels(batch.clip_ids, batch.starts, encoder.column_times(spectrogram.shape[1]))
            targets = targets.to(waveform.device, non_blocking=True)
            own = None if batch.lengths is None else frames
            mixed = augment_spectrogram(spectrogram, own, targets, augment, rng)
        with torch.set_grad_enabled(not self.frozen):
            features = encoder.forward_spectrogram(mixed.inputs, mixed.counts)
        if self.tagger.task == "clip":
            logits, wanted = self.tagger.head(features), mixed.targets
        else:
            columns = valid_columns(features)
            logits, wanted = self.tagger.frame_logits(features)[columns], mixed.targets[columns]
        loss = soft_loss(self.loss, logits.float(), smooth(wanted, self.config.train.label_smoothing))
        return loss + self.tagger.head.penalty(), {}  # type: ignore[operator]

    def after_step(self, step: int) -> None:
        """Follow update number `step` (from 0), and look how good the weights are where it is time."""
        if self.ema is not None:
            assert self.config.train.ema_decay is not None
            follow(self.ema, self.tagger, ema_decay_at(step, self.config.train.ema_decay))
        done = step + 1
        if self.validate is None or (done % self.config.select.every and done != self.config.train.steps):
            return
        modes = self.training
        self.eval()
        score = self.validate(self.last, done)
        self.train(modes)
        if score > float(self.best_score):  # of equals the first
            assert self.best is not None
            self.best.load_state_dict(self.last.state_dict())
            self.best_score.fill_(score)
            self.best_step.fill_(done)


def follower(tagger: Tagger) -> Tagger:
    """A copy that no gradient reaches."""
    return copy.deepcopy(tagger).requires_grad_(False).eval()


def ema_decay_at(step: int, decay: float) -> float:
    """The decay of update number `step` (from 0): less than `decay` at first.

    After n updates an average of constant decay still holds decay^n of the untrained head, which a short run never
    forgets; of this one, next to nothing.
    """
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move every parameter: average = decay * average + (1 - decay) * module's; buffers are copied."""
    mine, theirs = ([parameter.detach() for parameter in m.parameters()] for m in (average, module))
    torch._foreach_lerp_(mine, theirs, 1 - decay)
    for own, new in zip(average.buffers(), module.buffers(), strict=True):
        own.copy_(new)


def set_drop_path(tagger: Tagger, rate: float) -> None:
    """Drop paths with a chance that grows evenly from 0 at the first block to `rate` at the last."""
    blocks = own_encoder(tagger).blocks
    for block, chance in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
        block.drop_path.rate = chance  # type: ignore[union-attr]
