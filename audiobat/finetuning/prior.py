"""The labels' prior as the start of a head: each class's bias is the log odds of its share of what training draws.

A bias that starts at 0 says that every class is there half of the time. In a short training AdamW cannot move it far
from there: by the sum of the learning rates, at most.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from audiobat.config import DataConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.sampler import draw_weights
from audiobat.evaluation.labels import Task

LEAST = 1e-4  # share of a class, at least, and of all others


def start_at_prior(head: nn.Module, shares: NDArray[np.float64]) -> None:
    """Set the bias [C] of the head's classifier to the log odds of `shares` [C].

    A head without a classifier, or with one of its own kind, which may start elsewhere on purpose, stays as it is.
    """
    classifier = getattr(head, "classifier", None)
    if type(classifier) is nn.Linear and classifier.bias is not None and classifier.bias.shape == shares.shape:
        with torch.no_grad():
            classifier.bias.copy_(torch.from_numpy(shares).logit(LEAST))


def drawn_shares(table: ClipTable, task: Task, data: DataConfig) -> NDArray[np.float64]:
    """How often each class [C] is there in what training draws: share of the clips, or of the time for frames."""
    weights = draw_weights(table, data)
    weights = np.ones(len(table)) if weights is None else weights
    weights = weights / weights.sum()
    shares = np.zeros(task.classes)
    if task.unit == "clip":
        np.add.at(shares, task.lists.values.astype(np.int64), np.repeat(weights, task.lists.lengths))
        return shares
    known = np.full(len(table), np.nan) if table.seconds is None else table.seconds.astype(np.float64)
    events, of_event = task.lists.values, np.repeat(np.arange(len(table)), task.lists.lengths)
    last = np.zeros(len(table))  # a clip of unknown length ends with its last event, or with its crop
    np.maximum.at(last, of_event, events["offset"])
    lengths = np.where(np.isnan(known), np.maximum(last, data.clip_seconds), np.maximum(known, data.clip_seconds))
    sounding = np.minimum(events["offset"], lengths[of_event]) - np.maximum(events["onset"], 0.0)
    np.add.at(shares, events["label"].astype(np.int64), weights[of_event] * sounding.clip(0) / lengths[of_event])
    return shares
