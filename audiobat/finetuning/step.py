"""One step of fine-tuning: a batch of crops to the loss of an encoder with its head; and which weights are kept.

Augmentation is a function of (seed, step), as everything random in a step is, so resuming needs a step number. Each of
several ranks augments the batch of all, where mixup finds its partners, and goes on with its own clips: a step is the
same on any number of ranks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from audiobat.audio.augment import augment_spectrogram, augment_waveform
from audiobat.config import FinetuneConfig
from audiobat.data.loader import CropBatch
from audiobat.engine.chunks import sum_in_chunks
from audiobat.engine.randomness import RowParts
from audiobat.engine.ranks import any_rank, gather_rows, mean_over_ranks, own_rows
from audiobat.engine.sharding import own_part, whole
from audiobat.evaluation.labels import Task
from audiobat.finetuning.layer_rates import own_encoder, train_only_what_is_read
from audiobat.models.losses import Loss, cells_per_label, smooth, soft_loss
from audiobat.models.patches import pad_frames
from audiobat.models.tagger import Tagger


@dataclass(frozen=True)
class Kept:
    """Weights that a fine-tuning keeps."""

    tagger: Tagger
    step: int  # steps done when they were there
    validation: float | None  # their score, if it chose them


class Finetuning(nn.Module):
    """The tagger that learns, its moving average if asked for, and a copy of the best weights so far if clips validate.

    All three are in the state that a checkpoint keeps.

    Args:
        tagger: the encoder with its head.
        task: the labels of the clips that train.
        loss: of logits against them.
        config: augmentation, regularisation, and which weights are kept.
        validate: from a tagger in eval mode and the number of steps done to its score; called every `select.every`
            steps and after the last. None: no clips validate.
    """

    def __init__(
        self,
        tagger: Tagger,
        task: Task,
        loss: Loss,
        config: FinetuneConfig,
        validate: Callable[[Tagger, int], float] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.loss, self.validate = config, loss, validate
        self.task = task
        self.tagger = tagger
        self.ema = None if config.train.ema_decay is None else frozen_copy(tagger)
        self.best = None if validate is None else frozen_copy(tagger)
        self.best_score: Tensor
        self.best_step: Tensor
        self.register_buffer("best_score", torch.tensor(-torch.inf, dtype=torch.float64))
        self.register_buffer("best_step", torch.tensor(0))
        self.frozen = False
        set_drop_path(tagger, config.train.drop_path)

    @property
    def last(self) -> Tagger:
        """The tagger to test after this step: the moving average, if there is one."""
        return self.tagger if self.ema is None else self.ema

    def kept(self, which: Literal["last", "best"]) -> Kept:
        """The last or the best weights; for use after the last step."""
        if which == "last":
            return Kept(self.last, self.config.train.steps, None)
        assert self.best is not None
        return Kept(self.best, int(self.best_step), float(self.best_score))

    def freeze(self, frozen: bool) -> None:
        """Train the head alone, on the features of an encoder in eval mode (True), or everything (False)."""
        self.frozen = frozen
        train_only_what_is_read(self.tagger)
        if frozen:
            self.tagger.encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> Finetuning:
        """Copies stay in eval mode, and so does a frozen encoder, which must drop no paths."""
        super().train(mode)
        for part in (self.ema, self.best, self.tagger.encoder if self.frozen else None):
            if part is not None:
                part.eval()
        return self

    def forward(self, batch: CropBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of global step `step`, mean over clips (or patch columns) and classes; no further statistics."""
        encoder, augment = own_encoder(self.tagger), self.config.augment
        rng = np.random.default_rng((self.config.train.seed, step, 0))  # of all ranks: every one draws the same
        batch = of_all_ranks(batch)
        max_frames, padded = encoder.config.encoder.max_frames, encoder.config.encoder.pad == "grid"
        lengths, is_even = batch.lengths, True  # whether all clips end in one patch column: then no patch is padding
        if lengths is not None:
            longest = lengths.max()
            is_even = encoder.end_together(lengths, int(longest))
            lengths = lengths.to(batch.waveform.device, non_blocking=True)
        with torch.no_grad():
            waveform = augment_waveform(batch.waveform, lengths, augment, rng)
            spectrogram, frames = encoder.frontend(waveform, lengths)
            if padded:  # what the model sees of a clip ends with its window
                missing = max(0, max_frames - spectrogram.shape[1])
                spectrogram = pad_frames(spectrogram, spectrogram.shape[1] + missing, encoder.frontend.floor)
            # [B, C], or [B, T, C] for patch columns; mixup mixes them as it mixes the inputs.
            targets = self.task.targets(
                batch.clip_ids, encoder.column_times(spectrogram.shape[1]), batch.starts
            ).float()
            targets = targets.to(waveform.device, non_blocking=True)
            own = frames if padded or lengths is not None else None  # None: the batch has no padding
            mixed = augment_spectrogram(spectrogram, own, targets, augment, rng, window=max_frames, padded=padded)
            inputs, counts = own_rows(mixed.inputs), None if mixed.counts is None else own_rows(mixed.counts)
            if lengths is not None and not padded:  # only now, as augmentation draws for all of a crop
                inputs = inputs[:, : int(encoder.frame_counts(longest))]
                counts = None if is_even else counts
        loss = self.loss_of(inputs, counts, own_rows(mixed.targets))
        return loss + self.tagger.head.penalty(), {}

    def loss_of(self, inputs: Tensor, frames: Tensor | None, targets: Tensor) -> Tensor:
        """This rank's part of the loss of its clips, which run in `train.accumulate` parts: [].

        Args:
            inputs: spectrograms [b, T, F], of which each clip owns `frames` [b] (None: all T).
            frames: of each clip.
            targets: [b, C], or [b, T', C] of patch columns.
        """
        encoder, train, clips = own_encoder(self.tagger), self.config.train, len(inputs)
        windows = encoder.cut_windows(inputs, frames)
        if self.task.unit == "clip":
            ends = list(range(clips + 1))  # of each clip's rows among the M of all
        else:
            columns = windows.joined(windows.valid).unflatten(1, windows.grid).any(2)  # bool [b, T'], with sound
            targets = targets[:, : columns.shape[1]][columns]
            ends = [0, *columns.sum(1).cumsum(0).tolist()]
        wanted, rows = smooth(targets, train.label_smoothing), ends[-1]  # [M, C]
        size = -(-clips // (train.accumulate or 1))
        parts = [slice(first, min(first + size, clips)) for first in range(0, clips, size)]
        own_windows = len(windows.valid) // clips  # of each clip
        blocks_draw, head_draws = (RowParts(count, inputs.device) for count in (clips * own_windows, rows))

        def drawing(draws: RowParts, first: int, last: int) -> AbstractContextManager[None]:
            return nullcontext() if len(parts) == 1 else draws.part(torch.arange(first, last, device=inputs.device))

        def run_part(part: slice) -> tuple[Tensor, None]:
            first, last = part.start * own_windows, part.stop * own_windows
            with torch.set_grad_enabled(not self.frozen), drawing(blocks_draw, first, last):
                features = encoder.forward_spectrogram(inputs[part], None if frames is None else frames[part])
            first, last = ends[part.start], ends[part.stop]
            with drawing(head_draws, first, last):
                logits = self.task.logits(self.tagger.head, features)  # [m, C] of clips, or of columns with sound
            return soft_loss(self.loss, logits.float(), wanted[first:last]) * ((last - first) / rows), None

        mean, _ = sum_in_chunks(run_part, parts, [], list(self.tagger.parameters()))
        if self.loss == "bce" and train.bce_per == "label":
            mean = mean * cells_per_label(wanted)
        return mean_over_ranks(mean, rows)

    def after_step(self, step: int) -> None:
        """After update number `step` (from 0): move the average, and validate where it is time to."""
        if self.ema is not None:
            assert self.config.train.ema_decay is not None
            move_average(self.ema, self.tagger, ema_decay_at(step, self.config.train.ema_decay))
        done = step + 1
        if self.validate is None or (done % self.config.select.every and done != self.config.train.steps):
            return
        modes = self.training
        self.eval()
        with whole(self.last):
            score = self.validate(self.last, done)
        self.train(modes)
        if score > float(self.best_score):  # of equal scores the first one stays
            assert self.best is not None
            self.best.load_state_dict(self.last.state_dict())
            self.best_score.fill_(score)
            self.best_step.fill_(done)


def of_all_ranks(batch: CropBatch) -> CropBatch:
    """The batch with the crops of all ranks, in the order of the ranks; `keys` and `skipped` stay this rank's."""
    lengths = batch.lengths
    if any_rank(lengths is not None) and lengths is None:
        lengths = torch.full(batch.waveform.shape[:1], batch.waveform.shape[1])
    return replace(
        batch,
        waveform=gather_rows(batch.waveform),
        lengths=None if lengths is None else gather_rows(lengths),
        clip_ids=gather_rows(torch.from_numpy(batch.clip_ids)).numpy(),
        starts=gather_rows(torch.from_numpy(batch.starts)).numpy(),
    )


def frozen_copy(tagger: Tagger) -> Tagger:
    """A copy in eval mode that takes no gradients."""
    return copy.deepcopy(tagger).requires_grad_(False).eval()


def ema_decay_at(step: int, decay: float) -> float:
    """The decay of update number `step` (from 0): less than `decay` at first.

    With a constant decay the average still holds a share decay^n of the untrained head after n updates, which is most
    of it in a short run. With this one next to nothing is left after a hundred updates.
    """
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def move_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move every parameter: average = decay * average + (1 - decay) * module's; buffers are copied."""
    averages, weights = ([own_part(parameter.detach()) for parameter in m.parameters()] for m in (average, module))
    torch._foreach_lerp_(averages, weights, 1 - decay)  # one call for all tensors: a step has no time for hundreds
    for old, new in zip(average.buffers(), module.buffers(), strict=True):  # such as a batch norm's statistics
        old.copy_(new)


def set_drop_path(tagger: Tagger, rate: float) -> None:
    """Drop each block's branches with a chance that grows evenly from 0 at the first block to `rate` at the last."""
    blocks = own_encoder(tagger).blocks
    for block, chance in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
        block.drop_path.rate = chance  # type: ignore[union-attr]
