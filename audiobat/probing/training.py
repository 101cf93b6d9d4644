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

from audiobat.config import HeadConfig, ProbeTrainConfig
from audiobat.data.loader import ClipBatch
from audiobat.data.sampler import ClipOrder
from audiobat.engine.optim import lr_at, set_lr
from audiobat.engine.progress import Progress
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import ClipTask, Task, pick_loss
from audiobat.models.features import Encoder, LayerFeatures
from audiobat.models.heads import LinearProbe, NearestNeighbours, VisualQueryTuning, build_head, parameter_groups
from audiobat.models.losses import probe_loss
from audiobat.probing.cache import FeatureSource
from audiobat.probing.jobs import NOT_TRAINED, HeadJob, check_head, check_jobs, decay_of

MEANS_KINDS = ("linear", "linear_cgp", "head2toe", "knn")  # of a clip they see cls and the mean patch alone
QUERIES = 10  # of vqt in each block, the release's
LOOK_EVERY = 50  # steps between two looks at the losses: looking waits for the device
PREDICT_BATCH = 64

Rows: TypeAlias = NDArray[np.int64]  # of the clip table
Seen: TypeAlias = LayerFeatures | ClipBatch  # what a head looks at


class Trainee:
    """A head, what trains it, and where it stands."""

    def __init__(self, job: HeadJob, source: FeatureSource, task: Task) -> None:
        self.job, self.task = job, task
        self.loss = pick_loss(job.train, task.single_label)
        self.head = new_head(job, source, task.classes)
        self.sight = sight_of(job.head.kind, task)
        self.last = torch.zeros(())  # loss of the last step
        self.diverged: int | None = None  # the step at which its loss was seen not to be finite
        self.steps = job.train.steps if job.head.kind not in NOT_TRAINED else 0
        if self.steps:
            groups = parameter_groups(self.head, decay_of(job.head, job.train))
            self._optimizer = AdamW(groups, lr=job.train.lr, betas=job.train.betas, fused=True)

    def wants(self, step: int) -> bool:
        """Whether this head still trains at `step`."""
        return step < self.steps and self.diverged is None

    def learn(self, step: int, seen: Seen, labels: Tensor) -> None:
        """One step of AdamW on what this head sees of a batch and labels [M, C]."""
        train = self.job.train
        reseed(labels.device, train.seed, step)
        loss = probe_loss(self.loss, self.task.logits(self.head, seen), labels)
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
        for group in groups(trainees):
            _train_group(source, rows, task, group, label, tolerant)
    fit_neighbours(source, rows, task, trainees)
    return trainees, monotonic() - start


def groups(trainees: Sequence[Trainee]) -> list[list[Trainee]]:
    """Heads that share their batches: all but those that look at waveforms, which share among themselves."""
    shared = [trainee for trainee in trainees if trainee.sight != "waveforms"]
    tuned = [trainee for trainee in trainees if trainee.sight == "waveforms"]
    return [group for group in (shared, tuned) if group]


def _train_group(
    source: FeatureSource, rows: Rows, task: Task, trainees: list[Trainee], label: str, tolerant: bool
) -> None:
    steps = max(trainee.steps for trainee in trainees)
    what = trainees[0].job.name if len(trainees) == 1 else f"{len(trainees)} heads"
    draws = draw_rows(rows, trainees[0].job.train, steps)
    with Progress(f"{label}train {what}", total=steps, shown=steps > 0) as bar:
        for step, batch in enumerate(seen_batches(source, trainees, draws)):
            labels = task.labels(batch.rows, batch.seen[trainees[0].sight]).to(source.device)
            active = [trainee for trainee in trainees if trainee.wants(step)]
            for trainee in active:
                trainee.learn(step, batch.seen[trainee.sight], labels)
            looked = step % LOOK_EVERY == 0 or any(step + 1 == trainee.steps for trainee in active)
            bar.advance(note=look_at(active, step) if looked else "")
            if not tolerant:
                check_finite(active)
            if not any(trainee.wants(step + 1) for trainee in trainees):
                break


@dataclass(frozen=True)
class Batch:
    """A batch as heads see it, made once for all."""

    rows: Rows  # [B] of the clip table
    seen: dict[str, Seen]  # by `Trainee.sight`


