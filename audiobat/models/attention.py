"""Attention (Eq. 12) by the kernel that is fastest for where and why it runs.

In training on a CPU that is the plain formula on whole batches of matrices, in place: in fp32 as fast as PyTorch's
fused kernel, with which a step in bf16 takes half as long again (benchmarks/README.md). The matrices that it keeps are
those of one chunk of clones. Everywhere else it is PyTorch's, which keeps none. In a long clip under rotary positions
patches attend to those near them, `attend_near`, so that time and memory grow with its length and not with its square.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def attend(q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v: queries [B, H, M, d], keys and values [B, H, N, d] to [B, H, M, d].

    Keys where `valid`, [B, N] or of each query [B, M, N], is False are not attended to; each query needs a valid one.
    """
    mask = valid
    if valid is not None:  # the same for all heads
        mask = valid[:, None, None, :] if valid.dim() == 2 else valid[:, None]
    is_training = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    derives_itself = (
        torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    )  # these derive by themselves
    if is_training and q.device.type == "cpu" and not derives_itself:
        out: Tensor = _Attention.apply(q, k, v, mask)  # type: ignore[no-untyped-call]
        return out
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attend_near(q: Tensor, k: Tensor, v: Tensor, reach: int, rows: int, valid: Tensor | None = None) -> Tensor:
    """As `attend`, [B, H, 1 + N, d] of cls and the N patches of a clip's grid in order, in columns of `rows` patches.

    A patch attends to cls and to the columns less than `reach` patches away; cls attends to all. Patches run in blocks
    of `reach`, each with the block before and the one behind: [B, H, W, reach, d], [B, H, W, 3 * reach, d].
    """
    clips, patches = q.shape[0], q.shape[2] - 1
    blocks = (patches + reach - 1) // reach  # W
    missing = blocks * reach - patches

    def near(x: Tensor) -> Tensor:
        """Of cls and patches [..., 1 + N, d]: for each block cls and its three blocks, [..., W, 1 + 3 * reach, d]."""
        filled = F.pad(x[..., 1:, :], (0, 0, reach, reach + missing)).unflatten(-2, (blocks + 2, reach))
        cls = x[..., None, :1, :].expand(*filled.shape[:-3], blocks, 1, -1)
        return torch.cat([cls, *(filled[..., i : i + blocks, :, :] for i in range(3))], dim=-2)

    asking = F.pad(q[:, :, 1:], (0, 0, 0, missing)).unflatten(2, (blocks, reach))
    real = q.new_ones(1, patches + 1, dtype=torch.bool) if valid is None else valid
    real = near(real[..., None])[..., 0].expand(clips, -1, -1)  # [B, W, 1 + 3 * reach]
    column = torch.arange(3 * reach, device=q.device) // rows
    apart = (column - column[reach : 2 * reach, None]).abs() * rows  # [reach, 3 * reach]
    seen = real[:, :, None] & F.pad(apart < reach, (1, 0), value=True)  # [B, W, reach, 1 + 3 * reach]
    q_own, k_near, v_near = (x.transpose(1, 2).flatten(0, 1) for x in (asking, near(k), near(v)))  # [B * W, H, ., d]
    out = attend(q_own, k_near, v_near, seen.flatten(0, 1)).unflatten(0, (clips, blocks)).transpose(1, 2).flatten(2, 3)
    return torch.cat([attend(q[:, :, :1], k, v, valid), out[:, :, :patches]], dim=2)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        shape, scale = q.shape, q.shape[-1] ** -0.5
        q, k, v = ((q * scale).flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1))  # [B * H, ., d]
        weights = torch.bmm(q, k.mT)  # [B * H, M, N]
        if mask is not None:
            weights.unflatten(0, shape[:2]).masked_fill_(~mask, float("-inf"))
        torch.softmax(weights, -1, out=weights)
        ctx.save_for_backward(q, k, v, weights)
        ctx.heads, ctx.scale = shape[1], scale
        return torch.bmm(weights, v).view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights = ctx.saved_tensors
        grad = grad.flatten(0, 1)
        to_v = torch.bmm(weights.mT, grad)
        to_scores = torch.bmm(grad, v.mT)
        torch.ops.aten._softmax_backward_data.out(
            to_scores, weights, -1, weights.dtype, grad_input=to_scores
        )  # in place
        to_q = torch.bmm(to_scores, k).mul_(ctx.scale)
        to_k = torch.bmm(to_scores.mT, q)
        return *(part.unflatten(0, (-1, ctx.heads)) for part in (to_q, to_k, to_v)), None
