"""Visual query tuning: learned queries look into every frozen block and leave it unchanged (Tu et al., 2212.03220).

In: what goes into each block (`BlockInputs`), from a pass of the head's own through the model. Out: logits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiobat.config import HeadConfig, ModelConfig
from audiobat.errors import AudiobatError
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.base import BlockInputs, Probe
from audiobat.models.heads.pooling import columns, mean_valid

QUERIES = 10  # of each block under `head.queries: null`, as in BAT's release


class VisualQueryTuning(Probe):
    """BlockInputs to logits [B, classes] through the blocks of `encoder`, whose tokens the queries do not change.

    `queries` [L, Q, D]: each block gets its own Q, which take its attention (with its gate), norms and MLP, but no
    token attends to them, nor they to each other. The blocks' outputs and the last block's cls token (or mean patch),
    each a unit vector, form a line [(L * Q + 1) * D] for `classifier`.

    The encoder is not a part of the head: neither its parameters nor its state are the head's, and it gets no
    gradients. It must have `blocks` built as audiobat's are (`attn.qkv`, `attn.gate` or None, `attn.proj`, `norm1`,
    `norm2`, `mlp`, `pre_norm`) and `patch_embed.patch_size`; AudiobatError if it has not.
    """

    title = "VQT"
    reads = "blocks"
    layers = "all"
    teaches = False

    encoder: Any

    @classmethod
    def build(cls, config: HeadConfig, dim: int, depth: int, classes: int, freq_patches: int | None) -> Self:
        """Refused: width and depth are not enough to run a model's blocks."""
        raise AudiobatError(
            "head.kind vqt runs its own pass through the encoder's blocks and shares none: build it as "
            "VisualQueryTuning(encoder, classes), or choose another head."
        )

    @classmethod
    def build_for(cls, config: HeadConfig, encoder: Any, classes: int, freq_patches: int | None = None) -> Self:
        """See `Head.build_for`."""
        return cls(encoder, classes, config.queries or QUERIES, config.dropout)

    def __init__(self, encoder: Any, classes: int, queries: int = QUERIES, dropout: float = 0.0) -> None:
        if not hasattr(encoder, "blocks") or not hasattr(encoder, "patch_embed"):
            raise AudiobatError(
                f"head.kind vqt runs queries through audiobat's own blocks and {type(encoder).__name__} has none: "
                "choose another head."
            )
        config = getattr(encoder, "config", None)
        if isinstance(config, ModelConfig) and config.encoder.positions == "rotary":
            raise AudiobatError(
                "head.kind vqt asks blocks whose tokens hold their positions, and those of this model do not "
                "(encoder.positions rotary): choose another head."
            )
        reach = math.sqrt(6 / (3 * math.prod(encoder.patch_embed.patch_size) + encoder.dim))  # as VPT starts prompts
        start = torch.empty(encoder.depth, queries, encoder.dim).uniform_(-reach, reach)  # before the classifier's
        super().__init__(nn.Linear((encoder.depth * queries + 1) * encoder.dim, classes), dropout=dropout)
        self.queries = nn.Parameter(start)
        object.__setattr__(self, "encoder", encoder)  # past nn.Module, which would make it a part of the head

    def pool(self, features: LayerFeatures) -> Tensor:
        """The blocks' answers to the queries and the summary of the last block in a line, [B, (L * Q + 1) * D].

        A clip longer than the position table runs in windows; its answers are averaged over them, each weighted by the
        patches of the clip that it holds. A query never attends to padding.
        """
        inputs = block_inputs_of(features)
        valid, prefix = windows_of(features)
        keys = F.pad(valid, (prefix, 0), value=True)  # cls is always valid
        held = valid.sum(1).view(len(features.valid), -1)  # [B, W]
        share = (held / held.sum(1, keepdim=True)).to(inputs[0].dtype)
        answers = [
            torch.einsum("bw,bwd->bd", share, answer.flatten(1).unflatten(0, share.shape))
            for answer in self._answers(inputs, keys)
        ]  # each [B, Q * D]
        if features.cls_token is None:
            summary = mean_valid(features.patch_tokens[-1], features.valid)
        else:
            summary = features.cls_token[-1]
        return in_a_line(answers, summary)

    def pool_columns(self, features: LayerFeatures) -> Tensor:
        """The same of each patch column, [B * T, (L * Q + 1) * D]; its mean patch stands for cls."""
        inputs = block_inputs_of(features)
        cut, prefix = columns(features), windows_of(features)[1]
        clips, count = features.valid.shape
        patches = [
            x[:, prefix:].unflatten(0, (clips, -1)).flatten(1, 2)[:, :count].reshape(*cut.valid.shape, -1)
            for x in inputs
        ]  # each [B * T, F, D]
        answers = [answer.flatten(1) for answer in self._answers(patches, cut.valid)]
        return in_a_line(answers, mean_valid(cut.patch_tokens[-1], cut.valid))

    def _answers(self, inputs: Sequence[Tensor], valid: Tensor) -> Iterator[Tensor]:
        """Each block's answer [M, Q, D] to its queries about its input [M, n, D]."""
        for queries, block, tokens in zip(self.queries, self.encoder.blocks, inputs, strict=True):
            yield ask(block, queries.expand(len(tokens), -1, -1), tokens, valid)


