"""Heads on frozen features, clip by clip: tokens of a clip's valid patches to a vector, and vectors to logits.

Prototypes, gates, queries and matrices have the names that releases have. All are of clips; a head's own file in
audiobat/models/heads names its paper.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .networks import Weights, below, gelu, layer_norm, linear, standardise

BATCH_EPS = 1e-6


class Clip(NamedTuple):
    """What a model says of one clip."""

    tokens: Tensor  # [L, N, D], of valid patches
    cls: Tensor  # [L, D]
    rows: list[int]  # [N], each patch's place in frequency
    inputs: list[Tensor]  # [1 + N, D] into each block, cls first


class Statistics(NamedTuple):
    """What a batch norm remembers."""

    mean: Tensor
    variance: Tensor


class Recipe(NamedTuple):
    """A head: its vector of a clip, what normalises that, and what it adds to the loss."""

    pool: Callable[[Weights, Clip], Tensor]
    norm: str = "none"  # none, layer, scaled_layer, batch
    penalty: Callable[[Weights], Tensor] | None = None
    classify: Callable[[Weights, Tensor], Tensor] | None = None  # None: matrix and bias


def unit(x: Tensor) -> Tensor:
    return x / x.square().sum(-1, keepdim=True).sqrt()


def shares(scores: Tensor) -> Tensor:
    return scores.exp() / scores.exp().sum(-1, keepdim=True)


def cgp(w: Weights, clip: Clip) -> Tensor:
    """Eq. 8 to 11."""
    alpha = shares(w["gate"])
    tokens = sum(a * unit(own) for a, own in zip(alpha, clip.tokens, strict=True))
    cls = sum(a * unit(own) for a, own in zip(alpha, clip.cls, strict=True))
    prototypes = unit(w["prototypes"]).T
    similar = tokens @ prototypes
    return torch.cat([similar.min(0).values, similar.max(0).values, cls @ prototypes])


def protobin(w: Weights, clip: Clip) -> Tensor:
    """Signs of the prototypes, whose gradient passes on to the real values; it passes their normalisation before."""
    shadow = w["prototypes"]
    signs = torch.where(shadow.detach() < 0, -1.0, 1.0).to(shadow) + shadow - shadow.detach()
    return (unit(clip.tokens[-1]) @ unit(signs).T).max(0).values


def last_cls(w: Weights, clip: Clip) -> Tensor:
    return clip.cls[-1]


def last_mean(w: Weights, clip: Clip) -> Tensor:
    return clip.tokens[-1].mean(0)


def gated_cls(w: Weights, clip: Clip) -> Tensor:
    return shares(w["gate"]) @ clip.cls


def all_cls(w: Weights, clip: Clip) -> Tensor:
    return clip.cls.flatten()


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One query's mean of values [N, d] by its likeness to keys [N, D]."""
    return shares(keys @ query / math.sqrt(len(query))) @ values


def attentive(w: Weights, clip: Clip) -> Tensor:
    """A head of the query for each 64 features."""
    keys, values = linear(clip.tokens[-1], below(w, "keys")), linear(clip.tokens[-1], below(w, "values"))
    heads = [slice(start, start + 64) for start in range(0, len(w["query"]), 64)]
    return torch.cat([attend(w["query"][own], keys[:, own], values[:, own]) for own in heads])


def efficient(w: Weights, clip: Clip) -> Tensor:
    """Each query attends to raw tokens and reads its own group of values."""
    tokens = clip.tokens[-1]
    groups = linear(tokens, below(w, "values")).chunk(len(w["queries"]), dim=1)
    return torch.cat([attend(query, tokens, own) for query, own in zip(w["queries"], groups, strict=True)])


def keep_frequency(w: Weights, clip: Clip) -> Tensor:
    own = [[n for n, row in enumerate(clip.rows) if row == f] for f in range(max(clip.rows) + 1)]
    return torch.cat([clip.tokens[-1][cells].mean(0) for cells in own])


def longer(x: Tensor) -> Tensor:
    """Two more features of 1e-4, which keep Bird-MAE's cosines finite."""
    return torch.cat([x, torch.full_like(x[..., :2], 1e-4)], -1)


def classwise(w: Weights, clip: Clip) -> Tensor:
    similar = unit(longer(clip.tokens[-1])) @ unit(longer(w["prototypes"])).T / 1.01
    return similar.clamp_min(0).max(0).values


def own_scores(w: Weights, vectors: Tensor) -> Tensor:
    """Each class reads the scores of its own prototypes, by weights that are not negative."""
    weight = w["classifier.weight"].clamp_min(0)  # [C, J]
    scores = vectors.unflatten(1, tuple(weight.shape))
    return (scores * weight).sum(2) + w["classifier.bias"]


