"""A fine-tuned tagger and whole clips to its outputs, its validation score, its thresholds and its result record.

Clips run in batches of any make-up: the logits of a clip do not depend on the clips beside it. Where frames have
labels, recordings that are longer than the tagger's window run window by window, as `predict` runs them; else clips run
whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audiobat.config import FinetuneConfig, flatten, from_dict, to_dict
from audiobat.config.recipes import load_recipe
from audiobat.data.clip_table import ClipTable
from audiobat.data.loader import check_skipped, load_clips
from audiobat.data.split import Split
from audiobat.data.stretches import Rows, cut_to_windows
from audiobat.engine.ranks import Ranks
from audiobat.engine.run_folder import FREE_FIELDS
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import ClipIds, Task
from audiobat.evaluation.metrics import accuracy, average_precision, best_thresholds, macro_map_present
from audiobat.evaluation.record import ModelInfo
from audiobat.evaluation.results import FoldResult, Result, RunInfo, build_result, gate_of
from audiobat.evaluation.scoring import ClipOutputs, frame_outputs, scores_of
from audiobat.finetuning.layer_rates import own_encoder
from audiobat.finetuning.step import Kept
from audiobat.models.encoder import AudioEncoder
from audiobat.models.losses import Loss
from audiobat.models.tagger import Tagger

BATCH = 64  # clips in a forward pass; no numbers depend on it
RESOLUTION = 1e-3  # seconds: columns of two windows that are no further apart are one
LEAST = 1e-7  # probability that has a logit
# Settings that change no method: a run with other values of them still follows its recipe.
NOT_RECIPE = (*FREE_FIELDS, "recipe", "data.path", "train.seed", "train.precision")


@dataclass
class Work:
    """What a run took, in this process."""

    seconds: float = 0.0  # all in all
    training: float = 0.0  # seconds of it
    clips: int = 0  # that training took in, with repeats


@dataclass(frozen=True)
class Evaluator:
    """Runs a tagger in eval mode over whole clips, which the ranks share; results are the same on every rank."""

    table: ClipTable
    task: Task
    loss: Loss
    ranks: Ranks
    precision: torch.dtype | None
    workers: int
    overlap: float  # of windows
    skipped: dict[str, str]  # key -> reason, of clips that could not be read; grows

    def validate(self, tagger: Tagger, clip_ids: ClipIds) -> dict[str, float]:
        """The score that chooses weights: accuracy where a clip has one label, else macro mAP."""
        logits, labels, _, _ = self._predict(tagger, clip_ids)
        scores = scores_of(logits, self.loss)
        if self.task.single_label:
            return {"accuracy": float(accuracy(scores, labels.int().argmax(1), None))}
        return {"map": float(macro_map_present(average_precision(scores, labels)))}

    def thresholds(self, tagger: Tagger, clip_ids: ClipIds) -> tuple[float, ...]:
        """The probability above which each class is found, chosen on these clips.

        Of frames it is the one that is best for seconds, in which an event may sound more or less long. None where one
        class excludes the others, or there are no clips.
        """
        if not tagger.multi_label or not len(clip_ids):
            return ()
        logits, labels, ids, times = self._predict(tagger, clip_ids)
        probabilities = logits.sigmoid()
        if self.task.unit == "frame":
            places = torch.stack([ids, times.floor().long()], 1)
            second = places.unique(dim=0, return_inverse=True)[1][:, None].expand_as(labels)
            shape = (int(second.max()) + 1, labels.shape[1])
            probabilities = probabilities.new_zeros(shape).scatter_reduce_(0, second, probabilities, "amax")
            labels = torch.zeros(shape).scatter_reduce_(0, second, labels.float(), "amax").bool()
        return tuple(best_thresholds(probabilities, labels).tolist())

    def test(self, kept: Kept, split: Split) -> FoldResult:
        """The outputs of kept weights for the test clips."""
        logits, labels, clip_ids, times = self._predict(kept.tagger, split.test)
        if self.task.unit == "frame":
            outputs: ClipOutputs = frame_outputs(logits, labels, clip_ids, times, self.loss, self.table)
        else:
            outputs = ClipOutputs(scores_of(logits, self.loss), labels, self.loss)
        choice = {"step": kept.step, "validation": kept.validation}
        return FoldResult(split.fold, split.train, split.test, outputs, clip_ids, gate_of(kept.tagger.head), choice)

    @torch.no_grad()
    def _predict(self, tagger: Tagger, clip_ids: ClipIds) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits and labels [M, C], clip ids and times [M] of all ranks' clips together, in the order of `clip_ids`.

        Raises:
            AudiobatError: no clip, or fewer than 95%, can be read.
        """
        mine = clip_ids[self.ranks.rank :: self.ranks.world_size]  # every rank takes its share of the clips
        parts = self.ranks.gather((list(self._batches(tagger, mine)), self.skipped))
        for _, skipped in parts:
            self.skipped.update(skipped)
        check_skipped(self.skipped, len(self.table), len(self.table))
        batches = [batch for own, _ in parts for batch in own]
        if not batches:
            raise AudiobatError(f"None of {len(clip_ids)} clips can be read: see skipped.csv.")
        logits, labels, ids, times = (torch.cat(column) for column in zip(*batches, strict=True))
        place = torch.zeros(len(self.table), dtype=torch.int64)
        place[torch.from_numpy(clip_ids)] = torch.arange(len(clip_ids))
        if self.task.unit == "frame" and self.overlap:
            return mean_of_windows(logits, labels, ids, times, place)
        order = place[ids].argsort(stable=True)  # stable: a clip's patch columns stay in order of time
        return logits[order], labels[order], ids[order], times[order]

    def _batches(self, tagger: Tagger, clip_ids: ClipIds) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """The same for each batch of this rank, on the CPU."""
        device, rows = self.ranks.device, self._rows(tagger, clip_ids)
        cuts = (np.arange(first, min(first + BATCH, len(rows.table))) for first in range(0, len(rows.table), BATCH))
        for batch in load_clips(rows.table, tagger.sample_rate, cuts, self.workers):
            self.skipped.update(batch.skipped)
            if not len(batch.clip_ids):
                continue
            moved = batch.to(device)
            with torch.autocast(device.type, self.precision, enabled=self.precision is not None):
                features = tagger.encoder.forward_intermediates(moved.waveform, moved.lengths)
                logits = self.task.logits(tagger.head, features)
            ids, starts = clip_ids[rows.clip_ids[batch.clip_ids]], rows.starts[batch.clip_ids]
            labels, places = self.task.labels(ids, features, starts), self.task.places(ids, features, starts)
            yield logits.float().cpu(), labels, *places

    def _rows(self, tagger: Tagger, clip_ids: ClipIds) -> Rows:
        """The clips as the tagger takes them in."""
        table = self.table.select(clip_ids)
        if self.task.unit == "clip":
            return Rows(table, np.arange(len(table)), np.zeros(len(table)))
        encoder = own_encoder(tagger)
        return cut_to_windows(table, *windows_of(encoder, self.overlap), encoder.column_samples / encoder.sample_rate)


