"""The labels of clips as targets: classes of a whole clip, or of every patch column of it.

In: a clip table and the features of some of its clips. Out: logits of a head and the labels they should match, row for
row. Probing and fine-tuning share this file, so both mean the same by a label.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

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


@dataclass(frozen=True, eq=False)
class Task:
    """What heads predict for the clips of one table, in M rows a batch.

    A row is one `unit`. Clips: which classes are in the clip, M = B. Frames: which classes sound at the start of a
    patch column, or in it; M counts the columns that are not padding alone, clip after clip, in order of time.
    """

    unit: Literal["clip", "frame"]
    lists: Ragged  # of each clip its class numbers, or its events; a matrix [n, C] of AudioSet-2M would take 1 GB
    classes: int
    single_label: bool  # every row has exactly one class, so cross-entropy may be used
    filled: float | None = None  # share of a column that an event fills to mark it (`frame_targets`); None: its start

    @classmethod
    def of_matrix(cls, targets: Tensor, single_label: bool) -> Task:
        """The task of clips with bool `targets` [n, C]."""
        lists = [row.nonzero()[:, 0].tolist() for row in targets]
        return cls("clip", Ragged.of(lists, np.int64), targets.shape[1], single_label)

    def targets(self, clip_ids: ClipIds, frame_times: Tensor, starts: NDArray[np.float64] | None = None) -> Tensor:
        """Labels of crops, bool on the CPU: [B, C] for clips, [B, T, C] for frames, padding included.

        A crop has all labels of its clip, wherever it lies; events move with its start.

        Args:
            clip_ids: [B].
            frame_times: [T] second at which each patch column starts in its crop.
            starts: [B] second at which each crop starts in its clip; None: crops are whole clips.
        """
        chosen, places = self.lists.take(clip_ids), np.arange(len(clip_ids))
        if self.unit == "clip":
            targets = torch.zeros(len(clip_ids), self.classes, dtype=torch.bool)
            targets[np.repeat(places, chosen.lengths), chosen.values.astype(np.int64)] = True
            return targets
        if starts is not None:
            events = chosen.values.copy()
            for edge in ("onset", "offset"):
                events[edge] -= np.repeat(starts, chosen.lengths)
            chosen = Ragged(chosen.offsets, events)
        return torch.from_numpy(frame_targets(chosen, places, frame_times.cpu().numpy(), self.classes, self.filled))

    def rows(self, values: Tensor, features: LayerFeatures) -> Tensor:
        """Values [B, C], or [B, T, C] of frames, as rows [M, C]; columns behind those of `features` are left out."""
        if self.unit == "clip":
            return values
        valid = valid_columns(features).to(values.device)  # bool [B, T], or of fewer columns
        return values[:, : valid.shape[1]][valid]

    def logits(self, head: Head, features: LayerFeatures) -> Tensor:
        """A head's logits [M, C]."""
        return self.rows(head(features) if self.unit == "clip" else head.frames(features), features)

    def tokens(self, head: Head, features: LayerFeatures) -> Tensor:
        """The vectors [M, width] that a head such as nearest neighbours remembers."""
        if self.unit == "clip":
            return head.pool(features)
        return self.rows(head.pool_columns(features).unflatten(0, (-1, features.grid[0])), features)

    def labels(self, clip_ids: ClipIds, features: LayerFeatures, starts: NDArray[np.float64] | None = None) -> Tensor:
        """The true labels [M, C], bool on the CPU, of clips that begin at `starts` [B] (None: of whole clips)."""
        return self.rows(self.targets(clip_ids, features.frame_times, starts), features)

    def places(
        self, clip_ids: ClipIds, features: LayerFeatures, starts: NDArray[np.float64] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The clip id [M] of each row and its second [M] in that clip, on the CPU; `starts` as for `labels`."""
        ids = torch.from_numpy(clip_ids)
        if self.unit == "clip":
            return ids, torch.zeros(len(ids))
        clip, column = valid_columns(features).cpu().nonzero().T
        begin = torch.zeros(len(ids)) if starts is None else torch.from_numpy(starts)
        return ids[clip], begin[clip] + features.frame_times.cpu()[column]


def task_for(config: ProbeConfig | FinetuneConfig, table: ClipTable) -> Task:
    """The task that `config.task` asks for; `auto` labels frames where the clips have events.

    Raises:
        AudiobatError: frames are asked for and the clips have no events.
    """
    if config.task == "frame" and table.events is None:
        raise AudiobatError("task is frame, but the clips have no events with onset and offset: use clip or auto.")
    if table.events is not None and config.task != "clip":
        # Several events may sound at once, and mostly none does.
        return Task("frame", table.events, len(table.classes), single_label=False)
    if table.labels is None:
        raise AudiobatError("The clips have no labels: give a CSV with a `label` column, or class folders.")
    return Task("clip", table.labels, len(table.classes), table.single_label)


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
