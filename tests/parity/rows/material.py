"""What both sides begin with: sounds, random weights; and what is kept of a module while it trains."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from ..plain import frontends
from .base import Named


def sounds(lengths: tuple[int, ...]) -> list[frontends.Array]:
    """Gliding tones in noise, of float32 as a reader gives them, not centred on zero."""
    found = []
    for seed, length in enumerate(lengths):
        rng = np.random.default_rng(seed)
        t = np.arange(length) / 16_000
        tone = np.sin(2 * np.pi * (300 + 400 * seed + 700 * t) * t)
        found.append((0.02 + 0.3 * tone * (0.1 + t) + 0.01 * rng.normal(size=length)).astype(np.float32))
    return found


def batch_of(waveforms: list[frontends.Array]) -> SimpleNamespace:
    lengths = torch.tensor([len(x) for x in waveforms])
    rows = torch.zeros(len(waveforms), int(lengths.max()))
    for row, waveform in zip(rows, waveforms, strict=True):
        row[: len(waveform)] = torch.from_numpy(waveform)
    return SimpleNamespace(waveform=rows, lengths=None if len(set(lengths.tolist())) == 1 else lengths)


def stir(model: torch.nn.Module) -> None:
    """Random values for every parameter, so that no bias is 0, no scale 1, and the teacher no copy of the student."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float32).to(p)
            fan_in = p[0].numel() if p.ndim > 1 and p.shape[0] > 1 else 25
            scale = "norm" in name and name.endswith("weight")
            p.copy_(1 + 0.2 * noise if scale else noise / fan_in**0.5)


def state(model: torch.nn.Module) -> Named:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def keep_first_gradients(model: nn.Module, gradients: Named) -> None:
    """Write the gradients of the first backward pass into `gradients`, as they are before they are clipped."""
    for name, p in model.named_parameters():
        if p.requires_grad:

            def keep(p: Tensor, name: str = name) -> None:
                if name not in gradients:
                    gradients[name] = p.grad.clone()

            p.register_post_accumulate_grad_hook(keep)
