"""The labels of clips as targets: classes of a whole clip, or of every patch column of it.

In: a clip table and the features of some of its clips. Out: logits of a head and the labels they should match, row for
row. Probing and fine-tuning share this file, so both mean the same by a label.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiobat.config import FinetuneConfig, FinetuneTrainConfig, ProbeConfig, ProbeTrainConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.columns import Ragged
from audiobat.data.frames import frame_targets
from audiobat.errors import AudiobatError
from audiobat.models.features import LayerFeatures
from audiobat.models.heads import Head
from audiobat.models.losses import Loss
from audiobat.models.tagger import valid_columns

ClipIds: TypeAlias = NDArray[np.int64]  # positions in the clip table


class Task(Protocol):
    """What a head is asked about the clips of one table, in M rows a batch: its clips, or their patch columns."""

    unit: Literal["clip", "frame"]  # what a row is
    classes: int
    single_label: bool  # every row has exactly one class, so cross-entropy may be used

    def targets(self, clip_ids: ClipIds, frame_times: Tensor, starts: NDArray[np.float64] | None = None) -> Tensor:
        """Labels of crops, bool on the CPU: [B, C] for clips, [B, T, C] for patch columns, padding included.

        Args:
            clip_ids: [B].
            frame_times: [T] second at which each patch column starts in its crop.
            starts: [B] second at which each crop starts in its clip; None: crops are whole clips.
        """
        ...

    def rows(self, values: Tensor, features: LayerFeatures) -> Tensor:
        """Values of `targets`' shape as rows [M, C], in the order of `logits`; patch columns of padding are dropped."""
        ...

    def logits(self, head: Head, features: LayerFeatures) -> Tensor:
        """A head's logits [M, C]."""
        ...

    def tokens(self, head: Head, features: LayerFeatures) -> Tensor:
        """The vectors [M, D] that a nearest-neighbour head keeps."""
        ...

    def labels(self, clip_ids: ClipIds, features: LayerFeatures) -> Tensor:
        """The true labels [M, C], bool on the CPU, of whole clips."""
        ...

    def places(self, clip_ids: ClipIds, features: LayerFeatures) -> tuple[Tensor, Tensor]:
        """The clip id [M] of each row and its second [M] in that clip, on the CPU."""
        ...


class ClipTask:
    """Which classes are in a clip: M = B."""

    unit: Literal["clip", "frame"] = "clip"

    def __init__(self, labels: Ragged, classes: int, single_label: bool) -> None:
        self._labels = labels  # a list of class numbers for each clip: a matrix of AudioSet-2M would take 1 GB
        self.classes, self.single_label = classes, single_label

    @classmethod
    def of_matrix(cls, targets: Tensor, single_label: bool) -> ClipTask:
        """The task of bool `targets` [n, C]."""
        lists = [row.nonzero()[:, 0].tolist() for row in targets]
        return cls(Ragged.of(lists, np.int64), targets.shape[1], single_label)

    def targets(self, clip_ids: ClipIds, frame_times: Tensor, starts: NDArray[np.float64] | None = None) -> Tensor:
        """[B, C]: a crop has the labels of its clip, wherever it lies."""
        return self._matrix(clip_ids)

    def rows(self, values: Tensor, features: LayerFeatures) -> Tensor:
        """[B, C]: the values as they are."""
        return values

    def logits(self, head: Head, features: LayerFeatures) -> Tensor:
        """[B, C]."""
        logits: Tensor = head(features)
        return logits

    def tokens(self, head: Head, features: LayerFeatures) -> Tensor:
        """[B, D]."""
        return head.pool(features)

    def labels(self, clip_ids: ClipIds, features: LayerFeatures) -> Tensor:
        """[B, C]."""
        return self._matrix(clip_ids)

    def places(self, clip_ids: ClipIds, features: LayerFeatures) -> tuple[Tensor, Tensor]:
        """The clips themselves, at second 0."""
        return torch.from_numpy(clip_ids), torch.zeros(len(clip_ids))

    def _matrix(self, clip_ids: ClipIds) -> Tensor:
        chosen = self._labels.take(clip_ids)
        targets = torch.zeros(len(clip_ids), self.classes, dtype=torch.bool)
        targets[np.repeat(np.arange(len(clip_ids)), chosen.lengths), chosen.values.astype(np.int64)] = True
        return targets


