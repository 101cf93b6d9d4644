"""Masked latent regression: a batch of waveforms to the loss of Eq. 5 and its parts, for M masked clones of every clip.

Everything that clones share is computed once per clip: spectrogram, patch embedding, targets. With a retention weight,
clones of partial mixtures follow those of the clips, under the same masks (SSLAM).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiobat.config import PretrainConfig
from audiobat.config.registry import find
from audiobat.models.encoder import AudioEncoder
from audiobat.pretraining.masking import Masks, draw_masks, seeded_generator
from audiobat.pretraining.mixing import draw_mixed_columns, mix, partner
from audiobat.pretraining.targets import SpectrogramTargets, Targets, Teacher

Stats = dict[str, Tensor]


class Waveforms(Protocol):
    """What the objective needs of a batch."""

    waveform: Tensor  # [B, S]
    lengths: Tensor | None  # [B], None when every clip is full


class Clones(NamedTuple):
    """What the student made of R masked clones."""

    clip: Tensor  # [R, 1] the clip of each
    masks: Masks
    cls: Tensor  # [R, D] float32
    visible: Tensor  # [R, n, D]
    predicted: Tensor  # [R, N - n, P] float32

    def scored(self, valid: Tensor | None) -> Tensor | None:
        """Which masked cells [R, N - n] are `valid` in their clip [B, N]; None: all."""
        return None if valid is None else take(valid.unsqueeze(-1), self.clip, self.masks.masked)[..., 0]

    def error(self, patch_targets: Tensor, scored: Tensor | None) -> Tensor:
        """Mean squared error of the predictions of targets [B, N, P]."""
        return mean_squared_error(self.predicted, take(patch_targets, self.clip, self.masks.masked), scored)


class MaskedLatentRegression(nn.Module):
    """Student, decoder and EMA teacher (Section 3 and 5)."""

    def __init__(self, config: PretrainConfig, rank: int = 0) -> None:
        super().__init__()
        self.config, self.rank = config, rank
        self.student = AudioEncoder(config.model)
        decoder = find("decoder", config.decoder.kind)
        self.decoder = decoder.build(config.decoder, config.model, config.target_width)
        target = config.target
        self.teacher: Teacher | SpectrogramTargets = (
            SpectrogramTargets(config.encoder.patch_size, target.norm_eps)
            if target.source == "spectrogram"
            else Teacher(self.student, target)
        )

    def forward(self, batch: Waveforms, step: int) -> tuple[Tensor, Stats]:
        """Loss and statistics of global step `step`; masks are a function of (seed, step, rank)."""
        objective = self.config.objective
        with torch.no_grad():
            spectrogram, valid = self.student.spectrogram(batch.waveform, batch.lengths)
        targets = self.teacher(spectrogram, valid)
        tokens = self.student.embed_patches(spectrogram)  # [B, N, D], once per clip
        clips, patches, _ = tokens.shape
        rows = self.config.model.grid[1]
        grid = (patches // rows, rows)
        generator = seeded_generator(tokens.device, self.config.train.seed, step, self.rank)
        masks = draw_masks(clips * self.config.mask.clones, grid, self.config.mask, generator)

        clones = self.run_clones(tokens, valid, masks, grid)
        local_loss = clones.error(targets.patch_targets, clones.scored(valid))
        global_loss = cls_error(clones, targets)
        loss = local_loss + objective.global_weight * global_loss
        stats = {"local_loss": local_loss, "global_loss": global_loss, "target_variance": targets.variance}
        if objective.retention_weight:
            retention_loss = self.retain_sources(spectrogram, valid, tokens, targets, masks, grid, generator)
            loss = loss + objective.retention_weight * retention_loss
            stats["retention_loss"] = retention_loss
        loss = objective.scale * loss

        one_clone = clones.visible.unflatten(0, (clips, -1))[:, 0].flatten(0, 1).float()  # [B * n, D]
        stats["feature_rank"] = participation_ratio(one_clone.detach())
        stats |= spread(targets.patch_targets, valid, clones.cls, clones.predicted)
        return loss, {name: value.detach() for name, value in {"loss": loss, **stats}.items()}

    def run_clones(self, tokens: Tensor, valid: Tensor | None, masks: Masks, grid: tuple[int, int]) -> Clones:
        """Encode and decode the clones of patch tokens [B, N, D] under masks of R rows, R / B for each clip in turn."""
        clip = torch.arange(len(tokens), device=tokens.device)
        clip = clip.repeat_interleave(len(masks.visible) // len(tokens))[:, None]  # [R, 1]
        clone_valid = None if valid is None else valid.index_select(0, clip[:, 0])  # [R, N]
        visible_valid = None if clone_valid is None else clone_valid.gather(1, masks.visible)
        encoded = self.student.encode_tokens(take(tokens, clip, masks.visible), visible_valid)  # [R, 1 + n, D]
        predicted = self.decoder(encoded[:, 1:], masks, grid, clone_valid).float()  # [R, N - n, P]
        return Clones(clip, masks, encoded[:, 0].float(), encoded[:, 1:], predicted)

    def retain_sources(
        self,
        spectrogram: Tensor,
        valid: Tensor | None,
        tokens: Tensor,
        targets: Targets,
        masks: Masks,
        grid: tuple[int, int],
        generator: torch.Generator,
    ) -> Tensor:
        """SSLAM's loss: clones of partial mixtures predict, in mixed columns, the mean of both sources' targets.

        A source's targets are those of the teacher that hears it alone: the clip whole, its partner in the mixed
        columns. Cells that are padding in either source are left out.
        """
        assert isinstance(self.teacher, Teacher)
        mixed = draw_mixed_columns(grid[0], generator)
        cells = mixed.repeat_interleave(grid[1])  # [N]
        other_valid = None if valid is None else partner(valid)
        other = self.teacher.of_tokens(
            partner(self.teacher.encoder.embed_patches(spectrogram))[:, cells],
            None if other_valid is None else other_valid[:, cells],
        )
        wanted = targets.patch_targets.clone()
        wanted[:, cells] = (wanted[:, cells] + other.patch_targets) / 2
        mixture = mix(spectrogram, mixed, self.config.encoder.patch_size[0])
        clones = self.run_clones(self.student.embed_patches(mixture), valid, masks, grid)
        both = cells.expand(len(tokens), -1)
        if valid is not None and other_valid is not None:
            both = both & valid & other_valid
        return clones.error(wanted, clones.scored(both))

    def after_step(self, step: int) -> None:
        """Let the teacher follow the student's update number `step`."""
        self.teacher.update(self.student, step)