def apart(w: Weights) -> Tensor:
    """How far each class's unit prototypes are from orthogonal ones: the mean square of what is wrong."""
    classes, per_class = w["classifier.weight"].shape
    own = unit(w["prototypes"]).unflatten(0, (classes, per_class))
    return (own @ own.transpose(1, 2) - torch.eye(per_class, dtype=own.dtype)).square().mean()


def lasso(w: Weights) -> Tensor:
    """Head2Toe: 1e-4 times the norms of the weights that read a feature, each times the root of their number."""
    weight = w["classifier.weight"]
    return 1e-4 * math.sqrt(len(weight)) * weight.square().sum(0).sqrt().sum()


def tuned_queries(encoder: Weights, heads: int) -> Callable[[Weights, Clip], Tensor]:
    """VQT in a frozen encoder: queries take all of a block's steps, but tokens alone are attended to."""

    def pool(w: Weights, clip: Clip) -> Tensor:
        parts = []
        for b, (queries, tokens) in enumerate(zip(w["queries"], clip.inputs, strict=True)):
            block = below(encoder, f"blocks.{b}")
            dim = tokens.shape[1]
            size = dim // heads
            q = linear(queries, below(block, "attn.qkv"))[:, :dim]
            _, k, v = linear(tokens, below(block, "attn.qkv")).split(dim, dim=1)
            own = [slice(start, start + size) for start in range(0, dim, size)]
            answers = torch.cat([shares(q[:, h] @ k[:, h].T / math.sqrt(size)) @ v[:, h] for h in own], 1)
            answers = answers * torch.sigmoid(linear(queries, below(block, "attn.gate")))
            x = layer_norm(queries + linear(answers, below(block, "attn.proj")), below(block, "norm1"))
            mlp = linear(gelu(linear(x, below(block, "mlp.fc1"))), below(block, "mlp.fc2"))
            parts.append(unit(layer_norm(x + mlp, below(block, "norm2"))).flatten())
        return torch.cat([*parts, unit(clip.cls[-1])])

    return pool


def nearest(stored: Tensor, labels: Tensor, asked: Tensor, neighbours: int, temperature: float) -> Tensor:
    """Log odds of classes' shares of the votes of the nearest clips. [n, D], [n, C], [m, D] -> [m, C]."""
    found = []
    for vector in asked:
        likeness = unit(stored) @ unit(vector)
        nearest = likeness.argsort(descending=True)[:neighbours]
        votes = (likeness[nearest] / temperature).exp()
        p = (votes[:, None] * labels[nearest]).sum(0) / votes.sum()
        found.append((p / (1 - p)).log())
    return torch.stack(found)


RECIPES = {
    "cgp": Recipe(cgp),
    "protobin": Recipe(protobin),
    "linear": Recipe(last_cls),
    "linear, scaled layer norm": Recipe(last_cls, "scaled_layer"),
    "linear, batch norm": Recipe(last_mean, "batch"),
    "linear_cgp": Recipe(gated_cls, "scaled_layer"),
    "head2toe": Recipe(all_cls, "layer", penalty=lasso),
    "head2toe, scaled layer norm": Recipe(all_cls, "scaled_layer", penalty=lasso),
    "attentive": Recipe(attentive),
    "ep": Recipe(efficient, "batch"),
    "mean_time_keep_freq": Recipe(keep_frequency),
    "proto_classwise": Recipe(classwise, penalty=apart, classify=own_scores),
}


def logits_of(
    recipe: Recipe, w: Weights, clips: list[Clip], kept: Tensor | None, before: Statistics | None, training: bool
) -> tuple[Tensor, Statistics | None]:
    """Logits [B, C] of a batch, and the batch norm's statistics after it. `kept` is what dropout multiplies by."""
    vectors = torch.stack([recipe.pool(w, clip) for clip in clips])
    after = before
    if recipe.norm == "layer":
        vectors = standardise(vectors, 1, 1e-6)
    if recipe.norm == "scaled_layer":
        vectors = layer_norm(vectors, below(w, "norm"))
    if recipe.norm == "batch":
        mean, variance = vectors.mean(0), vectors.var(0, unbiased=False)
        if training:
            unbiased = vectors.detach().var(0)
            after = Statistics(0.9 * before.mean + 0.1 * mean.detach(), 0.9 * before.variance + 0.1 * unbiased)
        else:
            mean, variance = before
        vectors = (vectors - mean) / (variance + BATCH_EPS).sqrt()
    if kept is not None:
        vectors = vectors * kept
    return (recipe.classify or matrix)(w, vectors), after


def matrix(w: Weights, vectors: Tensor) -> Tensor:
    return vectors @ w["classifier.weight"].T + w["classifier.bias"]
