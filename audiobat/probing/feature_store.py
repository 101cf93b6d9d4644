"""Features of many clips by id, each clip as long as it is: batches of `LayerFeatures` in, any clips of them out.

A chunk holds the clips of one encoded batch in one flat array, in memory or mapped from a file. Gathering a batch
copies its clips' blocks, and nothing else is ever read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from audiobat.models.features import LayerFeatures

ClipIds: TypeAlias = NDArray[np.int64]  # places in the clip table
FLOAT_BYTES = 4


@dataclass(frozen=True, eq=False)
class Chunk:
    """b clips of L blocks of width D; the block of clip i is [L, cls + N_i, D], cls first if there is one."""

    clip_ids: ClipIds  # [b] of the clip table
    sizes: NDArray[np.int64]  # [b] N_i, patches up to the last column that holds any of the clip
    valid: NDArray[np.bool_]  # [sum of N_i]
    times: NDArray[np.float32]  # [T] starts of the patch columns of the longest clip, in seconds
    shape: NDArray[np.int64]  # (L, D, F, 1 if there is a cls token)
    values: NDArray[np.float32]  # [sum of L (cls + N_i) D]

    @property
    def floats(self) -> int:
        """How many `values` there are, here or elsewhere."""
        return int(self.spans[0][-1])

    @property
    def freq_patches(self) -> int:
        """F, patches above one another."""
        return int(self.shape[2])

    @property
    def spans(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each clip begins, and the last one ends, in `values` and in `valid`: [b + 1] twice."""
        depth, dim, _, cls = self.shape.tolist()
        return _ends(depth * dim * (self.sizes + cls)), _ends(self.sizes)


def pack(features: LayerFeatures, clip_ids: ClipIds) -> Chunk:
    """The features of a batch as a chunk on the CPU, without the padding at each clip's end."""
    columns, high = features.grid
    reached = features.valid.cpu().unflatten(1, features.grid).any(2).numpy()  # [B, T]
    last = columns - reached[:, ::-1].argmax(1)  # [B] columns up to the last one reached
    sizes = (last * high).astype(np.int64)
    valid = features.valid.cpu().numpy()
    tokens, cls = features.patch_tokens, int(features.cls_token is not None)  # [L, B, N, D]
    if features.cls_token is not None:
        tokens = torch.cat([features.cls_token[:, :, None], tokens], 2)  # [L, B, cls + N, D]
    flat = tokens.float().cpu().numpy()
    return Chunk(
        clip_ids,
        sizes,
        valid=np.concatenate([mask[:size] for mask, size in zip(valid, sizes, strict=True)]),
        times=features.frame_times[: last.max()].float().cpu().numpy(),
        shape=np.array([len(flat), flat.shape[-1], high, cls], np.int64),
        values=np.concatenate([flat[:, i, : cls + size].ravel() for i, size in enumerate(sizes.tolist())]),
    )


class FeatureStore:
    """Chunks, and where each of `clips` clips lies in them."""

    def __init__(self, clips: int) -> None:
        self.bytes = 0  # of all features
        self.shortest = 0  # bytes of the least clip
        self._chunks: list[Chunk] = []
        self._places = np.full((clips, 4), -1, np.int64)  # chunk, first value, patches, first of `valid`

    def add(self, chunk: Chunk) -> None:
        """Take in a chunk; a clip that is there already is replaced."""
        values, valid = chunk.spans
        whole = np.full(len(chunk.clip_ids), len(self._chunks))
        self._places[chunk.clip_ids] = np.stack([whole, values[:-1], chunk.sizes, valid[:-1]], 1)
        self._chunks.append(chunk)
        self.bytes += chunk.values.size * FLOAT_BYTES
        if len(chunk.clip_ids):
            least = int(np.diff(values).min()) * FLOAT_BYTES
            self.shortest = min(self.shortest or least, least)

    def needs(self, clips: int) -> int:
        """Bytes that `clips` clips take at least, if none to come is shorter than the shortest so far."""
        return self.bytes + (clips - int((self._places[:, 0] >= 0).sum())) * self.shortest

    def gather(self, clip_ids: ClipIds) -> LayerFeatures:
        """The batch of `clip_ids`, all of them there, on the CPU, padded to its longest clip; the tokens are a view."""
        places = self._places[clip_ids]
        depth, dim, high, cls = self._chunks[places[0, 0]].shape.tolist()
        length = int(places[:, 2].max())
        tokens = np.zeros((len(clip_ids), depth, cls + length, dim), np.float32)  # [B, L, cls + N, D]
        valid = np.zeros((len(clip_ids), length), bool)
        for i, (number, start, size, mark) in enumerate(places.tolist()):
            chunk = self._chunks[number]
            block = chunk.values[start : start + depth * (cls + size) * dim]
            tokens[i, :, : cls + size] = block.reshape(depth, cls + size, dim)
            valid[i, :size] = chunk.valid[mark : mark + size]
        longest = self._chunks[places[places[:, 2].argmax(), 0]]
        stack = torch.from_numpy(tokens).transpose(0, 1)  # [L, B, cls + N, D]
        columns = length // high
        return LayerFeatures(
            stack[:, :, cls:],
            stack[:, :, 0] if cls else None,
            (columns, high),
            torch.from_numpy(valid),
            torch.from_numpy(np.array(longest.times[:columns])),
        )


def _ends(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
