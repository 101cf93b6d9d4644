"""What heads said to test clips, to result records with all that a number depends on, and scores beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from audiobat.config import ProbeConfig, StatisticsConfig, to_dict
from audiobat.data.clip_table import ClipTable
from audiobat.engine.environment import environment
from audiobat.engine.tensors import weights_sha256
from audiobat.evaluation.record import DataInfo, ModelInfo, ResultRecord, Scores
from audiobat.evaluation.scoring import evaluate, values
from audiobat.models.features import Encoder
from audiobat.probing.cache import FeatureSource
from audiobat.probing.jobs import NOT_TRAINED, decay_of, preset_of
from audiobat.probing.selection import Choice
from audiobat.probing.task import FrameTask, Task
from audiobat.probing.testing import Heard, Tested


@dataclass(frozen=True)
class Probed:
    """One head of one seed: its record, and what it said to every test clip."""

    name: str
    record: ResultRecord
    scores: Scores


class Shared:
    """What the records of one run have in common."""

    def __init__(
        self,
        encoder_name: str,
        encoder: Encoder,
        source: FeatureSource,
        table: ClipTable,
        task: Task,
        config: ProbeConfig,
        data_name: str,
        preset_task: str,
        untaught: dict[str, int],
    ) -> None:
        self.source, self.table, self.task, self.config = source, table, task, config
        self.data_name, self.preset_task, self.untaught = data_name, preset_task, untaught
        self.model = describe_model(encoder_name, encoder)
        self.environment = environment()
        self.sha256 = table.sha256()


def record_of(
    shared: Shared, folds: Mapping[str, Tested], choices: Mapping[str, Choice], training: float, wall: float
) -> Probed:
    """The record of one head and seed from what it said in each fold.

    Args:
        shared: the run.
        folds: test fold, or "" -> answers.
        choices: test fold, or "" -> how learning rate and weight decay were chosen, if they were.
        training: seconds in which the run trained its heads.
        wall: seconds of training and testing them.
    """
    table, task = shared.table, shared.task
    job = next(iter(folds.values())).job
    answers = {fold: one.answers for fold, one in folds.items()}
    metrics, per_class = evaluate(list(answers.values()), table.classes, task.single_label, job.train.seed)
    gates = [one.gate for one in folds.values() if one.gate is not None]
    sizes = {fold: len(answer) for fold, answer in answers.items()}
    clips = job.train.steps * job.train.batch_size * len(folds)
    if len(folds) == 1:
        (one,) = folds.values()
        sizes = {"train": one.trained_on, "test": len(one.answers)}
    record = ResultRecord(
        model=shared.model,
        data=DataInfo(
            name=shared.data_name,
            sha256=shared.sha256,
            clips=sizes,
            unreadable=len(shared.source.skipped),
            classes=len(table.classes),
            classes_present=int(torch.cat([a.targets for a in answers.values()]).any(0).sum()),
            untaught=shared.untaught,
        ),
        head={**settings(folds, choices, task), **hearing(shared.config)},
        preset=preset_of(job, next(iter(answers.values())).loss, shared.config, shared.preset_task),
        seed=job.train.seed,
        metrics=metrics,
        per_class=per_class,
        gate_weights=torch.stack(gates).mean(0).tolist() if gates else None,
        wall_seconds=wall,
        clips_per_second=None if job.head.kind in NOT_TRAINED else clips / training,
        device=str(shared.source.device),
        environment=shared.environment,
        git_commit=shared.environment["git_commit"],
        folds=None if len(folds) == 1 else {f: values(a, task.single_label) for f, a in answers.items()},
    )
    return Probed(job.name, record, scores_of_folds(folds, table))


def settings(folds: Mapping[str, Tested], choices: Mapping[str, Choice], task: Task) -> dict[str, object]:
    """Every hyper-parameter of the head and its training, `auto` and null replaced by what they meant.

    Where learning rate and weight decay were chosen, `choice` says so, by fold if there are folds; a value that is not
    the same in all folds is null.
    """
    jobs = [one.job for one in folds.values()]
    decided: dict[str, object] = {
        "task": "frame" if isinstance(task, FrameTask) else "clip",
        "loss": next(iter(folds.values())).answers.loss,
        "lr": common([job.train.lr for job in jobs]),
        "weight_decay": common([decay_of(job.head, job.train) for job in jobs]),
    }
    if choices:
        told = {fold: dataclasses.asdict(choice) for fold, choice in choices.items()}
        decided["choice"] = told[""] if list(told) == [""] else told
    return {"name": jobs[0].name, **to_dict(jobs[0].head), **to_dict(jobs[0].train), **decided}


def hearing(config: ProbeConfig) -> dict[str, object]:
    """What the data set changes of the encoder: its statistics and its window, if it does."""
    if (config.frontend, config.max_frames) == (StatisticsConfig(), None):
        return {}
    return {"frontend": to_dict(config.frontend), "max_frames": config.max_frames}


def common(numbers: list[float]) -> float | None:
    """The one value of all folds."""
    return numbers[0] if len(set(numbers)) == 1 else None


def scores_of_folds(folds: Mapping[str, Heard], table: ClipTable) -> Scores:
    """What was said to every test clip; the patch columns of a clip are rows of its key, in order of time."""
    keys = [table.keys[row] for one in folds.values() for row in one.rows.tolist()]
    names = np.repeat(list(folds), [len(one.rows) for one in folds.values()])
    return Scores(
        np.array(keys),
        torch.cat([one.answers.scores for one in folds.values()]).numpy(),
        torch.cat([one.answers.targets for one in folds.values()]).numpy(),
        None if len(folds) == 1 else names,
    )


def describe_model(name: str, encoder: Encoder) -> ModelInfo:
    """The record's model."""
    if not isinstance(encoder, nn.Module):
        return ModelInfo(name, None, None)
    return ModelInfo(name, weights_sha256(encoder), sum(p.numel() for p in encoder.parameters()))
