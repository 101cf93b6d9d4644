"""What shows a collapse: the spread of targets, tokens and predictions, watched from the first step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def spread(patch_targets: Tensor, valid: Tensor | None, cls: Tensor) -> dict[str, Tensor]:
    """What falls when a model collapses, of this rank's clips: the log has the mean over the ranks.

    Args:
        patch_targets: [B, N, P].
        valid: bool [B, N], False on padding; None where there is none.
        cls: the student's cls tokens of R clones, [R, D].

    Returns:
        token_std: std over clones of the unit cls tokens, times sqrt(D): 1 for isotropic tokens, 0 for one token.
        position_share: share of the targets' variance that position alone explains, the finite batch corrected for.
    """
    token_std = F.normalize(cls, dim=-1).std(0).mean() * cls.shape[-1] ** 0.5
    weight = torch.ones(patch_targets.shape[:2], device=cls.device) if valid is None else valid.float()
    weight = weight.unsqueeze(-1)  # [B, N, 1]
    count = weight.sum(0)  # [N, 1] clips that reach a position
    at_position = (patch_targets * weight).sum(0) / count.clamp(min=1)  # [N, P]
    within = ((patch_targets - at_position).square() * weight).sum((0, 1)) / (count - 1).clamp(min=0).sum().clamp(min=1)
    overall = (patch_targets * weight).sum((0, 1)) / count.sum()
    total = ((patch_targets - overall).square() * weight).sum((0, 1)) / (count.sum() - 1).clamp(min=1)
    return {
        "token_std": token_std,
        "position_share": 1 - within.mean() / total.mean().clamp(min=1e-12),
    }


def pooled_variance(means: Tensor, variances: Tensor, counts: list[int]) -> Tensor:
    """Variance over items, mean over features [], of k parts of `counts` items with these means and variances [k, P].

    The variances of the parts are mean squared distances, so that a part of one item has 0.
    """
    share = torch.tensor(counts).to(means.device, non_blocking=True)[:, None] / sum(counts)
    mean = (means * share).sum(0)
    square = ((variances + (means - mean).square()) * share).sum(0)
    return (square * (sum(counts) / (sum(counts) - 1))).mean() if sum(counts) > 1 else square.mean()


def participation_ratio(tokens: Tensor) -> Tensor:
    """Rank of tokens [n, D] without a decomposition: (sum of covariance eigenvalues)^2 / sum of their squares.

    It is a statistic of this rank's tokens: the log has the mean over the ranks.
    """
    centred = tokens - tokens.mean(0)
    covariance = centred.T @ centred  # [D, D]; its trace is the sum, its squared entries add up to the sum of squares
    return covariance.trace().square() / covariance.square().sum().clamp(min=1e-12)
