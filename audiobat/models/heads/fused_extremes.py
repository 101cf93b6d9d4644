"""The least and greatest similarity on a GPU: one Triton kernel that keeps no similarities (Eq. 10 and 11).

In: tokens [B, N, D] and prototypes [K, D]. Out: the least and the greatest of their products over n, and where they
are, [B, K] each. A program takes a clip and some prototypes, goes through the clip's tokens tile by tile, and holds the
extremes so far: of the similarities [B, N, K] only one tile exists at a time, in registers. `pooling.extremes` is who
calls this, and has the gradient. Triton comes with PyTorch's builds for GPUs; without it this file cannot be imported.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Sizes of tiles. With twice as many tokens or prototypes, compiled code for compute capability 8.0 and 9.0 no longer
# keeps all of a tile in registers.
TOKENS, PROTOTYPES, CHANNELS = 64, 128, 32


def fused_extremes(tokens: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Least, greatest, and the places of both (int32) over n of tokens [B, N, D] times prototypes [K, D]: [B, K] each.

    Products are summed in fp32. Those of fp32 inputs are as exact as fp32 (three products of TF32 each), unless
    `torch.set_float32_matmul_precision` allows less: then they are of TF32, as in torch's own. TF32 holds bf16 and fp16
    exactly. Of equals the first counts.
    """
    (batch, patches, dim), count = tokens.shape, len(prototypes)
    low, high = tokens.new_empty(2, batch, count)
    low_at, high_at = torch.empty(2, batch, count, dtype=torch.int32, device=tokens.device)
    exact = tokens.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    with torch.cuda.device_of(tokens):  # Triton launches on the current device
        extremes_kernel[(batch * triton.cdiv(count, PROTOTYPES),)](
            tokens.contiguous(),
            prototypes.contiguous(),
            low,
            high,
            low_at,
            high_at,
            patches,
            count,
            dim,
            TOKENS=TOKENS,
            PROTOTYPES=PROTOTYPES,
            CHANNELS=CHANNELS,
            PRECISION="tf32x3" if exact else "tf32",
            num_warps=8,
        )
    return low, high, low_at, high_at


@triton.jit
def extremes_kernel(
    tokens,
    prototypes,
    low,
    high,
    low_at,
    high_at,
    patches,
    count,
    dim,
    TOKENS: tl.constexpr,
    PROTOTYPES: tl.constexpr,
    CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One clip's extremes for PROTOTYPES prototypes; neighbouring programs read the same clip, so caches hold it."""
    shares = tl.cdiv(count, PROTOTYPES)
    clip = (tl.program_id(0) // shares).to(tl.int64)
    k = tl.program_id(0) % shares * PROTOTYPES + tl.arange(0, PROTOTYPES)
    least = tl.full([PROTOTYPES], float("inf"), tl.float32)
    greatest = tl.full([PROTOTYPES], float("-inf"), tl.float32)
    least_at = tl.zeros([PROTOTYPES], tl.int32)
    greatest_at = tl.zeros([PROTOTYPES], tl.int32)
    for start in range(0, patches, TOKENS):
        n = start + tl.arange(0, TOKENS)
        similarity = tl.zeros([TOKENS, PROTOTYPES], tl.float32)
        for first in range(0, dim, CHANNELS):
            d = first + tl.arange(0, CHANNELS)
            rows = tl.load(
                tokens + (clip * patches + n[:, None]) * dim + d[None, :],
                mask=(n[:, None] < patches) & (d[None, :] < dim),
                other=0.0,
            )
            columns = tl.load(
                prototypes + k[None, :].to(tl.int64) * dim + d[:, None],
                mask=(k[None, :] < count) & (d[:, None] < dim),
                other=0.0,
            )
            similarity = tl.dot(rows.to(tl.float32), columns.to(tl.float32), similarity, input_precision=PRECISION)
        # NaN, of a head that has diverged, counts as infinite, so that it reaches the loss.
        is_token, is_number = n[:, None] < patches, similarity == similarity
        falling = tl.where(is_token, tl.where(is_number, similarity, float("-inf")), float("inf"))
        value, place = tl.min(falling, 0, return_indices=True)
        least_at = tl.where(value < least, start + place, least_at)
        least = tl.minimum(value, least)
        rising = tl.where(is_token, tl.where(is_number, similarity, float("inf")), float("-inf"))
        value, place = tl.max(rising, 0, return_indices=True)
        greatest_at = tl.where(value > greatest, start + place, greatest_at)
        greatest = tl.maximum(value, greatest)
    at, exists = clip * count + k, k < count
    tl.store(low + at, least, mask=exists)
    tl.store(high + at, greatest, mask=exists)
    tl.store(low_at + at, least_at, mask=exists)
    tl.store(high_at + at, greatest_at, mask=exists)
