"""A step of fine-tuning, clip by clip, with given draws; and the rates at which layers learn."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .frontends import Array
from .losses import LOSSES, smooth
from .networks import Keep, Weights, below, encode, layer_norm, linear, patch_tokens, standardise


class Method(NamedTuple):
    """In what the papers' and the projects' fine-tunings differ."""

    spectrogram: Callable[[Array], Array]  # [S] -> [T, 128], normalised
    columns: int | None  # of patches that a clip is padded to; None: as many as it needs
    positions: Tensor  # [N, D]
    heads: int
    loss: str  # of LOSSES
    smoothing: float
    layer_decay: float
    layers: Literal["standard", "released", "eat"]


class Draws(NamedTuple):
    """What is random in a step, of every clip; None where nothing is."""

    turns: list[int] | None  # samples by which a waveform is rolled
    gains: list[float] | None
    noise: list[Tensor] | None  # [S], added to a waveform
    cells: list[Tensor] | None  # [T, F], added to a spectrogram
    frames: list[int] | None  # by which a spectrogram is rolled
    shares: list[float]  # of the clip itself in its mixture with the clip at the other end of the batch
    stripes: list[tuple[list[int], list[int]]]  # frames and mel bins that are blanked
    paths: list[list[Keep]]  # of each block
    kept: list[Tensor]  # what dropout multiplies the head's input by


def spectrogram_of(waveform: Array, i: int, method: Method, draws: Draws) -> Tensor:
    """Clip `i` of a batch before it is mixed with another."""
    x = torch.from_numpy(waveform).double()
    if draws.turns is not None:
        x = x.roll(draws.turns[i])
    if draws.gains is not None:
        x = x * draws.gains[i]
    if draws.noise is not None:
        x = x + draws.noise[i]
    y = torch.from_numpy(method.spectrogram(x.numpy()))
    if draws.cells is not None:
        y = y + draws.cells[i]
    return y if draws.frames is None else y.roll(draws.frames[i], 0)


def loss_of(w: Weights, waveforms: list[Array], labels: Tensor, method: Method, draws: Draws) -> Tensor:
    """The loss of a batch; the encoder's weights are below "encoder", the linear head's below "head"."""
    spectrograms = [spectrogram_of(waveform, i, method, draws) for i, waveform in enumerate(waveforms)]
    encoder, classifier = below(w, "encoder"), below(w, "head.classifier")
    logits, wanted = [], []
    for i, share in enumerate(draws.shares):
        partner = len(waveforms) - 1 - i
        x = share * spectrograms[i] + (1 - share) * spectrograms[partner] if share < 1 else spectrograms[i].clone()
        wanted.append(share * labels[i] + (1 - share) * labels[partner])
        frames, bins = draws.stripes[i]
        x[frames] = 0
        x[:, bins] = 0
        whole = torch.zeros((method.columns or -(-len(x) // 16)) * 16, x.shape[1], dtype=x.dtype)
        whole[: len(x)] = x
        tokens = patch_tokens(whole, below(encoder, "patch_embed.proj"))
        cls = encode(tokens + method.positions[: len(tokens)], encoder, method.heads, draws.paths[i])[-1][0][0]
        # The paper's head has no scale and shift of its own: the paper says nothing of it.
        normal = standardise(cls, 0, 1e-6) if method.layers == "standard" else layer_norm(cls, below(w, "head.norm"))
        logits.append(linear(normal * draws.kept[i], classifier))
    return LOSSES[method.loss](torch.stack(logits), smooth(torch.stack(wanted), method.smoothing))


def layer_of(name: str) -> int | None:
    """0 for the stem, b for block b = 1, 2, ..., and None for the head."""
    if name.startswith("head."):
        return None
    return int(name.split(".")[2]) + 1 if ".blocks." in name else 0


def rate_of(name: str, rate: float, top: float, floor: float, depth: int, method: Method) -> float:
    """The learning rate of a parameter at a step at which the head's is `rate`; `top` is the highest, after warm-up.

    standard: BEiT's, the stem is layer 0. released: so, but the stem's norm learns as the head does (BAT's release).
    eat: the stem learns as the head does, and every block's own schedule has the same floor (EAT).
    """
    layer = layer_of(name)
    if layer is None or (method.layers == "released" and ".pre_norm." in name):
        return rate
    scale = method.layer_decay ** (depth + 1 - layer)
    if method.layers != "eat":
        return scale * rate
    return rate if layer == 0 else floor + (scale * top - floor) * (rate - floor) / (top - floor)


def decay_of(name: str, value: Tensor, method: Method) -> float:
    """0.05. In EAT for all; else not for a head's vectors; in BAT's release neither for the encoder's and cls."""
    if name.startswith("head.") and method.layers != "eat":
        return 0.05 if name == "head.classifier.weight" else 0.0
    exempt = method.layers == "released" and (value.ndim == 1 or name.endswith("cls_token"))
    return 0.0 if exempt else 0.05
