"""Regression: least squares predicts a number of each clip, such as a mean opinion score, from its vector."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from audiobat.config import TaskConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.split import Split
from audiobat.errors import AudiobatError, did_you_mean
from audiobat.evaluation.metrics import by_repeating
from audiobat.evaluation.unit_scoring import UnitOutputs
from audiobat.probing.tasks.base import MTEB, ProbeTask, TaskFeatures, check_single_label, single_labels, sklearn

Column = NDArray[np.float64]
RANGES = {
    "r2": (-math.inf, 1.0),
    **dict.fromkeys(("pearson", "spearman", "kendall"), (-1.0, 1.0)),
    "rmse": (0.0, math.inf),
}


class Regression(ProbeTask):
    """Ordinary least squares on the training clips; the test clips' numbers are predicted."""

    title = "Regression"
    kit = f"{MTEB} AbsTaskRegression"
    sources = ("column",)
    definitions: ClassVar[dict[str, str]] = {
        "r2": "share of the variance of the numbers that the predictions explain; below 0: worse than their mean",
        "pearson": "correlation of numbers and predictions",
        "spearman": "correlation of their ranks",
        "kendall": "Kendall's tau-b: the share of pairs of clips in the right order less that in the wrong one",
        "rmse": "root of the mean squared error, in the unit of the numbers",
    }

    @dataclass(frozen=True)
    class Config(TaskConfig):
        """A linear model of a number."""

        column: str | None = None  # the column that holds the numbers; null: the labels are numbers

    config: Config
    numbers: Column  # [clips]

    @classmethod
    def build(cls, config: TaskConfig, table: ClipTable, splits: Sequence[Split]) -> Self:
        """The task; AudiobatError for a clip without a finite number, or numbers of a split that are all equal."""
        sklearn("regression")
        task = cls(config, table, splits)
        task.numbers = numbers_of(table, task.config.column)
        for split in splits:
            for name, ids in (("train", split.train), ("test", split.test)):
                if len(np.unique(task.numbers[ids])) < 2:
                    raise AudiobatError(
                        f"tasks has regression, and all {len(ids)} clips of split {name} have one number, "
                        f"{task.numbers[ids[0]]:g}: it needs several."
                    )
        return task

    def measure(self, features: TaskFeatures, split: Split, seed: int) -> UnitOutputs:
        """Metrics over the test clips of a fold."""
        model = sklearn("regression").linear_model.LinearRegression()
        vectors = features.vectors(split.train)  # [n, D]
        if len(vectors) <= vectors.shape[1]:
            print(
                f"! regression: {len(vectors):,} training clips for {vectors.shape[1]:,} dimensions: least squares "
                "fits these clips exactly, and others hardly",
                file=sys.stderr,
                flush=True,
            )
        model.fit(vectors, self.numbers[split.train])
        found, truth = model.predict(features.vectors(split.test)).astype(np.float64), self.numbers[split.test]
        values = self.values_of(split.test, found, truth)
        measures = {name: by_repeating(function, truth, found) for name, function in correlations().items()}
        return UnitOutputs(
            len(truth),
            measures,
            self.definitions,
            values,
            values.groups,
            RANGES,
            lower={"rmse"},
        )


def correlations() -> dict[str, Callable[[Column, Column], float]]:
    """Each metric as a function of true and predicted numbers [n]; NaN where it is undefined."""
    from scipy import stats  # comes with scikit-learn

    def defined(function: Callable[[Column, Column], Any]) -> Callable[[Column, Column], float]:
        return lambda truth, found: float(function(truth, found).statistic) if np.ptp(found) > 0 else math.nan

    return {
        "r2": lambda truth, found: float(1 - np.sum((truth - found) ** 2) / np.sum((truth - truth.mean()) ** 2)),
        "pearson": defined(stats.pearsonr),
        "spearman": defined(stats.spearmanr),
        "kendall": defined(stats.kendalltau),
        "rmse": lambda truth, found: float(np.sqrt(np.mean((truth - found) ** 2))),
    }


def numbers_of(table: ClipTable, column: str | None) -> Column:
    """The number [n] of each clip; AudiobatError for one that has none, several, or one that is not finite."""
    if column is None:
        check_single_label("regression", table)
        texts = [table.classes[label] for label in single_labels(table, np.arange(len(table)))]
        where = "its label"
    elif column in table.columns:
        texts, where = table.columns[column].tolist(), f"column {column}"
    else:
        known = ", ".join(table.columns) or "none but their labels"
        hint = did_you_mean(column, table.columns)
        raise AudiobatError(f"by_task.regression.column is {column!r}: choose a column of the clips ({known}){hint}.")
    numbers = np.zeros(len(table))
    for clip_id, text in enumerate(texts):
        try:
            numbers[clip_id] = float(text)
        except ValueError:
            numbers[clip_id] = math.nan
        if not math.isfinite(numbers[clip_id]):
            raise AudiobatError(
                f"tasks has regression, and {where} of clip {table.keys[clip_id]} is {text!r}: it needs a finite "
                "number for every clip; name the column by --by_task.regression.column, or --labels.column."
            )
    return numbers