def seen_batches(source: FeatureSource, trainees: Sequence[Trainee], draws: Iterable[Rows]) -> Iterator[Batch]:
    """Each batch as the heads of a group see it; what none of them looks at is never made."""
    sights = {trainee.sight for trainee in trainees}
    if sights == {"waveforms"}:
        for drawn in source.waveforms(draws):
            yield Batch(drawn.clip_ids, {"waveforms": drawn.to(source.device)})
    elif sights == {"means"}:
        for rows, means in source.pooled.batches(draws):
            yield Batch(rows, {"means": means})
    else:
        for rows, features in source.batches(draws):
            seen: dict[str, Seen] = {"features": features}
            if "means" in sights:
                seen["means"] = source.means(rows, features)
            yield Batch(rows, seen)


@torch.no_grad()
def fit_neighbours(source: FeatureSource, rows: Rows, task: Task, trainees: Sequence[Trainee]) -> None:
    """Show the training clips to the heads that only remember them, in one pass."""
    fitted = [trainee for trainee in trainees if isinstance(trainee.head, NearestNeighbours)]
    if not fitted:
        return
    tokens: list[list[Tensor]] = [[] for _ in fitted]
    labels = []
    for batch in seen_batches(source, fitted, cut(rows)):
        labels.append(task.labels(batch.rows, batch.seen[fitted[0].sight]))
        for part, trainee in zip(tokens, fitted, strict=True):
            seen = batch.seen[trainee.sight]
            assert isinstance(seen, LayerFeatures)
            part.append(task.tokens(trainee.head, seen))
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
    trainees, seconds = train_heads(source, rows, ClipTask.of_matrix(targets, single_label), [job])
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
    logits: dict[int, Tensor] = {}
    for group in groups(trainees):
        parts: list[list[Tensor]] = [[] for _ in group]
        labels, where, when = [], [], []
        for trainee in group:
            trainee.head.eval()
        for batch in seen_batches(source, group, cut(rows)):
            any_seen = batch.seen[group[0].sight]
            labels.append(task.labels(batch.rows, any_seen))
            places = task.places(batch.rows, any_seen)
            where.append(places[0])
            when.append(places[1])
            for part, trainee in zip(parts, group, strict=True):
                part.append(task.logits(trainee.head, batch.seen[trainee.sight]).float().cpu())
        logits |= {id(trainee): torch.cat(part) for trainee, part in zip(group, parts, strict=True)}
    ordered = [logits[id(trainee)] for trainee in trainees]
    return Predicted(ordered, torch.cat(labels), torch.cat(where), torch.cat(when))


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


def sight_of(kind: str, task: Task) -> str:
    """What a head looks at: all features, means over patches, or waveforms.

    Raises:
        AudiobatError: vqt, which answers for clips, is asked for frames.
    """
    if kind == "vqt" and not isinstance(task, ClipTask):
        raise AudiobatError("head.kind vqt answers for clips, not for patch columns: leave it out, or set task: clip.")
    if kind == "vqt":
        return "waveforms"
    return "means" if kind in MEANS_KINDS and isinstance(task, ClipTask) else "features"


def draw_rows(rows: Rows, train: ProbeTrainConfig, steps: int) -> Iterator[Rows]:
    """The clips of every step, a function of `order_seed` alone, so that heads of all seeds share one pass."""
    order = ClipOrder(len(rows), train.order_seed)
    for step in range(steps):
        yield rows[order.batch_indices(step, train.batch_size)]


def new_head(job: HeadJob, source: FeatureSource, classes: int) -> nn.Module:
    """A head in train mode on the source's device; its weights depend on the seed alone."""
    rows = source.patch_rows if job.head.kind == "mean_time_keep_freq" else None
    with torch.random.fork_rng():
        torch.manual_seed(job.train.seed)
        if job.head.kind == "vqt":
            head = tuned_head(job.head, source.encoder, classes)
        else:
            head = build_head(job.head, source.dim, source.depth, classes, rows)
    return head.to(source.device).train()


def tuned_head(head: HeadConfig, encoder: Encoder, classes: int) -> nn.Module:
    """A head that runs queries of its own through the encoder."""
    return VisualQueryTuning(encoder, classes, head.queries or QUERIES, head.dropout)


def check_buildable(jobs: Sequence[HeadJob], encoder: Encoder, task: Task) -> None:
    """Raise the AudiobatError of a head that suits this model or task badly, before features are computed."""
    with torch.device("meta"):  # no memory, no random numbers
        for job in jobs:
            if sight_of(job.head.kind, task) == "waveforms":
                tuned_head(job.head, encoder, task.classes)
            else:
                build_head(job.head, encoder.dim, encoder.depth, task.classes, rows=1)


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
