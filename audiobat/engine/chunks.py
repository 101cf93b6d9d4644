"""A sum of losses over chunks of a batch, whose gradient is worked out chunk by chunk.

In: a function of a chunk, and all tensors with a gradient that it uses. Out: the sum, with its gradient already known,
so that the activations of one chunk are in memory at a time. Equal to the sum of all at once, but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Chunk = TypeVar("Chunk")
Other = TypeVar("Other")


CPU_VALUES = 2**19  # tokens times width of a chunk: its activations stay in the cache
CPU_TOKENS = 1_024  # of a chunk at the least: fewer make small matrix products, and gradients are added up more often
GPU_TOKENS = 32_768  # fill the device


def rows_at_once(tokens: int, width: int, device: torch.device) -> int:
    """How many sequences of `tokens` tokens [width] the device runs fastest at once; at least one."""
    limit = max(CPU_VALUES // width, CPU_TOKENS) if device.type == "cpu" else GPU_TOKENS
    return max(limit // tokens, 1)


def chunk_size(rows: int, tokens: int, width: int, limit: int, device: torch.device) -> int:
    """How many of `rows` sequences of `tokens` tokens [width] run at once: all chunks are of this size.

    What the device does fastest, and `limit` at the most; at least one.
    """
    limit = min(limit, rows, rows_at_once(tokens, width, device))
    return next(size for size in range(max(limit, 1), 0, -1) if rows % size == 0)


def sum_in_chunks(
    part: Callable[..., tuple[Tensor, Other]],
    chunks: Sequence[Chunk],
    shared: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> tuple[Tensor, list[Other]]:
    """The sum of `part(chunk, *shared)[0]` over chunks, [], and the second things that it returns.

    Args:
        part: gives a scalar, and what else is to be known of a chunk, without gradient.
        chunks: what `part` is called with, in turn.
        shared: tensors that every chunk reads and that were made with a gradient, such as tokens.
        weights: the parameters that `part` uses; those that require no gradient are left out.
    """
    if len(chunks) == 1 or not torch.is_grad_enabled():
        found = [part(chunk, *shared) for chunk in chunks]
        return torch.stack([loss for loss, _ in found]).sum(), [other for _, other in found]
    others: list[Other] = []
    total: Tensor = _Sum.apply(  # type: ignore[no-untyped-call]
        part, chunks, others, len(shared), *shared, *(w for w in weights if w.requires_grad)
    )
    return total, others


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Any, chunks: Any, others: list[Any], count: int, *tensors: Tensor) -> Tensor:
        shared = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in tensors[:count]]
        inputs = [*shared, *tensors[count:]]
        places = [place for place, tensor in enumerate(inputs) if tensor.requires_grad]
        total = torch.zeros((), device=tensors[0].device)
        grads: list[Tensor | None] = [None] * len(inputs)
        for chunk in chunks:
            with torch.enable_grad():
                loss, other = part(chunk, *shared)
            others.append(other)
            total += loss.detach()
            new = torch.autograd.grad(loss, [inputs[place] for place in places], allow_unused=True)
            for place, grad in zip(places, new, strict=True):
                if grad is not None:
                    known = grads[place]
                    grads[place] = grad.clone() if known is None else known.add_(grad)  # it may be shared
        ctx.grads = grads
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        torch._foreach_mul_([known for known in ctx.grads if known is not None], grad)
        return None, None, None, None, *ctx.grads
