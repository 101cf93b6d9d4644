"""What every head is: its class says what other code asks of a kind, and an instance turns features into logits.

A new head is one file in this folder, named after its `head.kind`: a class that derives from `Probe`, or from `Head`
where it does not end in a linear classifier. A user's own `my_head.py:MyHead` is written the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from audiobat.config import HeadConfig
from audiobat.engine.row_layers import RowBatchNorm, RowDropout
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.pooling import columns

Norm = Literal["none", "layer", "scaled_layer", "batch"]  # what `head.norm` may be
NORM_EPS = 1e-6  # of the batch norm of masked autoencoders' linear probe, and of layer norms in BAT's release and EAT
VECTORS = ("classifier.bias", *(f"{norm}.{part}" for norm in ("norm", "token_norm") for part in ("weight", "bias")))


class Head(nn.Module):
    """Features of a batch of clips to logits, for whole clips (`forward`) or for patch columns (`frames`).

    The class attributes describe the kind. They are all that training, tables and configs know of it.
    """

    title: ClassVar[str]  # its name in tables
    Config: ClassVar[type[HeadConfig]] = HeadConfig  # a subclass may add fields, which become `head.FIELD`
    # What the head is given of a clip. patches: the features of all patches. means: the same with one patch a clip, the
    # mean of the valid ones, which is far less to keep. blocks: a `BlockInputs`, made by a pass through the model.
    reads: ClassVar[Literal["patches", "means", "blocks"]] = "patches"
    layers: ClassVar[Literal["one", "all"]] = "one"  # one: the block that `head.layer` names; all: every block
    trains: ClassVar[bool] = True  # False: there are no steps; `fit` is given the training clips once
    teaches: ClassVar[bool] = True  # whether gradients reach the model, so that it is fine-tuned and kept with the head
    has_prototypes: ClassVar[bool] = False  # whether `head.prototypes` is a setting of it (and Table 6's decay of 0.5)

    @classmethod
    def build(cls, config: Any, dim: int, depth: int, classes: int, freq_patches: int | None) -> Self:
        """The head that `config`, a `cls.Config`, describes.

        Args:
            config: the settings `head.*`.
            dim: D, the width of the model.
            depth: L, how many blocks the model has.
            classes: C, how many logits the head gives.
            freq_patches: F, how many patches of a column lie above one another; None if the caller does not know.

        Raises:
            AudiobatError: the settings do not suit the model.
        """
        raise NotImplementedError

    @classmethod
    def build_for(cls, config: Any, encoder: Any, classes: int, freq_patches: int | None = None) -> Self:
        """The same for a model at hand. A head that runs the model's own blocks overrides this."""
        return cls.build(config, encoder.dim, encoder.depth, classes, freq_patches)

    def pool(self, features: LayerFeatures) -> Tensor:
        """One vector a clip, [B, width]."""
        raise NotImplementedError

    def pool_columns(self, features: LayerFeatures) -> Tensor:
        """One vector a patch column, [B * T, width]: each column pooled as a clip of its own, which has no cls."""
        return self.pool(columns(features))

    def classify(self, pooled: Tensor) -> Tensor:
        """Vectors [M, width] to logits [M, C]."""
        raise NotImplementedError

    def forward(self, features: LayerFeatures) -> Tensor:
        """Logits [B, C]. Every clip needs at least one valid patch; padding has no influence."""
        return self.classify(self.pool(features))

    def frames(self, features: LayerFeatures) -> Tensor:
        """Logits [B, T, C] by the same parameters, pooling over the frequency axis alone; zeros where all is padding.

        A column has no cls token: a head that reads cls reads the mean patch of the column in its place.
        """
        return classify_frames(self.pool_columns(features), features, self.classify)

    def fit(self, pooled: Tensor, targets: Tensor) -> None:
        """For a head with `trains = False`: store the training clips, `pooled` [M, width] and `targets` [M, C]."""
        raise NotImplementedError

    def penalty(self) -> Tensor:
        """What the head adds to the loss, a scalar: nothing, unless a subclass says otherwise."""
        return torch.zeros(())

    @property
    def gate_weights(self) -> Tensor | None:
        """Share of each block [L] in the mix that the head reads, summing to one; None if it does not mix blocks."""
        return None


