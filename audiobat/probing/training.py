"""Heads on frozen features: many train side by side on the same batches (Table 6), and are tested on the same clips.

In: a `FeatureSource`, ids of clips of its table, a task, jobs. Out: trained heads; their outputs. The features of each
batch are made once for all heads; heads of another batch size have a pass of their own. A head becomes what it would
become alone: it has its own weights, optimiser, schedule, dropout and penalty, and shares only the order of clips,
which depends on `train.order_seed` and not on the head's own seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW

from audiobat.config import HeadConfig, ProbeConfig, ProbeTrainConfig
from audiobat.config.user_files import errors_of_user_code
from audiobat.data.clip_table import ClipTable
from audiobat.data.sampler import ClipOrder
from audiobat.data.split import Split
from audiobat.engine.memory import FLOAT, Need, check_fits, workers_need
from audiobat.engine.optim import lr_at, set_lr
from audiobat.engine.progress import Progress
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import ClipIds, Task, pick_loss
from audiobat.evaluation.metrics import accuracy, average_precision, best_threshold, macro_map_present
from audiobat.evaluation.results import FoldResult, gate_of
from audiobat.evaluation.scoring import ClipOutputs, frame_outputs, scores_of
from audiobat.models.features import Encoder, LayerFeatures
from audiobat.models.heads import Head, check_users_head, head_class, parameter_groups
from audiobat.models.losses import Loss, probe_loss
from audiobat.models.needs import TRAINED, built_without_memory
from audiobat.probing.cache import FeatureSource
from audiobat.probing.jobs import HeadJob, check_job, decay_of, passes

LOOK_EVERY = 50  # steps between two looks at the losses: to read one, the host waits for the device
PREDICT_BATCH = 64
THRESHOLD_CLIPS = 20_000  # clips that trained the heads, at most, of those that choose F1's threshold


@dataclass(frozen=True)
class Best:
    """The weights of a head that are best on validation clips, so far."""

    step: int  # steps done when they were there
    score: float  # see `validation_score`
    state: dict[str, Tensor]


class HeadTrainer:
    """A head with its optimiser, and how far its training has come."""

    def __init__(self, job: HeadJob, source: FeatureSource, task: Task) -> None:
        self.job, self.task = job, task
        self.loss = pick_loss(job.train, task.single_label)
        with torch.random.fork_rng():
            torch.manual_seed(job.train.seed)  # the weights depend on the seed alone
            head = head_class(job.head.kind).build_for(job.head, source.encoder, task.classes, source.freq_patches)
        self.head = head.to(source.device).train()
        self.reads = input_kind(type(self.head), task)
        self.last = torch.zeros(())  # loss of the last step
        self.diverged: int | None = None  # the step at which its loss was found not to be finite
        self.best: Best | None = None  # where clips validate
        self.steps = job.train.steps if self.head.trains else 0
        if self.steps:
            groups = parameter_groups(self.head, decay_of(job.head, job.train))
            self._optimizer = AdamW(groups, lr=job.train.lr, betas=job.train.betas, fused=True)

    def is_active(self, step: int) -> bool:
        """Whether this head still trains at `step`."""
        return step < self.steps and self.diverged is None

    def train_step(self, step: int, inputs: LayerFeatures, labels: Tensor) -> None:
        """One step of AdamW on a batch and its labels [M, C]."""
        train = self.job.train
        reseed(labels.device, train.seed, step)
        loss = probe_loss(self.loss, self.task.logits(self.head, inputs), labels)
        self._optimizer.zero_grad()
        (loss + self.head.penalty()).backward()
        set_lr(self._optimizer, rate_at(step, train))
        self._optimizer.step()
        self.last = loss.detach()

    def keep_better(self, step: int, score: float) -> None:
        """Remember the weights after `step` steps if their score is the highest; of equals the first ones stay."""
        if score > (-math.inf if self.best is None else self.best.score):
            self.best = Best(step, score, {name: value.clone() for name, value in self.head.state_dict().items()})


def train_heads(
    source: FeatureSource,
    clip_ids: ClipIds,
    task: Task,
    jobs: Sequence[HeadJob],
    label: str = "",
    *,
    validation: Validation | None = None,
    tolerant: bool = False,
    progress: bool = True,
) -> tuple[list[HeadTrainer], float]:
    """Train all `jobs`; also returns the seconds that took. Those of the same batches share them, each made once.

    The same seed gives the same head, whichever others train beside it; global random state is left alone. Heads of
    fewer steps are done earlier. `label` begins the progress line. With `validation` each head ends with the weights
    of its best step, `best`. If `tolerant`, the others go on when a head's loss is not finite, and its `diverged` says
    so. `progress`: whether to show a bar.

    Raises:
        AudiobatError: a loss that does not suit the labels or is not finite.
    """
    start = monotonic()
    with torch.random.fork_rng():
        trainers = [HeadTrainer(job, source, task) for job in jobs]
        for some in passes(jobs):
            train_together(source, clip_ids, task, [trainers[i] for i in some], label, validation, tolerant, progress)
    for trainer in trainers:
        if trainer.best is not None:
            trainer.head.load_state_dict(trainer.best.state)
    fit_stored_clips(source, clip_ids, task, [trainer for trainer in trainers if not trainer.head.trains])
    return trainers, monotonic() - start


def train_together(
    source: FeatureSource,
    clip_ids: ClipIds,
    task: Task,
    trainers: Sequence[HeadTrainer],
    label: str,
    validation: Validation | None,
    tolerant: bool,
    progress: bool,
) -> None:
    """One pass of `train_heads`: all of its batches, each made once for all of these heads."""
    steps, train = max(trainer.steps for trainer in trainers), trainers[0].job.train
    title = trainers[0].job.name if len(trainers) == 1 else f"{len(trainers)} heads"
    draws = draw_clips(clip_ids, train, steps)
    drawn_from = source.rolled(train.order_seed) if train.roll else source
    with Progress(f"{label}train {title}", total=steps, shown=progress and steps > 0) as bar:
        for step, (drawn, inputs) in enumerate(drawn_from.inputs({t.reads for t in trainers}, draws)):
            active = [trainer for trainer in trainers if trainer.is_active(step)]
            labels = task.labels(drawn, inputs[active[0].reads]).to(source.device)
            for trainer in active:
                trainer.train_step(step, inputs[trainer.reads], labels)
            due = step % LOOK_EVERY == 0 or any(step + 1 == trainer.steps for trainer in active)
            bar.advance(note=look_at(active, step) if due else "")
            for trainer in () if tolerant else active:
                if trainer.diverged is not None:
                    raise AudiobatError(
                        f"The loss of head {trainer.job.name} is {float(trainer.last)} at step {trainer.diverged}: "
                        f"lower train.lr, {trainer.job.train.lr:g}."
                    )
            if validation is not None:
                validate(active, step + 1, validation, source, task)
            if not any(trainer.is_active(step + 1) for trainer in trainers):
                break  # all that are left have diverged


@dataclass(frozen=True)
class Validation:
    """The clips that choose the step of which a head keeps the weights."""

    clip_ids: ClipIds
    every: int  # steps between two looks at them; there is one after the last step, too


def validate(
    trainers: Sequence[HeadTrainer], done: int, validation: Validation, source: FeatureSource, task: Task
) -> None:
    """Let the heads that are due after `done` steps keep their weights if these are their best ones."""
    due = [trainer for trainer in trainers if done % validation.every == 0 or done == trainer.steps]
    if not due:
        return
    predicted = predict_heads(due, source, validation.clip_ids, task)
    for trainer, logits in zip(due, predicted.logits, strict=True):
        trainer.keep_better(done, validation_score(logits, predicted.labels, trainer.loss, task))
        trainer.head.train()


def validation_score(logits: Tensor, labels: Tensor, loss: Loss, task: Task) -> float:
    """What BAT's release chooses a step by: accuracy where clips have one label, micro mAP of patch columns; else mAP.

    `logits` and `labels` are [M, C].
    """
    scores = scores_of(logits, loss)
    if task.single_label:
        return float(accuracy(scores, labels.int().argmax(1), None))
    if task.unit == "frame":
        scores, labels = scores.reshape(-1, 1), labels.reshape(-1, 1)
    return float(macro_map_present(average_precision(scores, labels)))


@torch.no_grad()
def fit_stored_clips(source: FeatureSource, clip_ids: ClipIds, task: Task, trainers: Sequence[HeadTrainer]) -> None:
    """Give the training clips to the heads that only store them, in one pass."""
    if not trainers:
        return
    pooled: list[list[Tensor]] = [[] for _ in trainers]
    labels = []
    for ids, inputs in source.inputs({trainer.reads for trainer in trainers}, batches_of(clip_ids)):
        labels.append(task.labels(ids, inputs[trainers[0].reads]))
        for part, trainer in zip(pooled, trainers, strict=True):
            part.append(task.tokens(trainer.head, inputs[trainer.reads]))
    for part, trainer in zip(pooled, trainers, strict=True):
        trainer.head.fit(torch.cat(part), torch.cat(labels))


@dataclass(frozen=True)
class Predictions:
    """Logits of heads for the same clips, on the CPU; M counts clips, or the patch columns of clips."""

    logits: list[Tensor]  # [M, C] of each head
    labels: Tensor  # [M, C] bool
    clip_ids: Tensor  # [M] of the clip table
    times: Tensor  # [M] seconds from the clip's start


@torch.no_grad()
def predict_heads(trainers: Sequence[HeadTrainer], source: FeatureSource, clip_ids: ClipIds, task: Task) -> Predictions:
    """Logits of every head for the clips `clip_ids`, in one pass over them; heads end in eval mode."""
    logits: list[list[Tensor]] = [[] for _ in trainers]
    labels, clips, times = [], [], []
    for trainer in trainers:
        trainer.head.eval()
    for ids, inputs in source.inputs({trainer.reads for trainer in trainers}, batches_of(clip_ids)):
        some = inputs[trainers[0].reads]
        labels.append(task.labels(ids, some))
        rows, seconds = task.places(ids, some)
        clips.append(rows)
        times.append(seconds)
        for part, trainer in zip(logits, trainers, strict=True):
            part.append(task.logits(trainer.head, inputs[trainer.reads]).float().cpu())
    return Predictions([torch.cat(part) for part in logits], torch.cat(labels), torch.cat(clips), torch.cat(times))


def evaluate_heads(
    trainers: Sequence[HeadTrainer], source: FeatureSource, table: ClipTable, split: Split, task: Task
) -> list[tuple[HeadTrainer, FoldResult]]:
    """The outputs of trained heads for the test clips, one pass for all heads.

    The threshold of F1, for heads of several labels a clip, is the best on training clips.
    """
    predicted = predict_heads(trainers, source, split.test, task)
    asked = [trainer for trainer in trainers if trainer.loss != "ce" and task.unit == "clip"]
    thresholds = {}
    if asked:
        step = -(-len(split.train) // THRESHOLD_CLIPS)
        trained = predict_heads(asked, source, split.train[::step], task)
        for trainer, logits in zip(asked, trained.logits, strict=True):
            thresholds[trainer] = best_threshold(logits, trained.labels)
    found = []
    for trainer, logits in zip(trainers, predicted.logits, strict=True):
        labels, loss = predicted.labels, trainer.loss
        if task.unit == "frame":
            outputs: ClipOutputs = frame_outputs(logits, labels, predicted.clip_ids, predicted.times, loss, table)
        else:
            outputs = ClipOutputs(scores_of(logits, loss), labels, loss, thresholds.get(trainer))
        gate = gate_of(trainer.head)
        found.append((trainer, FoldResult(split.fold, split.train, split.test, outputs, predicted.clip_ids, gate)))
    return found


def train_head(
    source: FeatureSource,
    clip_ids: ClipIds,
    targets: Tensor,
    head_config: HeadConfig,
    train_config: ProbeTrainConfig,
    classes: int,
    single_label: bool,
) -> tuple[Head, float]:
    """Train one head on `clip_ids`; `targets` [n, C] bool are of the whole table. Also returns the seconds it took."""
    job = HeadJob(head_config.kind, head_config, train_config)
    check_job(job, source.encoder.depth)
    trainers, seconds = train_heads(source, clip_ids, Task.of_matrix(targets, single_label), [job])
    return trainers[0].head, seconds


@torch.no_grad()
def predict(head: Head, source: FeatureSource, clip_ids: ClipIds) -> Tensor:
    """Logits [n, C] of one head for the clips `clip_ids`, on the CPU; the head is left in eval mode."""
    head.eval()
    batches = source.inputs({head.reads}, batches_of(clip_ids))
    return torch.cat([head(inputs[head.reads]).float().cpu() for _, inputs in batches])


def batches_of(clip_ids: ClipIds) -> Iterator[ClipIds]:
    """The ids in batches, in their order."""
    for first in range(0, len(clip_ids), PREDICT_BATCH):
        yield clip_ids[first : first + PREDICT_BATCH]


def rate_at(step: int, train: ProbeTrainConfig) -> float:
    """The learning rate of a step."""
    return lr_at(
        step,
        peak=train.lr,
        floor=train.min_lr,
        warmup_steps=train.warmup_steps,
        total_steps=train.steps,
        warmup=train.warmup,
    )


def draw_clips(clip_ids: ClipIds, train: ProbeTrainConfig, steps: int) -> Iterator[ClipIds]:
    """The clips of every step, a function of `order_seed` alone, so that heads of all seeds share one pass."""
    order = ClipOrder(len(clip_ids), train.order_seed)
    for step in range(steps):
        yield clip_ids[order.batch_indices(step, train.batch_size)]


def input_kind(head: type[Head], task: Task) -> Literal["patches", "means", "blocks"]:
    """What a head is given of a clip for this task: the logits of patch columns need the patches, not their mean."""
    return "patches" if head.reads == "means" and task.unit == "frame" else head.reads


def input_kinds(jobs: Sequence[HeadJob], task: Task) -> set[str]:
    """What the heads of all jobs are given of a clip."""
    return {input_kind(head_class(job.head.kind), task) for job in jobs}


@errors_of_user_code()
def check_buildable(
    jobs: Sequence[HeadJob], encoder: Encoder, classes: int, config: ProbeConfig, device: torch.device
) -> None:
    """Raise an AudiobatError for a head that does not suit the model or the memory, before features are computed."""
    weights = 0
    for job in jobs:
        check_users_head(job.head, encoder, classes)
        make = partial(head_class(job.head.kind).build_for, job.head, encoder, classes, freq_patches=1)
        head = built_without_memory(make, f"head {job.name}")  # and without random numbers
        weights += sum(parameter.numel() for parameter in head.parameters() if parameter.is_meta)
    largest = max(job.train.batch_size for job in jobs)
    on_device = [
        Need("heads", len(config.seeds or (0,)) * TRAINED * weights, "head.prototypes, head.per_class or head.queries"),
        # at the least a patch a clip
        Need("features of a batch", FLOAT * largest * encoder.depth * encoder.dim, "train.batch_size"),
    ]
    check_fits("Training the heads", on_device, device, [workers_need(config.workers, "workers")])


def reseed(device: torch.device, seed: int, step: int) -> None:
    """Make dropout a function of (seed, step), whatever other heads drew in between."""
    state = int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0])
    if device.type == "cpu":
        torch.default_generator.manual_seed(state)  # 60 times faster than torch.manual_seed, which seeds every device
    else:
        torch.manual_seed(state)


def look_at(trainers: Sequence[HeadTrainer], step: int) -> str:
    """The mean loss as the progress bar shows it; marks heads whose loss is no longer finite."""
    losses = torch.stack([trainer.last for trainer in trainers]).tolist()
    for trainer, loss in zip(trainers, losses, strict=True):
        trainer.diverged = None if math.isfinite(loss) else step
    return f"loss {sum(losses) / len(losses):.4f}"
