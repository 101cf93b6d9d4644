"""A clip table and settings to the plan of its shards, and to the keys of its clips in them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from audiobat.audio.read import AUDIO_EXTENSIONS
from audiobat.data.clip_table import ClipTable
from audiobat.data.shards import PackSettings, ShardPlan

SHARD_CLIPS, SHARD_BYTES = 1_000, 256 << 20  # recordings and bytes of the source that a shard takes at most
SHARES = 64  # small sources are cut finer, into about so many shards, so that every core has work to the end,
LEAST_CLIPS, LEAST_BYTES = 64, 16 << 20  # but not finer than this


def make_plan(table: ClipTable, settings: PackSettings) -> ShardPlan:
    """Cut the clips of a table, in their order, into shards: by number and by the bytes of the source's local files."""
    sizes = table.file_sizes()
    in_file = np.bincount(table.file_ids, minlength=len(sizes))
    costs = (np.maximum(sizes, 0) / np.maximum(in_file, 1))[table.file_ids]  # [n] bytes
    most_clips = min(SHARD_CLIPS, max(LEAST_CLIPS, -(-len(table) // SHARES)))
    most_bytes = min(SHARD_BYTES, max(LEAST_BYTES, float(costs.sum()) / SHARES))
    first_rows, held = [0], 0.0
    for clip_id, cost in enumerate(costs.tolist()):
        if clip_id > first_rows[-1] and (clip_id - first_rows[-1] == most_clips or held + cost > most_bytes):
            first_rows.append(clip_id)
            held = 0.0
        held += cost
    return ShardPlan(source_digest(table, sizes), len(table), settings, tuple(first_rows))


def source_digest(table: ClipTable, sizes: NDArray[np.int64]) -> str:
    """sha256 of all that the shards depend on, the samples apart; wherever the folder of the source lies."""
    digest = hashlib.sha256(table.sha256().encode())
    for name, texts in (("files", table.files), *table.columns.items()):
        digest.update(f"\n{name}:".encode())
        digest.update(texts.lengths.tobytes())
        digest.update(texts.values.tobytes())
    for numbers in (sizes, table.file_ids, table.offsets, table.begins):
        if numbers is not None:
            digest.update(numbers.astype("<f8" if numbers.dtype.kind == "f" else "<i8").tobytes())
    return digest.hexdigest()


def shard_keys(keys: Iterable[str]) -> list[str]:
    """The key of each clip in a shard: its own key, changed where it does not fit into a tar member's name.

    Readers take all before the first dot of a member's name as its key.

    An audio file's extension goes; so do leading slashes and `..`; other dots and control characters become `_`. Where
    two become one, the later gets its extension at the end or, if that is taken too, a number.
    """
    taken: set[str] = set()
    numbers: dict[str, int] = {}  # last number given, so that many of one name take no longer
    found: list[str] = []
    for key in keys:
        stem, extension = os.path.splitext(key)
        if extension.lower() not in AUDIO_EXTENSIONS:
            stem, extension = key, ""
        name = fit(stem)
        if name in taken and extension:
            name = fit(stem + extension)
        wanted = name
        while name in taken:
            numbers[wanted] = numbers.get(wanted, 1) + 1
            name = f"{wanted}_{numbers[wanted]}"
        taken.add(name)
        found.append(name)
    return found


def fit(name: str) -> str:
    """A relative path below the shard, without dots and control characters.

    WebDataset's readers pass over a first folder such as `__name__`, which loses its leading underscores.
    """
    letters = "/".join(part for part in name.split("/") if part not in ("", ".", "..")) or "clip"
    fitting = "".join("_" if letter == "." or not letter.isprintable() else letter for letter in letters)
    first, slash, rest = fitting.partition("/")
    return f"{first.lstrip('_') or 'clip'}/{rest}" if slash and re.fullmatch("__.*__", first) else fitting
