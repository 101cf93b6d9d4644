"""Which clips make up step n: a pure function of (seed, epoch), so that resuming needs a step number and nothing else.

The epochs, each a permutation of all clips or weighted draws, follow each other as one endless stream; step n takes the
n-th batch of it. No clip is left out at an epoch's end, and a batch may be larger than an epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from audiobat.config import DataConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.columns import Ragged
from audiobat.engine.memory import INDEX, Need, check_fits
from audiobat.errors import AudiobatError, did_you_mean

EAT_SCALE, EAT_ROUNDING = 1000.0, 0.01  # a label's weight in EAT: 1000 / (clips with it + 0.01)

LABEL_BALANCE: dict[str, Literal["mean", "sum"]] = {"labels": "mean", "labels_sum": "sum"}  # values of data.balance


def clip_order(table: ClipTable, data: DataConfig, seed: int) -> ClipOrder:
    """The order in which a run draws its clips; see `draw_weights`."""
    weights = draw_weights(table, data)
    return ClipOrder(len(table), seed, weights, epoch_clips=data.epoch_clips, replacement=data.replacement)


def draw_weights(table: ClipTable, data: DataConfig) -> NDArray[np.float64] | None:
    """How often to draw each clip [n], relative to the others, under `data.balance` and `data.background`; None: equal.

    Clips without labels have no part in the balance of labels: together they are `data.background` of the draws, by
    default their share of the clips.

    Raises:
        AudiobatError: `data.balance` names no column; a share of background where all clips have labels, or none has.
    """
    balance, share = data.balance, data.background
    weights = None
    if balance in LABEL_BALANCE and table.labels is not None:
        weights = label_weights(table.labels, len(table.classes), LABEL_BALANCE[balance])
    elif balance in table.columns:
        weights = balanced_weights(table.columns[balance])
    elif balance is not None:
        known = [*table.columns, *(LABEL_BALANCE if table.labels is not None else ())]
        raise AudiobatError(
            f"data.balance is {balance!r}, but {data.path} has no such column"
            f"{did_you_mean(balance, known)}: it has {', '.join(known) or 'none'}."
        )
    if table.labels is None or (share is None and balance not in LABEL_BALANCE):
        return weights
    empty = table.labels.lengths == 0
    if share is None:
        share = float(empty.mean())
    elif empty.all() or not empty.any():
        raise AudiobatError(
            f"data.background is {share}, but {'no' if empty.any() else 'every'} clip of {data.path} that trains has "
            "a label: leave it out."
        )
    return with_background(weights, empty, share)


def with_background(weights: NDArray[np.float64] | None, empty: NDArray[np.bool_], share: float) -> NDArray[np.float64]:
    """The weights [n] (None: equal) such that a `share` of the draws is of the clips without labels, `empty` [n].

    They keep their weights among themselves, as the others do; if all of theirs are 0, each is drawn equally often.
    """
    weights = np.ones(len(empty)) if weights is None else weights.copy()
    for part, of_all in ((empty, share), (~empty, 1 - share)):
        total = weights[part].sum()
        weights[part] = weights[part] * (of_all / total) if total > 0 else of_all / max(1, part.sum())
    return weights


def balanced_weights(values: Iterable[str]) -> NDArray[np.float64]:
    """Probability [n] of each clip under which every distinct one of its `values` [n] is drawn equally often."""
    index: dict[str, int] = {}
    which = np.fromiter((index.setdefault(value, len(index)) for value in values), np.int64)
    counts = np.bincount(which)
    return 1.0 / (len(counts) * counts[which])


def label_weights(labels: Ragged, classes: int, combine: Literal["mean", "sum"] = "mean") -> NDArray[np.float64]:
    """How often to draw each clip [n], so that rare classes are drawn too: weighted sampling of AS-2M fine-tuning.

    Args:
        labels: class indices of each clip; a clip without labels gets weight 0 (see `draw_weights`).
        classes: C.
        combine: `mean` of 1 / count over a clip's labels, as in BAT's release; `sum` of 1000 / (count + 0.01), as in
            EAT's code. BAT's paper names neither.
    """
    counts = np.bincount(labels.values, minlength=classes).astype(np.float64)
    if combine == "sum":
        per_label = EAT_SCALE / (counts[labels.values] + EAT_ROUNDING)
    else:
        per_label = 1.0 / (counts[labels.values] * np.repeat(labels.lengths, labels.lengths))
    clip_id = np.repeat(np.arange(len(labels)), labels.lengths)  # of each label
    return np.bincount(clip_id, weights=per_label, minlength=len(labels)).astype(np.float64)


class ClipOrder:
    """The endless stream of clip_ids for `count` clips.

    Args:
        count: n, clips in the table.
        seed: of the run.
        weights: [n], how often to draw each clip, relative to the others; None: a permutation per epoch.
        epoch_clips: draws in an epoch; None: `count`.
        replacement: whether a clip may be drawn twice in an epoch of weighted draws. Without, each next clip is drawn
            from those that are left, in proportion to their weights.

    Raises:
        AudiobatError: no clips, weights that are not one number of 0 or more per clip, some above 0; an epoch of more
            clips than can be drawn.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        weights: NDArray[np.float64] | None = None,
        *,
        epoch_clips: int | None = None,
        replacement: bool = True,
    ) -> None:
        if count < 1:
            raise AudiobatError("The clip table is empty: give at least one clip.")
        if weights is not None and (
            weights.shape != (count,) or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0
        ):
            raise AudiobatError(f"Weights must be {count} finite numbers of 0 or more, one per clip, some above 0.")
        self.count = count
        self.seed = seed
        self.weights = None if weights is None else weights / weights.sum()
        self.replacement = replacement and weights is not None
        self.epoch_clips = count if epoch_clips is None else epoch_clips
        drawable = count if weights is None else int(np.count_nonzero(weights))
        if self.epoch_clips < 1 or (not self.replacement and self.epoch_clips > drawable):
            raise AudiobatError(
                f"An epoch of {self.epoch_clips} clips cannot be drawn from {drawable} without replacement: "
                f"set data.epoch_clips to 1 up to {drawable}, or allow data.replacement."
            )
        if self.replacement:  # else an epoch is no longer than the table
            drawn = 2 * INDEX * self.epoch_clips  # a random number for each, and the clip that it means
            check_fits("An epoch", [Need("draws", drawn, "data.epoch_clips")], torch.device("cpu"))
        self._latest: tuple[int, NDArray[np.int64]] | None = None

    def epoch(self, number: int) -> NDArray[np.int64]:
        """clip_ids [epoch_clips] of an epoch."""
        if self._latest is None or self._latest[0] != number:
            self._latest = (number, self._draw(np.random.default_rng((self.seed, number))))
        return self._latest[1]

    def _draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        if self.weights is None:
            return rng.permutation(self.count)[: self.epoch_clips]
        if self.replacement:
            drawn: NDArray[np.int64] = rng.choice(self.count, size=self.epoch_clips, p=self.weights)
            return drawn
        # Weighted draws without replacement in one pass (Efraimidis and Spirakis, 2006): each clip gets an exponential
        # random time with its weight as the rate, and clips are drawn in the order of their times.
        times = np.full(self.count, np.inf)
        np.divide(rng.standard_exponential(self.count), self.weights, out=times, where=self.weights > 0)
        first = np.argpartition(times, self.epoch_clips - 1)[: self.epoch_clips]
        order: NDArray[np.int64] = first[np.argsort(times[first])]
        return order

    def batch_indices(self, step: int, batch_size: int, rank: int = 0, world_size: int = 1) -> NDArray[np.int64]:
        """This rank's clip_ids [batch_size / world_size] of step `step`; rank r takes the r-th part of the batch."""
        if batch_size % world_size:
            raise AudiobatError(f"train.batch_size is {batch_size}: use a multiple of the {world_size} processes.")
        share = batch_size // world_size
        position = step * batch_size + rank * share  # in the endless stream
        pieces: list[NDArray[np.int64]] = []
        while share:
            number, offset = divmod(position, self.epoch_clips)
            pieces.append(self.epoch(number)[offset : offset + share])
            position, share = position + len(pieces[-1]), share - len(pieces[-1])
        return np.concatenate(pieces)
