"""Tokens of one clip through encoder and decoders: matrices [N, D], and no batches but those of functions of torch."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]
Keep = tuple[float, float]
PATCH = 16  # frames and mel bins


def below(weights: Weights, name: str) -> Weights:
    """The weights whose names begin with `name` and a dot, without that."""
    return {key[len(name) + 1 :]: value for key, value in weights.items() if key.startswith(f"{name}.")}


def linear(x: Tensor, w: Weights) -> Tensor:
    y = x @ w["weight"].T
    return y + w["bias"] if "bias" in w else y


def standardise(x: Tensor, axis: int, eps: float) -> Tensor:
    """Mean 0 and variance 1 along an axis; the variance is that of a population."""
    x = x - x.mean(axis, keepdim=True)
    return x / (x.square().mean(axis, keepdim=True) + eps).sqrt()


def layer_norm(x: Tensor, w: Weights) -> Tensor:
    return standardise(x, -1, 1e-6) * w["weight"] + w["bias"]


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def attention(x: Tensor, w: Weights, heads: int) -> Tensor:
    """Eq. 12 to 14: one matrix for q, k and v; each feature of each head times its gate, where there is one."""
    dim = x.shape[1]
    size = dim // heads
    q, k, v = linear(x, below(w, "qkv")).split(dim, dim=1)
    answers = []
    for start in range(0, dim, size):
        own = slice(start, start + size)
        scores = (q[:, own] @ k[:, own].T / math.sqrt(size)).exp()
        answers.append(scores / scores.sum(1, keepdim=True) @ v[:, own])
    together = torch.cat(answers, 1)
    if "gate.weight" in w:
        together = together * (1 / (1 + (-linear(x, below(w, "gate"))).exp()))
    return linear(together, below(w, "proj"))


def block(x: Tensor, w: Weights, heads: int, keep: Keep = (1.0, 1.0)) -> tuple[Tensor, Tensor]:
    """Eq. 1 to 4: a post-norm block's output, and its MLP's before the residual is added.

    `keep` is by how much drop path multiplies attention and MLP.
    """
    x = layer_norm(x + keep[0] * attention(x, below(w, "attn"), heads), below(w, "norm1"))
    mlp = linear(gelu(linear(x, below(w, "mlp.fc1"))), below(w, "mlp.fc2"))
    return layer_norm(x + keep[1] * mlp, below(w, "norm2")), mlp


def sines(position: float, size: int) -> list[float]:
    """The sines of a position, then its cosines, at `size` / 2 frequencies from 1 down to nearly 1 / 10,000."""
    angles = [position * 10_000 ** (-2 * k / size) for k in range(size // 2)]
    return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]


def positions(columns: int, rows: int, dim: int) -> Tensor:
    """EAT's table, and the paper's: cell t * rows + f has f in its first half, t in its second."""
    cells = [(t, f) for t in range(columns) for f in range(rows)]
    return torch.tensor([sines(f, dim // 2) + sines(t, dim // 2) for t, f in cells], dtype=torch.float64)


def released_positions(columns: int, rows: int, dim: int) -> Tensor:
    """The table of BAT's release: made with the axes of the grid swapped, and read in the order of the tokens."""
    cells = range(columns * rows)
    table = [sines(n % columns, dim // 2) + sines(n // columns, dim // 2) for n in cells]
    return torch.tensor(table, dtype=torch.float64)


def patch_tokens(spectrogram: Tensor, w: Weights) -> Tensor:
    """Tokens of whole patches: time is the outer axis, frequency the inner one. [T, F] -> [N, D]."""
    patches = spectrogram.unflatten(0, (-1, PATCH)).unflatten(2, (-1, PATCH)).transpose(1, 2)  # [t, f, 16, 16]
    return patches.flatten(2).flatten(0, 1) @ w["weight"].flatten(1).T + w["bias"]


def encode(tokens: Tensor, w: Weights, heads: int, keeps: list[Keep] | None = None) -> list[tuple[Tensor, Tensor]]:
    """Output and MLP output of every block for cls and `tokens`, which have their positions. [N, D] -> [1 + N, D]."""
    x = layer_norm(torch.cat([w["cls_token"][0], tokens]), below(w, "pre_norm"))
    outputs = []
    while f"blocks.{len(outputs)}.norm1.weight" in w:
        keep = keeps[len(outputs)] if keeps is not None else (1.0, 1.0)
        outputs.append(block(x, below(w, f"blocks.{len(outputs)}"), heads, keep))
        x = outputs[-1][0]
    return outputs


def decode_vit(tokens: Tensor, visible: list[int], masked: list[int], w: Weights, heads: int) -> Tensor:
    """BAT's decoder (Section 5.3), with a token for masked cells and learned positions: predictions of masked cells."""
    x = torch.cat([tokens, w["mask_token"].expand(len(masked), -1)])
    x = x + w["pos_embed"][visible + masked]
    depth = 0
    while f"blocks.{depth}.norm1.weight" in w:
        x, _ = block(x, below(w, f"blocks.{depth}"), heads)
        depth += 1
    return linear(x[len(visible) :], below(w, "proj"))


def decode_cnn(grid: Tensor, w: Weights, groups: int) -> Tensor:
    """EAT's decoder: grouped convolutions over the grid of tokens, with residuals. [T, F, D] -> [T, F, D]."""
    depth = 0
    while f"convs.{depth}.weight" in w:
        conv = below(w, f"convs.{depth}")
        y = F.conv2d(grid.permute(2, 0, 1), conv["weight"], conv["bias"], padding="same", groups=groups)
        grid = grid + gelu(standardise(y.permute(1, 2, 0), -1, 1e-5))
        depth += 1
    return linear(grid, below(w, "proj"))
