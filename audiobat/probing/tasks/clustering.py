"""Clustering: k-means on the vectors of test clips, told nothing but the number of classes, beside the classes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from audiobat.config import TaskConfig, check
from audiobat.data.clip_table import ClipTable
from audiobat.data.split import Split, groups_of
from audiobat.errors import AudiobatError
from audiobat.evaluation.metrics import v_measure
from audiobat.evaluation.scoring import Measure
from audiobat.evaluation.unit_scoring import UnitOutputs
from audiobat.probing.tasks.base import MTEB, ProbeTask, TaskFeatures, check_single_label, single_labels, sklearn


class Clustering(ProbeTask):
    """Mini-batch k-means with as many clusters as there are classes, several times, each on clips drawn anew."""

    title = "Clustering"
    kit = f"{MTEB} AbsTaskClustering"
    definitions: ClassVar[dict[str, str]] = {
        "v_measure": "harmonic mean of homogeneity and completeness of the clusters, mean over experiments",
        "v_measure_chance": "the same with the classes dealt out to the clips at random: what clusters get for nothing",
    }

    @dataclass(frozen=True)
    class Config(TaskConfig):
        """Clusters of test clips beside their classes."""

        experiments: int = 10  # times that clips are drawn and clustered
        documents: int = 16_384  # clips that each draws, with replacement
        batch_size: int = 512  # of mini-batch k-means

        def __post_init__(self) -> None:
            super().__post_init__()
            for name in ("experiments", "documents", "batch_size"):
                check(getattr(self, name) > 0, f"by_task.clustering.{name}", getattr(self, name), "it must be positive")

    config: Config

    @classmethod
    def trains(cls, config: Config) -> bool:
        """Whether it reads clips that train."""
        return False

    @classmethod
    def draws(cls, config: Config) -> bool:
        """Whether a seed decides anything."""
        return True

    @classmethod
    def build(cls, config: TaskConfig, table: ClipTable, splits: Sequence[Split]) -> Self:
        """The task; AudiobatError unless each clip has one label, and several clips share one."""
        sklearn("clustering")
        check_single_label("clustering", table)
        labels = single_labels(table, splits[0].test)
        classes = len(np.unique(labels))
        if classes in (1, len(labels)):
            each = "all have one" if classes == 1 else "each has one of its own"
            raise AudiobatError(
                f"tasks has clustering, which needs classes of several clips, and of the {len(labels)} test clips "
                f"{each}: name a column of labels that some clips share by --labels.column."
            )
        return cls(config, table, splits)

    def measure(self, features: TaskFeatures, split: Split, seed: int) -> UnitOutputs:
        """V-measure of the fold, whose intervals are about the clips: the clusters stay."""
        kmeans = sklearn("clustering").cluster.MiniBatchKMeans
        vectors, labels = features.vectors(split.test), single_labels(self.table, split.test)
        classes = torch.from_numpy(np.unique(labels, return_inverse=True)[1])
        dealing = np.random.default_rng(seed)
        drawing = random.Random(seed)  # the generator of the kit, so that a seed draws the kit's clips
        model = kmeans(
            n_clusters=int(classes.max()) + 1,
            batch_size=self.config.batch_size,
            init="k-means++",
            n_init=1,
            random_state=seed,
        )
        drawn, clusters, dealt = [], [], []
        for _ in range(self.config.experiments):
            chosen = np.array(drawing.choices(range(len(vectors)), k=self.config.documents))
            found = torch.zeros(len(vectors), dtype=torch.long)
            found[torch.from_numpy(chosen)] = torch.from_numpy(model.fit_predict(vectors[chosen])).long()
            drawn.append(torch.from_numpy(np.bincount(chosen, minlength=len(vectors))).double())
            clusters.append(found)
            dealt.append(classes[torch.from_numpy(dealing.permutation(len(classes)))])

        def mean(truths: Sequence[Tensor], counts: Tensor | None) -> Tensor:
            parts = zip(truths, drawn, clusters, strict=True)
            each = [v_measure(one, own, times if counts is None else counts * times) for one, times, own in parts]
            return torch.stack(each).mean(0)

        groups = np.array(groups_of(self.table))[split.test]
        # V-measure leans upwards the fewer clips there are, so that halves tell its spread alone
        ranges = dict.fromkeys(self.definitions, (0.0, 1.0))
        measures: dict[str, Measure] = {
            "v_measure": lambda counts: mean([classes] * len(drawn), counts),
            "v_measure_chance": lambda counts: mean(dealt, counts),
        }
        return UnitOutputs(len(vectors), measures, self.definitions, None, groups, ranges)