def block_inputs_of(features: LayerFeatures) -> tuple[Tensor, ...]:
    """What went into each block; AudiobatError if `features` do not hold it."""
    if not isinstance(features, BlockInputs):
        raise AudiobatError("head.kind vqt reads the inputs of blocks: give it `block_inputs(encoder, waveform)`.")
    return features.inputs


def windows_of(features: LayerFeatures) -> tuple[Tensor, int]:
    """Which patches of the windows are of the clip, bool [B * W, n], and how many tokens come before the patches.

    The last window is filled up to the length of the others.
    """
    rows, tokens, _ = block_inputs_of(features)[0].shape
    prefix = 0 if features.cls_token is None else 1
    clips, count = features.valid.shape
    filled = F.pad(features.valid, (0, rows // clips * (tokens - prefix) - count))
    return filled.view(rows, tokens - prefix), prefix


def in_a_line(answers: list[Tensor], summary: Tensor) -> Tensor:
    """Answers [M, Q * D] of each block and a summary [M, D] as unit vectors of length D in a line."""
    vectors = torch.cat([*answers, summary], dim=1).unflatten(1, (-1, summary.shape[1]))
    return F.normalize(vectors, dim=-1).flatten(1)


def ask(block: Any, queries: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
    """What `block` would make of queries [M, Q, D] that attend to the valid ones of tokens [M, n, D] alone."""
    attn, pre_norm = block.attn, block.pre_norm
    asking, asked = (_frozen(block.norm1, x) if pre_norm else x for x in (queries, tokens))
    query, _, _ = _split(attn, asking)
    _, key, value = _split(attn, asked)
    taken = F.scaled_dot_product_attention(query, key, value, attn_mask=valid[:, None, None, :])
    taken = taken.transpose(1, 2).flatten(2)  # [M, Q, D]
    if attn.gate is not None:
        taken = torch.sigmoid(_frozen(attn.gate, asking)) * taken
    x = queries + _frozen(attn.proj, taken)
    if pre_norm:
        return x + _frozen(block.mlp, _frozen(block.norm2, x))
    x = _frozen(block.norm1, x)
    return _frozen(block.norm2, x + _frozen(block.mlp, x))


def _split(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of x [M, n, D], each [M, H, n, d]."""
    qkv = _frozen(attn.qkv, x)
    query, key, value = qkv.unflatten(-1, (3, attn.heads, -1)).permute(2, 0, 3, 1, 4)
    return query, key, value


def _frozen(module: nn.Module, x: Tensor) -> Tensor:
    """`module` of x, with gradients to x but none to the module's parameters."""
    fixed = {name: parameter.detach() for name, parameter in module.named_parameters()}
    out: Tensor = torch.func.functional_call(module, fixed, (x,))
    return out
