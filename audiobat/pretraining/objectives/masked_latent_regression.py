"""Masked latent regression (Sections 3 and 5): the loss of Eq. 5 and its parts, for M masked clones of every clip.

`forward` is the method on one screen. Everything that clones share is computed once per clip: spectrogram, patch
embedding, targets. With a retention weight each clip is there twice, as itself and mixed with another (SSLAM): both
have clones, under the same masks, and targets of their own, and mixtures have to retain their sources besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from audiobat.config import PretrainConfig, check
from audiobat.config.registry import class_for
from audiobat.engine.ranks import any_rank, mean_over_ranks
from audiobat.models.encoder import AudioEncoder
from audiobat.pretraining.cost import StepCost, embedding_flops, encoder_cost
from audiobat.pretraining.decoders.base import Decoder
from audiobat.pretraining.masks.base import Mask, Masks, clips_of_clones, take, take_valid
from audiobat.pretraining.mixing import draw_mixed_columns, mix, mixed_count, partner
from audiobat.pretraining.objectives.base import Clips, Objective, Stats, Waveforms, embed_clips
from audiobat.pretraining.objectives.statistics import participation_ratio, spread
from audiobat.pretraining.targets.base import Targets, TargetSource
from audiobat.pretraining.targets.teacher import Teacher


class Clones(NamedTuple):
    """What the student made of R masked clones."""

    clip: Tensor  # [R, 1] the clip of each
    masks: Masks
    cls: Tensor  # [R, D] float32
    visible: Tensor  # [R, n, D]
    predicted: Tensor  # [R, m, P] float32


class MaskedLatentRegression(Objective):
    """A student sees a few patches of each clone and predicts its EMA teacher's features of all others."""

    health: ClassVar[Mapping[str, tuple[float, str]]] = {
        "target_variance": (0.01, "the teacher's tokens are nearly one and the same"),
        "feature_rank": (1.1, "the student's tokens vary in one direction only"),
        "token_std": (0.01, "the student's cls token is nearly the same for every clip"),
        "prediction_variance": (0.01, "the decoder predicts nearly the same everywhere"),
    }

    health_hint = "lower optim.lr, lengthen optim.warmup_steps, or raise target.ema_end towards 1"

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__(config)
        self.student = AudioEncoder(config.model)
        self.mask: Mask = class_for(config.mask).build(config.mask, config.model)
        targets: TargetSource = class_for(config.target).build(config.target, config.model, self.student)
        self.decoder: Decoder = class_for(config.decoder).build(config.decoder, config.model, targets.width)
        self.teacher = targets  # the name under which checkpoints know its weights; code reads `targets`
        weights, source = config.objective, config.target.source
        for name, possible in (
            ("global_weight", targets.has_cls_target),
            ("retention_weight", isinstance(targets, Teacher)),
        ):
            weight = getattr(weights, name)
            check(possible or weight == 0, f"objective.{name}", weight, f"target.source {source} has no teacher: use 0")

    @property
    def encoder(self) -> AudioEncoder:  # type: ignore[override]
        """A release keeps the student."""
        return self.student

    @property
    def targets(self) -> TargetSource:
        """What makes the targets: a teacher, or the spectrogram itself."""
        return self.teacher

    def forward(self, batch: Waveforms, step: int) -> tuple[Tensor, Stats]:
        """The loss (Eq. 5) and statistics of global step `step`; masks are a function of (seed, step)."""
        weights = self.config.objective
        clips = embed_clips(self.student, batch)  # once for all clones of a clip
        generator = self.generator(step, clips.tokens.device)
        masks = self.mask(len(clips.tokens) * self.config.mask.clones, clips.grid, generator)
        versions = [clips]  # of each clip: itself and, in SSLAM, a mixture, under the same masks
        if weights.retention_weight:
            mixed = draw_mixed_columns(clips.grid[0], generator)  # bool [T]
            versions.append(self.mix_clips(clips, mixed))
        targets = [self.targets(v.spectrogram, v.valid, batch.waveform, batch.lengths) for v in versions]
        clones = [self.run_clones(version, masks) for version in versions]

        # Versions have equally many clones and masked cells: the mean of their means is that over all of them.
        pairs = list(zip(clones, targets, strict=True))
        local_loss = torch.stack([local_error(c, t.patch_targets, clips.valid) for c, t in pairs]).mean()  # Eq. 7
        global_loss = torch.stack([cls_error(c, t) for c, t in pairs]).mean()  # Eq. 6
        loss = local_loss + weights.global_weight * global_loss
        stats = {"local_loss": local_loss, "global_loss": global_loss, "target_variance": targets[0].variance}
        if weights.retention_weight:
            retention_loss = self.retention_error(clones[1], clips, targets[0], mixed)
            loss = loss + weights.retention_weight * retention_loss
            stats["retention_loss"] = retention_loss
        loss = weights.scale * loss

        # One clone of each clip is enough to tell the rank, and a sixteenth of the work.
        one_clone = clones[0].visible.unflatten(0, (len(clips.tokens), -1))[:, 0].flatten(0, 1).float()  # [B * n, D]
        stats["feature_rank"] = participation_ratio(one_clone.detach())
        stats |= spread(targets[0].patch_targets, clips.valid, clones[0].cls, clones[0].predicted)
        return loss, {name: torch.as_tensor(value).detach() for name, value in {"loss": loss, **stats}.items()}

    def mix_clips(self, clips: Clips, mixed: Tensor) -> Clips:
        """Clips whose `mixed` columns [T] are mixed with those of their partners; each is as long as it was."""
        mixture = mix(clips.spectrogram, mixed, self.config.encoder.patch_size[0])
        return clips._replace(spectrogram=mixture, tokens=self.student.embed_patches(mixture))

    def run_clones(self, clips: Clips, masks: Masks) -> Clones:
        """Encode and decode the clones of B clips under R masks, R / B for each clip in turn."""
        tokens, valid = clips.tokens, clips.valid
        clip = clips_of_clones(len(tokens), len(masks.visible) // len(tokens), tokens.device)  # [R, 1]
        clone_valid = None if valid is None else valid.index_select(0, clip[:, 0])  # [R, N]
        visible_valid = take_valid(valid, clip, masks.visible)
        encoded = self.student.encode_tokens(take(tokens, clip, masks.visible), visible_valid)  # [R, 1 + n, D]
        predicted = self.decoder(encoded[:, 1:], masks, clips.grid, clone_valid).float()  # [R, m, P]
        return Clones(clip, masks, encoded[:, 0].float(), encoded[:, 1:], predicted)

    def retention_error(self, mixtures: Clones, clips: Clips, targets: Targets, mixed: Tensor) -> Tensor:
        """SSLAM's source retention: mean squared error of mixtures' clones against the targets of both sources.

        In mixed columns the target is the mean of two: the clip's own, and that of its partner, of which the teacher
        gets those columns alone. In the other columns, which no partner is mixed into, it is the clip's own. SSLAM's
        code counts all masked cells (`retention_cells: all`), the BAT paper speaks of mixed regions (`mixed`). Cells
        that are padding in a source are left out.
        """
        assert isinstance(self.targets, Teacher)  # __init__ refuses the others
        spectrogram, valid, tokens, grid = clips
        cells = mixed.repeat_interleave(grid[1])  # [N]
        padded = any_rank(valid is not None)  # a partner may come from a rank that has padding where this one has none
        own_valid = torch.ones_like(tokens[..., 0], dtype=torch.bool) if padded and valid is None else valid
        other_valid = None if own_valid is None else partner(own_valid)
        other = self.targets.of_tokens(
            partner(self.targets.encoder.embed_patches(spectrogram))[:, cells],
            None if other_valid is None else other_valid[:, cells],
        )
        wanted = targets.patch_targets.clone()
        wanted[:, cells] = (wanted[:, cells] + other.patch_targets) / 2
        scored = None
        if own_valid is not None and other_valid is not None:
            scored = own_valid & (other_valid | ~cells)
        if self.config.objective.retention_cells == "mixed":
            scored = cells.expand(len(tokens), -1) if scored is None else scored & cells
        return local_error(mixtures, wanted, scored)

    def after_step(self, step: int) -> None:
        """Let the teacher follow the student's update number `step`."""
        self.targets.update(self.student, step)

    def cost(self) -> StepCost:
        """Student and decoder run on every clone, forward and backward; the teacher once per version, forward only."""
        config, grid = self.config, self.config.crop_grid
        clips, patches = config.train.batch_size, grid[0] * grid[1]
        masks = self.mask.draw(config.mask.clones, grid, torch.Generator())
        visible, masked = masks.visible.shape[1], masks.masked.shape[1]
        versions = 2 if config.objective.retention_weight else 1  # of a clip: itself, and a mixture
        clones = clips * config.mask.clones * versions
        student = encoder_cost(config.model, clones, visible)
        decoder = self.decoder.cost(clones, grid, visible, masked)
        embed = embedding_flops(config.model, clips, patches)
        teacher_tokens, teacher = 0, self.targets.flops(clips * versions, patches)
        if isinstance(self.targets, Teacher):
            teacher_tokens = clips * versions * (1 + patches)
        if versions == 2:  # the teacher runs on the partner's mixed columns alone, too
            mixed = mixed_count(grid[0]) * grid[1]
            teacher_tokens += clips * (1 + mixed)
            teacher += encoder_cost(config.model, clips, mixed).flops + embed
        return StepCost(
            tokens={"student": clones * (1 + visible), "decoder": clones * patches, "teacher": teacher_tokens},
            flops=3 * (student.flops + decoder.flops) + 2 * embed * versions + teacher,
            kept=student.kept + decoder.kept,
            visible=visible,
            masked=masked,
        )


def local_error(clones: Clones, patch_targets: Tensor, valid: Tensor | None) -> Tensor:
    """Eq. 7: mean squared error at the masked cells that are `valid` (bool [B, N]; None: all), against [B, N, P]."""
    scored = take_valid(valid, clones.clip, clones.masks.masked)  # [R, m]
    return mean_squared_error(clones.predicted, take(patch_targets, clones.clip, clones.masks.masked), scored)


def cls_error(clones: Clones, targets: Targets) -> Tensor:
    """Eq. 6 as a mean over clones and features; zero where there is no target."""
    if targets.cls_target is None:
        return clones.cls.new_zeros(())
    return F.mse_loss(clones.cls, targets.cls_target.index_select(0, clones.clip[:, 0]))


def mean_squared_error(predicted: Tensor, wanted: Tensor, scored: Tensor | None) -> Tensor:
    """Mean of squared errors over the masked cells [R, m, P] that are `scored` (bool [R, m]; None: all) and over P.

    On several ranks it is this rank's part of the mean over the cells of all.
    """
    if scored is None:
        return mean_over_ranks(F.mse_loss(predicted, wanted), predicted[..., 0].numel())
    error, count = (predicted - wanted).square().mean(-1), scored.sum()
    return mean_over_ranks((error * scored).sum() / count.clamp(min=1), count)
