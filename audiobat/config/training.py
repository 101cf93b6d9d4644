"""What any training has: its optimiser, its clips, its length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from audiobat.config.checks import LARGEST, check, check_choice

SINKS = ("tensorboard", "wandb")  # what `engine/logs/sinks.py` has


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay (Table 6)."""

    lr: float = 5e-4  # the highest, after the warm-up
    min_lr: float = 1e-6  # also where the warm-up starts
    warmup_steps: int = 53_000  # steps in which the rate rises
    warmup: Literal["linear", "floored"] = "linear"  # from min_lr to lr; or from 0 to lr, never below min_lr (released)
    cosine_end: Literal["last", "after"] = "last"  # where the rate is back at min_lr: at the last step, or a step later
    # (EAT, SSLAM); ours
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    decay_1d: bool = True  # decay biases, norms and tokens too, as EAT and the release do
    grad_clip: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        for name in ("warmup", "cosine_end"):
            check_choice(self, name)
        check(self.lr > 0, "optim.lr", self.lr, "it must be positive")
        check(0 <= self.min_lr <= self.lr, "optim.min_lr", self.min_lr, "use 0 up to optim.lr")
        check(self.warmup_steps >= 0, "optim.warmup_steps", self.warmup_steps, "it must not be negative")
        check(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "it must not be negative")
        valid_betas = len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas)
        check(valid_betas, "optim.betas", self.betas, "give two numbers from 0 up to 1")
        valid_clip = self.grad_clip is None or self.grad_clip > 0
        check(valid_clip, "optim.grad_clip", self.grad_clip, "use a positive norm or null")


@dataclass(frozen=True)
class DataConfig:
    """Which clips, and how a training crop is cut from one."""

    path: str | None = None  # a folder, CSV, Parquet file, prepared shards, tars, or NAME:FOLDER of a public data set
    clip_seconds: float = 10.24  # fills the 1,024 frames; what is missing of a 10-s clip is masked padding
    roll: bool = False  # circular roll of the waveform; the paper names none; true: the release's
    balance: str | None = None  # a column, drawn evenly; labels (mean of 1/count) | labels_sum (EAT's); None: all
    background: float | None = None  # share of the draws that have no label: clips or, of long recordings, stretches
    # without events; null: the share of such clips, for stretches 0.3; ours
    epoch_clips: int | None = None  # draws per epoch (AS-2M fine-tuning: 200,000); None: as many as there are clips
    replacement: bool = True  # whether balanced draws may repeat a clip within an epoch
    workers: int = 2

    def __post_init__(self) -> None:
        check(self.clip_seconds > 0, "data.clip_seconds", self.clip_seconds, "it must be positive")
        valid_share = self.background is None or 0 <= self.background <= 1
        check(valid_share, "data.background", self.background, "use 0 to 1, or null")
        some = self.epoch_clips is None or self.epoch_clips > 0
        check(some, "data.epoch_clips", self.epoch_clips, "use a positive number or null")
        check(self.workers >= 0, "data.workers", self.workers, "it must not be negative")


@dataclass(frozen=True)
class LabelConfig:
    """What of the clips' labels is a class, and under which name."""

    column: str | None = None  # the column that holds the labels, of a list or of annotations; null: the usual one
    background: tuple[str, ...] = ()  # labels that are no class: a clip or span that has no other is background
    map: str | None = None  # a CSV of columns `from` and `to`: labels under other names; an empty one drops the label

    def __post_init__(self) -> None:
        object.__setattr__(self, "background", tuple(self.background))


@dataclass(frozen=True)
class TrainConfig:
    """Length and batch (Table 6), and housekeeping of a run."""

    steps: int = 400_000  # of the optimiser
    batch_size: int = 48  # clips per step over all ranks, and over all parts that run one after the other
    accumulate: int | None = None  # parts in which a step's batch runs one after the other, each in the memory of one,
    # with the gradient of the whole; null: fine-tuning at once, pre-training in what the device runs fastest; ours
    recompute: bool = False  # keep the input alone of each block, and run it again in the backward pass; ours
    shard: Literal["ddp", "fsdp2"] = "ddp"  # what each of several ranks holds; ddp: all; fsdp2: its share of weights,
    # moments and teacher, which come together for a step (fully_shard); ours
    compile: Literal["auto", "on", "off"] = "auto"  # run what is the same in each step by torch.compile; auto: on a GPU
    seed: int = 0  # of weights, masks, crops and the order of clips; ours
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on a GPU that has it, else fp32
    device: str = "auto"  # auto: a GPU if there is one; or cpu, cuda, cuda:1; ours
    log_every: int = 50  # steps between two rows of the log; ours
    save_every: int = 2_000  # steps between two checkpoints; ours
    log_to: tuple[str, ...] = ()  # where rows of the log go besides metrics.jsonl: tensorboard, wandb, or both; ours
    keep: int = 2  # newest checkpoints kept; ours
    keep_every: int | None = None  # keep those of every so many steps as well, for ever: a multiple of train.save_every
    timeout: float = 120.0  # seconds without a sign of life after which a rank counts as lost; ours

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_to", tuple(self.log_to))
        for name in ("precision", "shard", "compile"):
            check_choice(self, name)
        for sink in self.log_to:
            check(sink in SINKS, "train.log_to", sink, f"choose of {', '.join(SINKS)}")
        some = self.accumulate is None or self.accumulate > 0
        check(some, "train.accumulate", self.accumulate, "use a positive number or null")
        for name in ("steps", "batch_size", "log_every", "save_every", "keep"):
            check(getattr(self, name) > 0, f"train.{name}", getattr(self, name), "it must be positive")
        check(0 < self.timeout <= 1e6, "train.timeout", self.timeout, "use more than 0, up to a million seconds")
        often = self.keep_every is None or (self.keep_every > 0 and self.keep_every % self.save_every == 0)
        check(often, "train.keep_every", self.keep_every, f"use a multiple of train.save_every, {self.save_every}")
        check(0 <= self.seed <= LARGEST, "train.seed", self.seed, "use 0 up to 2^63 - 1")


@dataclass(frozen=True)
class SelectConfig:
    """Which weights are kept. Where clips validate, fine-tuning tests both; probes test the kept ones alone."""

    which: Literal["last", "best"] = "last"  # those of the last step, or of the best validation; the paper does not say
    every: int = 1_000  # steps between two validations; there is one after the last step, too; ours
    held_out: float | None = 0.0  # share of the training clips that validate, where none are marked valid; null: 0.15,
    # or none where test clips are drawn, too, and the last weights are kept; ours

    def __post_init__(self) -> None:
        check_choice(self, "which")
        check(self.every > 0, "select.every", self.every, "it must be positive")
        valid_share = self.held_out is None or 0 <= self.held_out < 1
        check(valid_share, "select.held_out", self.held_out, "use 0 up to, not including, 1, or null")
