"""What a probe is about to do, in a few lines: split, classes that nothing teaches, whose settings, trainings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from audiobat.config import ProbeConfig
from audiobat.config.presets import DEFAULT_TASK, tasks_of
from audiobat.data.clip_table import ClipTable
from audiobat.data.split import Split
from audiobat.evaluation.labels import Task, pick_loss, untaught
from audiobat.probing.jobs import NOT_TRAINED, HeadJob, candidates, preset_of

SHOWN = 6  # classes in a line


def plan_lines(
    table: ClipTable,
    splits: Sequence[Split],
    config: ProbeConfig,
    jobs: Sequence[HeadJob],
    task: Task,
    preset_task: str,
) -> Iterator[str]:
    """Lines for people. `splits` has one entry for each test fold, `jobs` one for every head and seed."""
    yield f"split: {split_text(table, splits)}"
    lost = untaught(table, [(split.train, split.test) for split in splits])
    if lost:
        yield f"! {untaught_text(lost)}"
    yield f"settings: {settings_text(config, jobs, task, preset_task)}"
    if config.grid.choose:
        yield f"trainings: {choice_text(config, jobs, len(splits))}"


def split_text(table: ClipTable, splits: Sequence[Split]) -> str:
    """Which clips train and test, and who said so."""
    if len(splits) > 1:
        return f"each of {len(splits)} folds tests in turn, {len(table):,} clips in all"
    counts = f"{len(splits[0].train):,} clips train, {len(splits[0].test):,} test"
    if table.splits is not None:
        return f"{counts}, by the column split"
    if table.folds is not None:
        return f"{counts}, one of the folds"
    whole = "groups stay whole" if "group" in table.columns else "by a hash of their names"
    return f"{counts}: no column split or fold, so a fifth of each class was drawn to test, {whole}"


def untaught_text(lost: Mapping[str, int]) -> str:
    """What is said of such classes."""
    names = ", ".join(f"{name} ({count})" for name, count in list(lost.items())[:SHOWN])
    more = f", and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
    one = "1 class has test clips but no training clip, and counts in mAP as it comes out"
    several = f"{len(lost)} classes have test clips but no training clip, and count in mAP as they come out"
    return f"{one if len(lost) == 1 else several}, near chance: {names}{more}"


def settings_text(config: ProbeConfig, jobs: Sequence[HeadJob], task: Task, preset_task: str) -> str:
    """Whose settings they are, and whether records will say so."""
    column = config.preset_task or preset_task
    if column not in tasks_of(config.preset):
        return f"those of {DEFAULT_TASK}, as preset {config.preset} has none for {column}; records read custom"
    found = [preset_of(job, pick_loss(job.train, task.single_label), config, preset_task) for job in jobs]
    changed = sum(name != config.preset for name in found)
    if not changed:
        return f"preset {config.preset}, {column}"
    some = "records" if changed == len(found) else f"{changed} of {len(found)} records"
    return f"preset {config.preset}, {column}, with changes: {some} will read custom"


def choice_text(config: ProbeConfig, jobs: Sequence[HeadJob], folds: int) -> str:
    """How many heads a choice of rates trains before and after it is made."""
    trained = {job.name: job for job in jobs if job.head.kind not in NOT_TRAINED}
    tried = folds * sum(len(candidates(job, config.grid)) for job in trained.values())
    kept = folds * sum(job.name in trained for job in jobs)
    return (
        f"{tried:,} to choose rates and {kept:,} with the chosen ones, of {config.train.steps:,} steps each, "
        "side by side on the same features"
    )
