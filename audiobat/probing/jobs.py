"""A probe's config to the heads that it trains: every kind, grid value and block, each with a name of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from audiobat.config import GridConfig, HeadConfig, ProbeConfig, ProbeTrainConfig, check, from_dict, warmup_hint
from audiobat.config.presets import preset_fields
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import LAYER_NAME
from audiobat.models.heads import head_class
from audiobat.models.heads.pooling import check_layer
from audiobat.models.losses import Loss

PROTOTYPE_DECAY, LINEAR_DECAY = 0.5, 0.005  # Table 6


@dataclass(frozen=True)
class HeadJob:
    """One head to train; `name` tells it from the others of its run but for the seed."""

    name: str
    head: HeadConfig
    train: ProbeTrainConfig

    @property
    def batches(self) -> tuple[int, int, bool]:
        """What decides how its batches are made: heads that agree in it share them."""
        return self.train.batch_size, self.train.order_seed, self.train.roll


def head_jobs(config: ProbeConfig, depth: int) -> list[HeadJob]:
    """Every head of one seed, `train.seed`, for a model of `depth` blocks: kinds and blocks times the grid.

    Under `grid.choose` learning rates and weight decays are `candidates`, and the heads have those of `train`.

    Raises:
        AudiobatError: settings that no head can work with.
    """
    grid = config.grid
    jobs = []
    for kind in config.heads or (config.head.kind,):
        own = config.of_kind(kind)
        counts = grid.prototypes if head_class(kind).has_prototypes else ()
        blocks = grid.layers if head_class(kind).layers == "one" else ()
        for count, block in product(counts or (own.head.prototypes,), blocks or (own.head.layer,)):
            # Files are named by the class alone of a user's own `my_head.py:MyHead`.
            name = kind.rpartition(":")[2] + (f"_k{count}" if len(counts) > 1 else "")
            name += f"_l{block}" if len(blocks) > 1 else ""
            jobs.append(HeadJob(name, replace(own.head, prototypes=count, layer=block), own.train))
    jobs += layer_jobs(depth, config.of_kind("linear").train) if config.layers else []
    if not grid.choose:
        jobs = [rated for job in jobs for rated in candidates(job, grid)]
    for job in jobs:
        check_job(job, depth)
    return jobs


def layer_jobs(depth: int, train: ProbeTrainConfig) -> list[HeadJob]:
    """A linear probe of every block (Fig. 4): its mean patch, batch norm, a matrix."""
    heads = [HeadConfig(kind="linear", layer=block, pool="mean", norm="batch") for block in range(1, depth + 1)]
    return [HeadJob(f"{LAYER_NAME}{head.layer}", head, train) for head in heads]


def candidates(job: HeadJob, grid: GridConfig) -> list[HeadJob]:
    """The job with every learning rate and weight decay of the grid; its name gets those that vary."""
    lrs, decays = (grid.lr, grid.weight_decay) if head_class(job.head.kind).trains else ((), ())
    found = []
    for lr, decay in product(lrs or (job.train.lr,), decays or (job.train.weight_decay,)):
        name = job.name + (f"_lr{lr:g}" if len(lrs) > 1 else "") + (f"_wd{decay:g}" if len(decays) > 1 else "")
        train = replace(job.train, lr=lr, weight_decay=decay, min_lr=min(job.train.min_lr, lr))
        found.append(replace(job, name=name, train=train))
    return found


def with_seeds(jobs: Sequence[HeadJob], config: ProbeConfig) -> list[HeadJob]:
    """The jobs with every seed of the config in turn."""
    seeds = config.seeds or (config.train.seed,)
    return [replace(job, train=replace(job.train, seed=seed)) for job in jobs for seed in seeds]


def passes(jobs: Sequence[HeadJob]) -> list[list[int]]:
    """The heads that are trained, as places in `jobs`: a list for each pass over the clips, which its heads share."""
    found: dict[tuple[int, int, bool], list[int]] = {}
    for place, job in enumerate(jobs):
        if head_class(job.head.kind).trains:
            found.setdefault(job.batches, []).append(place)
    return list(found.values())


def decay_of(head: HeadConfig, train: ProbeTrainConfig) -> float:
    """The weight decay of the classifier's matrix."""
    if train.weight_decay is not None:
        return train.weight_decay
    return PROTOTYPE_DECAY if head_class(head.kind).has_prototypes else LINEAR_DECAY


def preset_of(
    job: HeadJob, loss: Loss, config: ProbeConfig, task: str, meant_for: dict[str, ProbeConfig] | None = None
) -> str:
    """The preset that the config names if this head was trained, with `loss`, by its settings; else `custom`.

    `task` is the data set's, for a config that names none. Under a preset that chooses learning rate and weight decay,
    its grid and its seeds count in their place. `meant_for` keeps what the preset has for a kind, for calls about other
    heads of the same config.
    """
    meant_for, kind = {} if meant_for is None else meant_for, job.head.kind
    if kind not in meant_for:
        try:
            fields = preset_fields(config.preset, config.preset_task or task)
            meant_for[kind] = from_dict(ProbeConfig, fields).of_kind(kind)
        except AudiobatError:  # the preset has no such task
            return "custom"
    meant = meant_for[kind]
    wanted = HeadJob(job.name, meant.head, replace(meant.train, seed=job.train.seed))
    shared = ("frontend", "max_frames", "select")
    if any(getattr(config, name) != getattr(meant, name) for name in shared):
        return "custom"
    chose = (config.grid.choose, config.grid.lr, config.grid.weight_decay, config.seeds)
    if meant.grid.choose and chose == (True, meant.grid.lr, meant.grid.weight_decay, meant.seeds):
        wanted = replace(wanted, train=replace(wanted.train, lr=job.train.lr, weight_decay=job.train.weight_decay))
    elif meant.grid.choose or config.grid.choose:
        return "custom"
    mine = replace(job.train, weight_decay=decay_of(job.head, job.train), loss=loss)
    theirs = replace(wanted.train, weight_decay=decay_of(wanted.head, wanted.train))
    return config.preset if (job.head, mine) == (wanted.head, theirs) else "custom"


def check_schedule(head: HeadConfig, train: ProbeTrainConfig) -> None:
    """Raise an AudiobatError for settings that suit no model: a batch norm of one clip, a warm-up that never ends."""
    if head.norm == "batch" and train.batch_size == 1:
        raise AudiobatError("train.batch_size is 1 and head.norm is batch: use at least 2 clips per batch.")
    name = "train.warmup_steps"
    check(train.warmup_steps < train.steps, name, train.warmup_steps, warmup_hint(name, train.steps))


def check_job(job: HeadJob, depth: int) -> None:
    """Raise an AudiobatError for settings that suit no model, or for a block that the model does not have."""
    check_schedule(job.head, job.train)
    check_layer(job.head.layer, depth)
