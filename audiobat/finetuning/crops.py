"""What training draws its crops from: the training clips or, where frames have labels, stretches of long recordings.

A day with ten calls hardly ever shows one to a crop that is drawn anywhere in it. So rows around events and rows
without any are drawn at a stated share.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from audiobat.config import DataConfig, FinetuneConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.sampler import ClipOrder, clip_order
from audiobat.data.stretches import cut_to_stretches
from audiobat.evaluation.labels import Task, task_for

BACKGROUND = 0.3  # share of the draws of long recordings that are stretches without events
FILLED = 1 / 3  # of a patch column, to be marked by an event


@dataclass(frozen=True)
class Crops:
    """Rows of a clip table, and how they are drawn."""

    table: ClipTable
    task: Task  # the labels of its rows
    data: DataConfig
    seed: int

    @property
    def order(self) -> ClipOrder:
        """The order in which rows are drawn; an AudiobatError if `data` do not suit them."""
        return clip_order(self.table, self.data, self.seed)

    @property
    def some_empty(self) -> bool:
        """Whether there are rows without labels."""
        return self.table.labels is not None and bool((self.table.labels.lengths == 0).any())

    def __str__(self) -> str:
        assert self.table.labels is not None
        empty = int((self.table.labels.lengths == 0).sum())
        share = "" if self.data.background is None else f"; {100 * self.data.background:g}% of the draws are without"
        return f"{len(self.table) - empty:,} pieces with labels, {empty:,} without{share}"


def crops_of(table: ClipTable, config: FinetuneConfig) -> Crops:
    """The crops of the training clips `table`."""
    task = task_of(config, table)
    data = config.data
    if task.unit == "frame":
        rows = cut_to_stretches(table, data.clip_seconds)
        table, task = rows.table, task_of(config, rows.table)
        assert table.labels is not None
        empty = table.labels.lengths == 0
        if rows.cut and data.background is None and empty.any() and not empty.all():
            data = replace(data, background=BACKGROUND)
    return Crops(table, task, data, config.train.seed)


def task_of(config: FinetuneConfig, table: ClipTable) -> Task:
    """The task of fine-tuning; see `task_for`."""
    task = task_for(config, table)
    return replace(task, filled=FILLED) if task.unit == "frame" else task