def windows_of(encoder: AudioEncoder, overlap: float) -> tuple[float, float]:
    """Seconds of windows and from one to the next: the longest clip that an encoder takes in at once, as in `predict`.

    Windows that overlap are a whole number of patch columns apart, so that their columns lie above one another.
    """
    window = math.floor(encoder.max_samples / encoder.sample_rate * 100) / 100
    if not overlap:
        return window, window
    column = encoder.column_samples / encoder.sample_rate
    return window, max(1, round((1 - overlap) * math.ceil(window / column))) * column


def mean_of_windows(
    logits: Tensor, labels: Tensor, ids: Tensor, times: Tensor, place: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Patch columns [M] of overlapping windows as columns of clips, in the order of `place` and time.

    The probability of a column is its mean over windows, and given as a logit.
    """
    keys = torch.stack([place[ids], (times / RESOLUTION).round().long()], 1)
    of_clip, column = keys.unique(dim=0, return_inverse=True)
    rows, counts = column[:, None].expand_as(logits), column.bincount()[:, None]
    mean = torch.zeros(len(of_clip), logits.shape[1], dtype=torch.float64).scatter_add_(
        0, rows, logits.double().sigmoid()
    )
    there = torch.zeros(len(of_clip), logits.shape[1]).scatter_reduce_(0, rows, labels.float(), "amax").bool()
    by_place = torch.zeros(len(place), dtype=torch.int64)
    by_place[place[ids]] = ids
    found = (mean / counts).logit(LEAST).float()
    return found, there, by_place[of_clip[:, 0]], of_clip[:, 1] * RESOLUTION


def record_of(
    model: ModelInfo, evaluator: Evaluator, folds: Sequence[FoldResult], which: str, config: FinetuneConfig, work: Work
) -> Result:
    """The record of the `last` or the `best` weights of a run.

    Args:
        model: the model as it was before fine-tuning.
        evaluator: that tested the weights.
        folds: their outputs in each fold.
        which: last or best.
        config: of the run.
        work: what training and testing took.
    """
    run = RunInfo(
        model,
        Path(str(config.data.path)).resolve().stem,
        evaluator.table,
        evaluator.task.single_label,
        str(evaluator.ranks.device),
        evaluator.skipped,
    )
    decided = {"task": evaluator.task.unit, "loss": evaluator.loss}  # in place of `auto`
    selection = {"selection": which, "selected": which == config.select.which}
    return build_result(
        f"finetune_{which}",
        folds,
        run,
        head={"kind": "finetune", **settings(config), **decided, **selection},
        preset=preset_of(config),
        seed=config.train.seed,
        wall_seconds=work.seconds,
        clips_per_second=work.clips / max(work.training, 1e-9),
    )


def settings(config: FinetuneConfig) -> dict[str, object]:
    """Every setting that matters; those of training under the names that probes' records give them, such as `lr`."""
    fields = {name: value for name, value in flatten(to_dict(config)).items() if name not in NOT_RECIPE}
    return {name.removeprefix("train.").removeprefix("optim."): value for name, value in fields.items()}


def preset_of(config: FinetuneConfig) -> str:
    """`config.recipe`, if every setting that changes the method is that recipe's; else `custom`."""
    if config.recipe is None:
        return "custom"
    try:
        meant = flatten(to_dict(from_dict(FinetuneConfig, load_recipe(config.recipe))))
    except AudiobatError:  # a recipe of an earlier version, or of another's
        return "custom"
    same = all(
        meant.get(field) == value for field, value in flatten(to_dict(config)).items() if field not in NOT_RECIPE
    )
    return config.recipe if same else "custom"
