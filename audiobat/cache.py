"""Encoder and clip table to frozen features: computed once and kept when they fit, else computed again for every batch.

Whichever it is, a head sees batches of `LayerFeatures`, and nothing of the encoder is changed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audiobat.audio import pad_batch
from audiobat.data.dataset import iterate_clips
from audiobat.data.index import ClipTable
from audiobat.data.store import read_clip
from audiobat.errors import AudiobatError
from audiobat.features import Encoder, LayerFeatures
from audiobat.heads.pooling import mean_valid
from audiobat.progress import Progress
from audiobat.train.dist import pick_device

FLOAT_BYTES = 4
GB = 1e9
POOL_BATCH = 64  # clips of which means are taken at once


class FeatureSource:
    """Frozen features of the readable clips of a table; see `cache_features`."""

    def __init__(
        self,
        encoder: Encoder,
        table: ClipTable,
        indices: NDArray[np.int64],
        skipped: dict[str, str],
        store: _Store | None,
        device: torch.device,
    ) -> None:
        self.table, self.device = table, device
        self.indices = indices  # readable clips: rows of the table, ascending
        self.skipped = skipped  # key -> reason, of the others
        self.dim, self.depth = encoder.dim, encoder.depth
        self._encoder, self._store = encoder, store

    @property
    def cached(self) -> bool:
        """Whether the features are in memory."""
        return self._store is not None

    def batch(self, rows: NDArray[np.int64] | Sequence[int]) -> LayerFeatures:
        """Features, float32 on the device, of the clips at `rows` of the table; padding is not valid.

        Raises AudiobatError for a clip that was skipped, or that can no longer be read.
        """
        rows = np.asarray(rows, dtype=np.int64)
        missing = rows[~np.isin(rows, self.indices)]
        if len(missing):
            raise AudiobatError(f"Clip {missing[0]} of the table has no features: take rows of `source.indices`.")
        if self._store is not None:
            return _move(self._store.select(torch.from_numpy(rows)), self.device)
        waveforms = [torch.from_numpy(read_clip(self.table, int(i), self._encoder.sample_rate)) for i in rows]
        return _encode(self._encoder, *pad_batch(waveforms), self.device)

    @cached_property
    def pooled(self) -> FeatureSource:
        """The same with one patch per clip, the mean over its valid ones: all that a linear probe looks at.

        It always fits, so heads of this kind need a single pass over the clips.
        """
        store = _Store(len(self.table), float("inf"))
        for first in range(0, len(self.indices), POOL_BATCH):
            rows = self.indices[first : first + POOL_BATCH]
            features = self.batch(rows)
            means = torch.stack([mean_valid(layer, features.valid) for layer in features.patch_tokens])  # [L, B, D]
            valid = features.valid.any(1, keepdim=True)
            store.add(
                LayerFeatures(means[:, :, None], features.cls_token, (1, 1), valid, features.frame_times[:1]), rows
            )
        return FeatureSource(self._encoder, self.table, self.indices, self.skipped, store, self.device)


def cache_features(
    encoder: Encoder,
    table: ClipTable,
    *,
    batch_size: int = 16,
    cache_gb: float = 8.0,
    device: str = "cpu",
    progress: bool = True,
    skipped: dict[str, str] | None = None,
) -> FeatureSource:
    """Compute the features of all clips of `table`, and keep them if they fit.

    Args:
        encoder: runs in eval mode, without gradients, and is left in its own mode; a module is moved to `device`.
        table: the clips; each is used whole.
        batch_size: clips encoded at once.
        cache_gb: memory (1e9 bytes) that the features may take; when they need more, only the audio is checked now,
            and `batch` encodes clips as they are asked for.
        device: where the encoder runs and batches end up; kept features stay in the CPU's memory.
        progress: whether to show a bar, and a line that says what was decided.
        skipped: receives key -> reason of each clip that cannot be read, also when the run stops.

    Raises:
        AudiobatError: more than 5% of the clips are unreadable, or none is readable.
    """
    where = pick_device(device)
    if isinstance(encoder, nn.Module):
        encoder.to(where)
    skipped = {} if skipped is None else skipped
    store = _Store(len(table), cache_gb * GB)
    found: list[NDArray[np.int64]] = []
    with Progress("features", total=len(table), unit="clip", shown=progress) as bar:
        for batch in iterate_clips(table, encoder.sample_rate, batch_size, skipped=skipped):
            found.append(batch.indices)
            if store.fits:
                store.add(_encode(encoder, batch.waveform, batch.lengths, where), batch.indices)
            bar.advance(int(batch.indices[-1]) + 1 - bar.done)
        bar.advance(len(table) - bar.done)
    if not found:
        raise AudiobatError(f"None of the {len(table)} clips can be read: check the paths.")
    if progress:
        print(store.verdict(), file=sys.stderr, flush=True)
    return FeatureSource(encoder, table, np.concatenate(found), skipped, store if store.fits else None, where)


class _Store:
    """Features of up to `clips` clips by row, clips first, so that a batch is one gather of contiguous pieces."""

    patches: Tensor | None = None  # [n, L, N, D]; zeros where there is no clip or padding
    cls: Tensor | None = None  # [n, L, D]
    valid: Tensor  # [n, N]
    longest: LayerFeatures  # whose grid and times hold for all

    def __init__(self, clips: int, budget: float) -> None:
        self.clips, self.budget, self.needs = clips, budget, 0.0  # bytes

    @property
    def fits(self) -> bool:
        """Whether all clips, each as long as the longest so far, fit the budget."""
        return self.needs <= self.budget

    def add(self, features: LayerFeatures, rows: NDArray[np.int64]) -> None:
        """Put features at `rows`, which ascend from call to call; no longer `fits` if that takes too much memory."""
        tokens = features.patch_tokens.transpose(0, 1).cpu()  # [B, L, N, D]
        length = tokens.shape[2]
        if self.patches is None or length > self.patches.shape[2]:
            self._grow(features, int(rows[0]))
        if self.patches is None:
            return
        at = torch.from_numpy(rows)
        self.patches[at, :, :length] = tokens
        self.valid[at, :length] = features.valid.cpu()
        if self.cls is not None and features.cls_token is not None:
            self.cls[at] = features.cls_token.transpose(0, 1).cpu()

    def _grow(self, features: LayerFeatures, filled: int) -> None:
        """Make room for clips as long as these, keeping the rows before `filled`; drop all if there is not enough."""
        depth, _, length, dim = features.patch_tokens.shape
        has_cls = features.cls_token is not None
        self.needs = float(self.clips * depth * (length + has_cls) * dim * FLOAT_BYTES)
        if not self.fits:
            self.patches = self.cls = None
            return
        patches, valid = torch.zeros(self.clips, depth, length, dim), torch.zeros(self.clips, length, dtype=torch.bool)
        if self.patches is not None:
            before = self.patches.shape[2]
            patches[:filled, :, :before] = self.patches[:filled]
            valid[:filled, :before] = self.valid[:filled]
        elif has_cls:
            self.cls = torch.zeros(self.clips, depth, dim)
        self.patches, self.valid, self.longest = patches, valid, features.clip(0)

    def select(self, rows: Tensor) -> LayerFeatures:
        """The batch at `rows`: one gather; layers first is a view of it."""
        cls = None if self.cls is None else self.cls.index_select(0, rows).transpose(0, 1)
        assert self.patches is not None
        patches = self.patches.index_select(0, rows).transpose(0, 1)
        return replace(self.longest, patch_tokens=patches, cls_token=cls, valid=self.valid.index_select(0, rows))

    def verdict(self) -> str:
        """What was decided, in a sentence."""
        size = f"features of {self.clips:,} clips: {'' if self.fits else 'at least '}{self.needs / GB:.3g} GB"
        if self.fits:
            return f"{size}, kept in memory"
        return f"{size}, more than cache_gb {self.budget / GB:g}: computed again for every batch"


def _encode(encoder: Encoder, waveform: Tensor, lengths: Tensor, device: torch.device) -> LayerFeatures:
    """Features of a batch, cut after the last patch column that any of its clips reaches."""
    with frozen(encoder):
        features = encoder.forward_layers(waveform.to(device), lengths.to(device))
    rows = features.grid[1]
    reached = features.valid.unflatten(1, features.grid).any(2).any(0)
    columns = int(reached.nonzero().max()) + 1
    return LayerFeatures(
        features.patch_tokens[:, :, : columns * rows].float(),
        None if features.cls_token is None else features.cls_token.float(),
        (columns, rows),
        features.valid[:, : columns * rows],
        features.frame_times[:columns],
    )


@contextmanager
def frozen(encoder: Encoder) -> Iterator[None]:
    """Eval mode without gradients; every module's own mode is restored."""
    modes = {m: m.training for m in encoder.modules()} if isinstance(encoder, nn.Module) else {}
    try:
        for module in modes:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _move(features: LayerFeatures, device: torch.device) -> LayerFeatures:
    if device.type == "cpu":
        return features
    moved: dict[str, Any] = {
        name: value.to(device, non_blocking=True) for name, value in vars(features).items() if isinstance(value, Tensor)
    }
    return replace(features, **moved)
