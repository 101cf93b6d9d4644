"""k-shot classification: logistic regression learns from a few training clips of each class, drawn several times."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiobat.config import TaskConfig, check
from audiobat.data.clip_table import ClipTable
from audiobat.data.split import Split
from audiobat.errors import AudiobatError
from audiobat.evaluation.unit_scoring import UnitOutputs, mean_of
from audiobat.probing.tasks.base import MTEB, ProbeTask, TaskFeatures, check_single_label, single_labels, sklearn

ITERATIONS = 100  # of L-BFGS, as in MTEB


class KShot(ProbeTask):
    """Logistic regression on the vectors of at most `shots` training clips of each class; test clips are predicted."""

    title = "k-shot"
    kit = f"{MTEB} AbsTaskClassification"
    definitions: ClassVar[dict[str, str]] = {
        "accuracy": "share of test clips that are given their class, mean over draws of the training clips",
        "f1_macro": "F1 of the predicted class, mean over classes that test clips have or are given, and over draws",
    }

    @dataclass(frozen=True)
    class Config(TaskConfig):
        """A linear classifier of a few clips a class."""

        shots: int = 8  # training clips of each class, at most
        experiments: int = 10  # times that they are drawn
        standardise: bool = False  # give each dimension of the drawn clips mean 0 and deviation 1; the kit does not, so
        # that its number is another one for the same vectors in another unit

        def __post_init__(self) -> None:
            super().__post_init__()
            for name in ("shots", "experiments"):
                check(getattr(self, name) > 0, f"by_task.kshot.{name}", getattr(self, name), "it must be positive")

    config: Config

    @classmethod
    def draws(cls, config: Config) -> bool:
        """Whether a seed decides anything."""
        return True

    @classmethod
    def build(cls, config: TaskConfig, table: ClipTable, splits: Sequence[Split]) -> Self:
        """The task; AudiobatError unless each clip has one label, and the training clips of each fold have several."""
        sklearn("kshot")
        check_single_label("kshot", table)
        for split in splits:
            if len(np.unique(single_labels(table, split.train))) < 2:
                raise AudiobatError(
                    f"tasks has kshot, and all {len(split.train)} training clips have one label: it needs two classes."
                )
            if not np.isin(single_labels(table, split.test), single_labels(table, split.train)).any():
                raise AudiobatError(
                    "tasks has kshot, and no test clip has a label that a training clip has: it learns classes; for "
                    "numbers take regression."
                )
        return cls(config, table, splits)

    def measure(self, features: TaskFeatures, split: Split, seed: int) -> UnitOutputs:
        """Accuracy and F1 of the test clips of a fold."""
        package = sklearn("kshot")
        vectors, tested = features.vectors(split.train), features.vectors(split.test)
        labels, truth = single_labels(self.table, split.train), single_labels(self.table, split.test)
        model = package.linear_model.LogisticRegression(max_iter=ITERATIONS, random_state=seed)
        if self.config.standardise:
            model = package.pipeline.make_pipeline(package.preprocessing.StandardScaler(), model)
        guesses = []
        for chosen in draw_shots(labels, self.config.shots, self.config.experiments, seed):
            with warnings.catch_warnings():  # the kit's iterations do not always suffice
                warnings.simplefilter("ignore", package.exceptions.ConvergenceWarning)
                guesses.append(model.fit(vectors[chosen], labels[chosen]).predict(tested))
        right = np.mean([guess == truth for guess in guesses], axis=0)
        values = self.values_of(split.test, right)
        classes, true = len(self.table.classes), torch.from_numpy(truth)

        def f1(counts: Tensor | None) -> Tensor:
            given = [f1_of_guesses(torch.from_numpy(guess), true, classes, counts) for guess in guesses]
            return torch.stack(given).mean(0)

        measures = {"accuracy": mean_of(right), "f1_macro": f1}
        return UnitOutputs(len(truth), measures, self.definitions, values, values.groups)


def draw_shots(labels: NDArray[np.int64], shots: int, experiments: int, seed: int) -> list[NDArray[np.int64]]:
    """For each experiment the places of up to `shots` clips of each class, among `labels` [n], as MTEB draws them.

    Its generator begins anew with each experiment, but shuffles the order that the last one left.
    """
    order, draws = list(range(len(labels))), []
    for _ in range(experiments):
        np.random.RandomState(seed % 2**32).shuffle(order)
        taken, chosen = Counter[int](), []
        for place in order:
            label = int(labels[place])
            if taken[label] < shots:
                taken[label] += 1
                chosen.append(place)
        draws.append(np.array(chosen))
    return draws


def f1_of_guesses(guess: Tensor, truth: Tensor, classes: int, counts: Tensor | None) -> Tensor:
    """Macro F1, [] or [R], of class numbers [n] over the classes that are there or guessed, as scikit-learn has it."""
    weights = torch.ones(len(truth), dtype=torch.float64) if counts is None else counts

    def total(which: Tensor, weight: Tensor) -> Tensor:
        return weight.new_zeros(*weight.shape[:-1], classes).index_add_(-1, which, weight)

    hits, both = total(truth, weights * (guess == truth)), total(truth, weights) + total(guess, weights)
    return torch.where(both > 0, 2 * hits / both, torch.nan).nanmean(-1)
