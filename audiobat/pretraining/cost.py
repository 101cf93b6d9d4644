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


@dataclass(frozen=True)
class StepCost:
    """The cost of one step of an objective over all ranks, backward pass included."""

    tokens: Mapping[str, int]  # read by each network in a step, cls included, such as {"student": 79104}
    flops: float
    kept: float  # activation values
    visible: int  # patches in each clone
    masked: int


def encoder_cost(model: ModelConfig, sequences: int, patches: int) -> Cost:
    """A forward pass of an encoder's blocks over `patches` patches and the cls token."""
    e = model.encoder
    return transformer_cost(sequences, 1 + patches, e.dim, e.depth, e.mlp_ratio, e.gated_attention)


def embedding_flops(model: ModelConfig, clips: int, patches: int) -> float:
    """The patch embedding of `clips` clips."""
    e = model.encoder
    return clips * patches * 2 * e.patch_size[0] * e.patch_size[1] * e.dim


def transformer_cost(
    sequences: int, tokens: int, dim: int, depth: int, mlp_ratio: float, gated: bool, asking: int | None = None
) -> Cost:
    """A forward pass of `sequences` x `tokens` through `depth` transformer blocks of width `dim`.

    The last block computes what `asking` of the tokens become; None: all.
    """
    last = tokens if asking is None else asking
    asked = tokens * (depth - 1) + last  # tokens times blocks that ask
    # Keys and values are of all tokens; queries, output, gate and the two layers of the MLP of those that ask.
    linear = 2 * dim**2 * (2 * tokens * depth + (2 + gated + 2 * mlp_ratio) * asked)
    attention = 4 * tokens * dim * asked  # scores, and the sum of values
    # The inputs of every matrix product and of every norm: 10 widths of the stream and 2 of the MLP's hidden layer.
    return Cost(sequences * (linear + attention), sequences * asked * (10 + 2 * mlp_ratio) * dim)
