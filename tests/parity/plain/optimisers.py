"""What follows a backward pass: clipping, AdamW, the learning rate of a step, the teacher's moving average."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

Named = dict[str, Tensor]


def warmup_cosine(
    step: int, peak: float, floor: float, warmup: int, steps: int, floored: bool = False, after: bool = False
) -> float:
    """From `floor` in a line to `peak` at step `warmup`, then half a cosine back to `floor` at the last step.

    BAT's release is `floored`: its line goes up from 0, and stays at `floor` for as long as it is below that. EAT's
    cosine ends a step `after` the last.
    """
    if step < warmup:
        share = step / warmup
        return max(floor, peak * share) if floored else floor + (peak - floor) * share
    share = (step - warmup) / (steps - warmup if after else steps - 1 - warmup)
    return floor + (peak - floor) * (1 + math.cos(math.pi * share)) / 2


def clip(gradients: Named, largest: float) -> Named:
    """All gradients by one factor, so that their common norm is at most `largest`."""
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
    factor = min(1.0, largest / (norm + 1e-6))
    return {name: g * factor for name, g in gradients.items()}


class AdamW:
    """Adam with bias correction and epsilon 1e-8; the weights decay by rate times decay, whatever the gradients."""

    def __init__(self, betas: tuple[float, float]) -> None:
        self.betas = betas
        self.moments: dict[str, tuple[Tensor, Tensor]] = {}
        self.steps = 0

    def __call__(
        self, weights: Named, gradients: Named, rate: Callable[[str], float], decay: Callable[[str], float]
    ) -> Named:
        """New weights; `rate` and `decay` are of a parameter's name."""
        self.steps += 1
        a, b = self.betas
        moved = dict(weights)
        for name, g in gradients.items():
            m, v = self.moments.get(name, (torch.zeros_like(g), torch.zeros_like(g)))
            m, v = a * m + (1 - a) * g, b * v + (1 - b) * g * g
            self.moments[name] = m, v
            direction = m / (1 - a**self.steps) / ((v / (1 - b**self.steps)).sqrt() + 1e-8)
            moved[name] = weights[name] * (1 - rate(name) * decay(name)) - rate(name) * direction
        return moved


def follow(teacher: Named, student: Named, step: int, start: float, end: float, steps: int) -> Named:
    """Section 3: a moving average, whose decay goes in a line from `start` to `end` within `steps` steps."""
    decay = start + (end - start) * min(1.0, step / steps)
    return {name: decay * value + (1 - decay) * student[name] for name, value in teacher.items()}


def gradients_of(loss: Tensor, weights: Named) -> Named:
    """The gradient of every weight."""
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


def watched(weights: Iterable[tuple[str, Tensor]]) -> Named:
    """The same values as leaves that collect gradients."""
    return {name: value.detach().clone().requires_grad_() for name, value in weights}
