"""Tasks on frozen features beyond heads that learn the labels of clips. One file a kind, named after it.

In: the clips of a probe and their features, made once for all heads and tasks. Out: metrics of queries, pairs or clips.
What the kinds share:

    base.py         what every task is, and the vectors that it is given
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from audiobat.config import LABELS, ProbeConfig
from audiobat.config.registry import find
from audiobat.config.user_files import errors_of_user_code, place_of
from audiobat.data.clip_table import ClipTable
from audiobat.data.split import Split
from audiobat.errors import AudiobatError
from audiobat.probing.tasks.base import ProbeTask, TaskFeatures

__all__ = ["ProbeTask", "TaskFeatures", "build_tasks", "labelled", "task_class", "trains"]


def task_class(kind: str) -> type[ProbeTask]:
    """The class behind a kind of task: the one in the file of that name, or a user's own, `my_task.py:MyTask`.

    Raises:
        AudiobatError: there is no such kind, file or class, or the class is no `ProbeTask`.
    """
    found: type[Any] = find("task", kind)
    if not issubclass(found, ProbeTask):
        raise AudiobatError(
            f"{place_of(found)}: {found.__name__} is no task: derive it from ProbeTask of audiobat.probing.tasks."
        )
    return found


def trains(config: ProbeConfig) -> bool:
    """Whether a probe has any use for clips that train."""
    return any(kind == LABELS or task_class(kind).trains(config.of_task(kind)) for kind in config.tasks)


def labelled(config: ProbeConfig) -> bool:
    """Whether a probe has any use for the labels of clips."""
    return any(kind == LABELS or task_class(kind).labelled for kind in config.tasks)


@errors_of_user_code()
def build_tasks(config: ProbeConfig, table: ClipTable, splits: Sequence[Split]) -> dict[str, ProbeTask]:
    """The tasks of a probe other than labels, by their names in files, which are their kinds, or a user's class's name.

    A task that trains nothing has one split, whichever heads and tasks train beside it: the clips that test, but all
    clips where each fold tests in turn or test clips were drawn. Raises AudiobatError for clips that a task cannot use.
    """
    tasks = {}
    for kind in (kind for kind in config.tasks if kind != LABELS):
        found, own = task_class(kind), config.of_task(kind)
        given = splits if found.trains(own) else [untrained(table, splits)]
        tasks[kind.rpartition(":")[2]] = found.build(own, table, given)
    return tasks


def untrained(table: ClipTable, splits: Sequence[Split]) -> Split:
    """The split of a task that trains nothing."""
    none = np.zeros(0, np.int64)
    whole = len(splits) > 1 or splits[0].drawn
    return Split(none, np.arange(len(table)) if whole else splits[0].test, drawn=whole)
