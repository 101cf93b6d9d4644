"""Visual query tuning: learned queries look into every frozen block and leave it unchanged (Tu et al., 2212.03220).

In: waveforms, not LayerFeatures, as the queries need a pass of their own through the blocks. Out: logits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiobat.errors import AudiobatError
from audiobat.models.features import LayerFeatures
from audiobat.models.heads.base import classify_frames
from audiobat.models.heads.pooling import columns, mean_valid


class VisualQueryTuning(nn.Module):
    """Waveforms to logits [B, classes] through `encoder`, whose tokens are what they would be without the queries.

    `queries` [L, Q, D]: each block gets its own Q, which take its attention (with its gate), norms and MLP, but no
    token attends to them, nor they to each other. The blocks' outputs and the last block's cls token (or mean patch),
    each a unit vector, form a line [(L * Q + 1) * D] for `classifier`.

    The encoder is not a part of the head: neither its parameters nor its state are the head's, and it gets no
    gradients. It must have `blocks` built as audiobat's are (`attn.qkv`, `attn.gate` or None, `attn.proj`, `norm1`,
    `norm2`, `mlp`, `pre_norm`) and `patch_embed.patch_size`; AudiobatError if it has not.
    """

    encoder: Any

    def __init__(self, encoder: Any, classes: int, queries: int = 10, dropout: float = 0.0) -> None:
        super().__init__()
        if not hasattr(encoder, "blocks") or not hasattr(encoder, "patch_embed"):
            raise AudiobatError(
                f"head.kind vqt runs queries through audiobat's own blocks and {type(encoder).__name__} has none: "
                "choose another head."
            )
        object.__setattr__(self, "encoder", encoder)  # past nn.Module, which would make it a part of the head
        reach = math.sqrt(6 / (3 * math.prod(encoder.patch_embed.patch_size) + encoder.dim))
        self.queries = nn.Parameter(torch.empty(encoder.depth, queries, encoder.dim).uniform_(-reach, reach))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear((encoder.depth * queries + 1) * encoder.dim, classes)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Waveform [B, S], with its `lengths` [B] in samples (None: all S), to logits [B, C].

        A clip longer than the position table runs in windows; answers are averaged over those that hold any of it, as
        cls is. Padding is never attended to by a query.
        """
        features, inputs = watch_blocks(self.encoder, waveform, lengths)
        seen = features.valid.view(len(inputs[0]), -1)  # [B * windows, n]
        used = seen.any(1).view(len(waveform), -1)  # [B, windows]
        keys = F.pad(seen, (inputs[0].shape[1] - seen.shape[1], 0), value=True)  # cls is always valid
        answers = [
            mean_valid(answer.flatten(1).unflatten(0, used.shape), used) for answer in self._answers(inputs, keys)
        ]  # each [B, Q * D]
        if features.cls_token is None:
            summary = mean_valid(features.patch_tokens[-1], features.valid)
        else:
            summary = features.cls_token[-1]
        return self._classify(self._line(answers, summary))

    def frames(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits [B, T, C] by the same parameters: queries attend to one column's patches; zeros where all is padding.

        The column's mean patch stands for cls.
        """
        features, inputs = watch_blocks(self.encoder, waveform, lengths)
        cut = columns(features)
        count = features.valid.numel() // len(inputs[0])  # patches of a window
        patches = [x[:, -count:].reshape(*cut.valid.shape, -1) for x in inputs]  # each [B * T, F, D]
        answers = [answer.flatten(1) for answer in self._answers(patches, cut.valid)]
        pooled = self._line(answers, mean_valid(cut.patch_tokens[-1], cut.valid))
        return classify_frames(pooled, features, self._classify)

    def penalty(self) -> Tensor:
        """What the head adds to the loss: nothing."""
        return self.queries.new_zeros(())

    def _answers(self, inputs: list[Tensor], valid: Tensor) -> Iterator[Tensor]:
        """Each block's answer [M, Q, D] to its queries about its input [M, n, D]."""
        for queries, block, tokens in zip(self.queries, self.encoder.blocks, inputs, strict=True):
            yield ask(block, queries.expand(len(tokens), -1, -1), tokens, valid)

    def _line(self, answers: list[Tensor], summary: Tensor) -> Tensor:
        """Answers [M, Q * D] and summary [M, D] as unit vectors of length D in a line."""
        vectors = torch.cat([*answers, summary], dim=1).unflatten(1, (-1, summary.shape[1]))
        return F.normalize(vectors, dim=-1).flatten(1)

    def _classify(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits


@torch.no_grad()
def watch_blocks(encoder: Any, waveform: Tensor, lengths: Tensor | None) -> tuple[LayerFeatures, list[Tensor]]:
    """Features of `encoder`, and what went into each of its blocks, [B * windows, cls + n, D]; it runs in eval mode."""
    inputs: list[Tensor] = []
    hooks = [block.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for block in encoder.blocks]
    was_training = encoder.training
    encoder.eval()
    try:
        features = encoder.forward_intermediates(waveform, lengths)
    finally:
        encoder.train(was_training)
        for hook in hooks:
            hook.remove()
    return features, inputs


def ask(block: Any, queries: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
    """What `block` would make of queries [M, Q, D] that attend to the valid ones of tokens [M, n, D] alone."""
    attn, pre_norm = block.attn, block.pre_norm
    asking, heard = (_frozen(block.norm1, x) if pre_norm else x for x in (queries, tokens))
    query, _, _ = _split(attn, asking)
    _, key, value = _split(attn, heard)
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
