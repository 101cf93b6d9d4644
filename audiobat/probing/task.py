"""What heads are asked, clips or patch columns: features to logits [M, C] and to what they should be, row for row."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiobat.config import FinetuneTrainConfig, ProbeConfig, ProbeTrainConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.frames import frame_targets
from audiobat.data.loader import ClipBatch
from audiobat.errors import AudiobatError
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.pooling import columns
from audiobat.models.losses import Loss
from audiobat.models.tagger import valid_columns


class Task(Protocol):
    """The labels of one table, and how a head answers for them."""

    classes: int
    single_label: bool  # every answer has one class: cross-entropy may be used

    def logits(self, head: nn.Module, seen: LayerFeatures | ClipBatch) -> Tensor:
        """A head's answers [M, C] to a batch of features, or of waveforms."""
        ...

    def tokens(self, head: nn.Module, features: LayerFeatures) -> Tensor:
        """What nearest neighbours remember of a batch, [M, D]."""
        ...

    def labels(self, rows: NDArray[np.int64], seen: LayerFeatures | ClipBatch) -> Tensor:
        """The right answers [M, C] bool, on the CPU, for the clips at `rows` of the table."""
        ...

    def places(self, rows: NDArray[np.int64], seen: LayerFeatures | ClipBatch) -> tuple[Tensor, Tensor]:
        """The clip [M] of each answer, a row of the table, and its time [M] in that clip, on the CPU."""
        ...


class ClipTask:
    """Which classes are in a clip: M = B."""

    def __init__(self, targets: Tensor, single_label: bool) -> None:
        self._targets = targets  # [n, C] bool, for all clips of the table
        self.classes, self.single_label = targets.shape[1], single_label

    def logits(self, head: nn.Module, seen: LayerFeatures | ClipBatch) -> Tensor:
        """[B, C]."""
        answers: Tensor = head(seen.waveform, seen.lengths) if isinstance(seen, ClipBatch) else head(seen)
        return answers

    def tokens(self, head: nn.Module, features: LayerFeatures) -> Tensor:
        """[B, D]."""
        pooled: Tensor = head.pool(features)  # type: ignore[operator]
        return pooled

    def labels(self, rows: NDArray[np.int64], seen: LayerFeatures | ClipBatch) -> Tensor:
        """[B, C]."""
        return self._targets[torch.from_numpy(rows)]

    def places(self, rows: NDArray[np.int64], seen: LayerFeatures | ClipBatch) -> tuple[Tensor, Tensor]:
        """The clips themselves, from their start."""
        return torch.from_numpy(rows), torch.zeros(len(rows))


class FrameTask:
    """Which classes sound at the start of a patch column: M counts the columns that are not all padding."""

    single_label = False

    def __init__(self, table: ClipTable) -> None:
        assert table.events is not None
        self._events = table.events
        self.classes = len(table.classes)

    def logits(self, head: nn.Module, seen: LayerFeatures | ClipBatch) -> Tensor:
        """[M, C], clip after clip."""
        assert isinstance(seen, LayerFeatures)
        frames: Tensor = head.frames(seen)  # type: ignore[operator]  # [B, T, C]
        return frames[valid_columns(seen)]

    def tokens(self, head: nn.Module, features: LayerFeatures) -> Tensor:
        """[M, D], clip after clip."""
        pooled: Tensor = head.pool(columns(features))  # type: ignore[operator]  # [B * T, D]
        return pooled[valid_columns(features).flatten()]

    def labels(self, rows: NDArray[np.int64], seen: LayerFeatures | ClipBatch) -> Tensor:
        """[M, C], clip after clip."""
        assert isinstance(seen, LayerFeatures)
        targets = frame_targets(self._events, rows, seen.frame_times.cpu().numpy(), self.classes)
        return torch.from_numpy(targets)[valid_columns(seen).cpu()]

    def places(self, rows: NDArray[np.int64], seen: LayerFeatures | ClipBatch) -> tuple[Tensor, Tensor]:
        """Clip and start of each patch column."""
        assert isinstance(seen, LayerFeatures)
        clip, column = valid_columns(seen).cpu().nonzero().T
        return torch.from_numpy(rows)[clip], seen.frame_times.cpu()[column]


def task_for(config: ProbeConfig, table: ClipTable) -> ClipTask | FrameTask:
    """The task that `config.task` means for these clips.

    Raises:
        AudiobatError: frames are asked for and the clips have no events.
    """
    if config.task == "frame" and table.events is None:
        raise AudiobatError("task is frame, but the clips have no events with onset and offset: use clip or auto.")
    if table.events is not None and config.task != "clip":
        return FrameTask(table)
    return ClipTask(torch.from_numpy(table.targets()), table.single_label)


def pick_loss(train: ProbeTrainConfig | FinetuneTrainConfig, single_label: bool) -> Loss:
    """What `loss: auto` means for these labels."""
    if train.loss == "ce" and not single_label:
        raise AudiobatError("train.loss is ce, but some clips have several labels or none: use bce or auto.")
    if train.loss == "auto":
        return "ce" if single_label else "bce"
    return train.loss
