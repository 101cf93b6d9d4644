"""Logits of a head for test clips to metrics with 95% intervals, and to average precision and positives by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from audiobat.data.clip_table import ClipTable
from audiobat.evaluation.metrics import (
    Events,
    Ranking,
    accuracy,
    average_precision,
    clips_behind,
    d_prime,
    event_f1,
    f1_at,
    f1_macro,
    frames_to_events,
    half_sample_interval,
    half_sample_values,
    macro_map_frequent,
    macro_map_present,
    match_events,
    rank_micro,
    wilson,
)
from audiobat.evaluation.record import Metric
from audiobat.models.losses import Loss

DEFINITIONS = {
    "map": "average precision (step integral, ties share a threshold), mean over the classes that test clips have",
    "map_all": "the same, mean over all classes: one that no test clip has counts 0",
    "cmap5": "the same, mean over the classes that at least 5 test clips have",
    "auc": "area under the ROC curve, mean over the classes that some test clips have and some have not",
    "d_prime": "sqrt(2) times the normal quantile of auc",
    "f1": "F1 at a probability of 0.5, mean over all classes: one neither present nor predicted counts 0",
    "f1_best": "the same at the one threshold for all classes that is best on clips that trained the head",
    "f1_top": "F1 of the likeliest class, mean over all classes: one neither present nor predicted counts 0",
    "accuracy": "share of test clips whose likeliest class is theirs",
    "map_micro": "average precision of all classes' patch columns in one list",
    "onset_f1": "F1 over all events, hit if class and onset agree within 0.2 s (probability 0.3, median filter of 3)",
}
HALVES = 500  # random halves of the test clips behind an interval
RESAMPLES = 64  # resamples of patch columns at once: their counts must fit memory
FREQUENT = 5  # positives of a class that BirdSet's cmAP5 asks for

Measure: TypeAlias = Callable[[Tensor | None], Tensor]  # counts [R, n] of the clips in R resamples to [R], None to []


@dataclass(frozen=True)
class ClipOutputs:
    """A head's outputs for the test clips of one fold, beside the labels."""

    unit: ClassVar[Literal["clip", "frame"]] = "clip"

    scores: Tensor  # [n, C]; see `scores_of`
    targets: Tensor  # [n, C] bool
    loss: Loss
    threshold: float | None = None  # score above which a class counts as present, chosen on clips that trained the head

    def __len__(self) -> int:
        """Test clips."""
        return len(self.targets)

    @cached_property
    def ranking(self) -> Ranking:
        """The scores, sorted once for values and intervals alike."""
        return Ranking(self.scores, self.targets)

    def measures(self, single_label: bool, corrected: bool = False) -> dict[str, Measure]:
        """Metrics by name; the first one is the main one.

        Args:
            single_label: whether each clip has one label.
            corrected: average precision without what few positives add to it (`Ranking.corrected_precision`).
        """
        ranking = self.ranking
        precision = once(ranking.corrected_precision if corrected else ranking.average_precision)
        present = float(self.targets.any(0).double().mean())
        measures: dict[str, Measure] = {
            "map": lambda counts: macro_map_present(precision(counts)),
            # A class that a resample merely happens to miss must not count 0.
            "map_all": lambda counts: macro_map_present(precision(counts)) * present,
            "auc": lambda counts: ranking.auc(counts).nanmean(-1),
        }
        if bool((self.targets.sum(0) >= FREQUENT).any()):
            measures["cmap5"] = lambda counts: macro_map_frequent(precision(counts), self.targets, FREQUENT)
        if self.loss == "ce":
            top = 2.0 * functional.one_hot(self.scores.argmax(1), self.scores.shape[1]) - 1  # logits: yes 1, no -1
            measures["f1_top"] = lambda counts: f1_macro(top, self.targets, counts)
        else:
            measures["f1"] = lambda counts: f1_macro(self.scores, self.targets, counts)
        if (threshold := self.threshold) is not None:
            measures["f1_best"] = lambda counts: f1_at(self.scores, self.targets, threshold, counts)
        if single_label:
            labels = self.targets.int().argmax(1)
            measures["accuracy"] = lambda counts: accuracy(self.scores, labels, counts)
        return measures

    def per_class(self) -> Tensor:
        """Average precision [C]."""
        return average_precision(self.scores, self.targets)

    def positives(self) -> Tensor:
        """Test clips of each class [C]."""
        return self.targets.sum(0)


@dataclass(frozen=True)
class FrameOutputs(ClipOutputs):
    """A head's outputs for the patch columns of the test clips: n counts columns, but resamples still draw clips."""

    unit = "frame"

    clips: Tensor = field(kw_only=True)  # [n] the test clip of each column, counted from 0
    tally: Tensor = field(kw_only=True)  # [clips, C, 3] of `match_events`

    def __len__(self) -> int:
        return len(self.tally)

    @cached_property
    def ranking(self) -> Ranking:
        """The scores of columns, sorted once, each with the count of its clip."""
        return Ranking(self.scores, self.targets, self.clips)

    @cached_property
    def micro(self) -> Ranking:
        """The same with the columns of all classes in one list."""
        return rank_micro(self.scores, self.targets, self.clips)

    def measures(self, single_label: bool, corrected: bool = False) -> dict[str, Measure]:
        """Metrics by name; each takes counts of clips."""
        precision, of_all = (
            one.corrected_precision if corrected else one.average_precision for one in (self.ranking, self.micro)
        )
        return {
            "map": lambda counts: macro_map_present(precision(counts)),
            "map_micro": lambda counts: of_all(counts)[..., 0],
            "onset_f1": lambda counts: event_f1(self.tally, counts),
            "f1": self._f1,
        }

    def positives(self) -> Tensor:
        """Test clips with a column of each class [C]."""
        clips = torch.zeros(len(self), self.targets.shape[1], dtype=torch.long)
        return clips.index_put_((self.clips,), self.targets.long(), accumulate=True).sign().sum(0)

    def _f1(self, counts: Tensor | None) -> Tensor:
        """F1 counts columns, not clips: each has the count of its clip, for a few resamples at a time."""
        if counts is None:
            return f1_macro(self.scores, self.targets, None)
        parts = [f1_macro(self.scores, self.targets, part[:, self.clips]) for part in counts.split(RESAMPLES)]
        return torch.cat(parts)


