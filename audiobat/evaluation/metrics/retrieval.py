"""Lists of found clips to the retrieval metrics of each query, as trec_eval defines them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Each: TypeAlias = NDArray[np.float64]  # [Q] a number for each query


def ndcg(hits: NDArray[np.bool_], relevant: NDArray[np.int64], k: int) -> Each:
    """Normalised discounted cumulative gain of the first k, [Q].

    Args:
        hits: [Q, n] whether each found clip, the most similar first, is relevant.
        relevant: [Q] how many clips are, whether found or not; at least one.
        k: how far down the list to look.
    """
    top = hits[:, :k].astype(np.float64)
    gains = 1 / np.log2(np.arange(2, k + 2))
    found: Each = (top @ gains[: top.shape[1]]) / gains.cumsum()[np.minimum(relevant, k) - 1]
    return found


def mean_precision(hits: NDArray[np.bool_], relevant: NDArray[np.int64], k: int) -> Each:
    """Average precision of the first k, [Q]: the precision at each relevant one, over all relevant ones."""
    top = hits[:, :k].astype(np.float64)
    precision = top.cumsum(1) / np.arange(1, top.shape[1] + 1)
    found: Each = (precision * top).sum(1) / relevant
    return found


def recall_at(hits: NDArray[np.bool_], relevant: NDArray[np.int64], k: int) -> Each:
    """Share of the relevant clips that are among the first k, [Q]."""
    found: Each = hits[:, :k].sum(1) / relevant
    return found


def hit_rate(hits: NDArray[np.bool_], relevant: NDArray[np.int64], k: int) -> Each:
    """Whether any of the first k is relevant, [Q]: what image retrieval calls CV recall."""
    found: Each = np.asarray(hits[:, :k].any(1), np.float64)
    return found
