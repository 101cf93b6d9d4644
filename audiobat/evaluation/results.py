"""A head's outputs for the test clips of each fold to its result record, the files of it, and a line for people.

Probing and fine-tuning build their records here, so that every number carries the same facts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from audiobat.data.clip_table import ClipTable
from audiobat.data.csv_text import csv_text
from audiobat.data.skipped import write_skipped
from audiobat.data.split import Split
from audiobat.engine.environment import environment
from audiobat.engine.files import write_atomic
from audiobat.engine.tensors import weights_sha256
from audiobat.evaluation.certainty import FEW, rare_classes
from audiobat.evaluation.confusion import CONFUSION, confusion_of
from audiobat.evaluation.labels import ClipIds, untaught
from audiobat.evaluation.record import DataInfo, ModelInfo, ResultRecord, Scores, Values, save_scores, save_values
from audiobat.evaluation.scoring import ClipOutputs, evaluate, values
from audiobat.evaluation.unit_scoring import UnitOutputs, evaluate_units, join_values
from audiobat.models.features import Encoder
from audiobat.zoo.adapters import FileEncoder


@dataclass(frozen=True)
class FoldResult:
    """A trained head's outputs for the test clips of one fold."""

    fold: str | None  # None: the clips have no folds, or one of them was asked for
    train: ClipIds
    test: ClipIds
    outputs: ClipOutputs
    clip_ids: Tensor  # [n] the clip of each row of the outputs
    gate: Tensor | None  # [L], of a head that mixes blocks
    choice: Mapping[str, Any] | None = None  # how rates or weights were chosen for this fold, in the record's words


@dataclass(frozen=True)
class RunInfo:
    """The facts that all records of a run share."""

    model: ModelInfo
    data_name: str
    table: ClipTable
    single_label: bool
    device: str
    skipped: Mapping[str, str]  # key -> reason, of clips that could not be read
    environment: Mapping[str, Any] = field(default_factory=environment)

    @cached_property
    def table_sha256(self) -> str:
        """Of the clip table; computed once, as millions of clips take seconds."""
        return self.table.sha256()

    def data(self, clips: dict[str, int], classes_present: int, untaught: dict[str, int]) -> DataInfo:
        """The data as records name them."""
        return DataInfo(
            name=self.data_name,
            sha256=self.table_sha256,
            clips=clips,
            unreadable=len(self.skipped),
            classes=len(self.table.classes),
            classes_present=classes_present,
            untaught=untaught,
        )

    def record(self, **own: Any) -> ResultRecord:
        """A record of its run with the fields that are its own."""
        environment, commit = dict(self.environment), self.environment["git_commit"]
        return ResultRecord(model=self.model, device=self.device, environment=environment, git_commit=commit, **own)


@dataclass(frozen=True)
class Result:
    """One head, or one task, of one seed."""

    name: str  # of the head or task, in file names
    record: ResultRecord
    scores: Scores | Values | None  # of every test clip; of a task its values, if it has any
    listing: Sequence[Sequence[str]] = ()  # see `UnitOutputs`

    def path(self, out: Path) -> Path:
        """OUT/results/MODEL_HEAD_SEED.json."""
        return record_path(out, self.record.model.id, self.name, self.record.seed)

    def save(self, out: Path) -> Result:
        """Write the scores, then the record, which names them, and the confusion matrix; returns the written result."""
        path, record = self.path(out), self.record
        if isinstance(self.scores, Scores):
            record = replace(record, scores=save_scores(path, self.scores))
            write_atomic(path.with_suffix(CONFUSION), confusion_of(self.scores, record).csv())
        elif self.scores is not None:
            record = replace(record, values=save_values(path, self.scores))
        if self.listing:
            write_atomic(path.with_suffix(".csv"), csv_text(self.listing))
        record.save(path)
        return replace(self, record=record)


def build_result(
    name: str,
    folds: Sequence[FoldResult],
    run: RunInfo,
    *,
    head: Mapping[str, Any],
    preset: str,
    seed: int,
    wall_seconds: float,
    clips_per_second: float | None,
) -> Result:
    """The record of one head and seed, of the means over its folds, and its scores of every test clip.

    Args:
        name: of the head, in file names.
        folds: the outputs in each.
        run: what all records of the run share.
        head: kind, hyper-parameters and training settings, as they were used.
        preset: whose settings these are, or `custom`.
        seed: of the head; also of the halves behind its intervals.
        wall_seconds: of training and testing.
        clips_per_second: that training took in; None: nothing was trained.
    """
    table, outputs = run.table, [one.outputs for one in folds]
    numbers = evaluate(outputs, table.classes, run.single_label, seed)
    choices = {one.fold: one.choice for one in folds if one.choice is not None}
    if len(folds) == 1:
        sizes = {"train": len(folds[0].train), "test": len(outputs[0])}
        by_fold = None
    else:
        sizes = {str(one.fold): len(one.outputs) for one in folds}
        by_fold = {str(one.fold): values(one.outputs, run.single_label) for one in folds}
    present = int(torch.cat([one.targets for one in outputs]).any(0).sum())
    record = run.record(
        data=run.data(sizes, present, untaught(table, [(one.train, one.test) for one in folds])),
        head={**head, "choice": choices.get(None, choices)} if choices else dict(head),
        preset=preset,
        seed=seed,
        metrics=numbers.metrics,
        per_class=numbers.per_class,
        positives=numbers.positives,
        gate_weights=mean_gate([one.gate for one in folds]),
        wall_seconds=wall_seconds,
        clips_per_second=clips_per_second,
        folds=by_fold,
    )
    return Result(name, record, scores_by_clip(folds, table))


