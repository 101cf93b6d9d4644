"""Heads on frozen features: how they are trained (Table 6), and what they answer.

In: a `FeatureSource`, rows of its clip table and their labels. Out: a trained head; logits. Gradients end in the head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import monotonic
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW

from audiobat.cache import FeatureSource
from audiobat.config import HeadConfig, ProbeConfig, ProbeTrainConfig
from audiobat.data.sampler import ClipOrder
from audiobat.errors import AudiobatError
from audiobat.heads import LinearProbe, build_head, parameter_groups
from audiobat.progress import Progress
from audiobat.train.optim import lr_at, set_lr

WEIGHT_DECAY = {"cgp": 0.5, "protobin": 0.5, "linear": 0.005}  # Table 6
LOOK_EVERY = 50  # steps between two looks at the loss: looking waits for the device
PREDICT_BATCH = 64

Rows: TypeAlias = NDArray[np.int64]  # of the clip table
Loss: TypeAlias = Literal["bce", "ce"]


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

    Same seed, same result; global random state is left alone.

    Raises:
        AudiobatError: a warm-up as long as the training, a loss that does not suit the labels or is not finite.
    """
    heads, seconds = train_heads(source, rows, targets, [head_config], train_config, classes, single_label)
    return heads[0], seconds


def train_heads(
    source: FeatureSource,
    rows: Rows,
    targets: Tensor,
    head_configs: Sequence[HeadConfig],
    train: ProbeTrainConfig,
    classes: int,
    single_label: bool,
) -> tuple[list[nn.Module], float]:
    """`train_head` for several heads of one kind at once, on the same batches; each becomes what it would alone."""
    check_schedule(train)
    loss_name = pick_loss(train, single_label)
    criterion = nn.CrossEntropyLoss() if loss_name == "ce" else nn.BCEWithLogitsLoss()
    labels = targets.int().argmax(1) if loss_name == "ce" else targets.float()
    labels = labels.to(source.device)
    heads = [new_head(config, source, classes, train) for config in head_configs]
    source = seen_by(heads[0], source)
    optimizer = AdamW(
        [g for head, c in zip(heads, head_configs, strict=True) for g in parameter_groups(head, decay_of(c, train))],
        lr=train.lr,
        betas=train.betas,
        fused=True,
    )
    order = ClipOrder(len(rows), train.seed)
    start = monotonic()
    with torch.random.fork_rng(), Progress(f"train {head_configs[0].kind}", total=train.steps) as bar:
        torch.manual_seed(train.seed)  # of dropout
        for step in range(train.steps):
            chosen = rows[order.batch_indices(step, train.batch_size)]
            features, expected = source.batch(chosen), labels[torch.from_numpy(chosen)]
            losses = torch.stack([criterion(head(features), expected) for head in heads])
            optimizer.zero_grad()
            losses.sum().backward()
            set_lr(
                optimizer,
                lr_at(
                    step,
                    peak=train.lr,
                    floor=train.min_lr,
                    warmup_steps=train.warmup_steps,
                    total_steps=train.steps,
                ),
            )
            optimizer.step()
            looked = step % LOOK_EVERY == 0 or step + 1 == train.steps
            bar.advance(note=look_at(float(losses.detach().mean()), step) if looked else "")
    return heads, monotonic() - start


@torch.no_grad()
def predict(head: nn.Module, source: FeatureSource, rows: Rows) -> Tensor:
    """Logits [len(rows), C] on the CPU; the head is left in eval mode."""
    head.eval()
    source = seen_by(head, source)
    batches = [rows[first : first + PREDICT_BATCH] for first in range(0, len(rows), PREDICT_BATCH)]
    return torch.cat([head(source.batch(batch)).float().cpu() for batch in batches])


def seen_by(head: nn.Module, source: FeatureSource) -> FeatureSource:
    """What a head looks at: a linear probe sees no more of a clip than its mean patch."""
    return source.pooled if isinstance(head, LinearProbe) else source


def new_head(config: HeadConfig, source: FeatureSource, classes: int, train: ProbeTrainConfig) -> nn.Module:
    """A head in train mode on the source's device; its weights depend on the seed alone."""
    check_norm(config, train)
    with torch.random.fork_rng():
        torch.manual_seed(train.seed)
        head = build_head(config, source.dim, source.depth, classes)
    return head.to(source.device).train()


def decay_of(head: HeadConfig, train: ProbeTrainConfig) -> float:
    """The weight decay of the classifier's matrix."""
    return WEIGHT_DECAY[head.kind] if train.weight_decay is None else train.weight_decay


def pick_loss(train: ProbeTrainConfig, single_label: bool) -> Loss:
    """What `loss: auto` means for these labels."""
    if train.loss == "ce" and not single_label:
        raise AudiobatError("train.loss is ce, but some clips have several labels or none: use bce or auto.")
    if train.loss == "auto":
        return "ce" if single_label else "bce"
    return train.loss


def check_head(config: ProbeConfig, depth: int, single_label: bool) -> None:
    """What can be known of a head before the features are: its block, its loss, its batches."""
    if config.head.layer > depth:
        raise AudiobatError(
            f"head.layer is {config.head.layer} and the model has {depth} blocks: use 1 to {depth}, or -1."
        )
    pick_loss(config.train, single_label)
    check_norm(config.head, config.train)


def check_norm(head: HeadConfig, train: ProbeTrainConfig) -> None:
    """Batch norm needs two clips."""
    if head.norm == "batch" and train.batch_size == 1:
        raise AudiobatError("train.batch_size is 1 and head.norm is batch: use at least 2 clips per batch.")


def check_schedule(train: ProbeTrainConfig) -> None:
    """The warm-up must end before the training does."""
    if train.warmup_steps >= train.steps:
        raise AudiobatError(
            f"train.warmup_steps is {train.warmup_steps} and train.steps is {train.steps}: "
            "lower the first (a tenth of the steps is usual) or raise the second."
        )


def look_at(loss: float, step: int) -> str:
    """The loss as the progress bar shows it; AudiobatError if training has come apart."""
    if not math.isfinite(loss):
        raise AudiobatError(f"The head's loss is {loss} at step {step}: lower train.lr.")
    return f"loss {loss:.4f}"
