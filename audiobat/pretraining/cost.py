"""What a training step computes: FLOPs (a multiply-add counts as two) and values kept for the backward pass.

Decoders, targets and objectives say theirs with these; `plan.py` adds them up for `--dry-run`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from audiobat.config import ModelConfig


class Cost(NamedTuple):
    """The cost of one forward pass of a part of the model."""

    flops: float
    kept: float = 0.0  # activation values that the backward pass needs
    again: float = 0.0  # FLOPs of what the backward pass computes a second time, to keep less


@dataclass(frozen=True)
class StepCost:
    """The cost of one step of an objective over all ranks, backward pass included."""

    tokens: Mapping[str, int]  # read by each network in a step, cls included, such as {"student": 79104}
    flops: float
    kept: float  # activation values
    visible: int  # patches in each clone
    masked: int


def encoder_cost(model: ModelConfig, sequences: int, patches: int, recompute: bool = False) -> Cost:
    """A forward pass of an encoder's blocks over `patches` patches and the cls token."""
    e = model.encoder
    size = sequences, 1 + patches, e.dim, e.depth
    return transformer_cost(*size, e.mlp_ratio, e.gated_attention, recompute=recompute)


def embedding_flops(model: ModelConfig, clips: int, patches: int) -> float:
    """The patch embedding of `clips` clips."""
    e = model.encoder
    return clips * patches * 2 * e.patch_size[0] * e.patch_size[1] * e.dim


def transformer_cost(
    sequences: int,
    tokens: int,
    dim: int,
    depth: int,
    mlp_ratio: float,
    gated: bool,
    asking: int | None = None,
    recompute: bool = False,
) -> Cost:
    """A forward pass of `sequences` x `tokens` through `depth` transformer blocks of width `dim`.

    The last block computes what `asking` of the tokens become; None: all. With `recompute` the backward pass runs every
    block again, and keeps the inputs of all and what is within one.
    """
    last = tokens if asking is None else asking
    asked = tokens * (depth - 1) + last  # tokens times blocks that ask
    # Keys and values are of all tokens; queries, output, gate and the two layers of the MLP of those that ask.
    linear = 2 * dim**2 * (2 * tokens * depth + (2 + gated + 2 * mlp_ratio) * asked)
    attention = 4 * tokens * dim * asked  # scores, and the sum of values
    # The inputs of every matrix product and of every norm: 10 widths of the stream and 2 of the MLP's hidden layer.
    flops, of_token = sequences * (linear + attention), (10 + 2 * mlp_ratio) * dim
    if recompute:
        return Cost(flops, sequences * tokens * (depth * dim + of_token), flops)
    return Cost(flops, sequences * asked * of_token)
