"""Folds for clips that come without any: each class spread evenly over them, recordings and groups whole.

In: a labelled clip table and a number of folds. Out: the table with a fold, 1 to the number, for each clip. Which clips
those are depends on names and labels alone, so that every model is tested on the same folds.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from audiobat.data.clip_table import ClipTable
from audiobat.data.split import by_hash, groups_of
from audiobat.errors import AudiobatError


def with_folds(table: ClipTable, folds: int | None) -> ClipTable:
    """The table with `folds` folds drawn; None: as it is.

    Groups are dealt out one by one, those of the rarest class first and the large ones before the small ones, each to
    the fold that has the fewest clips of that class, and of these to the smallest (after Sechidis et al., 2011).

    Raises:
        AudiobatError: fewer than two folds or more than groups, no labels, clips that have folds or splits already.
    """
    if folds is None:
        return table
    if table.labels is None:
        raise AudiobatError("--folds needs labels: give a CSV with a `label` column or class folders.")
    for name, column in (("split", table.splits), ("fold", table.folds)):
        if column is not None:
            raise AudiobatError(f"The clips have their own {name}s: leave out --folds, or that column.")
    members: dict[str, list[int]] = defaultdict(list)  # clip_ids of each group
    for clip_id, group in enumerate(groups_of(table)):
        members[group].append(clip_id)
    if not 2 <= folds <= len(members):
        whole = f"{len(members)}, as many as there are {'clips' if len(members) == len(table) else 'groups of clips'}"
        raise AudiobatError(f"--folds is {folds}: use 2 to {whole}.")
    clips = table.label_counts()  # [C]
    of_class = np.zeros((folds, len(table.classes)), np.int64)  # clips of each class that each fold has
    sizes = np.zeros(folds, np.int64)
    found = np.zeros(len(table), np.int64)
    own: dict[str, NDArray[np.int64]] = {}  # clips of each class that a group has, [C]
    rarest: dict[str, int] = {}  # the class of a group that the fewest clips have; -1: none
    for group, ids in members.items():
        own[group] = np.bincount(table.labels.take(np.array(ids)).values, minlength=len(clips))
        rarest[group] = min(np.flatnonzero(own[group]).tolist(), key=lambda label: clips[label], default=-1)

    def turn(group: str) -> tuple[int, int, int]:
        """The rarest class first, and of its groups the largest."""
        label = rarest[group]
        rank = int(clips[label]) if label >= 0 else len(table) + 1
        return rank, label, -len(members[group])

    for group in sorted(by_hash(members), key=turn):
        label = rarest[group]
        have = of_class[:, label] if label >= 0 else sizes
        fold = int(np.lexsort((sizes, have))[0])  # of equals the first
        found[members[group]] = fold + 1
        of_class[fold] += own[group]
        sizes[fold] += len(members[group])
    return replace(table, folds=found)


def describe_folds(table: ClipTable) -> str:
    """How folds were drawn, in a line."""
    assert table.folds is not None
    _, sizes = np.unique(table.folds, return_counts=True)
    groups = len(set(groups_of(table)))
    whole = f"; {groups:,} recordings or groups stay whole" if groups < len(table) else ""
    few, many = int(sizes.min()), int(sizes.max())
    each = f"{few:,} clips" if few == many else f"{few:,} to {many:,} clips"
    return f"folds: {len(sizes)} of {each}, drawn by a hash of their names, each class spread evenly over them{whole}"
