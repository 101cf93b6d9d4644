"""Tasks on frozen features beyond heads that learn the labels of clips. One file a kind, named after it.

In: the clips of a probe and their features, made once for all heads and tasks. Out: metrics of queries, pairs or clips.
What the kinds share:

    base.py         what every task is, and the vectors that it is given
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

    Raises AudiobatError for clips that one of them cannot be measured on.
    """
    kinds = [kind for kind in config.tasks if kind != LABELS]
    return {kind.rpartition(":")[2]: task_class(kind).build(config.of_task(kind), table, splits) for kind in kinds}
