"""Encoder and clip table to frozen features: computed once and kept, in memory or on disk, else for every batch anew.

Whichever it is, a head sees batches of `LayerFeatures`, and nothing of the encoder is changed.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from audiobat.audio.augment import roll
from audiobat.data.clip_table import ClipTable
from audiobat.data.loader import ClipBatch, check_skipped, load_clips
from audiobat.engine.memory import room_in_ram
from audiobat.engine.progress import Progress
from audiobat.engine.ranks import Ranks, pick_device
from audiobat.errors import AudiobatError
from audiobat.models.features import NOT_FINITE, Encoder, LayerFeatures, finite_clips
from audiobat.models.heads import BlockInputs, block_inputs
from audiobat.models.heads.pooling import mean_valid
from audiobat.probing.encoding import encode, encode_cut, encode_cuts
from audiobat.probing.feature_files import GB, FeatureFiles, cache_key
from audiobat.probing.feature_store import FLOAT_BYTES, Chunk, ClipIds, FeatureStore, pack

POOL_BATCH = 64  # clips of which means are taken at once
GATHERED_AHEAD = 3  # batches on their way to a GPU
ROLLS = 1  # so that rolls are no function of the numbers that order clips
SPILL_GB = 64.0  # more is faster encoded again than read from a disk


@dataclass(eq=False)
class FeatureSource:
    """Frozen features of the readable clips of a table; see `cache_features`."""

    encoder: Encoder
    table: ClipTable
    indices: ClipIds  # ids of the readable clips, ascending
    skipped: dict[str, str]  # key -> reason, of the others
    _store: FeatureStore | None  # None: features are computed for every batch
    device: torch.device
    freq_patches: int  # F, the model's patches above one another
    workers: int = 0  # processes that decode audio ahead
    budget: float = float("inf")  # bytes that kept features may take
    is_pooled: bool = False  # each clip has one patch, the mean over its valid ones
    roll_seed: int | None = None  # of the circular rolls of clips; None: they are as they are

    @property
    def cached(self) -> bool:
        """Whether the features are kept."""
        return self._store is not None

    def batch(self, clip_ids: ClipIds | Sequence[int]) -> LayerFeatures:
        """Features, float32 on the device, of the clips `clip_ids` of the table; padding is not valid.

        Raises AudiobatError for a clip that was skipped, or that can no longer be read.
        """
        clip_ids = np.asarray(clip_ids, dtype=np.int64)
        if self._store is None:
            return self._encode(next(replace(self, workers=0).waveforms([clip_ids])))  # no processes for one batch
        features = self._store.gather(self._known(clip_ids))
        return _each_tensor(features, lambda tensor: tensor.to(self.device, non_blocking=True))

    def batches(self, draws: Iterable[ClipIds]) -> Iterator[tuple[ClipIds, LayerFeatures]]:
        """`batch` of one list of ids after the other, each with its ids; audio is decoded ahead of the encoder."""
        if self._store is None:
            yield from ((drawn.clip_ids, self._encode(drawn)) for drawn in self.waveforms(draws))
        elif self.device.type == "cpu":
            yield from ((clip_ids, self.batch(clip_ids)) for clip_ids in draws)
        else:
            yield from self._gathered_ahead(self._store, draws)

    def inputs(
        self, kinds: Collection[str], draws: Iterable[ClipIds]
    ) -> Iterator[tuple[ClipIds, dict[str, LayerFeatures]]]:
        """Each batch in all forms that heads ask for, `Head.reads`, made once; a form nobody asks for is never made."""
        pools = {"patches", "means"} <= set(kinds) and not self.cached  # then means cost no pass of their own
        makers = {"patches": self.batches, "means": lambda d: self.pooled.batches(d), "blocks": self.block_inputs}
        made = sorted(set(kinds) - {"means"} if pools else kinds)
        drawn, *copies = tee(draws, 1 + len(made))
        streams = {kind: makers[kind](copy) for kind, copy in zip(made, copies, strict=True)}
        for clip_ids in drawn:
            inputs = {kind: next(stream)[1] for kind, stream in streams.items()}
            yield clip_ids, inputs | ({"means": pool(inputs["patches"])} if pools else {})

    def block_inputs(self, draws: Iterable[ClipIds]) -> Iterator[tuple[ClipIds, BlockInputs]]:
        """What goes into each block of the encoder, by a pass through it for every batch: nothing of it is kept."""
        for drawn in self.waveforms(draws):
            clips = drawn.to(self.device)
            made = block_inputs(self.encoder, clips.waveform, clips.lengths)
            self._check_finite(made, clips.clip_ids)
            yield clips.clip_ids, made

    def waveforms(self, draws: Iterable[ClipIds]) -> Iterator[ClipBatch]:
        """The clips themselves, decoded ahead by `workers` processes, on the CPU unless they are rolled.

        Raises AudiobatError if a clip is gone.
        """
        known = (self._known(clip_ids) for clip_ids in draws)
        for step, drawn in enumerate(load_clips(self.table, self.encoder.sample_rate, known, self.workers)):
            for key, reason in drawn.skipped.items():
                raise AudiobatError(f"Clip {key} could be read before and now cannot: {reason}")
            if self.roll_seed is not None:
                share = np.random.default_rng((self.roll_seed, step, ROLLS)).random(len(drawn.clip_ids))
                turn = (torch.from_numpy(share) * drawn.lengths).long().to(self.device)
                drawn = drawn.to(self.device)  # where a roll costs less
                drawn = replace(drawn, waveform=roll(drawn.waveform, drawn.lengths, turn))
            yield drawn

    def rolled(self, seed: int) -> FeatureSource:
        """The same clips, each rolled circularly by an amount that depends on the seed, the batch and the place in it.

        No features are kept: each batch is encoded when it is asked for.
        """
        return replace(self, _store=None, roll_seed=seed)

    @cached_property
    def pooled(self) -> FeatureSource:
        """The same with one patch per clip, the mean over its valid ones: all that a linear probe looks at.

        That nearly always fits in memory, so that heads of this kind alone need a single pass over the clips.
        """
        store = None
        fits = 2 * len(self.table) * self.encoder.depth * self.encoder.dim * FLOAT_BYTES <= self.budget
        if self.cached or (fits and self.roll_seed is None):
            store = FeatureStore(len(self.table))
            cuts = range(0, len(self.indices), POOL_BATCH)
            for clip_ids, features in self.batches(self.indices[first : first + POOL_BATCH] for first in cuts):
                store.add(pack(pool(features), clip_ids))
        return replace(self, _store=store, is_pooled=True)

    def _known(self, clip_ids: ClipIds) -> ClipIds:
        missing = clip_ids[~np.isin(clip_ids, self.indices)]
        if len(missing):
            raise AudiobatError(f"Clip {missing[0]} of the table has no features: take ids of `source.indices`.")
        return clip_ids

    def _encode(self, drawn: ClipBatch) -> LayerFeatures:
        features = encode(self.encoder, drawn.waveform, drawn.lengths, self.device)
        self._check_finite(features, drawn.clip_ids)
        return pool(features) if self.is_pooled else features

    def _check_finite(self, features: LayerFeatures, clip_ids: ClipIds) -> None:
        """Raise an AudiobatError that names a clip whose features, made for a batch, are not finite."""
        for clip_id in clip_ids[~finite_clips(features).cpu().numpy()].tolist():
            raise AudiobatError(
                f"Clip {self.table.keys[clip_id]}: {NOT_FINITE} Leave it out of --data, or let all features be kept "
                "(cache_gb, cache_dir), which leaves out such clips by itself."
            )

    def _gathered_ahead(self, store: FeatureStore, draws: Iterable[ClipIds]) -> Iterator[tuple[ClipIds, LayerFeatures]]:
        """Gather in threads while the device computes: copying memory is all that they do."""

        def gather(clip_ids: ClipIds) -> LayerFeatures:
            features = store.gather(self._known(clip_ids))
            # from pinned memory a GPU fetches by itself
            return _each_tensor(features, lambda t: t.contiguous().pin_memory().to(self.device, non_blocking=True))

        waiting: list[tuple[ClipIds, Future[LayerFeatures]]] = []
        with ThreadPoolExecutor(GATHERED_AHEAD) as threads:
            for clip_ids in draws:
                waiting.append((clip_ids, threads.submit(gather, clip_ids)))
                if len(waiting) > GATHERED_AHEAD:
                    first, features = waiting.pop(0)
                    yield first, features.result()
            for first, features in waiting:
                yield first, features.result()


def cache_features(
    encoder: Encoder,
    table: ClipTable,
    *,
    batch_size: int = 16,
    cache_gb: float = 8.0,
    cache_dir: str | Path | None = None,
    spill_dir: str | Path | None = None,
    device: str = "cpu",
    workers: int = 0,
    progress: bool = True,
    skipped: dict[str, str] | None = None,
    ranks: Ranks | None = None,
) -> FeatureSource:
    """Compute the features of all clips of `table`, each once, and keep them if they fit.

    On several ranks each encodes its share of the clips and rank 0 keeps them all, as if it were alone; the source that
    the others get keeps none.

    Args:
        encoder: runs in eval mode, without gradients, and is left in its own mode; a module is moved to `device`.
        table: the clips; each is used whole.
        batch_size: clips encoded at once.
        cache_gb: memory (1e9 bytes) that the features may take, at most all that the machine has; when they need more
            and no folder is given, only the audio is checked now, and they are computed when they are asked for.
        cache_dir: keep the features in this folder instead, whatever they take; what an earlier run with the same
            encoder and clips left there, finished or not, is checked and used.
        spill_dir: the same folder for features that exceed `cache_gb`, if they take no more than `SPILL_GB` and half of
            what is free on its disk.
        device: where the encoder runs and batches end up; kept features stay in the CPU's memory.
        workers: processes that decode audio ahead of the encoder; 0: this one does.
        progress: whether to show a bar, and a line that says what was decided.
        skipped: receives key -> reason of each clip that cannot be read or has NaN features, also when the run stops.
        ranks: those that divide the clips; every one of them must call this. None: this process has all clips.

    Raises:
        AudiobatError: more than 5% of the clips are unreadable, or none is readable; the disk is full.
    """
    ranks = Ranks(pick_device(device)) if ranks is None else ranks
    if isinstance(encoder, nn.Module):
        encoder.to(ranks.device)
    else:
        spill_dir = None  # without weights to hash, its features cannot be told from another encoder's
    skipped = {} if skipped is None else skipped
    budget = min(cache_gb * GB, room_in_ram())
    store, found = FeatureStore(len(table)), np.zeros(len(table), bool)
    cuts = [np.arange(first, min(first + batch_size, len(table))) for first in range(0, len(table), batch_size)]
    needs = freq_patches = 0
    files: FeatureFiles | None = None
    spilled = cache_dir is None and spill_dir is not None and Path(spill_dir).is_dir()
    if spilled and Path(spill_dir or "", cache_key(encoder, table)).is_dir():
        cache_dir = spill_dir  # an earlier run's features are there

    def again(cut: ClipIds) -> Chunk | None:
        drawn = next(load_clips(table, encoder.sample_rate, [cut]))
        return encode_cut(encoder, table, cut, drawn, ranks.device).chunk

    with ExitStack() as opened:
        missing = cuts
        if cache_dir is not None and ranks.is_main:  # which alone reads and writes them
            files = opened.enter_context(FeatureFiles(cache_dir, encoder, table))
            missing = files.load(cuts, skipped, again)
        missing = ranks.gather(missing if ranks.is_main else None)[0]
        left = sum(map(len, missing))
        held: list[tuple[ClipIds, Chunk, dict[str, str]]] = []  # as `keep` wants them, while they are in memory

        def keeps() -> bool:
            return files is not None or needs <= budget

        shown = progress and ranks.is_main
        with Progress("features", len(table), "clip", done=len(table) - left, shown=shown) as bar:
            for encoded in encode_cuts(encoder, table, missing, ranks, workers, keeps):
                cut, chunk = encoded.cut, encoded.chunk
                skipped.update(encoded.skipped)
                left -= len(cut)
                check_skipped(skipped, len(table) - left, len(table))
                found[encoded.clip_ids] = True
                if chunk is not None and files is not None:
                    files.keep(cut, chunk, encoded.skipped, left)
                elif chunk is not None and needs <= budget:
                    held.append((cut, chunk, encoded.skipped))
                    store.add(chunk)
                    needs, freq_patches = store.needs(len(table)), chunk.freq_patches
                    if needs > budget:
                        if spill_dir is not None and has_room(spill_dir, needs):
                            files = opened.enter_context(FeatureFiles(spill_dir, encoder, table))
                            for entry in held:
                                files.keep(*entry, left)
                        store, held = FeatureStore(len(table)), []
                bar.advance(len(cut))
        for chunk in files.chunks() if files is not None else ():
            store.add(chunk)
            found[chunk.clip_ids] = True
            freq_patches = chunk.freq_patches
    fits = keeps()
    found, known, freq_patches, fits = ranks.gather((found, skipped, freq_patches, fits))[0]
    skipped.update(known)
    check_skipped(skipped, len(table), len(table))
    if not found.any():
        raise AudiobatError(f"None of the {len(table)} clips can be read: check the paths.")
    if shown:
        size = f"features of {len(table):,} clips"
        if fits:
            place = "memory" if files is None else f"{files.folder}, for later runs too"
            words = f"{size}: {store.bytes / GB:.3g} GB, kept in {place}"
        else:
            limit = f"cache_gb {cache_gb:g}" if budget == cache_gb * GB else "this machine has"
            words = f"{size}: at least {needs / GB:.3g} GB, more than {limit}: computed for every batch"
            words += "" if ranks.world_size == 1 else " by rank 0 alone"
        print(words, file=sys.stderr, flush=True)
    kept = store if fits and ranks.is_main else None
    indices = np.flatnonzero(found)
    return FeatureSource(encoder, table, indices, skipped, kept, ranks.device, freq_patches, workers, budget)


def has_room(folder: str | Path, needs: int) -> bool:
    """Whether features of `needs` bytes may go to the disk unasked."""
    absolute = Path(folder).resolve()
    there = next(path for path in (absolute, *absolute.parents) if path.exists())
    return needs <= min(SPILL_GB * GB, shutil.disk_usage(there).free / 2)


def pool(features: LayerFeatures) -> LayerFeatures:
    """One patch per clip, the mean over its valid ones."""
    means = torch.stack([mean_valid(layer, features.valid) for layer in features.patch_tokens])  # [L, B, D]
    valid = features.valid.any(1, keepdim=True)
    return LayerFeatures(means[:, :, None], features.cls_token, (1, 1), valid, features.frame_times[:1])


def _each_tensor(features: LayerFeatures, change: Callable[[Tensor], Tensor]) -> LayerFeatures:
    changed: dict[str, Any] = {name: change(v) for name, v in vars(features).items() if isinstance(v, Tensor)}
    return replace(features, **changed)
