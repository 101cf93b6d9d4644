"""What lies beside a record to a metric as a function of how often each clip counts.

Heads keep their scores of every test clip, tasks a value of every unit: a query, a pair of clips, a clip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiobat.errors import AudiobatError, did_you_mean
from audiobat.evaluation.compare_records import Entry, folds_of
from audiobat.evaluation.metrics import average_precision
from audiobat.evaluation.record import Scores, Values
from audiobat.evaluation.scoring import ClipOutputs
from audiobat.evaluation.unit_scoring import COUNTS, counts_of_units, mean_of
from audiobat.models.losses import Loss

Rows: TypeAlias = NDArray[np.bool_]  # [n]
Measure: TypeAlias = Callable[[Tensor], Tensor]  # counts [R, n] of clips in R resamples to [R]


def measure_of(entry: Entry, kept: Scores | Values, name: str) -> tuple[Measure, list[int]]:
    """The metric `name` as a function of counts [R, n] of clips, mean over folds; and the number of clips of each fold.

    Of a task what is counted are the groups of its units, each unit by itself where there are none.

    Raises:
        AudiobatError: the record lacks the metric, or it cannot be computed from what is kept.
    """
    if name not in entry.record.metrics:
        hint = did_you_mean(name, entry.record.metrics)
        raise AudiobatError(f"{entry.path} has no metric {name}{hint}: it has {', '.join(entry.record.metrics)}.")
    folds = folds_of(kept)
    found = []
    for fold in np.unique(folds):
        rows = folds == fold
        if isinstance(kept, Values):
            found.append(measure_of_values(entry, kept, rows, name))
        else:
            found.append(measure_of_scores(entry, kept, rows, name))
    sizes = [size for _, size in found]

    def mean(counts: Tensor) -> Tensor:
        parts = zip(found, counts.split(sizes, dim=1), strict=True)
        return torch.stack([measure(part) for (measure, _), part in parts]).mean(0)

    return mean, sizes


def measure_of_scores(entry: Entry, scores: Scores, rows: Rows, name: str) -> tuple[Measure, int]:
    """The metric of some rows of scores as a function of counts of their clips, and the number of these."""
    record = entry.record
    loss: Loss | None = record.head.get("loss")
    if loss is None:
        raise AudiobatError(f"{entry.path} is a damaged result record (no head.loss): run the probe again.")
    outputs = ClipOutputs(torch.from_numpy(scores.scores[rows]), torch.from_numpy(scores.targets[rows]), loss)
    measures = outputs.measures("accuracy" in record.metrics)
    if name not in measures:
        raise AudiobatError(f"--metric {name} needs more than the scores of clips: use {', '.join(measures)}.")
    clips, clip_of_row = np.unique(scores.keys[rows], return_inverse=True)
    measure = measures[name]
    if len(clips) == len(clip_of_row):  # sorted, each row is the clip of its place
        return by_parts(measure, len(clips)), len(clips)
    row_of = torch.from_numpy(clip_of_row)  # a clip of many patch columns has as many rows
    return by_parts(lambda counts: measure(counts[:, row_of]), len(row_of)), len(clips)


def measure_of_values(entry: Entry, values: Values, rows: Rows, name: str) -> tuple[Measure, int]:
    """The main metric of some units as a function of counts of their groups, and the number of these."""
    main = entry.record.main_metric
    if name != main:
        raise AudiobatError(f"--metric {name} needs more than the values of single units: use {main}.")
    each = torch.from_numpy(values.values[rows])
    measure: Measure = mean_of(values.values[rows])
    if values.targets is not None:
        if main not in OF_TARGETS:
            raise AudiobatError(f"{entry.path} keeps no values of which {main} is made: this record is not compared.")
        targets, of_both = torch.from_numpy(values.targets[rows]), OF_TARGETS[main]
        measure = lambda counts: of_both(each, targets, counts)  # noqa: E731
    groups = None if values.groups is None else values.groups[rows]
    if groups is None or len(names := np.unique(groups)) == 1:
        return by_parts(measure, len(each)), len(each)
    group_of = torch.from_numpy(np.searchsorted(names, groups))  # [n], or [n, 2]
    return by_parts(lambda counts: measure(counts_of_units(counts, group_of)), group_of.numel()), len(names)


def by_parts(measure: Measure, width: int) -> Measure:
    """The measure for some resamples at a time, so that counts of `width` rows fit memory."""
    step = max(1, COUNTS // width)
    return lambda counts: torch.cat([measure(part) for part in counts.split(step)])


def precision_of_pairs(similarity: Tensor, same: Tensor, counts: Tensor) -> Tensor:
    """Average precision [R] of pairs that are the same (1) or not (0), the most similar first."""
    return average_precision(similarity[:, None], same[:, None], counts)[:, 0]


def explained_variance(found: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """R squared [R]: the share of the variance of true numbers [n] that the found ones explain."""
    middle = truth.mean()  # R squared is the same without it, and squares of large numbers would hide their spread
    truth, found = truth - middle, found - middle
    mean = (counts @ truth) / counts.sum(-1)  # [R]
    spread = counts @ truth**2 - counts.sum(-1) * mean**2
    return 1 - (counts @ (truth - found) ** 2) / spread


OF_TARGETS = {"ap": precision_of_pairs, "r2": explained_variance}  # metrics that are no mean over units
