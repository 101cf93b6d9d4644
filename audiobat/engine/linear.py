"""A linear layer by the faster of the matrix products that PyTorch has for float32 on a CPU.

PyTorch takes MKL's, which leaves half of an AVX-512 core unused on processors that Intel did not make; oneDNN, which
comes with PyTorch too, does not, and is no slower elsewhere (benchmarks/README.md). Values differ by rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The operator that PyTorch's own compiler emits for linear layers. It is not public: without it, all goes as in `F`.
_product: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As `F.linear`: [..., I], [O, I], [O] to [..., O]."""
    if _product is None or not _is_fast(x, weight):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in (x, weight, bias)):
        out: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return out
    return _multiply(x, weight, bias)


class Linear(nn.Linear):
    """`nn.Linear` whose product is `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O]."""
        return linear(x, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)  # [M, O]
        return (
            linear(grad, weight.mT) if needs_x else None,
            linear(rows.mT, x.flatten(0, -2).mT) if needs_weight else None,
            rows.sum(0) if needs_bias else None,
        )


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = _product(x, weight, bias, "none", [], "")
    return out


def _is_fast(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN computes this: rows of float32 on a CPU, outside of autocast, exported graphs and torch.func."""
    return (
        x.device.type == "cpu"
        and x.ndim > 1
        and x.numel() > 0
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()  # torch.func derives by rules of its own
    )
