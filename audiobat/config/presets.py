"""The settings of published probes by task (Table 6; the authors' later release), and `fair`, which chooses its own.

In: a preset and a task. Out: the fields of a recipe in `recipes/probe/`, which lie below a user's recipe and flags.
"""

from __future__ import annotations

from typing import Any

from audiobat.config.recipes import load_recipe, merge, recipe_names
from audiobat.errors import AudiobatError, did_you_mean

DEFAULT_TASK = "as20k"
TASK_OF_DATA = {  # a public data set's name, or how it begins: its column below
    "audioset": "as2m",
    "audioset-20k": "as20k",
    "esc50": "esc50",
    "spc2": "spc2",
    "birdset": "birdset",
    "dcase2016": "dcase2016",
}
PRESETS = ("paper", "released", "fair")
SCHEDULE = ("steps", "warmup_steps", "batch_size", "loss")


def tasks_of(preset: str) -> list[str]:
    """The tasks for which a preset has settings."""
    if preset == "fair":
        return list(dict.fromkeys([*tasks_of("paper"), *tasks_of("released")]))
    return [name.rpartition("/")[2] for name in recipe_names("probe") if name.startswith(f"probe/{preset}/")]


def preset_fields(preset: str, task: str) -> dict[str, Any]:
    """Fields of `ProbeConfig` under a preset.

    `paper` is Table 6: weight decay 0.5 for prototype heads and 0.005 for linear ones. `released` also has dropout,
    LayerNorm before linear probes, another warm-up, the asymmetric loss and rolled clips on AudioSet, the best
    validation step for some tasks, and each task's statistics for models with EAT's frontend. `fair` has the schedule
    and the loss of the paper (of the release, for a task that the paper lacks), and chooses learning rate and weight
    decay.

    Raises:
        AudiobatError: no such preset, or it has no such task.
    """
    if preset not in PRESETS:
        raise AudiobatError(f"preset is {preset!r}: choose one of {', '.join(PRESETS)}{did_you_mean(preset, PRESETS)}.")
    known = tasks_of(preset)
    if task not in known:
        raise AudiobatError(
            f"Preset {preset} has no task {task!r}{did_you_mean(task, known)}: set preset_task to {', '.join(known)}."
        )
    if preset != "fair":
        return load_recipe(f"probe/{preset}/{task}")
    column = load_recipe(f"probe/{'paper' if task in tasks_of('paper') else 'released'}/{task}")
    schedule = {"preset_task": task, "train": {name: column["train"][name] for name in SCHEDULE}}
    return merge(schedule, load_recipe("probe/fair"))


def fields_for(source: object, preset: str | None = None, task: str | None = None) -> dict[str, Any]:
    """Fields of `ProbeConfig` for a data set: those of the preset and task if either is named.

    Else those of `paper` for a public data set that it has settings for, and none for clips of one's own.
    """
    if preset is None and task is None and not (is_named(source) and task_of(source) in tasks_of("paper")):
        return {}
    return preset_fields(preset or "paper", task or task_of(source))


def is_named(source: object) -> bool:
    """Whether `source` is `NAME:FOLDER` of a data set that has a task."""
    name, colon, _ = str(source).partition(":")
    return bool(colon) and name.startswith(tuple(TASK_OF_DATA))


def task_of(source: object) -> str:
    """The task that a data set's name stands for (`esc50:FOLDER`), as20k for clips of one's own."""
    name = str(source).partition(":")[0]
    found = [start for start in TASK_OF_DATA if name.startswith(start)]
    return TASK_OF_DATA[max(found, key=len)] if is_named(source) else DEFAULT_TASK
