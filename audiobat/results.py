"""The result record: what was measured, on what, with which model, head and code. In and out: one JSON file each.

Tables, figures and pages are made from records alone.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audiobat import __version__
from audiobat.errors import AudiobatError

FORMAT = "audiobat-result-1"


@dataclass(frozen=True)
class Metric:
    """A value with its 95% (basic) bootstrap interval over test clips, and what it is, in words."""

    value: float
    low: float
    high: float
    definition: str
    sd: float | None = None  # over folds, where there are folds


@dataclass(frozen=True)
class ModelInfo:
    """Which weights were probed."""

    id: str
    sha256: str | None  # of the weights; None: the encoder is no torch module
    parameters: int | None


@dataclass(frozen=True)
class DataInfo:
    """Which clips trained and tested the head."""

    name: str
    sha256: str  # of the clip table
    clips: dict[str, int]  # readable clips: {"train": n, "test": n}, or the test clips of each fold {"1": n, ...}
    unreadable: int  # clips left out: missing or unreadable
    classes: int
    classes_present: int  # in the test clips


@dataclass(frozen=True)
class ResultRecord:
    """One head on one model's frozen features of one data set."""

    model: ModelInfo
    data: DataInfo
    head: dict[str, Any]  # kind, its hyper-parameters and those of its training, as they were used
    preset: str
    seed: int
    metrics: dict[str, Metric]  # the first one is the main one
    per_class: dict[str, float | None]  # average precision by label; None: no test clip has it
    gate_weights: list[float] | None  # [L], where the head mixes layers (the mean over folds)
    wall_seconds: float  # training and testing the head, features aside
    clips_per_second: float  # clips (with repeats) that training took in per second
    device: str
    environment: dict[str, Any]  # of `environment()`
    git_commit: str | None  # of the code
    folds: dict[str, dict[str, float]] | None = None  # test fold -> metric -> value

    @property
    def main_metric(self) -> str:
        """Name of the metric to show where there is room for one."""
        return next(iter(self.metrics))

    def save(self, path: str | Path) -> None:
        """Write the record as JSON, whole or not at all; makes the folder."""
        plain = {"format": FORMAT, **dataclasses.asdict(self)}
        text = json.dumps(_without_nan(plain), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".tmp")
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)


def load_record(path: str | Path) -> ResultRecord:
    """Read a record back.

    Raises:
        AudiobatError: not there, no JSON, no result record, or a field that is missing or unknown.
    """
    try:
        plain = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AudiobatError(f"{path} cannot be read as JSON ({error}): give a result record.") from None
    if not isinstance(plain, dict) or plain.pop("format", None) != FORMAT:
        raise AudiobatError(f"{path} is no result record of format {FORMAT}: give a file that `audiobat probe` wrote.")
    try:
        plain["model"] = ModelInfo(**plain["model"])
        plain["data"] = DataInfo(**plain["data"])
        plain["metrics"] = {name: Metric(**_with_nan(metric)) for name, metric in plain["metrics"].items()}
        return ResultRecord(**plain)
    except (TypeError, KeyError, AttributeError) as error:
        raise AudiobatError(f"{path} is a damaged result record ({error}): run the probe again.") from None


def load_records(source: str | Path | Iterable[str | Path]) -> list[ResultRecord]:
    """Read the records of a list of files, or of a folder: of its `results` folders at any depth, else its own.

    Raises:
        AudiobatError: as for `load_record`, or nothing there.
    """
    if not isinstance(source, str | Path):
        return [load_record(path) for path in source]
    folder = Path(source)
    if folder.is_file():
        return [load_record(folder)]
    files = sorted(folder.rglob("results/*.json")) or sorted(folder.glob("*.json"))
    if not files:
        raise AudiobatError(f"{folder} holds no result record: give a folder that `audiobat probe` wrote to.")
    return [load_record(path) for path in files]


def environment() -> dict[str, Any]:
    """What a result or a run depends on besides its config: versions, machine, code, and the time (UTC)."""
    return {
        "audiobat": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cpu_threads": torch.get_num_threads(),
        "git_commit": git_commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def git_commit() -> str | None:
    """The commit of this code, `-dirty` if its files were changed since; None where it is no git checkout.

    An installed copy that merely lies inside somebody's repository is no checkout: git must know this very file.
    """
    here = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", "-C", str(here.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    if isinstance(value, dict):
        return {name: _without_nan(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nan(metric: dict[str, Any]) -> dict[str, Any]:
    """NaN again for a metric's numbers that were undefined."""
    return {name: math.nan if v is None and name in ("value", "low", "high") else v for name, v in metric.items()}
