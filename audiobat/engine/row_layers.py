"""Layers whose rows are a part of the global batch: dropout and batch norm, the same on any number of ranks.

In: rows [M, ...] of this rank, as many as it has or more or fewer than the others. In a process that is alone they are
torch's own layers, with the same parameters and buffers; so they are in eval mode.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce  # with a gradient
from torch.nn import functional as F

from audiobat.engine.randomness import draw_rows, in_parts
from audiobat.engine.ranks import place


class RowDropout(nn.Dropout):
    """Dropout whose mask of a row depends on the row's place among those of all ranks."""

    def forward(self, x: Tensor) -> Tensor:
        """Rows [M, ...] to rows."""
        if not self.training or self.p == 0 or (place()[1] == 1 and not in_parts()):
            return super().forward(x)
        width = x.shape[1:]
        kept = draw_rows(lambda rows: F.dropout(x.new_ones(rows, *width), self.p), len(x), x.device, even=False)
        return x * kept  # 0, or 1 / (1 - p)


class RowBatchNorm(nn.BatchNorm1d):
    """Batch norm whose statistics are of the rows of all ranks."""

    num_batches_tracked: Tensor  # torch allows None for these, which a norm of ours never has
    running_mean: Tensor
    running_var: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """Rows [M, width] to rows."""
        if not self.training or place()[1] == 1:
            return super().forward(x)
        count = all_reduce(x.new_full((), len(x), dtype=torch.float32))
        mean = all_reduce(x.float().sum(0)) / count
        centred = x.float() - mean
        variance = all_reduce(centred.square().sum(0)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        normal: Tensor = centred * (variance + self.eps).rsqrt()
        return normal.to(x.dtype)
