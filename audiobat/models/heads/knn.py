"""Weighted nearest neighbours on unit tokens, k = 20 at temperature 0.07, as DINO's: nothing is trained."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from audiobat.config import HeadConfig
from audiobat.errors import AudiobatError
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.base import Head
from audiobat.models.heads.pooling import check_pool, clip_token, layer_index

LEAST = 1e-6  # share of a class that no neighbour has, so that its logit is finite


class NearestNeighbours(Head):
    """LayerFeatures to logits [B, classes] from block `layer` (1 .. L, or -1): cls, or the mean of valid patches.

    `fit` stores the training clips. The k nearest by cosine s vote with weight exp(s / temperature); a class's share p
    is its part of the votes. Logits are log p if every stored clip has one label, so that their softmax is p, and
    log(p / (1 - p)) else, so that their sigmoid is p. No parameters: `parameter_groups` has no group for it.
    """

    title = "k-NN"
    reads = "means"
    trains = False
    teaches = False

    @classmethod
    def build(cls, config: HeadConfig, dim: int, depth: int, classes: int, freq_patches: int | None) -> Self:
        """See `Head.build`."""
        return cls(dim, classes, config.layer, config.pool, config.neighbours, config.temperature)

    def __init__(
        self,
        dim: int,
        classes: int,
        layer: int = -1,
        pool: Literal["auto", "cls", "mean"] = "auto",
        neighbours: int = 20,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.bank: Tensor
        self.targets: Tensor
        self.register_buffer("bank", torch.zeros(0, dim))  # [M, D], unit vectors
        self.register_buffer("targets", torch.zeros(0, classes))  # [M, C]
        self.layer = layer
        self.token = pool
        self.neighbours = neighbours
        self.temperature = temperature

    def fit(self, pooled: Tensor, targets: Tensor) -> None:
        """Store training clips: `pooled` [M, D] as `pool` gives them, and 0/1 or bool `targets` [M, C].

        Raises AudiobatError if there is no clip, or a shape does not fit.
        """
        for name, given, stored in (("pooled", pooled, self.bank), ("targets", targets, self.targets)):
            if given.shape != (len(pooled), stored.shape[1]) or not len(given):
                raise AudiobatError(
                    f"The neighbours' {name} have shape {tuple(given.shape)}: give a row of {stored.shape[1]} "
                    "for each training clip, one clip at least."
                )
        self.bank = F.normalize(pooled.to(self.bank), dim=-1)
        self.targets = targets.to(self.targets)

    def pool(self, features: LayerFeatures) -> Tensor:
        """The token [B, D] by which clips are compared."""
        return clip_token(features, layer_index(self.layer), self.token, self.bank.dtype)

    def forward(self, features: LayerFeatures) -> Tensor:
        """Logits [B, C]. Every clip needs at least one valid patch; padding has no influence."""
        check_pool(features, self.token)
        return super().forward(features)

    @torch.no_grad()
    def classify(self, pooled: Tensor) -> Tensor:
        """Tokens [M, D] to logits [M, C]."""
        if not len(self.bank):
            raise AudiobatError("The nearest neighbours have no clips to look at: call fit with the training clips.")
        similarity = F.normalize(pooled, dim=-1) @ self.bank.T
        nearest, at = similarity.topk(min(self.neighbours, len(self.bank)))  # [M, k]
        weights = (nearest / self.temperature).softmax(-1)
        share = torch.einsum("mk,mkc->mc", weights, self.targets[at])
        if (self.targets.sum(1) == 1).all():
            return share.clamp_min(LEAST).log()
        return share.logit(LEAST)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Make room for as many clips as the stored state has."""
        for name in ("bank", "targets"):
            if prefix + name in state_dict:
                own = getattr(self, name)
                setattr(self, name, own.new_empty(len(state_dict[prefix + name]), own.shape[1]))
        super()._load_from_state_dict(state_dict, prefix, *args)
