"""Rotary positions: queries and keys are turned by the place of their patch, so that scores tell how far apart two are.

In: the numbers of patches in their clip's grid. Out: `Places`, which every block takes, and queries or keys turned by
them. RoFormer (Su et al., 2104.09864) on two axes, as the axial form of RoPE-ViT (Heo et al., 2403.13298): half of a
head's pairs turn with the patch's row (frequency), half with its column (time). Nothing is learned or stored, and a
clip may have any number of columns.

The cls token has no place. Its first half is not turned, and its second is zero: else attention between it and a patch
would tell how far the patch is from the clip's start, further in a long clip than in any that the model was trained on.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

BASE = 100.0  # the rates of a head's pairs fall from 1 towards 1 / BASE; RoPE-ViT's for two axes


class Places(NamedTuple):
    """Where the tokens of B clips are: cls nowhere, then n patches in their clip's grid."""

    # Of the angles of the d / 2 pairs of a head's features: [B, 1, 1 + n, d / 2], or [1, ...]; the cosines of cls are
    # 1 or 0.
    cos: Tensor
    sin: Tensor
    # Patches are a long clip's, in order, and attend to less than so many before and behind, in whole columns; None: to
    # all.
    reach: int | None = None
    rows: int = 1  # patches in a column


def places_of(patches: Tensor, rows: int, head_dim: int, reach: int | None = None) -> Places:
    """The places of `patches` [B, n], numbers t * F + f in a grid of F `rows`, for heads of `head_dim` features."""
    pairs = head_dim // 4  # of each axis
    rates = BASE ** (-torch.arange(pairs, dtype=torch.float32, device=patches.device) / pairs)
    angles = torch.cat([(patches % rows)[..., None] * rates, (patches // rows)[..., None] * rates], dim=-1)
    of_cls = (torch.arange(2 * pairs, device=patches.device) < pairs).to(angles)  # what its pairs are multiplied by
    cos = torch.cat([of_cls.expand(patches.shape[0], 1, -1), angles.cos()], dim=1)
    return Places(cos[:, None], F.pad(angles.sin(), (0, 0, 1, 0))[:, None], reach, rows)


def turned(x: Tensor, places: Places | None) -> Tensor:
    """Queries or keys [B, H, 1 + n, d] of tokens at `places`; without places they stay as they are."""
    if places is None:
        return x
    cos, sin = places.cos.to(x.dtype), places.sin.to(x.dtype)
    a, b = x.chunk(2, dim=-1)  # pairs are d / 2 features apart
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
