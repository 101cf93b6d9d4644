"""Heads on frozen features: many train side by side on the same batches (Table 6), and answer for the same clips.

In: a `FeatureSource`, rows of its clip table, a task. Out: trained heads; their logits. Each batch's features are made
once for all heads. A head becomes what it would become alone: it has its own weights, optimiser, schedule, dropout and
penalty, and shares only the order of clips, which depends on `train.order_seed` and not on its own seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW

from audiobat.cache import FeatureSource
from audiobat.commands.head_jobs import NOT_TRAINED, HeadJob, check_head, check_jobs, decay_of
from audiobat.commands.losses import probe_loss
from audiobat.commands.probe_task import ClipTask, Task, pick_loss
from audiobat.config import HeadConfig, ProbeTrainConfig
from audiobat.data.sampler import ClipOrder
from audiobat.errors import AudiobatError
from audiobat.features import LayerFeatures
from audiobat.heads import LinearProbe, NearestNeighbours, build_head, parameter_groups
from audiobat.progress import Progress
from audiobat.train.optim import lr_at, set_lr

POOLED_KINDS = ("linear", "linear_cgp", "head2toe", "knn")  # of a clip they see cls and the mean patch alone
LOOK_EVERY = 50  # steps between two looks at the losses: looking waits for the device
PREDICT_BATCH = 64

Rows: TypeAlias = NDArray[np.int64]  # of the clip table


class Trainee:
    """A head, what trains it, and where it stands."""

    def __init__(self, job: HeadJob, source: FeatureSource, task: Task) -> None:
        self.job, self.task = job, task
        self.loss = pick_loss(job.train, task.single_label)
        self.head = new_head(job, source, task.classes)
        self.pooled = job.head.kind in POOLED_KINDS and isinstance(task, ClipTask)  # sees no more than means
        self.last = torch.zeros(())  # loss of the last step
        self.diverged: int | None = None  # the step at which its loss was seen not to be finite
        self.steps = job.train.steps if job.head.kind not in NOT_TRAINED else 0
        if self.steps:
            groups = parameter_groups(self.head, decay_of(job.head, job.train))
            self._optimizer = AdamW(groups, lr=job.train.lr, betas=job.train.betas, fused=True)

    def wants(self, step: int) -> bool:
        """Whether this head still trains at `step`."""
        return step < self.steps and self.diverged is None

    def learn(self, step: int, features: LayerFeatures, labels: Tensor) -> None:
        """One step of AdamW."""
        train = self.job.train
        reseed(features.patch_tokens.device, train.seed, step)
        loss = probe_loss(self.loss, self.task.logits(self.head, features), labels)
        self._optimizer.zero_grad()
        (loss + self.head.penalty()).backward()  # type: ignore[operator]
        rate = lr_at(step, peak=train.lr, floor=train.min_lr, warmup_steps=train.warmup_steps, total_steps=train.steps)
        set_lr(self._optimizer, rate)
        self._optimizer.step()
        self.last = loss.detach()


def train_heads(
    source: FeatureSource,
    rows: Rows,
    task: Task,
    jobs: Sequence[HeadJob],
    label: str = "",
    *,
    tolerant: bool = False,
) -> tuple[list[Trainee], float]:
    """Train all `jobs` on the clips at `rows`, each batch's features made once; also returns the seconds.

    Same seeds, same result, whoever trains beside; global random state is left alone. Heads of fewer steps are done
    earlier.

    Args:
        source: features.
        rows: clips of the table that train.
        task: their labels.
        jobs: what to train; all with one batch size and one order of clips.
        label: what the progress line says besides.
        tolerant: let the others go on when a head's loss is not finite; its `diverged` says so.

    Raises:
        AudiobatError: jobs of different batches, a loss that does not suit the labels or is not finite.
    """
    check_jobs(jobs)
    start = monotonic()
    with torch.random.fork_rng():
        trainees = [Trainee(job, source, task) for job in jobs]
        steps = max(trainee.steps for trainee in trainees)
        what = f"train {jobs[0].name}" if len(jobs) == 1 else f"train {len(jobs)} heads"
        with Progress(f"{label}{what}", total=steps) as bar:
            draws = draw_rows(rows, jobs[0].train, steps)
            for step, (chosen, features, means) in enumerate(seen_batches(source, trainees, draws)):
                labels = task.labels(chosen, features)
                active = [trainee for trainee in trainees if trainee.wants(step)]
                for trainee in active:
                    trainee.learn(step, means if trainee.pooled else features, labels)
                looked = step % LOOK_EVERY == 0 or any(step + 1 == trainee.steps for trainee in active)
                bar.advance(note=look_at(active, step) if looked else "")
                if not tolerant:
                    check_finite(active)
                if not any(trainee.wants(step + 1) for trainee in trainees):
                    break
    fit_neighbours(source, rows, task, trainees)
    return trainees, monotonic() - start


def seen_batches(
    source: FeatureSource, trainees: Sequence[Trainee], draws: Iterable[Rows]
) -> Iterator[tuple[Rows, LayerFeatures, LayerFeatures]]:
    """Rows, features and means of each batch; if all heads look at means alone, nothing else is ever made."""
    if all(trainee.pooled for trainee in trainees):
        for rows, means in source.pooled.batches(draws):
            yield rows, means, means
    else:
        some = any(trainee.pooled for trainee in trainees)
        for rows, features in source.batches(draws):
            yield rows, features, source.means(rows, features) if some else features


@torch.no_grad()
def fit_neighbours(source: FeatureSource, rows: Rows, task: Task, trainees: Sequence[Trainee]) -> None:
    """Show the training clips to the heads that only remember them, in one pass."""
    fitted = [trainee for trainee in trainees if isinstance(trainee.head, NearestNeighbours)]
    if not fitted:
        return
    tokens: list[list[Tensor]] = [[] for _ in fitted]
    labels = []
    for chosen, features, means in seen_batches(source, fitted, cut(rows)):
        labels.append(task.labels(chosen, features))
        for part, trainee in zip(tokens, fitted, strict=True):
            part.append(task.tokens(trainee.head, means if trainee.pooled else features))
    for part, trainee in zip(tokens, fitted, strict=True):
        assert isinstance(trainee.head, NearestNeighbours)
        trainee.head.fit(torch.cat(part), torch.cat(labels))


def train_head(
    source: FeatureSource,
    rows: Rows,
    targets: Tensor,
    head_config: HeadConfig,
    train_config: ProbeTrainConfig,
    classes: int,
    single_label: bool,
) -> tuple[nn.Module, float]:
    """Train one head on clips `rows` of the table, whose labels are bool `targets` [n, C]; also returns the seconds.

    Raises:
        AudiobatError: as for `train_heads`; a loss that is not finite.
    """
    job = HeadJob(head_config.kind, head_config, train_config)
    check_head(job, source.depth)
    trainees, seconds = train_heads(source, rows, ClipTask(targets, single_label), [job])
    return trainees[0].head, seconds


@dataclass(frozen=True)
class Predicted:
    """What heads said to some clips, on the CPU; M rows are clips, or the patch columns of clips."""

    logits: list[Tensor]  # [M, C] of each head
    labels: Tensor  # [M, C] bool
    rows: Tensor  # [M] the clip of each, a row of the table
    times: Tensor  # [M] seconds from the clip's start


@torch.no_grad()
def predict_heads(trainees: Sequence[Trainee], source: FeatureSource, rows: Rows, task: Task) -> Predicted:
    """Ask every head about the clips at `rows`, in one pass over them; heads end in eval mode."""
    for trainee in trainees:
        trainee.head.eval()
    parts: list[list[Tensor]] = [[] for _ in trainees]
    labels, where, when = [], [], []
    for chosen, features, means in seen_batches(source, trainees, cut(rows)):
        labels.append(task.labels(chosen, features).cpu())
        at, times = task.places(chosen, features)
        where.append(at)
        when.append(times)
        for part, trainee in zip(parts, trainees, strict=True):
            part.append(task.logits(trainee.head, means if trainee.pooled else features).float().cpu())
    return Predicted([torch.cat(part) for part in parts], torch.cat(labels), torch.cat(where), torch.cat(when))


@torch.no_grad()
def predict(head: nn.Module, source: FeatureSource, rows: Rows) -> Tensor:
    """Logits [len(rows), C] of one head for clips, on the CPU; the head is left in eval mode."""
    head.eval()
    seen = source.pooled if isinstance(head, LinearProbe) else source
    return torch.cat([head(features).float().cpu() for _, features in seen.batches(cut(rows))])


def cut(rows: Rows) -> Iterator[Rows]:
    """Rows in batches, in their order."""
    for first in range(0, len(rows), PREDICT_BATCH):
        yield rows[first : first + PREDICT_BATCH]


def draw_rows(rows: Rows, train: ProbeTrainConfig, steps: int) -> Iterator[Rows]:
    """The clips of every step, a function of `order_seed` alone, so that heads of all seeds share one pass."""
    order = ClipOrder(len(rows), train.order_seed)
    for step in range(steps):
        yield rows[order.batch_indices(step, train.batch_size)]


def new_head(job: HeadJob, source: FeatureSource, classes: int) -> nn.Module:
    """A head in train mode on the source's device; its weights depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(job.train.seed)
        rows = source.patch_rows if job.head.kind == "mean_time_keep_freq" else None
        head = build_head(job.head, source.dim, source.depth, classes, rows)
    return head.to(source.device).train()


def reseed(device: torch.device, seed: int, step: int) -> None:
    """Make dropout a function of (seed, step), whatever other heads drew in between."""
    state = int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0])
    if device.type == "cpu":
        torch.default_generator.manual_seed(state)  # 60 times faster than torch.manual_seed, which seeds every device
    else:
        torch.manual_seed(state)


def check_finite(trainees: Sequence[Trainee]) -> None:
    """Raise an AudiobatError that names the first head whose training came apart."""
    for trainee in trainees:
        if trainee.diverged is not None:
            raise AudiobatError(
                f"The loss of head {trainee.job.name} is {float(trainee.last)} at step {trainee.diverged}: "
                f"lower train.lr, {trainee.job.train.lr:g}."
            )


def look_at(trainees: Sequence[Trainee], step: int) -> str:
    """The mean loss as the progress bar shows it; marks heads whose training has come apart."""
    losses = torch.stack([trainee.last for trainee in trainees]).tolist()
    for trainee, loss in zip(trainees, losses, strict=True):
        trainee.diverged = None if math.isfinite(loss) else step
    return f"loss {sum(losses) / len(losses):.4f}"