class FrameTask:
    """Which classes sound at the start of a patch column: M counts the columns that are not all padding."""

    unit: Literal["clip", "frame"] = "frame"
    single_label = False  # several events may sound at once, and mostly none does

    def __init__(self, table: ClipTable) -> None:
        assert table.events is not None
        self._events = table.events
        self.classes = len(table.classes)

    def targets(self, clip_ids: ClipIds, frame_times: Tensor, starts: NDArray[np.float64] | None = None) -> Tensor:
        """[B, T, C]: events move with the start of the crop."""
        events, places = self._events, clip_ids
        if starts is not None:
            chosen = events.take(clip_ids)
            moved = chosen.values.copy()
            for edge in ("onset", "offset"):
                moved[edge] -= np.repeat(starts, chosen.lengths)
            events, places = Ragged(chosen.offsets, moved), np.arange(len(clip_ids))
        return torch.from_numpy(frame_targets(events, places, frame_times.cpu().numpy(), self.classes))

    def rows(self, values: Tensor, features: LayerFeatures) -> Tensor:
        """[M, C], clip after clip, each in order of time."""
        return values[valid_columns(features)]

    def logits(self, head: Head, features: LayerFeatures) -> Tensor:
        """[M, C]."""
        return self.rows(head.frames(features), features)

    def tokens(self, head: Head, features: LayerFeatures) -> Tensor:
        """[M, D]."""
        pooled = head.pool_columns(features)  # [B * T, D]
        return pooled[valid_columns(features).flatten()]

    def labels(self, clip_ids: ClipIds, features: LayerFeatures) -> Tensor:
        """[M, C]."""
        return self.targets(clip_ids, features.frame_times)[valid_columns(features).cpu()]

    def places(self, clip_ids: ClipIds, features: LayerFeatures) -> tuple[Tensor, Tensor]:
        """Clip and start of each patch column."""
        clip, column = valid_columns(features).cpu().nonzero().T
        return torch.from_numpy(clip_ids)[clip], features.frame_times.cpu()[column]


def task_for(config: ProbeConfig | FinetuneConfig, table: ClipTable) -> ClipTask | FrameTask:
    """The task that `config.task` asks for; `auto` labels patch columns where the clips have events.

    Raises:
        AudiobatError: frames are asked for and the clips have no events.
    """
    if config.task == "frame" and table.events is None:
        raise AudiobatError("task is frame, but the clips have no events with onset and offset: use clip or auto.")
    if table.events is not None and config.task != "clip":
        return FrameTask(table)
    if table.labels is None:
        raise AudiobatError("The clips have no labels: give a CSV with a `label` column, or class folders.")
    return ClipTask(table.labels, len(table.classes), table.single_label)


def pick_loss(train: ProbeTrainConfig | FinetuneTrainConfig, single_label: bool) -> Loss:
    """The loss that `train.loss` asks for; `auto` is cross-entropy where every clip has one class, else binary.

    Raises:
        AudiobatError: cross-entropy is asked for and some clips have several labels or none.
    """
    if train.loss == "ce" and not single_label:
        raise AudiobatError("train.loss is ce, but some clips have several labels or none: use bce or auto.")
    if train.loss == "auto":
        return "ce" if single_label else "bce"
    return train.loss


def untaught(table: ClipTable, splits: Iterable[tuple[ClipIds, ClipIds]]) -> dict[str, int]:
    """The classes that clips have and no training clip of the same split has, with the number of those clips.

    Args:
        table: the clips.
        splits: ids of training clips with those of the clips to look at, say the test clips of each fold.
    """
    assert table.labels is not None
    counts = np.zeros(len(table.classes), np.int64)
    for train, others in splits:
        taught, asked = (
            np.bincount(table.labels.take(ids).values, minlength=len(table.classes)) for ids in (train, others)
        )
        counts += asked * (taught == 0)
    return {table.classes[c]: int(counts[c]) for c in np.flatnonzero(counts)}
