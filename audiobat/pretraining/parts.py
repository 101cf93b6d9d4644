"""What a run trains with: its objective made ready on the device, the optimizer, the batches."""

from __future__ import annotations

import torch
from torch.optim import Optimizer

from audiobat.config import PretrainConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.loader import CropLoader
from audiobat.data.sampler import ClipOrder
from audiobat.engine.optim import build_optimizer
from audiobat.engine.ranks import Ranks, pick_compile
from audiobat.pretraining.first_step import check_first_step, try_step
from audiobat.pretraining.objectives.base import Objective


def set_up(objective: Objective, config: PretrainConfig, device: torch.device) -> Optimizer:
    """Move `objective` to `device`, check what its parts return, compile its step where `config` asks for it.

    Returns AdamW over the weights that are trained.
    """
    objective.to(device)
    if pick_compile(config.train.compile, device):
        try_step(objective)  # here and not in the first step, of which checks would become a part
        objective.compile_step()
    else:
        check_first_step(objective)
    optim = config.optim
    return build_optimizer(
        objective.named_parameters(),
        lr=optim.lr,
        weight_decay=optim.weight_decay,
        betas=optim.betas,
        decay_1d=optim.decay_1d,
    )


def crops_of(config: PretrainConfig, table: ClipTable, order: ClipOrder, ranks: Ranks, start: int) -> CropLoader:
    """This rank's batches of crops, from step `start` on."""
    return CropLoader(
        table,
        config.frontend.sample_rate,
        config.data.clip_seconds,
        order,
        config.train.batch_size,
        seed=config.train.seed,
        roll=config.data.roll,
        rank=ranks.rank,
        world_size=ranks.world_size,
        workers=config.data.workers,
        start_step=start,
    )
