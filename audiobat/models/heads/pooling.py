"""What heads share, as functions of tensors: picking a block, clips cut into columns, means, mixes of blocks,
attention, and the least and greatest similarity over valid patches (Eq. 8-10)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from audiobat.engine.linear import linear
from audiobat.errors import AudiobatError
from audiobat.models.features import LayerFeatures

# Similarities held at a time, 4 MB in fp32. On a CPU more of them save no time, and much fewer cost some; a GPU is idle
# between chunks, and has room for more.
CHUNK = 2**20
GPU_CHUNKS = 32
TINY = 1e-12  # keeps a zero vector zero


def layer_index(layer: int) -> int:
    """Position in the stack of block `layer`, counted 1 .. L, or -1 for the last."""
    return layer if layer == -1 else layer - 1


def check_layer(layer: int, depth: int) -> None:
    """Raise an AudiobatError for a block that a model of `depth` blocks does not have."""
    if layer > depth:
        raise AudiobatError(f"head.layer is {layer} and the model has {depth} blocks: use 1 to {depth}, or -1.")


def columns(features: LayerFeatures) -> LayerFeatures:
    """Every patch column as a clip of its own: B * T clips of F patches, without cls.

    A column of padding passes for valid, so that what is computed of it is finite; its answer is the caller's to drop.
    """
    valid = features.valid.unflatten(1, features.grid).flatten(0, 1)  # [B * T, F]
    valid = valid | ~valid.any(1, keepdim=True)
    tokens = features.patch_tokens.unflatten(2, features.grid).flatten(1, 2)  # [L, B * T, F, D], a view
    return LayerFeatures(tokens, None, (1, features.grid[1]), valid, features.frame_times[:1])


def mean_valid(tokens: Tensor, valid: Tensor) -> Tensor:
    """Mean [B, D] of the valid ones among tokens [B, N, D]."""
    weights = valid.to(tokens.dtype) / valid.sum(1, keepdim=True)  # [B, N]
    return torch.einsum("bn,bnd->bd", weights, tokens)


def clip_token(features: LayerFeatures, index: int, pool: Literal["auto", "cls", "mean"], dtype: torch.dtype) -> Tensor:
    """One vector a clip [B, D] of the stack's block `index`: its cls token, or the mean of its valid patches.

    `pool` auto and cls take cls if there is one, else the mean; `check_pool` refuses cls where a model has none.
    """
    if features.cls_token is not None and pool != "mean":
        return features.cls_token[index].to(dtype)
    return mean_valid(features.patch_tokens[index].to(dtype), features.valid)


def clip_tokens(features: LayerFeatures, pool: Literal["auto", "cls", "mean"], dtype: torch.dtype) -> Tensor:
    """`clip_token` of every block, [L, B, D]."""
    return torch.stack([clip_token(features, i, pool, dtype) for i in range(len(features.patch_tokens))])


def check_pool(features: LayerFeatures, pool: str) -> None:
    """Raise AudiobatError if `pool` asks for a cls token that the model does not have."""
    if pool == "cls" and features.cls_token is None:
        raise AudiobatError('head.pool is "cls" and this model has no cls token: use "mean" or "auto".')


def query_tokens(tokens: Tensor, queries: Tensor, scale: float, valid: Tensor) -> Tensor:
    """Each of queries [Q, D] attends to the valid ones of tokens [B, N, D] and takes their weighted mean: [B, Q, D]."""
    score = (tokens @ (queries * scale).T).masked_fill(~valid[..., None], float("-inf"))  # [B, N, Q]
    return score.softmax(1).transpose(1, 2) @ tokens


def mix_layers(features: LayerFeatures, gate_weights: Tensor) -> tuple[Tensor, Tensor | None]:
    """Sum over blocks of gate weight [L] times unit token (Eq. 9): patches [B, N, D] and cls [B, D] if there is one.

    A mix is shorter than one where blocks disagree; it is not made a unit vector again.
    """
    check_depth(features, len(gate_weights))
    cls = None if features.cls_token is None else _mix(features.cls_token, gate_weights)
    return _mix(features.patch_tokens, gate_weights), cls


def check_depth(features: LayerFeatures, depth: int) -> None:
    """Raise AudiobatError if the features are not of `depth` blocks."""
    found = len(features.patch_tokens)
    if found != depth:
        raise AudiobatError(f"The probe mixes {depth} blocks and the model has {found}: use the model it was made for.")


def _mix(stack: Tensor, gate_weights: Tensor) -> Tensor:
    mixed: Tensor = _Mix.apply(stack, gate_weights)  # type: ignore[no-untyped-call]
    return mixed


def repeat_valid(tokens: Tensor, valid: Tensor) -> Tensor:
    """Tokens [B, N, D] with padding overwritten by the clip's first valid token, which leaves minima and maxima alone.

    This costs N * D per clip, not the N * K of masking similarities. Whether there is any padding is looked up on a CPU
    alone: a GPU would have to be waited for, and a compiled graph would break.
    """
    if valid.device.type == "cpu" and not torch.compiler.is_compiling() and valid.all():
        return tokens
    first = valid.int().argmax(1)  # [B]
    stand_in = tokens.gather(1, first[:, None, None].expand(-1, 1, tokens.shape[2]))  # [B, 1, D]
    return torch.where(valid[..., None], tokens, stand_in)


def extremes(tokens: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest over n of tokens [B, N, D] times prototypes [K, D]: two tensors [B, K].

    Where several tokens tie, one of them gets the gradient. The similarities [B, N, K] are never held at once, but in a
    graph for export, which knows no loop over a batch of any size.
    """
    if torch.compiler.is_exporting():
        similarity = tokens @ prototypes.T
        return similarity.amin(1), similarity.amax(1)
    low, high = _Extremes.apply(tokens, prototypes)  # type: ignore[no-untyped-call]
    return low, high


