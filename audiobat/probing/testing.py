"""Trained heads and test clips to what each head said, ready to be scored and recorded; one pass for all heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from audiobat.data.clip_table import ClipTable
from audiobat.evaluation.metrics import Events, best_threshold, frames_to_events, match_events
from audiobat.evaluation.scoring import Answers, FrameAnswers, scores_of
from audiobat.models.losses import Loss
from audiobat.probing.cache import FeatureSource
from audiobat.probing.jobs import HeadJob
from audiobat.probing.task import FrameTask, Task
from audiobat.probing.training import Predicted, Rows, Trainee, predict_heads

THRESHOLD_CLIPS = 20_000  # clips that trained the heads, at most, of those that choose F1's threshold


@dataclass(frozen=True)
class Heard:
    """What was said to the test clips of one fold."""

    answers: Answers
    rows: Tensor  # [n] the clip of each answer, a row of the table
    gate: Tensor | None  # [L], of heads that mix blocks
    trained_on: int  # clips


@dataclass(frozen=True)
class Tested(Heard):
    """What a head said to the test clips of one fold."""

    job: HeadJob


def ask_heads(
    trainees: Sequence[Trainee], source: FeatureSource, table: ClipTable, train: Rows, test: Rows, task: Task
) -> list[Tested]:
    """Ask trained heads about the clips at `test`; the threshold of F1 is chosen on those at `train`."""
    said = predict_heads(trainees, source, test, task)
    if isinstance(task, FrameTask):
        answers: list[Answers] = [
            frame_answers(t.loss, logits, said, table) for t, logits in zip(trainees, said.logits, strict=True)
        ]
    else:
        answers = clip_answers(trainees, source, train, task, said)
    return [
        Tested(answer, said.rows, gate_of(trainee.head), len(train), trainee.job)
        for trainee, answer in zip(trainees, answers, strict=True)
    ]


def gate_of(head: nn.Module) -> Tensor | None:
    """Share of each block [L], of a head that mixes blocks."""
    gate: Tensor | None = getattr(head, "gate_weights", None)
    return None if gate is None else gate.detach().cpu()


def clip_answers(
    trainees: Sequence[Trainee], source: FeatureSource, train: Rows, task: Task, said: Predicted
) -> list[Answers]:
    """Answers about clips; where several classes may be there at once, with the threshold that is best in training."""
    asked = [trainee for trainee in trainees if trainee.loss != "ce"]
    thresholds: dict[int, float] = {}
    if asked:
        step = -(-len(train) // THRESHOLD_CLIPS)
        seen = predict_heads(asked, source, train[::step], task)
        for trainee, logits in zip(asked, seen.logits, strict=True):
            thresholds[id(trainee)] = best_threshold(logits, seen.labels)
    return [
        Answers(scores_of(logits, trainee.loss), said.labels, trainee.loss, thresholds.get(id(trainee)))
        for trainee, logits in zip(trainees, said.logits, strict=True)
    ]


def frame_answers(loss: Loss, logits: Tensor, said: Predicted, table: ClipTable) -> FrameAnswers:
    """Answers about patch columns, and the events that follow each other in them."""
    rows, clips = said.rows.unique_consecutive(return_inverse=True)
    probabilities = logits.sigmoid()
    heard = []
    for clip in range(len(rows)):
        own = clips == clip
        times = said.times[own]
        hop = float(times[1] - times[0]) if len(times) > 1 else 0.0
        heard.append(frames_to_events(probabilities[own], times, hop))
    tally = match_events([true_events(table, row) for row in rows.tolist()], heard, logits.shape[1])
    return FrameAnswers(logits, said.labels, loss, clips=clips, tally=tally)


def true_events(table: ClipTable, row: int) -> Events:
    """The events of a clip."""
    assert table.events is not None
    events = table.events.row(row)
    label, onset, offset = (np.array(events[name]) for name in ("label", "onset", "offset"))
    return Events(torch.from_numpy(label).long(), torch.from_numpy(onset), torch.from_numpy(offset))
