"""What probes share: picking a block, means over valid patches, and each prototype's least and greatest similarity."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def layer_index(layer: int) -> int:
    """Position in the stack of block `layer`, counted 1 .. L, or -1 for the last."""
    return layer if layer == -1 else layer - 1


def mean_valid(tokens: Tensor, valid: Tensor) -> Tensor:
    """Mean [B, D] of the valid ones among tokens [B, N, D]."""
    weights = valid.to(tokens.dtype) / valid.sum(1, keepdim=True)  # [B, N]
    return torch.einsum("bn,bnd->bd", weights, tokens)


def repeat_valid(tokens: Tensor, valid: Tensor) -> Tensor:
    """Tokens [B, N, D] with padding overwritten by the clip's first valid token, which leaves minima and maxima alone.

    This costs N * D per clip, not the N * K of masking similarities, and needs no look at `valid` from the host.
    """
    first = valid.int().argmax(1)  # [B]
    stand_in = tokens[torch.arange(len(tokens), device=tokens.device), first]  # [B, D]
    return torch.where(valid[..., None], tokens, stand_in[:, None])


def extremes(tokens: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest over n of tokens [B, N, D] times prototypes [K, D]: two tensors [B, K].

    Where several tokens tie, one of them gets the gradient.
    """
    low, high = _Extremes.apply(tokens, prototypes)  # type: ignore[no-untyped-call]
    return low, high


class _Extremes(torch.autograd.Function):
    """Only two of N similarities per clip and prototype have a gradient: a sparse [B * N, K], not a dense one."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
        similarity = (tokens.flatten(0, 1) @ prototypes.T).view(*tokens.shape[:2], -1)  # [B, N, K]
        (low, low_at), (high, high_at) = similarity.min(1), similarity.max(1)
        ctx.save_for_backward(tokens, prototypes, low_at, high_at)
        return low, high

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        tokens, prototypes, *chosen = ctx.saved_tensors  # chosen: the patch of each extreme, [B, K] twice
        (clips, patches, _), count = tokens.shape, len(prototypes)
        first = torch.arange(0, clips * patches, patches, device=tokens.device)[:, None]  # [B, 1] of the flat tokens
        rows = (torch.stack(chosen) + first).flatten()  # [2 * B * K]
        columns = torch.arange(count, device=tokens.device).repeat(2 * clips)
        values = torch.stack(grads).flatten().to(tokens.dtype)
        size = (clips * patches, count)
        sparse = torch.sparse_coo_tensor(torch.stack([rows, columns]), values, size, check_invariants=False)
        to_tokens, to_prototypes = ctx.needs_input_grad
        return (
            (sparse @ prototypes).view_as(tokens) if to_tokens else None,
            sparse.T @ tokens.flatten(0, 1) if to_prototypes else None,
        )