def unit_rows(rows: Tensor) -> Tensor:
    """Rows [K, D] divided by their lengths, as `normalize` does; its backward pass needs a third of the memory."""
    unit: Tensor = _UnitRows.apply(rows)  # type: ignore[no-untyped-call]
    return unit


def unit_signs(rows: Tensor) -> Tensor:
    """The signs of rows [K, D], +1 for 0, divided by the length sqrt(D) that a row of signs has.

    The gradient passes the division as `unit_rows` has it, which leaves out its part along the signs, and the signs as
    if they were the rows themselves (straight-through): so BAT's release trains Protobin.
    """
    unit: Tensor = _UnitSigns.apply(rows)  # type: ignore[no-untyped-call]
    return unit


class _UnitRows(torch.autograd.Function):
    """u = r / |r|: its gradient is the part of the incoming gradient at right angles to u, divided by |r|."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min_(TINY)
        unit: Tensor = rows / lengths
        ctx.save_for_backward(unit, lengths)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        unit, lengths = ctx.saved_tensors
        along = torch.einsum("kd,kd->k", grad, unit)[:, None]  # a product of matrices: no [K, D] of products
        across: Tensor = torch.addcmul(grad, unit, along, value=-1)
        return across.div_(lengths)


class _UnitSigns(_UnitRows):
    """The length is known beforehand, so that one look at the rows is enough."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        length = rows.new_tensor(math.sqrt(rows.shape[1]))
        unit = torch.where(rows >= 0, 1 / length, -1 / length)
        ctx.save_for_backward(unit, length)
        return unit


class _Mix(torch.autograd.Function):
    """m = sum over l of w_l u_l, u_l = t_l / |t_l|: block by block, with no unit copy of a stack of any precision.

    The gradient of w_l is the sum of g . u_l over tokens, and that of t_l is the part of w_l g at right angles to u_l,
    divided by |t_l|.
    """

    @staticmethod
    def forward(ctx: Any, stack: Tensor, weights: Tensor) -> Tensor:
        """Stack [L, ..., D] and weights [L] to [..., D] in the weights' precision."""
        lengths = torch.linalg.vector_norm(stack, dim=-1, keepdim=True, dtype=weights.dtype).clamp_min_(TINY)
        mixed = torch.zeros_like(stack[0], dtype=weights.dtype)
        for tokens, weight, length in zip(stack, weights, lengths, strict=True):
            mixed.addcmul_(tokens, weight / length)
        ctx.save_for_backward(stack, weights, lengths)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        stack, weights, lengths = ctx.saved_tensors
        products = torch.empty_like(grad)  # of one block at a time
        along = torch.empty_like(lengths)  # g . u_l, [L, ..., 1]
        for tokens, cosine in zip(stack, along, strict=True):
            torch.sum(torch.mul(grad, tokens, out=products), -1, keepdim=True, out=cosine)
        along /= lengths
        to_stack = None
        if ctx.needs_input_grad[0]:
            to_stack = torch.empty_like(stack)
            for out, *block in zip(to_stack, stack, weights, lengths, along, strict=True):
                tokens, weight, length, cosine = block
                out.copy_(torch.addcmul(grad, tokens, cosine / length, value=-1).mul_(weight / length))
        return to_stack, along.flatten(1).sum(1)


