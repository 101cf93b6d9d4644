"""The ways to make a pre-training step that step.py and gpu.py compare: the package's own loop, and the plain one.

Each runs over `turns`, which gives it the same batch again and again and notes how long each step took: whoever
measures writes that function. As a program it is one way in a process of its own, `python benchmarks/ways.py ORDER`: a
step for each line of stdin; for each step a line of stdout with its seconds, its CPU seconds, and `compiled_so_far`.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from plain import PlainStep, draw_masks
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from audiobat.config import PretrainConfig, from_dict
from audiobat.config.recipes import load_recipe, merge

Turns = Callable[[Any], Iterator[Any]]
KERNELS = {"fused": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH, "written out": None}
PRODUCT, PRODUCTS = 2048, 2  # rows and columns of the matrices whose product is a machine's rate; products a turn


class Batch(NamedTuple):
    """What an objective needs of a batch."""

    waveform: Tensor  # [B, S]
    lengths: Tensor | None = None  # [B]


def config_of(recipe: str, changes: dict[str, Any]) -> PretrainConfig:
    """A recipe with changes; those below want `train.device` to be cpu or cuda."""
    return from_dict(PretrainConfig, merge(load_recipe(recipe), changes))


def noise(config: PretrainConfig) -> Batch:
    """A batch of full clips."""
    samples = int(config.data.clip_seconds * config.frontend.sample_rate)
    return Batch(ready(torch.randn(config.train.batch_size, samples) * 0.1, config))


def ready(tensor: Tensor, config: PretrainConfig) -> Tensor:
    """A tensor where nothing waits for its copy to the device."""
    return tensor if config.train.device == "cpu" else tensor.pin_memory()


def written_out(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """Attention in three operations, with its matrix."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    return scores.softmax(-1) @ v


def force(kernel: str) -> None:
    """Let attention have a single kernel from now on, whatever rule its callers follow."""
    by_rule = functional.scaled_dot_product_attention

    def forced(*tensors: Tensor, **options: Any) -> Tensor:
        if kernel == "written out":
            return written_out(*tensors, **options)
        with sdpa_kernel(KERNELS[kernel]):
            return by_rule(*tensors, **options)

    functional.scaled_dot_product_attention = forced
    if find_spec("audiobat.models.attention"):  # commits before it left all to PyTorch
        from audiobat.models import attention

        attention._Attention.apply = lambda q, k, v, mask: forced(q, k, v, attn_mask=mask)


def run_ours(
    config: PretrainConfig, batch: Batch, turns: Turns, kernel: str | None = None, compiled: bool = False
) -> None:
    """The package's own loop, with one attention kernel alone if that is named."""
    # Here, so that the process of the plain step does not hold them.
    from audiobat.engine import loop
    from audiobat.engine.logs import RunLog
    from audiobat.engine.optim import build_optimizer
    from audiobat.engine.ranks import launch
    from audiobat.pretraining.objectives.base import build_objective

    if kernel:
        force(kernel)
    config = replace(config, train=replace(config.train, log_every=10**6, save_every=10**6))
    with tempfile.TemporaryDirectory() as folder, launch(config.train.device) as ranks, RunLog(folder) as log:
        objective, optim = build_objective(config).to(ranks.device), config.optim
        if compiled:
            objective.compile_step()
        optimizer = build_optimizer(
            objective.named_parameters(),
            lr=optim.lr,
            weight_decay=optim.weight_decay,
            betas=optim.betas,
            decay_1d=optim.decay_1d,
        )
        after = objective.after_step
        loop.fit(objective, optimizer, turns(batch), config.train, optim, log=log, ranks=ranks, after_step=after)


def run_plain(config: PretrainConfig, turns: Turns, compiled: bool = False) -> None:
    """The plain loop, its model under torch.compile or not."""
    device = torch.device(config.train.device)
    model = PlainStep(config).to(device)
    optimizer, rng = model.optimizer(), random.Random(0)
    forward = torch.compile(model) if compiled else model
    for waveform, _ in turns(noise(config)):
        cells = draw_masks(config, len(waveform) * config.mask.clones, config.crop_grid, rng)
        masks = [ready(patches, config).to(device, non_blocking=True) for patches in cells]
        spectrogram = model.spectrogram(waveform.to(device, non_blocking=True))
        with torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bf16"):
            loss, _, _ = forward(spectrogram, *masks)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.follow(config.target.ema_start)


def compiled_so_far() -> tuple[int, int]:
    """Of what torch.compile has done in this process: how often a graph broke, and how many graphs it has made."""
    dynamo = sys.modules.get("torch._dynamo.utils")  # not loaded by who compiles nothing
    return (
        (sum(dynamo.counters["graph_break"].values()), dynamo.counters["stats"]["unique_graphs"]) if dynamo else (0, 0)
    )


def run_products(precision: str, turns: Turns) -> None:
    """A few matrix products a turn."""
    a, b = torch.randn(2, PRODUCT, PRODUCT).to(torch.bfloat16 if precision == "bf16" else torch.float32)
    for _ in turns(None):
        for _ in range(PRODUCTS):
            a @ b


def main(order: dict[str, Any]) -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the package prints is no answer

    def turns(batch: Any) -> Iterator[Any]:
        for _ in sys.stdin:
            start, cpu = time.perf_counter(), time.process_time()
            yield batch
            turn = time.perf_counter() - start, time.process_time() - cpu, *compiled_so_far()
            print(json.dumps(turn), file=out, flush=True)

    torch.manual_seed(0)
    if order["way"] == "products":
        run_products(order["precision"], turns)
        return
    train = {"train": {"precision": order["precision"], "device": "cpu"}}
    config = config_of(order["recipe"], merge(order["changes"], train))
    if order["way"] == "plain":
        run_plain(config, turns)
    else:
        run_ours(config, noise(config), turns, order.get("kernel"), order.get("compiled", False))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