def build_task_result(
    name: str,
    splits: Sequence[Split],
    folds: Sequence[UnitOutputs],
    run: RunInfo,
    *,
    settings: Mapping[str, Any],
    preset: str,
    seed: int,
    wall_seconds: float,
) -> Result:
    """The record of one task and seed, of the means over its folds, and its values of every test unit.

    Args:
        name: of the task, in file names.
        splits: the readable clips of each fold.
        folds: what the task measured in each.
        run: what all records of the run share.
        settings: kind and settings, as they were used.
        preset: the kit whose settings these are, or `custom`.
        seed: of what the task draws; also of the resamples behind its intervals.
        wall_seconds: that the task took.
    """
    if len(folds) == 1:
        sizes, by_fold = {"train": len(splits[0].train), "test": len(splits[0].test)}, None
    else:
        sizes = {str(one.fold): len(one.test) for one in splits}
        by_fold = {str(split.fold): one.numbers() for split, one in zip(splits, folds, strict=True)}
    tested = np.concatenate([one.test for one in splits])
    present = 0 if run.table.labels is None else len(np.unique(run.table.labels.take(tested).values))
    record = run.record(
        data=run.data(sizes, present, {}),
        head=dict(settings),
        preset=preset,
        seed=seed,
        metrics=evaluate_units(folds, seed),
        per_class={},
        gate_weights=mean_gate([one.gate for one in folds]),
        wall_seconds=wall_seconds,
        clips_per_second=None,
        folds=by_fold,
    )
    names = [split.fold for split in splits]
    listing = [*folds[0].listing[:1], *chain.from_iterable(one.listing[1:] for one in folds)]
    return Result(name, record, join_values([one.values for one in folds], names), listing)


def mean_gate(gates: Sequence[Tensor | None]) -> list[float] | None:
    """The share of each block, [L], mean over the folds; None of what mixes no blocks."""
    known = [gate for gate in gates if gate is not None]
    if not known:
        return None
    mean: list[float] = torch.stack(known).mean(0).tolist()
    return mean


def scores_by_clip(folds: Sequence[FoldResult], table: ClipTable) -> Scores:
    """The scores of every test clip; the patch columns of a clip share its key, in order of time."""
    keys = [table.keys[clip_id] for one in folds for clip_id in one.clip_ids.tolist()]
    names = np.repeat([str(one.fold) for one in folds], [len(one.clip_ids) for one in folds])
    return Scores(
        np.array(keys),
        torch.cat([one.outputs.scores for one in folds]).numpy(),
        torch.cat([one.outputs.targets for one in folds]).numpy(),
        None if len(folds) == 1 else names,
    )


def model_info(name: str, encoder: Encoder) -> ModelInfo:
    """The model as records name it."""
    if not isinstance(encoder, nn.Module):
        return ModelInfo(name, None, None)
    count = sum(p.numel() for p in encoder.parameters())
    in_file = isinstance(encoder, FileEncoder) and count == 0  # another program holds them
    return ModelInfo(name, weights_sha256(encoder), None if in_file else count)


def gate_of(head: nn.Module) -> Tensor | None:
    """The share of each block [L], on the CPU, of a head that mixes blocks."""
    gate: Tensor | None = getattr(head, "gate_weights", None)
    return None if gate is None else gate.detach().cpu()


def record_path(out: Path, model: str, head: str, seed: int) -> Path:
    """OUT/results/MODEL_HEAD_SEED.json."""
    plain = re.sub(r"[^\w.-]+", "-", model)  # hub:owner/name holds what a file name may not
    return out / "results" / f"{plain}_{head}_{seed}.json"


def summary(head: str, record: ResultRecord) -> str:
    """One line: model, head or task, seed, main metric with its interval."""
    metric, data = record.metrics[record.main_metric], record.data
    name = "macro mAP" if record.main_metric == "map" and record.per_class else record.main_metric
    rare = len(rare_classes(record))
    few = f", {rare} of them in fewer than {FEW} clips" if rare else ""
    spread = "" if metric.sd is None else f", sd {metric.sd:.3f} over {len(record.folds or {})} folds"
    line = (
        f"{record.model.id}, {head}, seed {record.seed}: {name} {metric.value:.3f} "
        f"[{metric.low:.3f}, {metric.high:.3f}]{spread}"
    )
    if not record.per_class:  # of a task
        return line
    return (
        f"{line} (test clips have {data.classes_present} of {data.classes} "
        f"classes{few}{f', {len(data.untaught)} of them never trained' if data.untaught else ''})"
    )


def list_skipped(out: Path, skipped: Mapping[str, str]) -> None:
    """Write OUT/skipped.csv and say so, if clips were skipped; an older list goes."""
    path = out / "skipped.csv"
    if not skipped:
        path.unlink(missing_ok=True)
    else:  # written over the older one: a run that is killed here finds clips in it that no later part of it reads
        out.mkdir(parents=True, exist_ok=True)
        write_skipped(path, skipped)
        print(f"skipped: {len(skipped):,} clips that cannot be read; {path} says why")
