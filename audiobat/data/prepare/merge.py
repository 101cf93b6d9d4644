"""The indexes of finished shards and the source's table to the clip table of a prepared folder, and its reports."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiobat.data.clip_table import ClipTable
from audiobat.data.columns import Strings, join_ragged
from audiobat.data.csv_text import csv_text
from audiobat.data.prepare.shard import ShardIndex
from audiobat.data.shards import (
    CLIPS,
    DUPLICATES,
    SHARDS,
    SKIPPED,
    WIDS,
    PackSettings,
    ShardPlan,
    beside,
    is_unfinished,
    open_prepared,
    write_shared,
)
from audiobat.errors import AudiobatError


def finish(folder: Path, source: ClipTable, plan: ShardPlan, indexes: Sequence[ShardIndex]) -> None:
    """Write the reports and the table of a folder whose shards are all there, unless a readable table is there.

    Files that killed runs have left are removed.

    Raises:
        AudiobatError: not one clip could be read.
    """
    if (folder / CLIPS).exists() and not is_finished(folder):  # in this order: another part may finish in between
        remove(folder / CLIPS)
    if not is_finished(folder):
        try:
            table = merged_table(source, plan.settings, indexes)
            write_reports(folder, source, table, indexes)
            write_shared(folder / WIDS, wids_index(indexes).encode())
            save_once(table, folder / CLIPS)  # last: with it, the folder is done
        except OSError:
            if not is_finished(folder):  # another part found all shards too, and was faster
                raise
    for path in filter(is_unfinished, folder.iterdir()):
        remove(path)


def is_finished(folder: Path) -> bool:
    """Whether the folder has a table that can be read."""
    try:
        open_prepared(folder)
    except AudiobatError:
        return False
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    while path.is_dir():
        try:
            shutil.rmtree(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):  # another part removes it too, or still writes there
                raise
    path.unlink(missing_ok=True)


def write_reports(folder: Path, source: ClipTable, table: ClipTable, indexes: Sequence[ShardIndex]) -> None:
    """Write skipped.csv and duplicates.csv; raises an AudiobatError if not one clip could be read."""
    skipped = [
        (source.keys[int(clip_id)], reason)
        for index in indexes
        for clip_id, reason in zip(index.skipped, index.reasons, strict=True)
    ]
    write_csv(folder / SKIPPED, ("path", "reason"), skipped)
    if len(skipped) == len(source):
        raise AudiobatError(
            f"None of the {len(source)} clips can be read; one is {skipped[0][0]}: {skipped[0][1]} "
            f"Fix that, then use --overwrite; {folder / SKIPPED} lists all."
        )
    origin = [source.keys[int(clip_id)] for index in indexes for clip_id in index.clip_ids]
    copies = [
        (origin[copy], origin[int(group[0])], table.keys[copy], table.keys[int(group[0])])
        for group in table.duplicates()
        for copy in group[1:].tolist()
    ]
    write_csv(folder / DUPLICATES, ("path", "first_path", "key", "first_key"), copies)


def wids_index(indexes: Sequence[ShardIndex]) -> str:
    """The shards and their lengths as `wids.ShardListDataset` takes them, which does not find them out itself."""
    shards = [
        {"url": f"{SHARDS}/{name}", "nsamples": int((index.volume_ids == volume).sum()), "filesize": size}
        for index in indexes
        for volume, (name, size) in enumerate(zip(index.volumes, index.volume_sizes.tolist(), strict=True))
    ]
    return json.dumps({"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shards}, indent=1) + "\n"


def merged_table(source: ClipTable, settings: PackSettings, indexes: Sequence[ShardIndex]) -> ClipTable:
    """The clips of all shards, in order, with all that the source's table has of them."""

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(index, name) for index in indexes])

    clip_ids = joined("clip_ids")
    file_ids, files = [], 0
    for index in indexes:
        file_ids.append(index.volume_ids + files)
        files += len(index.volumes)
    picked = source.select(clip_ids)
    begins = joined("starts") / settings.sample_rate + (0.0 if picked.begins is None else picked.begins)
    columns = {"source": Strings.of_texts(source.files[int(file_id)] for file_id in picked.file_ids)}
    if begins.any():
        columns["start"] = Strings.of_texts(f"{begin:.12g}" for begin in begins.tolist())
    return replace(
        picked,
        keys=join_ragged([index.keys for index in indexes]),
        files=Strings.of_texts(f"{SHARDS}/{name}" for index in indexes for name in index.volumes),
        file_ids=np.concatenate(file_ids).astype(np.int32),
        root="",
        offsets=joined("offsets"),
        sizes=joined("sizes"),
        begins=None,
        seconds=joined("lengths") / settings.sample_rate,
        sample_rates=np.full(len(clip_ids), settings.sample_rate, np.int32),
        labels=None if source.labels is None else join_ragged([i.labels for i in indexes if i.labels is not None]),
        events=None if source.events is None else join_ragged([i.events for i in indexes if i.events is not None]),
        event_scores=None,  # shards hold labels to train on
        hashes=joined("hashes"),
        columns=columns | picked.columns,
    )


def save_once(table: ClipTable, folder: Path) -> None:
    """Save a table under a name of this process's own, then rename it: another machine may be doing the same."""
    own = beside(folder)
    try:
        table.save(own)
        if not folder.exists():
            os.replace(own, folder)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def write_csv(path: Path, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Write a CSV, whole or not at all."""
    write_shared(path, csv_text([header, *lines]).encode())
