"""Targets from the teacher's MLP outputs, before their residual (Eq. 3; data2vec 2.0's and EAT's, Table 3)."""

from __future__ import annotations

from torch import Tensor

from audiobat.pretraining.targets.teacher import Teacher


class MLPTargets(Teacher):
    """The output of a block's MLP."""

    @staticmethod
    def output_of(block: Tensor, mlp: Tensor) -> Tensor:
        """The MLP's output."""
        return mlp
