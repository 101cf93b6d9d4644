"""AdamW over named parameters; the learning rate of a step: a warm-up, then a cosine (Table 6)."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import AdamW, Optimizer


def build_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    decay_1d: bool,
) -> AdamW:
    """AdamW over every parameter that requires a gradient; call it once the model is on its device.

    With `decay_1d` False, vectors (biases, norms, gates, and tokens [1, 1, D]) form a second group without decay.
    """
    trained = [p for _, p in named_parameters if p.requires_grad]
    if decay_1d:
        groups = [{"params": trained, "weight_decay": weight_decay}]
    else:
        groups = [
            {"params": [p for p in trained if not is_vector(p)], "weight_decay": weight_decay},
            {"params": [p for p in trained if is_vector(p)], "weight_decay": 0.0},
        ]
    fused = all(p.device.type in ("cpu", "cuda") for p in trained)
    return AdamW(groups, lr=lr, betas=betas, fused=fused)


def lr_at(
    step: int,
    *,
    peak: float,
    floor: float,
    warmup_steps: int,
    total_steps: int,
    warmup: str = "linear",
    cosine_end: str = "last",
) -> float:
    """The learning rate of step 0 .. total_steps - 1.

    A warm-up to `peak` at step `warmup_steps`, then half a cosine to `floor` at the last step. A `linear` warm-up rises
    from `floor` at step 0 (Section 5); a `floored` one is the line from 0 at step 0, and `floor` where that is lower
    (BAT's release): the rate of all steps up to `warmup_steps * floor / peak`. With `cosine_end` "after", the cosine
    would be at `floor` one step after the last (EAT).
    """
    if step < warmup_steps:
        share = step / warmup_steps
        return max(floor, peak * share) if warmup == "floored" else floor + (peak - floor) * share
    decay_steps = max(1, total_steps - (cosine_end == "last") - warmup_steps)
    share = min(1.0, (step - warmup_steps) / decay_steps)
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * share))


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Give every group the learning rate `lr`, times its `lr_scale` and plus its `lr_shift` where it has them."""
    for group in optimizer.param_groups:
        group["lr"] = group.get("lr_scale", 1.0) * lr + group.get("lr_shift", 0.0)


def is_vector(parameter: nn.Parameter) -> bool:
    """True for shapes like [D] and [1, 1, D]; a weight matrix [1, D] is no vector."""
    return parameter.ndim != 2 and parameter.numel() == max(parameter.shape, default=1)
