"""Heads, and how they are trained on frozen features."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from audiobat.config.checks import LARGEST, check, check_choice
from audiobat.config.frontend import StatisticsConfig
from audiobat.config.plain import from_dict, to_dict
from audiobat.config.registry import check_kind, config_class_of, kind_field, kinds_field
from audiobat.config.training import LabelConfig, SelectConfig


@dataclass(frozen=True)
class HeadConfig:
    """Which probe sits on the frozen features (Section 4)."""

    kind: str = kind_field("head", "cgp")
    prototypes: int = 10_000  # cgp and protobin
    dropout: float = 0.0  # the release: 0.2
    layer: int = -1  # the block to read, 1..L or -1 for the last; cgp, linear_cgp, head2toe and vqt read all
    pool: Literal["auto", "cls", "mean"] = "auto"  # linear, linear_cgp, head2toe, knn; auto: cls if there is one
    norm: Literal["none", "layer", "scaled_layer", "batch"] = "none"  # before the classifier; attentive: of tokens.
    # Only scaled_layer (EAT, BAT's release) learns scale and shift; linear_cgp and head2toe have one of the two layers
    init: Literal["torch", "eat"] = "torch"  # linear; eat: the matrix from N(0, 0.02), bias 0
    queries: int | None = None  # None: ep 32 in all, vqt 10 a block
    reduction: int = 1  # ep: values are this many times narrower than the model
    per_class: int = 20  # proto_classwise: prototypes of each class
    penalty: float | None = None  # weight of head2toe's lasso (None: 1e-4), of proto_classwise's orthogonality (1)
    neighbours: int = 20  # knn; ours
    temperature: float = 0.07  # knn; ours

    def __post_init__(self) -> None:
        check_kind("head", self.kind)
        for name in ("pool", "norm", "init"):
            check_choice(self, name)
        for name in ("prototypes", "reduction", "per_class", "neighbours", "temperature"):
            check(getattr(self, name) > 0, f"head.{name}", getattr(self, name), "it must be positive")
        check(self.queries is None or self.queries > 0, "head.queries", self.queries, "use a positive number or null")
        valid_penalty = self.penalty is None or self.penalty >= 0
        check(valid_penalty, "head.penalty", self.penalty, "use 0, a positive weight, or null")
        check(0 <= self.dropout < 1, "head.dropout", self.dropout, "use 0 up to, not including, 1")
        check(self.layer == -1 or self.layer >= 1, "head.layer", self.layer, "use 1 to the number of blocks, or -1")

    def with_kind(self, kind: str) -> HeadConfig:
        """These settings for a head of another kind: fields that both have; others take their defaults."""
        config_class = config_class_of(HeadConfig, kind)
        shared = {f.name for f in dataclasses.fields(config_class)} & {f.name for f in dataclasses.fields(self)}
        return config_class(**{name: getattr(self, name) for name in shared} | {"kind": kind})


@dataclass(frozen=True)
class TaggerConfig:
    """What a release keeps of the head that sits on its encoder."""

    head: HeadConfig = field(default_factory=HeadConfig)
    classes: tuple[str, ...] = ()  # names in the order of the logits
    task: Literal["clip", "frame"] = "clip"  # what the head was trained to label
    multi_label: bool = True  # several classes may be there at once: sigmoid, else softmax
    thresholds: tuple[float, ...] = ()  # a class is found where its score is above its own; (): none were chosen
    median: int | None = None  # frames of the filter over time under which they were chosen, 1: none; null: not said
    window_seconds: float | None = None  # length of the windows that `predict` takes if it is not told otherwise: of
    # those from which a head on stored embeddings learnt, or on which the thresholds were chosen
    hop_seconds: float | None = None  # from the start of one of them to that of the next

    def __post_init__(self) -> None:
        for name in ("classes", "thresholds"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_choice(self, "task")
        check(len(self.classes) > 0, "tagger.classes", self.classes, "name at least one class")
        check(len(set(self.classes)) == len(self.classes), "tagger.classes", self.classes, "name each class once")
        fits = len(self.thresholds) in (0, len(self.classes)) and all(0 <= value <= 1 for value in self.thresholds)
        check(fits, "tagger.thresholds", self.thresholds, "give one for each class, from 0 to 1, or none")
        odd = self.median is None or (self.median > 0 and self.median % 2 == 1)
        check(odd, "tagger.median", self.median, "use an odd number of frames, 1 for no filter, or null")


@dataclass(frozen=True)
class ProbeTrainConfig:
    """How a head is trained (Table 6, AS-20K column)."""

    steps: int = 20_000  # of the optimiser
    warmup_steps: int = 2_000  # steps in which the rate rises
    warmup: Literal["linear", "floored"] = "linear"  # from min_lr to lr; or from 0 to lr, never below min_lr (released)
    batch_size: int = 48  # clips per step
    lr: float = 1e-3  # the highest, after the warm-up
    min_lr: float = 1e-6
    weight_decay: float | None = None  # None: the paper's 0.5 for prototype heads, 0.005 for linear ones
    betas: tuple[float, float] = (0.9, 0.999)
    loss: Literal["auto", "bce", "ce", "asl"] = "auto"  # auto: ce if every clip has one label, else bce; asl: released
    roll: bool = False  # turn a training clip's samples circularly, anew each time: features of it cannot be kept
    seed: int = 0  # of weights and dropout; ours
    order_seed: int = 0  # of the order and rolls of clips: heads share a pass over them, so their own seeds have no say

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        for name in ("loss", "warmup"):
            check_choice(self, name)
        for name in ("steps", "batch_size", "lr"):
            check(getattr(self, name) > 0, f"train.{name}", getattr(self, name), "it must be positive")
        check(self.warmup_steps >= 0, "train.warmup_steps", self.warmup_steps, "it must not be negative")
        check(0 <= self.min_lr <= self.lr, "train.min_lr", self.min_lr, "use 0 up to train.lr")
        valid_decay = self.weight_decay is None or self.weight_decay >= 0
        check(valid_decay, "train.weight_decay", self.weight_decay, "it must not be negative")
        valid_betas = len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas)
        check(valid_betas, "train.betas", self.betas, "give two numbers from 0 up to 1")
        for name in ("seed", "order_seed"):
            check(0 <= getattr(self, name) <= LARGEST, f"train.{name}", getattr(self, name), "use 0 up to 2^63 - 1")


@dataclass(frozen=True)
class GridConfig:
    """Values tried side by side, each with each; an empty list: the one value of `head` or `train`."""

    prototypes: tuple[int, ...] = ()  # of the heads that have prototypes
    layers: tuple[int, ...] = ()  # blocks, of the heads that read a single one
    lr: tuple[float, ...] = ()
    weight_decay: tuple[float, ...] = ()
    choose: bool = False  # lr and weight decay: keep the best on a held-out tenth of the training split

    def __post_init__(self) -> None:
        for name in ("prototypes", "layers", "lr", "weight_decay"):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            check(len(set(values)) == len(values), f"grid.{name}", values, "name each value once")
        check(min(self.prototypes, default=1) > 0, "grid.prototypes", self.prototypes, "they must be positive")
        low = min(self.layers, default=1) >= 1
        check(low, "grid.layers", self.layers, "use 1 to the number of blocks")
        check(min(self.lr, default=1.0) > 0, "grid.lr", self.lr, "they must be positive")
        check(min(self.weight_decay, default=0.0) >= 0, "grid.weight_decay", self.weight_decay, "none may be negative")
        several = len(self.lr) > 1 or len(self.weight_decay) > 1
        check(several or not self.choose, "grid.choose", self.choose, "give several grid.lr or grid.weight_decay")


@dataclass(frozen=True)
class TaskConfig:
    """What a task on frozen features is, other than heads that learn the labels; most kinds add settings of their own.

    Every task reads the block `head.layer` and the token `head.pool`.
    """

    kind: str = kind_field("task", "retrieval")

    def __post_init__(self) -> None:
        check_kind("task", self.kind)


LABELS = "labels"  # among the tasks of a probe: its heads learn the labels of clips


@dataclass(frozen=True)
class ProbeConfig:
    """Which heads are trained, how, on which features. All of them share one pass over the clips."""

    head: HeadConfig = field(default_factory=HeadConfig)
    train: ProbeTrainConfig = field(default_factory=ProbeTrainConfig)
    grid: GridConfig = field(default_factory=GridConfig)
    heads: tuple[str, ...] = ()  # kinds trained side by side, each otherwise as `head`; none: `head` alone
    by_kind: Mapping[str, Any] = field(default_factory=dict)  # kind: fields of `head` and `train` that are its own
    tasks: tuple[str, ...] = (LABELS,)  # labels: the heads learn them; others use the same features (docs/tasks.md)
    by_task: Mapping[str, Any] = kinds_field("tasks", TaskConfig)  # task: its own fields, such as kshot: {shots: 16}
    layers: bool = False  # besides, a linear probe of every block: its mean patch, batch norm, a matrix (Fig. 4)
    seeds: tuple[int, ...] = ()  # one record for each; none: `train.seed` alone
    select: SelectConfig = field(default_factory=SelectConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    task: Literal["auto", "clip", "frame"] = "auto"  # what has labels; auto: frames where the clips have events
    preset: Literal["paper", "released", "fair"] = "paper"  # whose settings these are meant to be; records check it
    preset_task: str | None = None  # column of the preset's table; None: by the data set's name, else as20k
    cache_gb: float = 8.0  # memory for frozen features; more than that, up to 64 GB and half of what is free, go to
    # OUT/features, and what fits neither is computed again for every batch; 0: always again
    cache_dir: str | None = None  # keep frozen features in this folder, for later runs too; None: as cache_gb says
    workers: int = 2  # processes that decode audio ahead of the encoder
    frontend: StatisticsConfig = field(default_factory=StatisticsConfig)
    max_frames: int | None = None  # of a window, at most; the release pads ESC-50 to 512. null: the model's own

    def __post_init__(self) -> None:
        for name in ("heads", "tasks", "seeds"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("task", "preset"):
            check_choice(self, name)
        for kind in self.heads:
            check_kind("head", kind, "heads")
            self.head.with_kind(kind)  # the other settings must suit it
        for name in ("heads", "tasks", "seeds"):
            values = getattr(self, name)
            check(len(set(values)) == len(values), name, values, "name each once")
        check(len(self.tasks) > 0, "tasks", self.tasks, "name at least one, such as labels")
        for kind in {*self.tasks, *self.by_task} - {LABELS}:
            check_kind("task", kind, "tasks" if kind in self.tasks else "by_task", others=(LABELS,))
            self.of_task(kind)  # its settings must be right, whether it is asked for or not
        check(
            LABELS not in self.by_task, "by_task", self.by_task, "labels has no fields here: head and train are its own"
        )
        for kind in self.by_kind:
            check_kind("head", kind, "by_kind")
            self.of_kind(kind)  # its settings must be right, whether it is trained or not
        for seed in self.seeds:
            check(0 <= seed <= LARGEST, "seeds", self.seeds, "use 0 up to 2^63 - 1")
        check(self.cache_gb >= 0, "cache_gb", self.cache_gb, "it must not be negative")
        some = self.max_frames is None or self.max_frames > 0
        check(some, "max_frames", self.max_frames, "use a positive number or null")
        check(self.workers >= 0, "workers", self.workers, "it must not be negative")

    def of_task(self, kind: str) -> TaskConfig:
        """The settings of a task of this kind."""
        own, where = self.by_task.get(kind, {}), f"by_task.{kind}"
        check(isinstance(own, Mapping) and "kind" not in own, where, own, "give its fields by name, without kind")
        return from_dict(TaskConfig, {**own, "kind": kind}, where)

    def of_kind(self, kind: str) -> ProbeConfig:
        """The settings for a head of this kind: `head` and `train` with what `by_kind` says of it."""
        own, where = self.by_kind.get(kind, {}), f"by_kind.{kind}"
        known = isinstance(own, Mapping) and set(own) <= {"head", "train"}
        known = known and all(isinstance(fields, Mapping) for fields in own.values())
        check(known, where, own, "give fields of head and of train, in groups")
        check("kind" not in own.get("head", {}), f"{where}.head.kind", own, "leave it out")
        head, train = self.head.with_kind(kind), self.train
        return dataclasses.replace(
            self,
            head=from_dict(type(head), to_dict(head) | own.get("head", {}), f"{where}.head"),
            train=from_dict(type(train), to_dict(train) | own.get("train", {}), f"{where}.train"),
            by_kind={},
        )
