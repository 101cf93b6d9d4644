"""Features once, then all heads, tasks, seeds and folds on them: the work that `probe` and `analyze` share (Section 4).

In: an encoder and a `Plan`. Out: the result of each head and seed, and the head itself; that of each task and seed.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from torch import nn

from audiobat.config import HeadConfig, ProbeConfig, StatisticsConfig, TaskConfig, to_dict
from audiobat.config.user_files import errors_of_user_code, files_used, hashes_of
from audiobat.data.clip_table import ClipTable
from audiobat.data.split import Split
from audiobat.engine.progress import Progress
from audiobat.engine.ranks import Ranks
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import ClipIds
from audiobat.evaluation.results import (
    FoldResult,
    Result,
    RunInfo,
    build_result,
    build_task_result,
    list_skipped,
    model_info,
)
from audiobat.models.features import Encoder
from audiobat.models.heads import Head, head_class
from audiobat.models.input_stats import with_input_stats
from audiobat.probing.cache import FeatureSource, cache_features, pool
from audiobat.probing.columns import Reduced, column_means
from audiobat.probing.jobs import HeadJob, decay_of, preset_of, with_seeds
from audiobat.probing.plan import Plan
from audiobat.probing.selection import Choice, choose_jobs
from audiobat.probing.tasks import TaskFeatures
from audiobat.probing.training import Validation, evaluate_heads, train_heads
from audiobat.zoo.load import load_encoder, short_name


def open_model(model: str | Path | Encoder, trust_remote_code: bool) -> tuple[str, Encoder]:
    """The encoder that `--model` means, or that is given itself, and its name in records."""
    if not isinstance(model, str | Path):
        return type(model).__name__, model
    return short_name(model), load_encoder(model, trust_remote_code=trust_remote_code)


def compute_features(
    encoder: Encoder,
    table: ClipTable,
    config: ProbeConfig,
    out: Path | None,
    ranks: Ranks,
    reads: Collection[str],
) -> FeatureSource:
    """The frozen features of all clips, kept as far as memory and disk allow; OUT/skipped.csv names what is left out.

    `reads` are the forms of features that heads ask for, `Head.reads`. Only patches are worth a folder: means are
    small, and what goes into blocks is made anew for every batch. On several ranks rank 0 has the features. Raises
    AudiobatError as `cache_features` does.
    """
    encoder = with_input_stats(encoder, config.frontend, config.max_frames)
    if isinstance(encoder, nn.Module):  # where somebody reads patches, those are kept anyway
        if set(reads) == {"columns"}:
            encoder = Reduced(encoder, column_means)
        elif set(reads) == {"means"} and config.cache_dir is None:  # a folder is for later runs, of any heads
            encoder = Reduced(encoder, pool)
    spills = out is not None and not {"patches", "columns"}.isdisjoint(reads) and config.cache_gb > 0
    is_kept = set(reads) != {"blocks"}
    skipped: dict[str, str] = {}
    try:
        return cache_features(
            encoder,
            table,
            cache_gb=config.cache_gb if is_kept else 0.0,
            cache_dir=config.cache_dir if is_kept else None,
            spill_dir=out / "features" if out is not None and spills else None,
            workers=config.workers,
            skipped=skipped,
            ranks=ranks,
        )
    finally:  # also where too many clips are unreadable: the list says which
        if out is not None and ranks.is_main:
            list_skipped(out, skipped)


@errors_of_user_code()  # a head may be a class in a user's file
def probe_splits(
    name: str, encoder: Encoder, source: FeatureSource, plan: Plan, done: Collection[tuple[str, int]] = ()
) -> list[tuple[Result, Head]]:
    """Train and test the heads of a plan: for each head and seed its result, the mean over folds, and the last head.

    Records call the model `name`; clips without features are left out, and so are the heads and seeds that are `done`.
    Raises AudiobatError where there are no features for a split, a loss is not finite, or there is nothing to choose
    rates on.
    """
    start, training = monotonic(), 0.0
    config, task, table = plan.config, plan.task, plan.table
    if all((job.name, job.train.seed) in done for job in with_seeds(plan.jobs, config)):
        return []
    tested: dict[tuple[str, int], list[tuple[HeadJob, FoldResult]]] = {}  # head and seed -> each fold
    heads: dict[tuple[str, int], Head] = {}
    read = readable_splits(source, plan.splits)
    for number, split in enumerate(read, start=1):
        label = f"fold {number} of {len(read)}, " if len(read) > 1 else ""
        jobs, choices = plan.jobs, dict[str, Choice]()
        if config.grid.choose:
            jobs, choices = choose_jobs(source, table, split.train, task, plan.jobs, config.grid, label)
        validation = Validation(split.valid, config.select.every) if config.select.which == "best" else None
        todo = [job for job in with_seeds(jobs, config) if (job.name, job.train.seed) not in done]
        trainers, seconds = train_heads(source, split.train, task, todo, label, validation=validation)
        training += seconds
        for trainer, result in evaluate_heads(trainers, source, table, split, task):
            job, choice = trainer.job, dict[str, Any]()
            if job.name in choices:
                choice |= asdict(choices[job.name])
            if trainer.best is not None:
                step, score = trainer.best.step, trainer.best.score
                choice |= {"step": step, "validation": score, "valid_clips": len(split.valid)}
                kept = f"step {step:,} of {trainer.steps:,} is kept, {score:.3f} on {len(split.valid):,} valid clips"
                print(f"{label}{job.name}, seed {job.train.seed}: {kept}", file=sys.stderr, flush=True)
            tested.setdefault((job.name, job.train.seed), []).append((job, replace(result, choice=choice or None)))
            heads[job.name, job.train.seed] = trainer.head
    wall = monotonic() - start
    run = run_info(name, encoder, source, plan)
    results, meant_for = [], dict[str, ProbeConfig]()
    for key, pairs in tested.items():
        jobs, folds = [job for job, _ in pairs], [result for _, result in pairs]
        record = record_of(jobs, folds, run, config, plan.preset_task, meant_for, training, wall)
        results.append((record, heads[key]))
    return results


def run_info(name: str, encoder: Encoder, source: FeatureSource, plan: Plan) -> RunInfo:
    """What all records of the probe share; the model is `encoder`, not what the source reads of it."""
    model = model_info(name, encoder)
    device = str(source.device)
    return RunInfo(model, plan.data_name, plan.table, plan.task.single_label, device, source.skipped)


def measure_tasks(
    name: str, encoder: Encoder, source: FeatureSource, plan: Plan, done: Collection[tuple[str, int]] = ()
) -> Iterator[Result]:
    """The result of each task of a plan but labels, and each seed, the mean over folds; arguments as `probe_splits`.

    All of them share the vectors of clips, which are made once. Raises AudiobatError where a split has no features.
    """
    todo = [key for key in plan.keys if key[0] in plan.tasks and key not in done]
    if not todo:
        return
    features = TaskFeatures(source, plan.config.head)
    run = run_info(name, encoder, source, plan)
    with Progress("tasks", len(todo), "task") as bar:
        for task_name, seed in todo:
            start, task = monotonic(), plan.tasks[task_name]
            splits = readable_splits(source, task.splits)
            with errors_of_user_code():  # a task may be a class in a user's file
                folds = [task.measure(features, split, seed) for split in splits]
            yield build_task_result(
                task_name,
                splits,
                folds,
                run,
                settings={"name": task_name, **task.settings(plan.config.head), **given_to(task.config, plan.config)},
                preset=task.preset,
                seed=seed,
                wall_seconds=monotonic() - start,
            )
            bar.advance(note=task_name)


def readable_splits(source: FeatureSource, splits: Sequence[Split]) -> list[Split]:
    """Splits without the clips that have no features; AudiobatError if none of a split has any."""

    def known(clip_ids: ClipIds, name: str) -> ClipIds:
        return readable(source, clip_ids, name) if len(clip_ids) else clip_ids

    return [
        replace(one, train=known(one.train, "train"), test=known(one.test, "test"), valid=known(one.valid, "valid"))
        for one in splits
    ]


def readable(source: FeatureSource, clip_ids: ClipIds, split: str) -> ClipIds:
    """The ids of clips that have features; AudiobatError if none has."""
    kept = clip_ids[np.isin(clip_ids, source.indices)]
    if not len(kept):
        raise AudiobatError(f"None of the {len(clip_ids)} clips of split {split} can be read: see skipped.csv.")
    return kept


def record_of(
    jobs: Sequence[HeadJob],
    folds: Sequence[FoldResult],
    run: RunInfo,
    config: ProbeConfig,
    preset_task: str,
    meant_for: dict[str, ProbeConfig],
    training: float,
    wall: float,
) -> Result:
    """The record of one head and seed from its job and its outputs in each fold; `meant_for` as of `preset_of`.

    Jobs differ in rates only, where these were chosen; `training` and `wall` are the seconds that all heads took.
    """
    job, loss = jobs[0], folds[0].outputs.loss
    clips = job.train.steps * job.train.batch_size * len(folds)
    decided = {  # in place of `auto` and null
        "task": folds[0].outputs.unit,
        "loss": loss,
        "lr": common([job.train.lr for job in jobs]),
        "weight_decay": common([decay_of(job.head, job.train) for job in jobs]),
    }
    settings = {"name": job.name, **to_dict(job.head), **to_dict(job.train), **decided, **given_to(job.head, config)}
    if config.select.which == "best":
        settings |= {f"select.{name}": value for name, value in to_dict(config.select).items()}
    return build_result(
        job.name,
        folds,
        run,
        head=settings,
        preset=preset_of(job, loss, config, preset_task, meant_for),
        seed=job.train.seed,
        wall_seconds=wall,
        clips_per_second=clips / training if head_class(job.head.kind).trains else None,
    )


def given_to(own: HeadConfig | TaskConfig, config: ProbeConfig) -> dict[str, Any]:
    """What else decides the numbers of a head or task: other input statistics than the model's, a user's own file."""
    settings: dict[str, Any] = {}
    if (config.frontend, config.max_frames) != (StatisticsConfig(), None):  # the data set changes what the encoder gets
        settings |= {"frontend": to_dict(config.frontend), "max_frames": config.max_frames}
    if files := files_used({"part": to_dict(own)}):  # a user's head or task is what its file says
        settings["files"] = hashes_of(files)
    return settings


def common(numbers: Sequence[float]) -> float | None:
    """The one value of all folds; None if they differ."""
    return numbers[0] if len(set(numbers)) == 1 else None
