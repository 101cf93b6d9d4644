"""What one shard holds, as its .index.npz says: for each clip its place, length, hash and labels; and what it lacks."""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiobat.data.columns import Ragged, Strings
from audiobat.data.shards import SHARDS, ShardPlan, index_path, write_whole

TEXTS = {"keys", "volumes", "reasons"}
RAGGED = {"labels", "events"}


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """m clips, of some rows of the source, in V volumes, and k rows skipped."""

    plan: str  # digest of the plan that it belongs to
    number: int  # of the shard
    volumes: Strings  # [V] names of the tar files
    volume_sizes: NDArray[np.int64]  # [V] bytes
    keys: Strings  # [m]
    rows: NDArray[np.int64]  # [m] of the source
    starts: NDArray[np.int64]  # [m] samples into the clip of the source
    volume_ids: NDArray[np.int64]  # [m]
    offsets: NDArray[np.int64]  # [m] first byte in the volume
    sizes: NDArray[np.int64]  # [m] bytes
    lengths: NDArray[np.int64]  # [m] samples
    hashes: NDArray[np.uint64]  # [m, 2] of the samples
    loud: NDArray[np.bool_]  # [m] whether samples beyond full scale were cut off there
    labels: Ragged | None  # [m] class indices, int32
    events: Ragged | None  # [m] EVENTs
    skipped: NDArray[np.int64]  # [k] rows of the source
    reasons: Strings  # [k]

    def save(self, folder: Path) -> None:
        """Write it beside its shard, whole or not at all."""
        arrays: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Ragged):
                arrays |= {f"{f.name}.offsets": value.offsets, f"{f.name}.values": value.values}
            elif value is not None:
                arrays[f.name] = value
        packed = io.BytesIO()
        np.savez(packed, allow_pickle=False, **arrays)
        write_whole(index_path(folder, self.number), packed.getvalue())


def load_index(folder: Path, number: int, plan: ShardPlan) -> ShardIndex | None:
    """The index of a shard; None if the shard is not done: no index, one of another plan, a volume missing or cut."""
    try:
        with np.load(index_path(folder, number), allow_pickle=False) as arrays:
            index = ShardIndex(**{f.name: _value(arrays, f.name) for f in fields(ShardIndex)})
        sizes = [os.path.getsize(folder / SHARDS / name) for name in index.volumes]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    ours = (index.plan, index.number) == (plan.digest, number)
    return index if ours and sizes == index.volume_sizes.tolist() else None


def _value(arrays: Any, name: str) -> Any:
    if name in TEXTS | RAGGED:
        if f"{name}.offsets" not in arrays:
            return None
        return (Strings if name in TEXTS else Ragged)(arrays[f"{name}.offsets"], arrays[f"{name}.values"])
    value = arrays[name]
    return value.item() if value.ndim == 0 else value
