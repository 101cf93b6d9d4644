"""The settings of published probes by task (Table 6; the authors' later release), and `fair`, which chooses its own.

In: a preset and a task. Out: fields of `ProbeConfig` as plain dicts, which lie below a user's recipe and flags.
"""

from __future__ import annotations

from typing import Any

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
# steps, warm-up, batch, loss
PAPER = {
    "as2m": (200_000, 2_000, 96, "bce"),
    "as20k": (20_000, 2_000, 48, "bce"),
    "esc50": (4_000, 400, 48, "ce"),
    "spc2": (40_000, 4_000, 256, "bce"),
}
# steps, warm-up, batch, loss, weight decay; nothing was released for AS-2M
RELEASED = {
    "as20k": (20_000, 500, 48, "asl", 0.05),
    "esc50": (4_000, 400, 48, "ce", 0.2),
    "spc2": (10_000, 1_000, 256, "ce", 0.05),
    "birdset": (10_000, 1_000, 64, "bce", 0.05),
    "dcase2016": (4_000, 400, 4, "bce", 0.05),
}
# What its models with EAT's frontend hear each task through, and the frames of a window, where it shortens that
HEARING = {
    "as20k": ("audioset_released", None),
    "esc50": ("esc50_released", 512),
    "spc2": ("speech_commands_released", 112),
    "birdset": ("birdset_released", None),
    "dcase2016": ("dcase2016_released", None),
}
# Ours: the published values lie inside; the highest rate is what prototypes were searched up to (2509.24901).
FAIR_LR = [3e-4, 1e-3, 3e-3, 1e-2]
FAIR_WEIGHT_DECAY = [0.005, 0.05, 0.5]
FAIR_SEEDS = [0, 1, 2, 3, 4]
PRESETS = ("paper", "released", "fair")


def tasks_of(preset: str) -> dict[str, tuple[Any, ...]]:
    """The tasks for which a preset has settings, and what those are."""
    tables: dict[str, dict[str, tuple[Any, ...]]] = {
        "paper": PAPER,
        "released": RELEASED,
        "fair": {**RELEASED, **PAPER},
    }
    return tables[preset]


def preset_fields(preset: str, task: str) -> dict[str, Any]:
    """Fields of `ProbeConfig` under a preset.

    `paper` is Table 6: weight decay 0.5 for prototype heads and 0.005 for linear ones. `released` also has dropout,
    LayerNorm before linear probes, the asymmetric loss on AudioSet, and each task's statistics for models with EAT's
    frontend. `fair` has the schedule and the loss of the paper (of the release, for a task that the paper lacks), and
    chooses learning rate and weight decay.

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
    steps, warmup_steps, batch_size, loss, *decay = known[task]
    train: dict[str, Any] = {"steps": steps, "warmup_steps": warmup_steps, "batch_size": batch_size, "loss": loss}
    fields: dict[str, Any] = {"preset": preset, "preset_task": task, "train": train}
    if preset == "released":
        train["weight_decay"] = decay[0]
        fields["head"] = {"dropout": 0.2, "norm": "layer"}
        statistics, fields["max_frames"] = HEARING[task]
        fields["frontend"] = {"statistics": statistics}
    if preset == "fair":
        fields["grid"] = {"lr": FAIR_LR, "weight_decay": FAIR_WEIGHT_DECAY, "choose": True}
        fields["seeds"] = FAIR_SEEDS
    return fields


def fields_for(source: object, preset: str | None = None, task: str | None = None) -> dict[str, Any]:
    """Fields of `ProbeConfig` for a data set: those of the preset and task if either is named.

    Else those of `paper` for a public data set that it has settings for, and none for clips of one's own.
    """
    if preset is None and task is None and not (is_named(source) and task_of(source) in PAPER):
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
