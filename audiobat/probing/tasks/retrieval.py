"""Retrieval: a test clip asks for clips that share a label with it, and finds others by cosine similarity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from audiobat.config import TaskConfig, check_one_of
from audiobat.data.clip_table import ClipTable
from audiobat.data.split import Split
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import ClipIds
from audiobat.evaluation.metrics import hit_rate, mean_precision, ndcg, recall_at
from audiobat.evaluation.unit_scoring import UnitOutputs, mean_of
from audiobat.probing.tasks.base import MTEB, ProbeTask, TaskFeatures

FOUND = 1_000  # clips in the list of each query, as in MTEB
QUERIES = 256  # that search at once
MEASURES: dict[str, tuple[Any, int]] = {
    "ndcg_at_10": (ndcg, 10),
    "map_at_1000": (mean_precision, FOUND),
    "recall_at_10": (recall_at, 10),
    "hit_rate_at_5": (hit_rate, 5),
    "hit_rate_at_1": (hit_rate, 1),
}


class Retrieval(ProbeTask):
    """Each test clip that shares a label with another is a query; the corpus holds the others, or the training clips.

    Cosine similarity of vectors orders the corpus; a clip is relevant if it shares at least one label.
    """

    title = "Retrieval"
    kit = f"{MTEB} AbsTaskRetrieval: cosine, 1,000 clips a query"
    definitions: ClassVar[dict[str, str]] = {
        "ndcg_at_10": "normalised discounted cumulative gain of the first 10 clips found, mean over queries",
        "map_at_1000": "average precision of the first 1,000 clips found, mean over queries",
        "recall_at_10": "share of the clips with a label of the query that the first 10 found hold, mean over queries",
        "hit_rate_at_5": "share of queries for which one of the first 5 clips found shares a label (CV recall at 5)",
        "hit_rate_at_1": "share of queries for which the first clip found shares a label",
    }

    @dataclass(frozen=True)
    class Config(TaskConfig):
        """Clips that share a label, found by cosine similarity."""

        corpus: Literal["test", "train"] = "test"  # the clips among which test clips search; test: all but itself

        def __post_init__(self) -> None:
            super().__post_init__()
            check_one_of(("test", "train"), "by_task.retrieval.corpus", self.corpus)

    config: Config

    @classmethod
    def trains(cls, config: Config) -> bool:
        """Whether it reads clips that train."""
        return config.corpus == "train"

    @classmethod
    def build(cls, config: TaskConfig, table: ClipTable, splits: Sequence[Split]) -> Self:
        """The task; AudiobatError unless some test clips share a label with others of their corpus, and some do not."""
        task = cls(config, table, splits)
        for split in splits:
            corpus = task._corpus(split)
            shares = np.concatenate([shared.sum(1) for _, shared in task._queries(split, corpus)])
            most = len(corpus) - (task.config.corpus == "test")
            if not shares.any() or shares.min() == most:
                found = (
                    "every test clip shares a label with every" if shares.any() else "no test clip shares one with any"
                )
                raise AudiobatError(
                    f"tasks has retrieval, which finds clips of the same label, and {found} other clip of its corpus "
                    f"({task.config.corpus}): name a column of labels that some clips share by --labels.column."
                )
        return task

    def measure(self, features: TaskFeatures, split: Split, seed: int) -> UnitOutputs:
        """Metrics over the queries of a fold."""
        corpus = self._corpus(split)
        documents = directions(features, corpus)
        asked, hits, relevant = [], [], []
        for clip_ids, shared in self._queries(split, corpus):
            similarity = directions(features, clip_ids) @ documents.T
            similarity[torch.from_numpy(clip_ids[:, None] == corpus)] = -torch.inf  # no clip finds itself
            found = similarity.topk(min(FOUND, len(corpus))).indices.numpy()
            kept = shared.any(1)
            asked.append(clip_ids[kept])
            hits.append(np.take_along_axis(shared, found, 1)[kept])
            relevant.append(shared.sum(1)[kept])
        queries = np.concatenate(asked)
        lists, totals = np.concatenate(hits), np.concatenate(relevant)
        each = {name: metric(lists, totals, k) for name, (metric, k) in MEASURES.items()}
        values = self.values_of(queries, each["ndcg_at_10"])
        measures = {name: mean_of(one) for name, one in each.items()}
        return UnitOutputs(len(queries), measures, self.definitions, values, values.groups)

    def _corpus(self, split: Split) -> ClipIds:
        return split.test if self.config.corpus == "test" else split.train

    def _queries(self, split: Split, corpus: ClipIds) -> Iterator[tuple[ClipIds, NDArray[np.bool_]]]:
        """Test clips, a few at a time, with whether each clip of the corpus is another that shares a label [q, n]."""
        labels = self.table.targets().astype(np.float32)
        for first in range(0, len(split.test), QUERIES):
            clip_ids = split.test[first : first + QUERIES]
            yield clip_ids, (labels[clip_ids] @ labels[corpus].T > 0) & (clip_ids[:, None] != corpus)


def directions(features: TaskFeatures, clip_ids: ClipIds) -> torch.Tensor:
    """Vectors [n, D] of length 1."""
    return functional.normalize(torch.from_numpy(features.vectors(clip_ids)), dim=-1)
