"""Runs made of runs as configs: a table of the paper, and a suite of data sets of one's own.

A table has models, data sets, protocols, settings and the paper's numbers (Tables 1 and 5). It comes from YAML
(recipes/benchmark/) and names the presets and recipes that hold the settings themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from audiobat.config.checks import LARGEST, check, check_choice
from audiobat.errors import did_you_mean

FINETUNE = "FT"
PROTOCOLS = {FINETUNE: "finetune", "CGP": "cgp", "Protobin": "protobin", "LP": "linear"}  # in tables: kinds of heads
NOT_STATED = "not stated"


@dataclass(frozen=True)
class BenchmarkModel:
    """A line of the table."""

    path: str | None = None  # its weights, as --model of probe and finetune takes them; null: not here
    recipes: Mapping[str, str] = field(default_factory=dict)  # data set: the model's own recipe of fine-tuning on it
    source: str = NOT_STATED  # where users get the weights
    size: str = NOT_STATED


@dataclass(frozen=True)
class BenchmarkData:
    """A data set of the table."""

    reader: str = ""  # its name as in NAME:FOLDER
    task: str = ""  # its column of the preset
    recipe: str = ""  # of fine-tuning on it, for models without one of their own
    metrics: tuple[str, ...] = ("map",)  # names in records, in the table's order
    classes: int = 1
    train: int = 1  # clips, as the paper counts them
    test: int = 1
    folds: int = 1  # each tests once, so a model is trained as many times
    seconds: float = 10.0  # of a clip
    path: str | None = None  # its folder, prepared shards, or NAME:FOLDER; null: not here

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", tuple(self.metrics))
        for name in ("reader", "task", "recipe", "metrics"):
            check(bool(getattr(self, name)), f"data.{name}", getattr(self, name), "say which")
        for name in ("classes", "train", "test", "folds", "seconds"):
            check(getattr(self, name) > 0, f"data.{name}", getattr(self, name), "it must be positive")


@dataclass(frozen=True)
class BenchmarkConfig:
    """A table: each model on each data set by each protocol is a cell, and a run of its own."""

    title: str = ""
    models: Mapping[str, BenchmarkModel] = field(default_factory=dict)
    data: Mapping[str, BenchmarkData] = field(default_factory=dict)
    protocols: tuple[str, ...] = ()  # columns: FT (fine-tuning), CGP, Protobin, LP (linear probe)
    preset: Literal["paper", "released", "fair"] = "paper"  # of the probes' settings
    seeds: tuple[int, ...] = ()  # of every cell; none: the preset's and the recipe's own
    tflops: float = 125.0  # 10^12 operations a second, to count hours: 0.4 of an A100's peak in bf16, an assumption
    paper: Mapping[str, Mapping[str, Mapping[str, tuple[float, ...]]]] = field(default_factory=dict)  # model, data set,
    # protocol: percent, in the order of the metrics
    probe: Mapping[str, Any] = field(default_factory=dict)  # fields of ProbeConfig that replace the preset's
    finetune: Mapping[str, Any] = field(default_factory=dict)  # fields of FinetuneConfig that replace the recipe's
    notes: tuple[str, ...] = ()  # sentences below the table

    def __post_init__(self) -> None:
        for name in ("protocols", "seeds", "notes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_choice(self, "preset")
        for name in self.protocols:
            hint = f"choose from {', '.join(PROTOCOLS)}{did_you_mean(name, PROTOCOLS)}"
            check(name in PROTOCOLS, "protocols", name, hint)
        names = [*self.models, *self.data, *self.protocols]
        for name in names:
            check(names.count(name) == 1, "models, data, protocols", name, "give each a name of its own")
        for name, model in self.models.items():
            for data in model.recipes:
                hint = did_you_mean(data, self.data)
                check(data in self.data, f"models.{name}.recipes", data, f"it is none of {', '.join(self.data)}{hint}")
        for seed in self.seeds:
            check(0 <= seed <= LARGEST, "seeds", self.seeds, "use 0 up to 2^63 - 1")
        check(len(set(self.seeds)) == len(self.seeds), "seeds", self.seeds, "name each once")
        check(self.tflops > 0, "tflops", self.tflops, "it must be positive")


def folder_name(name: str) -> str:
    """The folder of what has this name; other names may have the same one."""
    return re.sub(r"[^\w.-]+", "-", name)


@dataclass(frozen=True)
class SuiteSet:
    """A data set of a suite."""

    path: str | None = None  # as --data of probe takes it; null: not here
    metric: str | None = None  # of its records, by which models are ranked on it; null: the main one of each record
    folds: int | None = None  # draw so many, for clips with neither folds nor splits
    probe: Mapping[str, Any] = field(default_factory=dict)  # fields of ProbeConfig, over those of the suite


@dataclass(frozen=True)
class SuiteConfig:
    """Each model on each data set is a probe, whose heads and tasks share one pass over the clips."""

    models: Mapping[str, str | None] = field(default_factory=dict)  # path by name, as --model of probe takes it
    sets: Mapping[str, SuiteSet] = field(default_factory=dict)
    probe: Mapping[str, Any] = field(default_factory=dict)  # fields of ProbeConfig, for all sets

    def __post_init__(self) -> None:
        for group in ("models", "sets"):
            names = list(getattr(self, group))
            folders = list(map(folder_name, names))
            for name, folder in zip(names, folders, strict=True):
                check(folder.strip(".-") != "", group, name, "use letters or digits in a name")
                check(folders.count(folder) == 1, group, name, f"another one has the same folder, {folder}")
