"""Folders of training runs to what their logs tell: rows, settings in which runs differ, and a line each for a table.

In: the folders of runs of `pretrain` or `finetune`, finished or not. Out: `RunLogs`, each named by what tells it from
the others.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from audiobat.config import flatten
from audiobat.config.recipes import read_fields
from audiobat.engine.logs import read_rows
from audiobat.engine.run_folder import FREE_FIELDS
from audiobat.errors import AudiobatError

ROWS = "metrics.jsonl"
MOST_SETTINGS = 8  # in which runs differ, to be shown: runs that differ in more are not variants of each other
LARGEST = 3.5e38  # beyond any of float32
SCORES = ("online_", "valid_")  # how the names of what is measured on labelled clips begin


@dataclass(frozen=True, eq=False)
class RunLogs:
    """The log of one run."""

    name: str
    folder: Path
    rows: tuple[dict[str, Any], ...]  # of metrics.jsonl, in the order of their steps
    settings: dict[str, Any]  # of config.yaml, by dotted names; empty for a fold, whose config is the whole run's

    def points(self, name: str) -> tuple[list[int], list[float]]:
        """The steps at which `name` was logged, and its values."""
        found = [(row["step"], row[name]) for row in self.rows if is_number(row.get(name))]
        return [step for step, _ in found], [float(value) for _, value in found]

    def last(self, name: str) -> float | None:
        """The last value of `name`; None where there is none."""
        return next(iter(self.points(name)[1][-1:]), None)

    @cached_property
    def names(self) -> list[str]:
        """What was logged, in the order in which it came."""
        return list(dict.fromkeys(name for row in self.rows for name in row if is_number(row[name])))

    @property
    def steps(self) -> str:
        """`400 of 1,000` steps are done, or `1,000`."""
        done, wanted = max((row["step"] for row in self.rows), default=0), self.settings.get("train.steps")
        return f"{done:,}" if wanted in (None, done) else f"{done:,} of {wanted:,}"


def is_number(value: object) -> bool:
    """Whether a value of a row can be drawn."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return not LARGEST < abs(value) < math.inf  # only a damaged log has such numbers; axes cannot span them


def find_runs(source: str | Path) -> list[Path]:
    """The folders of runs in a folder, itself among them, that have a log."""
    return sorted(path.parent for path in Path(source).rglob(ROWS)) if Path(source).is_dir() else []


def load_logs(folders: Iterable[Path]) -> list[RunLogs]:
    """The logs of run folders, each once, named by the parts of their paths in which they differ.

    Raises AudiobatError for a config.yaml that cannot be read.
    """
    found = list(dict.fromkeys(folder.resolve() for folder in folders))
    shared = os.path.commonpath([folder.parent for folder in found]) if found else ""
    logs = []
    for folder in found:
        rows = sorted(read_rows(folder / ROWS)[0], key=lambda row: int(row["step"]))
        file = folder / "config.yaml"
        settings = flatten(read_fields(file, "report other runs")) if file.exists() else {}
        logs.append(RunLogs(folder.relative_to(shared).as_posix(), folder, tuple(rows), settings))
    if found and not any(log.rows for log in logs):
        raise AudiobatError(f"{found[0]} has logged no row yet: let it train for at least train.log_every steps.")
    return logs


def differing(logs: Sequence[RunLogs]) -> list[str]:
    """The settings in which runs differ, of those that change results; none where they are more than a few."""
    told = [log.settings for log in logs if log.settings]
    names = [name for name in dict.fromkeys(name for settings in told for name in settings) if name not in FREE_FIELDS]
    found = [name for name in names if len({repr(settings.get(name)) for settings in told}) > 1]
    return found if len(found) <= MOST_SETTINGS else []


def scores_of(logs: Sequence[RunLogs]) -> list[str]:
    """What runs measured on labelled clips while they trained."""
    return [name for name in dict.fromkeys(n for log in logs for n in log.names) if name.startswith(SCORES)]


def table_of(logs: Sequence[RunLogs]) -> tuple[list[str], list[list[str]]]:
    """The headings and the lines of a table: each run's own settings, its length, and where it stands at its end."""
    settings, scores = differing(logs), scores_of(logs)
    headings = ["run", *settings, "steps", "loss", *map(title_of, scores), "clips/s", "hours"]
    lines = []
    for log in logs:
        rates = log.points("clips_per_second")[1]
        hours = sum(ends_of_parts(log.points("seconds")[1])) / 3600
        lines.append(
            [
                log.name,
                *("" if (value := log.settings.get(name)) is None else str(value) for name in settings),
                log.steps,
                shown(log.last("loss"), "#.4g"),
                *(shown(log.last(name), ".3f") for name in scores),
                shown(sum(rates) / len(rates) if rates else None, ".4g"),
                shown(hours, ".2g"),
            ]
        )
    return headings, lines


def shown(value: float | None, form: str) -> str:
    """A number as the table has it; empty where there is none."""
    return "" if value is None else format(value, form)


def title_of(name: str) -> str:
    """`online_knn` in words."""
    return name.replace("_", " ")


def ends_of_parts(seconds: Sequence[float]) -> list[float]:
    """The length of each part of a run that was stopped and resumed: its seconds begin anew in each."""
    return [now for now, after in zip(seconds, [*seconds[1:], 0.0], strict=True) if after < now]