class _Extremes(torch.autograd.Function):
    """Only two of N similarities per clip and prototype have a gradient: it is gathered from these, row by row."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
        compute = (kernel_for(tokens.device) if tokens.dtype != torch.float64 else None) or extremes_in_chunks
        low, high, low_at, high_at = compute(tokens, prototypes)
        ctx.save_for_backward(tokens, prototypes, low_at, high_at)
        ctx.set_materialize_grads(False)  # a head that reads the greatest alone does not pay for the least
        return low, high

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        tokens, prototypes, *chosen = ctx.saved_tensors  # chosen: the patch of each extreme, [B, K] twice
        patches, count = tokens.shape[1], len(prototypes)
        flat = tokens.flatten(0, 1)
        numbers = torch.arange(len(flat), dtype=torch.int32, device=tokens.device)  # of the flat tokens
        first = numbers[::patches, None]  # [B, 1], of each clip
        known = [(at + first, grad) for at, grad in zip(chosen, grads, strict=True) if grad is not None]
        if not known:
            return None, None
        rows, values = map(torch.cat, zip(*known, strict=True))  # [M, K] with M = B or 2 * B
        to_tokens = to_prototypes = None
        if ctx.needs_input_grad[1]:  # each prototype's rows of tokens
            to_prototypes = F.embedding_bag(
                rows.T.contiguous(), flat, per_sample_weights=values.T.contiguous(), mode="sum"
            )
        if ctx.needs_input_grad[0]:  # each token's rows of prototypes: those whose extreme it is, often none
            in_order, order = rows.flatten().sort(stable=True)
            starts = torch.searchsorted(in_order, numbers)
            by_token = F.embedding_bag(
                order % count,
                prototypes,
                starts,
                per_sample_weights=values.flatten().index_select(0, order),
                mode="sum",
            )
            to_tokens = by_token.view_as(tokens)
        return to_tokens, to_prototypes


def extremes_in_chunks(tokens: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Least, greatest, and the places of both (int32) over n of tokens [B, N, D] times prototypes [K, D]: [B, K] each.

    `CHUNK` similarities at a time: some clips, or some prototypes of one.
    """
    (batch, patches, _), count = tokens.shape, len(prototypes)
    chunk = CHUNK if tokens.device.type == "cpu" else GPU_CHUNKS * CHUNK
    clips = min(batch, max(1, chunk // (patches * count)))
    width = -(-count // -(-clips * patches * count // chunk))  # equal shares of the prototypes, often all of them
    low, high = tokens.new_empty(2, batch, count)
    low_at, high_at = torch.empty(2, batch, count, dtype=torch.int32, device=tokens.device)
    for some in _slices(batch, clips):
        for few in _slices(count, width):
            with torch.autocast(tokens.device.type, enabled=False):  # extremes are sought in the precision of tokens
                similarity = linear(tokens[some].flatten(0, 1), prototypes[few])
            by_patch = similarity.unflatten(0, (-1, patches))  # [b, N, k], and k is contiguous
            high[some, few], high_at[some, few] = greatest(by_patch)
            negated, low_at[some, few] = greatest(by_patch.neg_())
            low[some, few] = negated.neg_()
    return low, high, low_at, high_at


def greatest(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """Greatest of [b, N, K] over n, and where it is, [b, K] each; the first of equals.

    On a CPU `max` walks down each column by itself. Pooling of images whose channels lie side by side reads row by row:
    17 times faster for 52 patches.
    """
    if similarity.device.type != "cpu":
        values, places = similarity.max(1)
        return values, places
    image = similarity.transpose(1, 2)[:, :, None]  # [b, K, 1, N]: channels, height, width
    values, places = F.max_pool2d(image, image.shape[2:], return_indices=True)  # [b, K, 1, 1]
    return values[..., 0, 0], places[..., 0, 0]


@cache
def kernel_for(device: torch.device) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]] | None:
    """The Triton kernel that does what `extremes_in_chunks` does, if it runs on this device, a GPU; else None."""
    if device.type != "cuda" or find_spec("triton") is None:
        return None
    try:
        from audiobat.models.heads.fused_extremes import fused_extremes

        fused_extremes(torch.zeros(1, 1, 1, device=device), torch.zeros(1, 1, device=device))
    except Exception as error:  # it may lack a C compiler, a folder for what it compiles, or code for such a GPU
        warnings.warn(
            f"Triton does not run on {device}, so that heads with prototypes are slower: {error}", stacklevel=2
        )
        return None
    return fused_extremes


def _slices(length: int, step: int) -> list[slice]:
    """0 .. length in steps."""
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
