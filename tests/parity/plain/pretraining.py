"""A step of masked latent regression (Section 3), clip by clip and clone by clone; masks and noise are given.

Padding is cut off: a clip shorter than its neighbours has fewer cells, and nothing else in it knows of them.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .frontends import Array
from .networks import PATCH, Weights, below, decode_cnn, decode_vit, encode, patch_tokens, standardise


class Method(NamedTuple):
    """In what BAT, its release, EAT and SSLAM differ."""

    spectrogram: Callable[[Array], Array]  # [S] -> [T, 128], normalised, in whole patches
    positions: Tensor  # [columns * rows, D] of the longest clip
    heads: int
    decoder_heads: int  # of BAT's decoder
    groups: int | None  # of the convolutions of EAT's decoder; None: BAT's
    target: Literal["block", "mlp"]
    target_eps: float
    cls_layers: int | None  # how many of the last layers are the cls token's target; None: all
    sums: bool  # EAT's loss, of sums; else BAT's, of means
    kernel: int = 3  # of EAT's convolutions


class Draws(NamedTuple):
    """What is random in a step. Clones of a clip follow each other; of SSLAM, all clean clones, and then all mixed."""

    visible: list[list[int]]  # cells of each clone
    masked: list[list[int]]
    noise: list[Tensor] | None  # [masked cells, D] of each clone, for EAT's decoder
    mixed: list[bool] | None  # columns that SSLAM mixes


class Losses(NamedTuple):
    total: Tensor
    local: Tensor  # mean squared errors, the method's weights left out
    cls: Tensor
    retention: Tensor | None


def shapes(dim: int, depth: int, ratio: float, decoder_ratio: float, method: Method) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what a method trains: those of released weights, and the decoder's.

    BAT's decoder is of the encoder's width, with gated blocks, learned positions and an output without bias.
    """
    gated = method.groups is None

    def blocks(part: str, ratio: float) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        hidden = int(dim * ratio)
        for b in range(depth):
            for name, out, into in (
                ("attn.qkv", 3 * dim, dim),
                *([("attn.gate", dim, dim)] if gated else []),
                ("attn.proj", dim, dim),
                ("mlp.fc1", hidden, dim),
                ("mlp.fc2", dim, hidden),
            ):
                found |= {f"{part}.blocks.{b}.{name}.weight": (out, into), f"{part}.blocks.{b}.{name}.bias": (out,)}
            for name in ("norm1", "norm2"):
                found |= {f"{part}.blocks.{b}.{name}.{kind}": (dim,) for kind in ("weight", "bias")}
        return found

    stem = {
        "student.cls_token": (1, 1, dim),
        "student.patch_embed.proj.weight": (dim, 1, PATCH, PATCH),
        "student.patch_embed.proj.bias": (dim,),
        "student.pre_norm.weight": (dim,),
        "student.pre_norm.bias": (dim,),
    }
    encoder = stem | blocks("student", ratio)
    out = {"decoder.proj.weight": (dim, dim)}
    if gated:
        tokens = {"decoder.mask_token": (dim,), "decoder.pos_embed": tuple(method.positions.shape)}
        return encoder | tokens | blocks("decoder", decoder_ratio) | out
    convs: dict[str, tuple[int, ...]] = {}
    for layer in range(depth):
        convs |= {
            f"decoder.convs.{layer}.weight": (dim, dim // method.groups, method.kernel, method.kernel),
            f"decoder.convs.{layer}.bias": (dim,),
        }
    return encoder | convs | out | {"decoder.proj.bias": (dim,)}


def layer_targets(tokens: Tensor, teacher: Weights, method: Method) -> list[Tensor]:
    """Each block's output of a clip's patches, standardised over them."""
    outputs = encode(tokens, teacher, method.heads)
    wanted = [block if method.target == "block" else mlp for block, mlp in outputs]
    return [standardise(x[1:], 0, method.target_eps) for x in wanted]


def average(layers: list[Tensor], eps: float) -> Tensor:
    """The mean of layers, standardised over features."""
    return standardise(torch.stack(layers).mean(0), 1, eps)


def targets(tokens: Tensor, teacher: Weights, method: Method) -> tuple[Tensor, Tensor]:
    """What patches [N, D] and cls [D] of one clip should become."""
    layers = layer_targets(tokens, teacher, method)
    cls = average(layers[-(method.cls_layers or len(layers)) :], method.target_eps)
    return average(layers, method.target_eps), cls.mean(0)


def predict(tokens: Tensor, clone: int, w: Weights, method: Method, draws: Draws) -> tuple[list[int], Tensor, Tensor]:
    """One clone: its masked cells, the predictions for them, and its cls token."""
    visible = [n for n in draws.visible[clone] if n < len(tokens)]
    masked = [n for n in draws.masked[clone] if n < len(tokens)]
    seen = encode(tokens[visible], below(w, "student"), method.heads)[-1][0]
    decoder = below(w, "decoder")
    if method.groups is None:
        return masked, decode_vit(seen[1:], visible, masked, decoder, method.decoder_heads), seen[0]
    grid = torch.zeros_like(tokens)
    grid[visible] = seen[1:]
    grid[masked] = draws.noise[clone]
    rows = 8
    predicted = decode_cnn(grid.view(len(tokens) // rows, rows, -1), decoder, method.groups)
    return masked, predicted.flatten(0, 1)[masked], seen[0]


def mix(spectrograms: list[Tensor], mixed: list[bool]) -> list[Tensor]:
    """SSLAM: in mixed columns the larger of a clip and of the clip before it; the first one's is the last."""
    out = []
    for i, own in enumerate(spectrograms):
        both = own.clone()
        for t, is_mixed in enumerate(mixed):
            if is_mixed:
                here = slice(t * PATCH, (t + 1) * PATCH)
                both[here] = torch.maximum(own[here], spectrograms[i - 1][here])
        out.append(both)
    return out


def retained(clips: list[Tensor], mixed: list[bool], teacher: Weights, method: Method) -> list[Tensor]:
    """SSLAM: what a mixture should retain of its sources.

    In mixed columns the mean of the clip's own target and of the target of the other clip, of which the teacher gets
    the mixed columns alone; in the other columns, where there is no other clip, its own.
    """
    cells = [n for n in range(len(clips[0])) if mixed[n // 8]]
    own = [targets(tokens, teacher, method)[0] for tokens in clips]
    other = [targets(tokens[cells], teacher, method)[0] for tokens in clips]
    wanted = [x.clone() for x in own]
    for i, x in enumerate(wanted):
        x[cells] = (own[i][cells] + other[i - 1]) / 2
    return wanted


def losses(w: Weights, teacher: Weights, waveforms: list[Array], method: Method, draws: Draws) -> Losses:
    """One batch through student ("student." and "decoder." in `w`) and teacher."""
    spectrograms = [torch.from_numpy(method.spectrogram(waveform)) for waveform in waveforms]
    clips = len(spectrograms)
    if draws.mixed is not None:
        spectrograms = spectrograms + mix(spectrograms, draws.mixed)

    def tokens_of(spectrogram: Tensor, own: Weights) -> Tensor:
        tokens = patch_tokens(spectrogram, below(own, "patch_embed.proj"))
        return tokens + method.positions[: len(tokens)]

    student = [tokens_of(x, below(w, "student")) for x in spectrograms]
    teachers = [tokens_of(x, teacher) for x in spectrograms]
    wanted = [targets(tokens, teacher, method) for tokens in teachers]
    kept = retained(teachers[:clips], draws.mixed, teacher, method) if draws.mixed is not None else None

    local, cls, retention = [], [], []  # squared errors, a row for each cell and for each clone
    clones = len(draws.visible) // len(spectrograms)
    for clone in range(len(draws.visible)):
        clip = clone // clones
        masked, predicted, seen = predict(student[clip], clone, w, method, draws)
        local.append((predicted - wanted[clip][0][masked]).square())
        cls.append((seen - wanted[clip][1]).square())
        if kept is not None and clip >= clips:
            retention.append((predicted - kept[clip - clips][masked]).square())
    return total(torch.cat(local), torch.stack(cls), torch.cat(retention) if retention else None, method)


def total(local: Tensor, cls: Tensor, retention: Tensor | None, method: Method) -> Losses:
    """Eq. 5 as means; or EAT's sums over a batch on one GPU, divided by its number of masked cells.

    EAT's code divides squared errors by the root of the width, and multiplies those of cls by the number of masked
    cells, by which it divides in the end. SSLAM counts errors of retention, which half of its rows have, twice.
    """
    means = local.mean(), cls.mean(), None if retention is None else retention.mean()
    if not method.sums:
        return Losses(means[0] + means[1], *means)
    sample_size, root = len(local), cls.shape[1] ** 0.5
    summed = local.sum() / root + cls.sum() / root * sample_size
    if retention is not None:
        summed = summed + 2 * retention.sum() / root
    return Losses(summed / sample_size, *means)
