"""An encoder and clips to frozen features, batch by batch: on several ranks each encodes its share, and rank 0 has all.

In: an encoder, cuts of the clip table (the ids of the clips of each batch). Out: the features of each cut as a chunk.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from audiobat.data.clip_table import ClipTable
from audiobat.data.loader import ClipBatch, load_clips
from audiobat.engine.ranks import Ranks
from audiobat.models.features import NOT_FINITE, Encoder, LayerFeatures, check_features, finite_clips, take_clips
from audiobat.probing.feature_store import Chunk, ClipIds, pack


@dataclass(frozen=True, eq=False)
class EncodedCut:
    """What became of the clips of a cut."""

    cut: ClipIds
    clip_ids: ClipIds  # the readable ones, whose features are finite
    skipped: dict[str, str]  # key -> reason, of the others
    chunk: Chunk | None  # None: no clip is readable, or features were not asked for


def encode_cuts(
    encoder: Encoder,
    table: ClipTable,
    cuts: Sequence[ClipIds],
    ranks: Ranks,
    workers: int,
    keeps: Callable[[], bool],
) -> Iterator[EncodedCut]:
    """All cuts in their order, on rank 0; nothing on the others, which work only while they iterate.

    The ranks encode one cut each at a time and hand it to rank 0, whose `keeps` says before that whether features are
    of use, or clips are only read.
    """
    batches = load_clips(table, encoder.sample_rate, cuts[ranks.rank :: ranks.world_size], workers)
    for first in range(0, len(cuts), ranks.world_size):
        asked = ranks.gather(keeps())[0]
        mine = None
        if first + ranks.rank < len(cuts):
            cut, drawn = cuts[first + ranks.rank], next(batches)
            if asked and len(drawn.clip_ids):
                mine = encode_cut(encoder, table, cut, drawn, ranks.device)
            else:
                mine = EncodedCut(cut, drawn.clip_ids, drawn.skipped, None)
        for encoded in collect(mine, ranks):
            if encoded is not None:
                yield encoded


def encode_cut(encoder: Encoder, table: ClipTable, cut: ClipIds, drawn: ClipBatch, device: torch.device) -> EncodedCut:
    """The features of the clips `drawn` of a cut; a clip whose features are NaN is skipped, like an unreadable one."""
    features = encode(encoder, drawn.waveform, drawn.lengths, device)
    fine = finite_clips(features)
    good = fine.cpu().numpy()
    skipped = {table.keys[clip_id]: NOT_FINITE for clip_id in drawn.clip_ids[~good].tolist()}
    chunk = pack(features if good.all() else take_clips(features, fine), drawn.clip_ids[good]) if good.any() else None
    return EncodedCut(cut, drawn.clip_ids[good], drawn.skipped | skipped, chunk)


def collect(own: EncodedCut | None, ranks: Ranks) -> Iterator[EncodedCut | None]:
    """On rank 0 what each rank has, in the order of the ranks, one at a time; nothing on the others.

    Every rank must call it at the same point, and rank 0 take all.
    """
    if ranks.is_main:
        return itertools.chain([own], map(receive, range(1, ranks.world_size)))
    send(own)
    return iter(())


def send(cut: EncodedCut | None) -> None:
    """Send to rank 0: pickled, but for the arrays, which follow as they are, so that a large one is held once."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(cut, protocol=5, buffer_callback=buffers.append)
    arrays = [buffer.raw() for buffer in buffers]
    dist.send_object_list([head, [len(array) for array in arrays]], 0)
    for array in arrays:
        if len(array):
            dist.send(torch.frombuffer(array, dtype=torch.uint8), 0)


def receive(rank: int) -> EncodedCut | None:
    """What a rank sends."""
    parcel: list[Any] = [None, None]
    dist.recv_object_list(parcel, rank)
    head, sizes = parcel
    arrays = [torch.empty(size, dtype=torch.uint8) for size in sizes]
    for array in arrays:
        if len(array):
            dist.recv(array, rank)
    cut: EncodedCut | None = pickle.loads(head, buffers=[array.numpy() for array in arrays])
    return cut


def encode(encoder: Encoder, waveform: Tensor, lengths: Tensor, device: torch.device) -> LayerFeatures:
    """Features of a batch, float32, cut after the last patch column that any of its clips reaches.

    Raises AudiobatError for an encoder whose features are not as `LayerFeatures` describes them.
    """
    with frozen(encoder):
        features = encoder.forward_intermediates(waveform.to(device), lengths.to(device))
    check_features(encoder, features, len(waveform))
    freq_patches = features.grid[1]
    reached = features.valid.unflatten(1, features.grid).any(2).any(0)
    columns = int(reached.nonzero().max()) + 1
    return LayerFeatures(
        features.patch_tokens[:, :, : columns * freq_patches].float(),
        None if features.cls_token is None else features.cls_token.float(),
        (columns, freq_patches),
        features.valid[:, : columns * freq_patches],
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
