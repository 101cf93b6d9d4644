"""The test outputs of probed heads to result records with every setting that a number depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from audiobat.config import ProbeConfig, StatisticsConfig, to_dict
from audiobat.config.user_files import files_used, hashes_of
from audiobat.evaluation.results import FoldResult, Result, RunInfo, build_result
from audiobat.models.heads import head_class
from audiobat.probing.jobs import HeadJob, decay_of, preset_of


def record_of(
    jobs: Sequence[HeadJob],
    folds: Sequence[FoldResult],
    run: RunInfo,
    config: ProbeConfig,
    preset_task: str,
    training: float,
    wall: float,
) -> Result:
    """The record of one head and seed.

    Args:
        jobs: the head as it was trained in each fold; they differ in rates only, where these were chosen.
        folds: its outputs in each.
        run: what all records of the run share.
        config: of the run.
        preset_task: column of the preset's table for this data set.
        training: seconds in which the run trained its heads.
        wall: seconds of training and testing them.
    """
    job, loss = jobs[0], folds[0].outputs.loss
    clips = job.train.steps * job.train.batch_size * len(folds)
    decided = {  # in place of `auto` and null
        "task": folds[0].outputs.unit,
        "loss": loss,
        "lr": common([job.train.lr for job in jobs]),
        "weight_decay": common([decay_of(job.head, job.train) for job in jobs]),
    }
    settings = {"name": job.name, **to_dict(job.head), **to_dict(job.train), **decided, **input_changes(config)}
    own = files_used({"head": to_dict(job.head)})  # a user's head is what its file says
    files = {"files": hashes_of(own)} if own else {}
    return build_result(
        job.name,
        folds,
        run,
        head=settings | files,
        preset=preset_of(job, loss, config, preset_task),
        seed=job.train.seed,
        wall_seconds=wall,
        clips_per_second=clips / training if head_class(job.head.kind).trains else None,
    )


def input_changes(config: ProbeConfig) -> Mapping[str, object]:
    """The encoder's statistics and its window, if the data set changes them."""
    if (config.frontend, config.max_frames) == (StatisticsConfig(), None):
        return {}
    return {"frontend": to_dict(config.frontend), "max_frames": config.max_frames}


def common(numbers: Sequence[float]) -> float | None:
    """The one value of all folds; None if they differ."""
    return numbers[0] if len(set(numbers)) == 1 else None
