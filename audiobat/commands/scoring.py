"""What heads said to test clips, to metrics with 95% bootstrap intervals and average precision by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from audiobat.commands.head_training import Loss
from audiobat.metrics import AveragePrecision, accuracy, average_precision, bootstrap, f1_macro, macro_map_present
from audiobat.results import Metric

DEFINITIONS = {
    "map": "average precision (step integral, ties share a threshold), mean over the classes that test clips have",
    "map_all": "the same, mean over all classes: one that no test clip has counts 0",
    "f1": "F1 at a probability of 0.5, mean over all classes: one neither present nor predicted counts 0",
    "f1_top": "F1 of the likeliest class, mean over all classes: one neither present nor predicted counts 0",
    "accuracy": "share of test clips whose likeliest class is theirs",
}


@dataclass(frozen=True)
class Answers:
    """What a head said to the test clips of one fold."""

    scores: Tensor  # [n, C]; see `scores_of`
    targets: Tensor  # [n, C] bool
    loss: Loss

    def __len__(self) -> int:
        return len(self.targets)

    def measures(self, single_label: bool) -> dict[str, Callable[[Tensor | None], Tensor]]:
        """Metrics by name; each takes counts [R, n] of the clips in R resamples to [R], or None to []."""
        ap = AveragePrecision(self.scores, self.targets)
        present = float(self.targets.any(0).double().mean())
        measures: dict[str, Callable[[Tensor | None], Tensor]] = {
            "map": lambda counts: macro_map_present(ap(counts)),
            # A class that a resample merely happens to miss must not count 0.
            "map_all": lambda counts: macro_map_present(ap(counts)) * present,
        }
        if self.loss == "ce":
            top = 2.0 * functional.one_hot(self.scores.argmax(1), self.scores.shape[1]) - 1  # logits: yes 1, no -1
            measures["f1_top"] = lambda counts: f1_macro(top, self.targets, counts)
        else:
            measures["f1"] = lambda counts: f1_macro(self.scores, self.targets, counts)
        if single_label:
            labels = self.targets.int().argmax(1)
            measures["accuracy"] = lambda counts: accuracy(self.scores, labels, counts)
        return measures


def scores_of(logits: Tensor, loss: Loss) -> Tensor:
    """Logits [n, C] as scores that compare between clips: log-probabilities if one class excludes the others."""
    return logits.log_softmax(-1) if loss == "ce" else logits


def values(answers: Answers, single_label: bool) -> dict[str, float]:
    """Every metric of one fold."""
    return {name: float(measure(None)) for name, measure in answers.measures(single_label).items()}


def evaluate(
    folds: Sequence[Answers], classes: Sequence[str], single_label: bool, seed: int
) -> tuple[dict[str, Metric], dict[str, float | None]]:
    """Metrics with 95% bootstrap intervals over test clips (means over folds), and average precision by class."""
    measures = [fold.measures(single_label) for fold in folds]
    sizes = [len(fold) for fold in folds]
    metrics = {}
    for name in measures[0]:

        def mean(counts: Tensor, name: str = name) -> Tensor:  # [R, clips of all folds] to [R]
            parts = zip(measures, counts.split(sizes, dim=1), strict=True)
            return torch.stack([measure[name](part) for measure, part in parts]).mean(0)

        each = torch.stack([measure[name](None) for measure in measures])
        value = float(each.mean())
        low, high = mirrored(value, *bootstrap(mean, sum(sizes), seed=seed))
        sd = float(each.std()) if len(folds) > 1 else None
        metrics[name] = Metric(value, low, high, DEFINITIONS[name], sd)
    ap = torch.stack([average_precision(fold.scores, fold.targets) for fold in folds]).nanmean(0).tolist()
    return metrics, {label: None if value != value else value for label, value in zip(classes, ap, strict=True)}


def mirrored(value: float, low: float, high: float) -> tuple[float, float]:
    """Percentiles of the resamples to the basic bootstrap interval: mirrored at the value, within 0 to 1.

    Copies of a clip rank together, so the average precision of a resample leans above the sample's, as the sample's
    leans above the population's. Percentiles would add the two; mirroring takes one from the other.
    """
    return max(min(2 * value - high, value), 0.0), min(max(2 * value - low, value), 1.0)
