"""Trained heads to their outputs for test clips, ready to be scored and recorded; one pass for all heads."""

from __future__ import annotations

from collections.abc import Sequence

from audiobat.data.clip_table import ClipTable
from audiobat.data.split import Split
from audiobat.evaluation.labels import ClipIds, Task
from audiobat.evaluation.metrics import best_threshold
from audiobat.evaluation.results import FoldResult, gate_of
from audiobat.evaluation.scoring import ClipOutputs, frame_outputs, scores_of
from audiobat.probing.cache import FeatureSource
from audiobat.probing.training import HeadTrainer, predict_heads

THRESHOLD_CLIPS = 20_000  # clips that trained the heads, at most, of those that choose F1's threshold


def evaluate_heads(
    trainers: Sequence[HeadTrainer], source: FeatureSource, table: ClipTable, split: Split, task: Task
) -> list[tuple[HeadTrainer, FoldResult]]:
    """The outputs of trained heads for the test clips; the threshold of F1 is chosen on the training clips."""
    predicted = predict_heads(trainers, source, split.test, task)
    thresholds = f1_thresholds(trainers, source, split.train, task)
    found = []
    for trainer, logits in zip(trainers, predicted.logits, strict=True):
        labels, loss = predicted.labels, trainer.loss
        if task.unit == "frame":
            outputs: ClipOutputs = frame_outputs(logits, labels, predicted.clip_ids, predicted.times, loss, table)
        else:
            outputs = ClipOutputs(scores_of(logits, loss), labels, loss, thresholds.get(id(trainer)))
        gate = gate_of(trainer.head)
        found.append((trainer, FoldResult(split.fold, split.train, split.test, outputs, predicted.clip_ids, gate)))
    return found


def f1_thresholds(
    trainers: Sequence[HeadTrainer], source: FeatureSource, train: ClipIds, task: Task
) -> dict[int, float]:
    """The threshold of F1 that is best on training clips, by id of the head; for heads of several classes at once."""
    asked = [trainer for trainer in trainers if trainer.loss != "ce" and task.unit == "clip"]
    if not asked:
        return {}
    step = -(-len(train) // THRESHOLD_CLIPS)
    predicted = predict_heads(asked, source, train[::step], task)
    return {
        id(trainer): best_threshold(logits, predicted.labels)
        for trainer, logits in zip(asked, predicted.logits, strict=True)
    }