def frame_outputs(
    logits: Tensor, targets: Tensor, clip_ids: Tensor, times: Tensor, loss: Loss, table: ClipTable
) -> FrameOutputs:
    """Logits [n, C] of patch columns to outputs, with the events that they amount to matched to the true ones.

    Args:
        logits: clip after clip, each in order of time.
        targets: [n, C] bool.
        clip_ids: [n] the clip of each column in `table`.
        times: [n] the second at which each column starts in its clip.
        loss: that trained the head.
        table: the clips, with events.
    """
    ids, clips = clip_ids.unique_consecutive(return_inverse=True)
    probabilities = logits.sigmoid()
    true, found = [], []
    assert table.events is not None
    for clip, clip_id in enumerate(ids.tolist()):
        own = clips == clip
        starts = times[own]
        hop = float(starts[1] - starts[0]) if len(starts) > 1 else 0.0
        found.append(frames_to_events(probabilities[own], starts, hop))
        events = table.events.row(clip_id)
        label, onset, offset = (torch.from_numpy(np.array(events[name])) for name in ("label", "onset", "offset"))
        true.append(Events(label.long(), onset, offset))
    tally = match_events(true, found, logits.shape[1])
    return FrameOutputs(logits, targets, loss, clips=clips, tally=tally)


def once(measure: Measure) -> Measure:
    """The measure, computed once for the counts of several calls one after the other: mAP has several means."""
    last: list[tuple[Tensor | None, Tensor]] = []

    def remembered(counts: Tensor | None) -> Tensor:
        if not last or last[0][0] is not counts:
            last[:] = [(counts, measure(counts))]
        return last[0][1]

    return remembered


def scores_of(logits: Tensor, loss: Loss) -> Tensor:
    """Logits [n, C] as scores that compare between clips: log-probabilities if one class excludes the others."""
    return logits.log_softmax(-1) if loss == "ce" else logits


def values(outputs: ClipOutputs, single_label: bool) -> dict[str, float]:
    """Every metric of one fold."""
    return {name: float(measure(None)) for name, measure in outputs.measures(single_label).items()}


@dataclass(frozen=True)
class Evaluation:
    """The numbers of a head: means over folds."""

    metrics: dict[str, Metric]
    per_class: dict[str, float | None]  # average precision by label; None: no test clip has it
    positives: dict[str, int]  # test clips by label


def evaluate(folds: Sequence[ClipOutputs], classes: Sequence[str], single_label: bool, seed: int) -> Evaluation:
    """Metrics with 95% intervals, average precision and positives by class.

    Accuracy has Wilson's interval, all others that of `half_sample_interval`.

    Raises:
        AudiobatError: a score that is not finite, a fold without test clips.
    """
    measures = [fold.measures(single_label) for fold in folds]
    estimates = [fold.measures(single_label, corrected=True) for fold in folds]
    sizes = [len(fold) for fold in folds]
    clips = clips_behind(sizes)
    metrics = {}
    names = [name for name in measures[0] if all(name in others for others in measures)]
    drawn = [name for name in names if name != "accuracy"]

    def means(counts: Tensor) -> Tensor:  # [R, clips of all folds] to [R, metrics]
        parts = list(zip(estimates, counts.split(sizes, dim=1), strict=True))
        return torch.stack([torch.stack([one[name](part) for one, part in parts]).mean(0) for name in drawn], dim=1)

    halves = dict(zip(drawn, half_sample_values(means, sizes, HALVES, seed).T, strict=True))
    whole = dict(zip(drawn, means(torch.ones(1, sum(sizes), dtype=torch.float64))[0].tolist(), strict=True))
    for name in names:
        each = torch.stack([measure[name](None) for measure in measures])
        value = float(each.mean())
        sd = float(each.std()) if len(folds) > 1 else None
        if name == "accuracy":
            interval, (low, high) = "wilson", wilson(value, clips)
        else:
            interval, (low, high) = "halves", half_sample_interval(value, whole[name], halves[name], clips)
        metrics[name] = Metric(value, low, high, DEFINITIONS[name], sd, interval)
        if name == "auc" and low > 0 and high < 1:  # else d' is infinite
            apart = d_prime(torch.tensor([value, low, high], dtype=torch.float64)).tolist()
            metrics["d_prime"] = Metric(apart[0], apart[1], apart[2], DEFINITIONS["d_prime"], interval=interval)
    ap = torch.stack([fold.per_class() for fold in folds]).nanmean(0).tolist()
    per_class = {label: None if value != value else value for label, value in zip(classes, ap, strict=True)}
    positives = torch.stack([fold.positives() for fold in folds]).sum(0).tolist()
    return Evaluation(metrics, per_class, dict(zip(classes, positives, strict=True)))
