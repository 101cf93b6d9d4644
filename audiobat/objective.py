"""Masked latent regression: a batch of waveforms to the loss of Eq. 5 and its parts, for M masked clones of every clip.

Everything that clones share is computed once per clip: spectrogram, patch embedding, targets.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiobat.config import PretrainConfig
from audiobat.decoder import build_decoder
from audiobat.encoder import AudioEncoder
from audiobat.masking import draw_masks, seeded_generator
from audiobat.targets import Teacher

Stats = dict[str, Tensor]


class Waveforms(Protocol):
    """What the objective needs of a batch."""

    waveform: Tensor  # [B, S]
    lengths: Tensor | None  # [B], None when every clip is full


class MaskedLatentRegression(nn.Module):
    """Student, decoder and EMA teacher (Section 3 and 5)."""

    def __init__(self, config: PretrainConfig, rank: int = 0) -> None:
        super().__init__()
        self.config, self.rank = config, rank
        self.student = AudioEncoder(config.model)
        self.decoder = build_decoder(config)
        self.teacher = Teacher(self.student, config.target)

    def forward(self, batch: Waveforms, step: int) -> tuple[Tensor, Stats]:
        """Loss and statistics of global step `step`; masks are a function of (seed, step, rank)."""
        with torch.no_grad():
            spectrogram, valid = self.student.spectrogram(batch.waveform, batch.lengths)
        targets = self.teacher(spectrogram, valid)
        tokens = self.student.embed_patches(spectrogram)  # [B, N, D], once per clip
        clips, patches, _ = tokens.shape
        rows = self.config.model.grid[1]
        grid = (patches // rows, rows)

        generator = seeded_generator(tokens.device, self.config.train.seed, step, self.rank)
        masks = draw_masks(clips * self.config.mask.clones, grid, self.config.mask, generator)
        clip = torch.arange(clips, device=tokens.device).repeat_interleave(self.config.mask.clones)[:, None]  # [R, 1]
        clone_valid = None if valid is None else valid.index_select(0, clip[:, 0])  # [R, N]
        visible_valid = None if clone_valid is None else clone_valid.gather(1, masks.visible)

        encoded = self.student(take(tokens, clip, masks.visible), visible_valid)  # [R, 1 + n, D]
        predicted = self.decoder(encoded[:, 1:], masks, grid, clone_valid).float()  # [R, N - n, D]
        wanted = take(targets.patch_targets, clip, masks.masked)
        scored = None if clone_valid is None else clone_valid.gather(1, masks.masked)
        local_loss = mean_squared_error(predicted, wanted, scored)
        cls = encoded[:, 0].float()  # [R, D]
        global_loss = F.mse_loss(cls, targets.cls_target.index_select(0, clip[:, 0]))
        loss = local_loss + self.config.objective.global_weight * global_loss

        stats = {
            "loss": loss,
            "local_loss": local_loss,
            "global_loss": global_loss,
            "target_variance": targets.variance,
        }
        one_clone = encoded.unflatten(0, (clips, -1))[:, 0, 1:].flatten(0, 1).float()  # [B * n, D]
        stats["feature_rank"] = participation_ratio(one_clone.detach())
        stats |= spread(targets.patch_targets, valid, cls, predicted)
        return loss, {name: value.detach() for name, value in stats.items()}

    def after_step(self, step: int) -> None:
        """Let the teacher follow the student's update number `step`."""
        self.teacher.update(self.student, step)


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
