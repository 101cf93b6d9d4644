"""What clips are labelled with, as targets of a batch: of whole clips, or of every patch column of a crop."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiobat.config import FinetuneConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.columns import Ragged
from audiobat.data.frames import frame_targets
from audiobat.errors import AudiobatError

Rows = NDArray[np.int64]  # of the clip table


class Labels(Protocol):
    """The labels of a table's clips."""

    def __call__(self, rows: Rows, starts: NDArray[np.float64], times: Tensor) -> Tensor:
        """Targets, float32 on the CPU, of crops of the clips at `rows` [B].

        Crops begin at second `starts` [B] of their clips; `times` [T] are where their patch columns start in them.
        """
        ...


class ClipLabels:
    """Which classes are in a clip: [B, C], wherever a crop lies."""

    def __init__(self, table: ClipTable) -> None:
        assert table.labels is not None
        self._labels, self._classes = table.labels, len(table.classes)

    def __call__(self, rows: Rows, starts: NDArray[np.float64], times: Tensor) -> Tensor:
        """[B, C]."""
        chosen = self._labels.take(rows)
        targets = torch.zeros(len(rows), self._classes)
        targets[np.repeat(np.arange(len(rows)), chosen.lengths), torch.from_numpy(chosen.values.astype(np.int64))] = 1.0
        return targets


class FrameLabels:
    """Which classes sound at the start of each patch column of a crop: [B, T, C]."""

    def __init__(self, table: ClipTable) -> None:
        assert table.events is not None
        self._events, self._classes = table.events, len(table.classes)

    def __call__(self, rows: Rows, starts: NDArray[np.float64], times: Tensor) -> Tensor:
        """[B, T, C]."""
        chosen = self._events.take(rows)
        events = chosen.values.copy()
        for edge in ("onset", "offset"):
            events[edge] -= np.repeat(starts, chosen.lengths)
        in_crops = Ragged(chosen.offsets, events)
        targets = frame_targets(in_crops, np.arange(len(rows)), times.cpu().numpy(), self._classes)
        return torch.from_numpy(targets).float()


def labels_of(table: ClipTable, task: Literal["clip", "frame"]) -> Labels:
    """The labels that `task` asks for."""
    return FrameLabels(table) if task == "frame" else ClipLabels(table)


def is_frame_task(config: FinetuneConfig, table: ClipTable) -> bool:
    """Whether patch columns are labelled, or whole clips.

    Raises:
        AudiobatError: frames are asked for and the clips have no events; settings that would move events in time.
    """
    if config.task == "frame" and table.events is None:
        raise AudiobatError("task is frame, but the clips have no events with onset and offset: use clip or auto.")
    if config.task == "clip" or table.events is None:
        return False
    moving = [name for name in ("roll", "time_roll") if getattr(config.augment, name)]
    if moving:
        raise AudiobatError(f"augment.{moving[0]} moves sounds away from their labels of frames: leave it out.")
    return True


def check_labels(table: ClipTable, train: Rows, others: dict[str, Rows]) -> None:
    """Raise an AudiobatError that names a class which a clip of another split has, and no training clip."""
    assert table.labels is not None
    taught = table.select(train).label_counts() > 0
    for split, rows in others.items():
        asked = table.select(rows).label_counts()
        for c in np.flatnonzero((asked > 0) & ~taught).tolist():
            raise AudiobatError(
                f"Label {table.classes[c]!r} is on {asked[c]} {split} clips and on none that trains: add training "
                "clips of it, or take these out."
            )
