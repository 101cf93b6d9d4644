"""Targets from the teacher's end-of-block outputs (Eq. 4; BAT's, Table 3)."""

from __future__ import annotations

from torch import Tensor

from audiobat.pretraining.targets.teacher import Teacher


class BlockTargets(Teacher):
    """The output of a whole block."""

    @staticmethod
    def output_of(block: Tensor, mlp: Tensor) -> Tensor:
        """The block's output."""
        return block
