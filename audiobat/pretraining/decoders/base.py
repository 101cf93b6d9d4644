"""The protocol of decoders: visible tokens of masked clones in, predictions at their masked cells out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from torch import Tensor, nn

from audiobat.config import DecoderConfig, ModelConfig
from audiobat.pretraining.cost import Cost
from audiobat.pretraining.masks.base import Masks


class Decoder(nn.Module, ABC):
    """Base of every decoder; a subclass in this folder is a kind, one in a user's file is `FILE.py:CLASS`."""

    @classmethod
    def build(cls, config: DecoderConfig, model: ModelConfig, width: int) -> Self:
        """A decoder of `config` for the encoder of `model` that predicts `width` numbers at each masked cell."""
        return cls(config, model, width)

    @classmethod
    def count_weights(cls, config: DecoderConfig, model: ModelConfig) -> int:
        """How many weights it has, at the least, known before it is built; 0 unless a decoder counts them."""
        return 0

    def __init__(self, config: DecoderConfig, model: ModelConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.predicted_width = width

    @abstractmethod
    def forward(self, tokens: Tensor, masks: Masks, grid: tuple[int, int], valid: Tensor | None = None) -> Tensor:
        """Predict the masked cells of R clones.

        Args:
            tokens: the encoder's output at the visible cells, [R, n, D].
            masks: which cells of each clone are visible [R, n] and which are masked [R, m].
            grid: patch columns and rows (T, F) of a clip, N = T * F.
            valid: bool [R, N], False on padding, which nothing may attend to; None where there is none.

        Returns:
            Predictions [R, m, width].
        """

    def cost(self, clones: int, grid: tuple[int, int], visible: int, masked: int) -> Cost:
        """The cost of a forward pass of `clones` clones, for the plan.

        Unless a decoder knows better, each parameter is taken to serve every cell once, as in a stack of linear layers.
        """
        return Cost(2.0 * sum(p.numel() for p in self.parameters()) * clones * (visible + masked))
