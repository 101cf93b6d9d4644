"""Pair classification: two clips are of one kind or not, told by how similar their vectors are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from audiobat.config import TaskConfig, check
from audiobat.data.clip_table import ClipTable
from audiobat.data.sources.lists import read_columns
from audiobat.data.split import Split, groups_of
from audiobat.errors import AudiobatError, did_you_mean
from audiobat.evaluation.metrics import average_precision, best_accuracy, best_f1
from audiobat.evaluation.record import Values
from audiobat.evaluation.unit_scoring import UnitOutputs
from audiobat.probing.tasks.base import MTEB, ProbeTask, TaskFeatures

COLUMNS = ("path", "other", "same")  # of a file of pairs
CLIPS = 4_000  # of which pairs are drawn, at most: 8 million pairs to choose from
ANSWERS = {"1": True, "0": False, "true": True, "false": False}
SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of vectors [n, D] to [n]
    "cosine": lambda a, b: functional.cosine_similarity(a, b, dim=-1),
    "dot": lambda a, b: (a * b).sum(-1),
    "euclidean": lambda a, b: -(a - b).norm(dim=-1),
    "manhattan": lambda a, b: -(a - b).abs().sum(-1),
}


class PairList(NamedTuple):
    """n pairs of clips."""

    first: NDArray[np.int64]  # [n] clip ids
    second: NDArray[np.int64]  # [n]
    same: NDArray[np.bool_]  # [n] whether both are of one kind


class Pairs(ProbeTask):
    """Pairs of test clips, named by a file, or drawn: half of them share a label, half share none."""

    title = "Pairs"
    kit = f"{MTEB} AbsTaskPairClassification"
    sources = ("file", "count")
    definitions: ClassVar[dict[str, str]] = {
        "ap": "average precision of cosine similarity, pairs of one kind being the positives",
        "accuracy_best": "share of pairs on the right side of the best threshold of cosine similarity, chosen on them",
        "f1_best": "F1 of pairs of one kind at the threshold of cosine similarity that is best for it, chosen on them",
        "ap_max": "the highest average precision of cosine, dot product, Euclidean, Manhattan distance (MTEB max_ap)",
    }

    @dataclass(frozen=True)
    class Config(TaskConfig):
        """Pairs of clips, told apart by cosine similarity."""

        file: str | None = None  # a CSV of columns path, other (both as the list of clips has them) and same (1 or 0);
        # null: pairs are drawn
        count: int = 2_000  # pairs to draw, half of one kind

        def __post_init__(self) -> None:
            super().__post_init__()
            check(self.count >= 2, "by_task.pairs.count", self.count, "use at least 2")

    config: Config
    named: PairList | None = None  # the pairs that the file names

    @classmethod
    def trains(cls, config: Config) -> bool:
        """Whether it reads clips that train."""
        return False

    @classmethod
    def draws(cls, config: Config) -> bool:
        """Whether a seed decides anything."""
        return config.file is None

    @classmethod
    def build(cls, config: TaskConfig, table: ClipTable, splits: Sequence[Split]) -> Self:
        """The task; AudiobatError for a file that names no test clip or has one kind of pairs alone, or such labels."""
        task, clips = cls(config, table, splits), len(splits[0].test)
        file = task.config.file
        task.named = None if file is None else read_pairs(Path(file), table, splits[0])
        same = task._pairs(splits[0], seed=0).same
        if same.all() or not same.any():
            both = "both pairs that are the same and pairs that are not"
            raise AudiobatError(
                f"by_task.pairs.file {file} needs {both}: write 1 and 0 in its column same."
                if file is not None
                else f"tasks has pairs, which needs {both}, and the labels of {clips} test clips give one sort: "
                "name a column of labels that some clips share by --labels.column, or a --by_task.pairs.file."
            )
        return task

    def measure(self, features: TaskFeatures, split: Split, seed: int) -> UnitOutputs:
        """Metrics over the pairs whose clips both have features."""
        first, second, same = self._pairs(split, seed)
        left, right = (torch.from_numpy(features.vectors(ids)) for ids in (first, second))
        found = {name: similarity(left, right).double() for name, similarity in SIMILARITIES.items()}
        truth, cosine = torch.from_numpy(same), found["cosine"]

        def precision(scores: Tensor, counts: Tensor | None) -> Tensor:
            return average_precision(scores[:, None], truth[:, None], counts)[..., 0]

        keys, groups = np.array(self.table.keys.tolist()), np.array(groups_of(self.table))
        names = np.char.add(np.char.add(keys[first], " | "), keys[second])
        both = np.stack([groups[first], groups[second]], 1)
        return UnitOutputs(
            len(same),
            {
                "ap": lambda counts: precision(cosine, counts),
                "accuracy_best": lambda counts: best_accuracy(cosine, truth, counts),
                "f1_best": lambda counts: best_f1(cosine, truth, counts),
                "ap_max": lambda counts: torch.stack([precision(one, counts) for one in found.values()]).amax(0),
            },
            self.definitions,
            Values(names, cosine.numpy(), same.astype(np.float64), both),
            both,
        )

    def _pairs(self, split: Split, seed: int) -> PairList:
        """The pairs of which both clips are in `split`."""
        if self.named is None:
            return draw_pairs(self.table.targets(), split.test, self.config.count, seed)
        kept = np.isin(self.named.first, split.test) & np.isin(self.named.second, split.test)
        return PairList(self.named.first[kept], self.named.second[kept], self.named.same[kept])


def draw_pairs(targets: NDArray[np.bool_], clip_ids: NDArray[np.int64], count: int, seed: int) -> PairList:
    """Distinct pairs of the clips: up to half of `count` that share a label, and up to as many again that share none.

    `targets` are bool [n, C] of the whole table; clips without labels are left out, and of very many a share is drawn.
    """
    rng = np.random.default_rng(seed)
    ids = clip_ids[targets[clip_ids].any(1)]
    ids = np.sort(rng.choice(ids, min(CLIPS, len(ids)), replace=False))
    first, second = (part.astype(np.int64) for part in np.triu_indices(len(ids), 1))
    labels = targets[ids].astype(np.float32)
    alike = (labels @ labels.T > 0)[first, second]
    chosen = []
    for kind in (True, False):
        places = np.flatnonzero(alike == kind)
        chosen.append(np.sort(rng.choice(places, min(count // 2, len(places)), replace=False)))
    places = np.concatenate(chosen)
    return PairList(ids[first[places]], ids[second[places]], alike[places])


def read_pairs(path: Path, table: ClipTable, split: Split) -> PairList:
    """The pairs that a CSV names; AudiobatError for a row that cannot be used."""
    if not path.is_file():
        raise AudiobatError(f"by_task.pairs.file {path} is no file: give a CSV of columns {', '.join(COLUMNS)}.")
    columns = read_columns(path)
    if missing := [name for name in COLUMNS if name not in columns]:
        raise AudiobatError(f"{path} has no column {missing[0]}: a file of pairs has the columns {', '.join(COLUMNS)}.")
    known = dict(zip(table.keys.tolist(), range(len(table)), strict=True))
    tests = set(split.test.tolist())
    pairs, same, seen = [], [], set[frozenset[str]]()
    for row, (*names, answer) in enumerate(zip(*(columns[name] for name in COLUMNS), strict=True), start=2):
        for name in names:
            if known.get(name) not in tests:
                raise AudiobatError(  # the table has the clips of this probe alone, in which those that train may lack
                    f"{path} row {row}: {name!r} is no test clip of this probe{did_you_mean(name, known)}: name clips "
                    "as their list does, which must not mark them train."
                )
        if answer.strip().lower() not in ANSWERS:
            raise AudiobatError(f"{path} row {row}: same is {answer!r}: write 1 for clips of one kind, else 0.")
        if len(set(names)) < 2 or frozenset(names) in seen:
            reason = "stands in an earlier row, too" if len(set(names)) == 2 else "is one clip"
            raise AudiobatError(f"{path} row {row}: the pair {' and '.join(names)} {reason}: remove the row.")
        seen.add(frozenset(names))
        pairs.append([known[name] for name in names])
        same.append(ANSWERS[answer.strip().lower()])
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    return PairList(first, second, np.array(same, bool))
