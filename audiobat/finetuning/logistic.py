"""Logistic regression on vectors that are there already: seconds, no learning rate, one answer.

In: vectors [R, D] and labels [R, C]. Out: a matrix [C, D] and a bias [C]. Vectors are standardised, and what that does
is part of the matrix that comes out. Loss: sum over rows of the (binary) cross-entropy, plus half the penalty times the
squares of the matrix; the bias is free, so that a class without a sign in the vectors keeps its share of the rows.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from audiobat.models.losses import Loss

PENALTY = 3.0  # as good as any from 1 to 10 on examples/field_season.py; chosen by held-out loss it is far too large
# where few recordings are annotated, as their heads are unsure of others. scikit-learn's default is 1
STEPS = 300  # of L-BFGS, at most
TINY = 1e-8  # deviation of a coordinate that is the same in every row, which stays 0


def fit_logistic(
    vectors: NDArray[np.float32], targets: NDArray[np.bool_], loss: Loss, penalty: float = PENALTY
) -> tuple[Tensor, Tensor]:
    """The matrix [C, D] and the bias [C], float32, of least loss.

    Args:
        vectors: [R, D].
        targets: [R, C].
        loss: ce: each row has one class, and logits share a softmax; else each class has its sigmoid.
        penalty: weight of the matrix's squares, in rows.
    """
    found = torch.from_numpy(vectors).double()
    wanted = torch.from_numpy(targets).double()
    mean, deviation = found.mean(0), found.std(0, correction=0)
    scale = torch.where(deviation > TINY * (1 + mean.abs()), 1 / deviation.clamp(min=TINY), 0.0)
    inputs = (found - mean) * scale  # [R, D]
    share = (wanted.sum(0) + 0.5) / (len(wanted) + 1)
    bias = (share.log() if loss == "ce" else share.logit()).requires_grad_()
    weight = torch.zeros(targets.shape[1], vectors.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=STEPS, tolerance_grad=1e-7, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def step() -> Tensor:
        optimizer.zero_grad()
        logits = inputs @ weight.T + bias
        if loss == "ce":
            errors = F.cross_entropy(logits, wanted, reduction="sum")
        else:
            errors = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        value: Tensor = (errors + penalty / 2 * weight.square().sum()) / len(inputs)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(step)
    matrix = weight.detach() * scale
    return matrix.float(), (bias.detach() - matrix @ mean).float()
