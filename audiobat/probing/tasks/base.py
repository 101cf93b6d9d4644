"""What every task on frozen features is: its class says what the probe asks of a kind, an instance measures a fold.

A new task is one file in this folder, named after its kind: a class that derives from `ProbeTask`. A user's own
`my_task.py:MyTask` is written the same way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from audiobat.config import HeadConfig, TaskConfig, to_dict
from audiobat.data.clip_table import ClipTable
from audiobat.data.split import Split, groups_of
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import ClipIds
from audiobat.evaluation.record import Values
from audiobat.evaluation.unit_scoring import UnitOutputs
from audiobat.models.features import Encoder
from audiobat.models.heads.pooling import check_pool, clip_token, layer_index
from audiobat.probing.cache import FeatureSource

MTEB = "mteb 2.26"  # the kit whose settings and numbers most kinds have
BATCH = 64  # clips whose vectors are taken at once


class TaskFeatures:
    """What a task is given of the clips: a vector each, or, where it needs more, the source of all features."""

    def __init__(self, source: FeatureSource, head: HeadConfig) -> None:
        self.source = source
        self._layer, self._pool = layer_index(head.layer), head.pool

    @cached_property
    def _vectors(self) -> NDArray[np.float32]:  # [readable clips, D]
        ids, means = self.source.indices, self.source.pooled
        parts = []
        for _, features in means.batches(ids[first : first + BATCH] for first in range(0, len(ids), BATCH)):
            check_pool(features, self._pool)
            parts.append(clip_token(features, self._layer, self._pool, torch.float32).cpu())
        return torch.cat(parts).numpy()

    def vectors(self, clip_ids: ClipIds) -> NDArray[np.float32]:
        """A vector [n, D] for each of these readable clips: the cls token or mean patch of the block that is probed."""
        return self._vectors[np.searchsorted(self.source.indices, clip_ids)]


class ProbeTask(ABC):
    """Features of clips to metrics. The class attributes describe the kind; they are all that a probe knows of it."""

    title: ClassVar[str]  # its name in tables
    Config: ClassVar[type[TaskConfig]] = TaskConfig  # a subclass may add fields, which become `by_task.KIND.FIELD`
    # What it is given of a clip. means: `TaskFeatures.vectors` alone. patches: batches of `TaskFeatures.source`, too.
    # columns: the same, but the task takes the mean over frequency, so that no more needs to be kept for it.
    reads: ClassVar[Literal["patches", "columns", "means"]] = "means"
    labelled: ClassVar[bool] = True  # whether it reads the labels of clips; where nothing does, they may have none
    kit: ClassVar[str | None] = None  # the benchmark and version whose settings the defaults are
    sources: ClassVar[tuple[str, ...]] = ()  # settings that name data, which the kit's settings leave open
    definitions: ClassVar[dict[str, str]]  # each metric in words, the main one first

    def __init__(self, config: TaskConfig, table: ClipTable, splits: Sequence[Split]) -> None:
        self.config, self.table, self.splits = config, table, splits

    @classmethod
    def trains(cls, config: Any) -> bool:
        """Whether it reads clips that train. Where no task of a probe does, they are not even encoded."""
        return True

    @classmethod
    def draws(cls, config: Any) -> bool:
        """Whether a seed decides anything. If not, one record serves for all seeds."""
        return False

    @classmethod
    @abstractmethod
    def build(cls, config: TaskConfig, table: ClipTable, splits: Sequence[Split]) -> Self:
        """The task that `config`, a `cls.Config`, describes, on the clips of `table`.

        This is the place to refuse clips whose labels are not what the task needs: no feature exists yet, and hours of
        encoding may lie before the first.

        Args:
            config: the settings `by_task.KIND.*`.
            table: the clips of all splits.
            splits: ids of the clips that train, validate and test, one for each fold; just one, without clips that
                train, for a task that does not `trains`.

        Raises:
            AudiobatError: one sentence with a hint, for labels or columns that do not suit.
        """

    def check_model(self, encoder: Encoder) -> None:  # noqa: B027 - most kinds take any model
        """Raise an AudiobatError for a model whose features the task has no use for, before features are computed."""

    @abstractmethod
    def measure(self, features: TaskFeatures, split: Split, seed: int) -> UnitOutputs:
        """What the task finds in one fold, whose clips all have features; `seed` decides all that it draws."""

    def values_of(
        self, clip_ids: ClipIds, values: NDArray[np.float64], targets: NDArray[np.float64] | None = None
    ) -> Values:
        """A value [n] of each of these clips, with their keys and groups; `targets` as of `Values`."""
        keys, groups = np.array(self.table.keys.tolist()), np.array(groups_of(self.table))
        return Values(keys[clip_ids], values, targets, groups[clip_ids])

    @property
    def preset(self) -> str:
        """The kit whose settings these are, in one word, or `custom`."""
        as_kit = type(self.config)(**{name: getattr(self.config, name) for name in ("kind", *self.sources)})
        return self.kit.partition(" ")[0] if self.kit is not None and self.config == as_kit else "custom"

    def settings(self, head: HeadConfig) -> dict[str, Any]:
        """What its records say of it: kind and settings, the block and the token that it read."""
        return {**to_dict(self.config), "layer": head.layer, "pool": head.pool, "kit": self.kit}


def check_single_label(task: str, table: ClipTable) -> None:
    """Raise an AudiobatError unless each clip has exactly one label."""
    if table.labels is None or not table.single_label:
        several = "some have none or several" if table.labels is not None else "they have none"
        raise AudiobatError(
            f"tasks has {task}, which needs one label for each clip, and {several}: leave it out, or name a column of "
            "single labels by --labels.column."
        )


def single_labels(table: ClipTable, clip_ids: ClipIds) -> NDArray[np.int64]:
    """The class number [n] of each of these clips, which have one label each."""
    assert table.labels is not None
    return table.labels.take(clip_ids).values.astype(np.int64)


def sklearn(task: str) -> Any:
    """scikit-learn, with the parts of it that tasks use; AudiobatError where it is not installed."""
    try:
        import sklearn
        import sklearn.cluster
        import sklearn.exceptions
        import sklearn.linear_model
        import sklearn.metrics
        import sklearn.pipeline
        import sklearn.preprocessing
    except ImportError:
        raise AudiobatError(f'tasks has {task}, which needs scikit-learn: pip install "audiobat[tasks]".') from None
    return sklearn