class Probe(Head):
    """A head that is its `pool`, and after it a norm, dropout and `classifier`, a matrix with bias."""

    def __init__(self, classifier: nn.Linear, norm: nn.Module | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.Identity() if norm is None else norm
        self.dropout = RowDropout(dropout)
        self.classifier = classifier

    def classify(self, pooled: Tensor) -> Tensor:
        """Vectors [M, width] to logits [M, C]."""
        logits: Tensor = self.classifier(self.dropout(self.norm(pooled)))
        return logits

    def penalty(self) -> Tensor:
        """What the head adds to the loss, a scalar: nothing, unless a subclass says otherwise."""
        return self.classifier.weight.new_zeros(())


@dataclass(frozen=True)
class BlockInputs(LayerFeatures):
    """Features, and the tokens that went into each block to make them: what a head with `reads = "blocks"` is given."""

    inputs: tuple[Tensor, ...]  # of each block, [B * windows, cls + n, D]: a long clip runs in several windows


@torch.no_grad()
def block_inputs(encoder: Any, waveform: Tensor, lengths: Tensor | None = None) -> BlockInputs:
    """Run `encoder` in eval mode, without gradients, on waveform [B, S] with its `lengths` [B] in samples (None: S)."""
    inputs: dict[Any, list[Tensor]] = {
        block: [] for block in encoder.blocks
    }  # an encoder may run a few clips at a time
    hooks = [block.register_forward_pre_hook(lambda own, args: inputs[own].append(args[0])) for block in inputs]
    was_training = encoder.training
    encoder.eval()
    try:
        features = encoder.forward_intermediates(waveform, lengths)
    finally:
        encoder.train(was_training)
        for hook in hooks:
            hook.remove()
    return BlockInputs(**vars(features), inputs=tuple(map(torch.cat, inputs.values())))


def classify_frames(pooled: Tensor, features: LayerFeatures, classify: Callable[[Tensor], Tensor]) -> Tensor:
    """Vectors of columns [B * T, X] to logits [B, T, C]; padding gets zeros and never reaches a batch norm."""
    real = features.valid.unflatten(1, features.grid).any(-1)  # [B, T]
    if torch.compiler.is_exporting():  # a graph has no shapes that depend on values: compute padding too, then clear it
        every: Tensor = classify(pooled).unflatten(0, real.shape).masked_fill(~real[..., None], 0.0)
        return every
    logits = classify(pooled[real.flatten()])
    frames = logits.new_zeros(*real.shape, logits.shape[-1])
    frames[real] = logits
    return frames


def normalise_valid(norm: nn.Module, tokens: Tensor, valid: Tensor) -> Tensor:
    """Tokens [B, N, D] through `norm`, whose statistics are of the valid ones alone; padding becomes zeros."""
    if isinstance(norm, nn.Identity):
        return tokens
    if torch.compiler.is_exporting():
        return torch.where(valid[..., None], norm(tokens.flatten(0, 1)).view_as(tokens), 0.0)
    normal = torch.zeros_like(tokens)
    normal[valid] = norm(tokens[valid])
    return normal


def build_norm(norm: Norm, width: int) -> nn.Module:
    """A norm of `width` values.

    Only a `scaled_layer` learns a scale and a shift. The matrix behind it could learn them as well, so that it is no
    other class of functions; but AdamW gets to them by another path.
    """
    if norm in ("layer", "scaled_layer"):
        return nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=norm == "scaled_layer")
    if norm == "batch":
        return RowBatchNorm(width, eps=NORM_EPS, affine=False)
    return nn.Identity()


def parameter_groups(head: nn.Module, weight_decay: float, decay_1d: bool = False) -> list[dict[str, Any]]:
    """Two groups for an optimizer: the classifier's matrix with `weight_decay`, everything else without.

    With `decay_1d` the classifier's bias and the scale and shift of a norm decay, too. What else there is never does,
    by head: prototypes, which are normalised or binarised, so that decay would only change their learning rate (cgp,
    protobin, proto_classwise); gates (cgp, linear_cgp), where decay would pull the mix to the uniform one; queries and
    projections (attentive, ep, vqt). The matrix of proto_classwise is its class weights [C, J]. A head without
    parameters (knn) has no groups.
    """
    named = dict(head.named_parameters())
    if not named:
        return []
    decaying = ("classifier.weight", *(VECTORS if decay_1d else ()))
    decayed = [named.pop(name) for name in decaying if name in named]  # a user's head may have none
    groups = [(decayed, weight_decay), (list(named.values()), 0.0)]
    return [{"params": params, "weight_decay": decay} for params, decay in groups if params]
