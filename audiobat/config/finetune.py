"""Settings of a fine-tuning (Table 6), and which weights it keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from audiobat.config.augment import AugmentConfig, MixupConfig, SpecAugmentConfig
from audiobat.config.checks import check, check_choice, warmup_hint
from audiobat.config.frontend import StatisticsConfig
from audiobat.config.probe import HeadConfig
from audiobat.config.training import DataConfig, LabelConfig, OptimConfig, SelectConfig, TrainConfig


@dataclass(frozen=True)
class FinetuneOptimConfig(OptimConfig):
    """AdamW, its schedule, and how much slower lower layers learn (Table 6, column AS-20K)."""

    lr: float = 5e-5  # of the head
    warmup_steps: int = 4_000  # steps in which the rate rises
    layer_decay: float = 0.75  # learning rate of a layer relative to that of the layer above it
    layer_map: Literal["standard", "released", "eat"] = "standard"  # standard: patches, cls and stem norm are the
    # slowest layer; released: the stem norm is as fast as the head; eat: all three are, and layers have one min_lr
    decay_1d: bool = True  # decay the encoder's biases, norms and cls token, too: EAT does, BAT's release does not
    decay_head_1d: bool = False  # the head's biases and the scale of its norm, too: EAT does, BAT's release does not;
    # prototypes and gates never decay

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "layer_map")
        check(0 < self.layer_decay <= 1, "optim.layer_decay", self.layer_decay, "use more than 0, up to 1")


@dataclass(frozen=True)
class FinetuneTrainConfig(TrainConfig):
    """Length, batch, loss and regularisation (Table 6, column AS-20K)."""

    steps: int = 40_000  # of the optimiser
    loss: Literal["auto", "bce", "ce", "asl"] = "auto"  # auto: ce if every clip has one label, else bce; asl: released
    bce_per: Literal["cell", "label"] = "cell"  # bce is divided by clips times classes, or by the batch's labels (EAT)
    bias: Literal["prior", "head"] = "prior"  # where the bias of a new head starts under bce and asl; prior: at the log
    # odds of each class's share of what is drawn, ours; head: as head.kind draws it, as EAT and BAT's release do
    label_smoothing: float = 0.0  # share of each target that is spread over all classes
    drop_path: float = 0.1  # chance at the last block; it grows evenly from 0 at the first
    freeze_steps: int = 0  # steps at the start that train the head alone; neither the paper nor its release does so
    ema_decay: float | None = None  # test and keep a moving average of the weights; neither the paper nor its release
    # does so. The decay is (1 + n) / (10 + n) after n steps, up to this value

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "loss")
        check_choice(self, "bce_per")
        check_choice(self, "bias")
        check(self.compile != "on", "train.compile", self.compile, "fine-tuning does not compile: use auto or off")
        check(0 <= self.label_smoothing < 1, "train.label_smoothing", self.label_smoothing, "use 0 up to 1")
        check(0 <= self.drop_path < 1, "train.drop_path", self.drop_path, "use 0 up to, not including, 1")
        inside = 0 <= self.freeze_steps < self.steps
        check(inside, "train.freeze_steps", self.freeze_steps, f"use 0 or more, and less than train.steps {self.steps}")
        valid_ema = self.ema_decay is None or 0 <= self.ema_decay < 1
        check(valid_ema, "train.ema_decay", self.ema_decay, "use 0 up to, not including, 1, or null")


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything that a fine-tuning depends on besides the model and the clips. Defaults: Table 6, AS-20K."""

    frontend: StatisticsConfig = field(default_factory=StatisticsConfig)
    head: HeadConfig = field(default_factory=lambda: HeadConfig(kind="linear", norm="layer"))  # paper silent
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(mixup=MixupConfig(0.9), spec_augment=SpecAugmentConfig(0.2, 0.2))
    )
    train: FinetuneTrainConfig = field(default_factory=FinetuneTrainConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    task: Literal["auto", "clip", "frame"] = "auto"  # label clips or patch columns; auto: columns if clips have events
    overlap: float = 0.0  # of the windows in which recordings with events are validated, tested and, by the release,
    # predicted: a frame has the mean of its scores in all of them; ours
    keep_head: bool = False  # go on training the head that the model has, instead of a new one made from `head`
    max_frames: int | None = None  # longest window, in frames; EAT pads ESC-50 to 512. null: the model's own
    recipe: str | None = None  # the recipe that these settings follow; records check that they do

    def __post_init__(self) -> None:
        check_choice(self, "task")
        steps, warmup = self.train.steps, self.optim.warmup_steps
        check(warmup < steps, "optim.warmup_steps", warmup, warmup_hint("optim.warmup_steps", steps))
        check(not self.data.roll, "data.roll", self.data.roll, "fine-tuning has augment.roll")
        check(0 <= self.overlap < 1, "overlap", self.overlap, "use 0 up to, not including, 1")
        some = self.max_frames is None or self.max_frames > 0
        check(some, "max_frames", self.max_frames, "use a positive number or null")
        alone = self.head.norm == "batch" and self.train.batch_size == 1
        check(not alone, "train.batch_size", self.train.batch_size, "head.norm batch needs at least 2 clips per batch")