def cls_error(clones: Clones, targets: Targets) -> Tensor:
    """Eq. 6 as a mean over clones and features; zero where there is no target."""
    if targets.cls_target is None:
        return clones.cls.new_zeros(())
    return F.mse_loss(clones.cls, targets.cls_target.index_select(0, clones.clip[:, 0]))


def take(tokens: Tensor, clip: Tensor, patch: Tensor) -> Tensor:
    """Tokens [B, N, D] at patches [R, n] of clips [R, 1]: [R, n, D], with nothing repeated per clone."""
    return F.embedding(clip * tokens.shape[1] + patch, tokens.flatten(0, 1))


def mean_squared_error(predicted: Tensor, wanted: Tensor, scored: Tensor | None) -> Tensor:
    """Eq. 7 as a mean over the masked cells [R, m, D] that are `scored` (bool [R, m]; None: all) and over D."""
    if scored is None:
        return F.mse_loss(predicted, wanted)
    error = (predicted - wanted).square().mean(-1)
    return (error * scored).sum() / scored.sum().clamp(min=1)


@torch.no_grad()
def spread(patch_targets: Tensor, valid: Tensor | None, cls: Tensor, predicted: Tensor) -> Stats:
    """What falls when a model collapses: watched from the first step.

    token_std: std over rows of the unit cls tokens, times sqrt(D): 1 for isotropic tokens, 0 for one token.
    prediction_variance: of the predictions over masked cells, mean over features.
    position_share: share of the targets' variance that position alone explains, the finite batch corrected for.
    """
    token_std = F.normalize(cls, dim=-1).std(0).mean() * cls.shape[-1] ** 0.5
    prediction_variance = predicted.flatten(0, 1).var(0).mean()
    weight = torch.ones(patch_targets.shape[:2], device=cls.device) if valid is None else valid.float()
    weight = weight.unsqueeze(-1)  # [B, N, 1]
    count = weight.sum(0)  # [N, 1] clips that reach a position
    at_position = (patch_targets * weight).sum(0) / count.clamp(min=1)  # [N, D]
    within = ((patch_targets - at_position).square() * weight).sum((0, 1)) / (count - 1).clamp(min=0).sum().clamp(min=1)
    overall = (patch_targets * weight).sum((0, 1)) / count.sum()
    total = ((patch_targets - overall).square() * weight).sum((0, 1)) / (count.sum() - 1).clamp(min=1)
    return {
        "token_std": token_std,
        "prediction_variance": prediction_variance,
        "position_share": 1 - within.mean() / total.mean().clamp(min=1e-12),
    }


def participation_ratio(tokens: Tensor) -> Tensor:
    """Rank of tokens [n, D] without a decomposition: (sum of covariance eigenvalues)^2 / sum of their squares."""
    centred = tokens - tokens.mean(0)
    covariance = centred.T @ centred  # [D, D]
    return covariance.trace().square() / covariance.square().sum().clamp(min=1e-12)
