"""A probe's config and clips to its plan, made once before features are computed, and the plan to lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from audiobat.config import LABELS, ProbeConfig, SelectConfig
from audiobat.config.presets import DEFAULT_TASK, tasks_of
from audiobat.data.clip_table import ClipTable
from audiobat.data.split import Split, with_valid
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import Task, pick_loss, task_for, untaught
from audiobat.models.heads import head_class
from audiobat.models.heads.pooling import check_layer
from audiobat.probing.jobs import HeadJob, candidates, head_jobs, passes, preset_of, with_seeds
from audiobat.probing.tasks import ProbeTask, build_tasks
from audiobat.probing.training import input_kinds

SHOWN = 6  # classes in a line


@dataclass(frozen=True)
class Plan:
    """What is trained, on which clips, and what the records will say of it."""

    config: ProbeConfig
    table: ClipTable
    splits: Sequence[Split]  # one, or one for each fold, which tests
    task: Task
    jobs: list[HeadJob]  # of one seed; under `grid.choose` those for which rates are chosen; without labels none
    data_name: str  # of the data in records
    preset_task: str  # column of the preset's table for a config that names none
    tasks: Mapping[str, ProbeTask] = field(default_factory=dict)  # the others, by their name in files

    @property
    def keys(self) -> list[tuple[str, int]]:
        """Name and seed of every record that it makes, heads first."""
        heads = [(job.name, job.train.seed) for job in with_seeds(self.jobs, self.config)]
        return heads + [(name, seed) for name, task in self.tasks.items() for seed in seeds_of(self.config, task)]

    @property
    def reads(self) -> set[str]:
        """The forms of features that its heads and tasks are given."""
        return input_kinds(self.jobs, self.task) | {task.reads for task in self.tasks.values()}


def seeds_of(config: ProbeConfig, task: ProbeTask) -> tuple[int, ...]:
    """The seeds with each of which a task is measured: one where it draws nothing."""
    seeds = config.seeds or (config.train.seed,)
    return seeds if task.draws(task.config) else seeds[:1]


def make_plan(
    table: ClipTable,
    splits: Sequence[Split],
    config: ProbeConfig,
    depth: int,
    *,
    data_name: str = "clips",
    preset_task: str = DEFAULT_TASK,
) -> Plan:
    """The plan for a model of `depth` blocks; AudiobatError for a task, loss or block that labels or model lack."""
    task = task_for(config, table)
    jobs = head_jobs(config, depth) if LABELS in config.tasks else []
    check_layer(config.head.layer, depth)  # that of tasks; heads may have others of their own
    for job in jobs:
        pick_loss(job.train, task.single_label)  # an error now, if it does not suit the labels
    if task.unit == "frame" and any(job.train.roll for job in jobs):
        raise AudiobatError("train.roll moves sounds away from their labels of frames: leave it out.")
    return Plan(config, table, splits, task, jobs, data_name, preset_task, build_tasks(config, table, splits))


def used_clips(table: ClipTable, splits: Sequence[Split], select: SelectConfig) -> tuple[ClipTable, list[Split]]:
    """The clips that the splits use, so that nobody computes features of others; those of `valid` if they choose steps.

    Raises AudiobatError if the best step is to be kept, and no clips validate.
    """
    if select.which == "best":
        splits = [with_valid(table, split, select) for split in splits]
    used = np.unique(np.concatenate([ids for split in splits for ids in (split.train, split.test, split.valid)]))

    def placed(split: Split) -> Split:
        train, test, valid = (np.searchsorted(used, ids) for ids in (split.train, split.test, split.valid))
        return replace(split, train=train, test=test, valid=valid)

    return table.select(used), [placed(split) for split in splits]


def plan_lines(plan: Plan) -> Iterator[str]:
    """The split, the classes without training clips, whose settings these are, and how many trainings that makes."""
    yield f"split: {split_text(plan.table, plan.splits)}"
    if plan.jobs and (lost := untaught(plan.table, [(split.train, split.test) for split in plan.splits])):
        names = ", ".join(f"{name} ({count})" for name, count in list(lost.items())[:SHOWN])
        more = f", and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        one = "1 class has test clips but no training clip, and counts in mAP as it comes out"
        several = f"{len(lost)} classes have test clips but no training clip, and count in mAP as they come out"
        yield f"! {one if len(lost) == 1 else several}, near chance: {names}{more}"
    if plan.tasks:
        yield f"tasks on the same features: {', '.join(plan.tasks)}"
    if not plan.jobs:
        return
    jobs = with_seeds(plan.jobs, plan.config)
    yield f"settings: {settings_text(plan, jobs)}"
    together = [[jobs[place] for place in places] for places in passes(jobs)]
    if len(together) > 1:
        sizes = listed(some[0].train.batch_size for some in together)
        yield f"passes: {len(together)}, one after the other, as heads have batches of {sizes} clips"
    if rolled := [some for some in together if some[0].train.roll]:
        drawn = sum(some[0].train.batch_size * max(job.train.steps for job in some) for some in rolled)
        drawn *= len(plan.splits) * (1 + plan.config.grid.choose)
        clips = sum(len(split.train) for split in plan.splits)
        yield (
            f"rolls: training clips are rolled anew for every batch, so no features are kept for training: {drawn:,} "
            f"clips are encoded, {drawn / clips:.1f} times the {clips:,} that train"
        )
    if plan.config.grid.choose:
        folds, trained = len(plan.splits), {job.name: job for job in jobs if head_class(job.head.kind).trains}
        tried = folds * sum(len(candidates(job, plan.config.grid)) for job in trained.values())
        kept = folds * sum(job.name in trained for job in jobs)
        yield (
            f"trainings: {tried:,} to choose rates and {kept:,} with the chosen ones, of "
            f"{listed(job.train.steps for job in trained.values())} steps each, side by side on the same features"
        )


def listed(numbers: Iterable[int]) -> str:
    """The distinct numbers, the lowest first, in words."""
    return " and ".join(f"{number:,}" for number in sorted(set(numbers)))


def split_text(table: ClipTable, splits: Sequence[Split]) -> str:
    """Which clips train and test, and what decided it."""
    if len(splits) > 1:
        return f"each of {len(splits)} folds tests in turn, {len(table):,} clips in all"
    valid = f"{len(splits[0].valid):,} choose the step, " if len(splits[0].valid) else ""
    if not len(splits[0].train):
        return f"{len(splits[0].test):,} clips test, and none trains"
    counts = f"{len(splits[0].train):,} clips train, {valid}{len(splits[0].test):,} test"
    if table.splits is not None:
        return f"{counts}, by the column split"
    if table.folds is not None:
        return f"{counts}, one of the folds"
    whole = "groups stay whole" if "group" in table.columns else "by a hash of their names"
    return f"{counts}: no column split or fold, so a fifth of each class was drawn to test, {whole}"


def settings_text(plan: Plan, jobs: Sequence[HeadJob]) -> str:
    """Whose settings they are, and whether records will say so."""
    preset, column = plan.config.preset, plan.config.preset_task or plan.preset_task
    if column not in tasks_of(preset):
        return f"those of {DEFAULT_TASK}, as preset {preset} has none for {column}; records read custom"
    losses = [pick_loss(job.train, plan.task.single_label) for job in jobs]
    meant_for: dict[str, ProbeConfig] = {}
    found = [
        preset_of(job, loss, plan.config, plan.preset_task, meant_for) for job, loss in zip(jobs, losses, strict=True)
    ]
    changed = sum(name != preset for name in found)
    if not changed:
        return f"preset {preset}, {column}"
    some = "records" if changed == len(found) else f"{changed} of {len(found)} records"
    return f"preset {preset}, {column}, with changes: {some} will read custom"
