"""Attention maps to the shares that tokens get, sink rates and entropies, for each block and head (Fig. 5).

Token 0 is cls. Maps are formed for one clip at a time, and only their means are kept.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from audiobat.models.encoder import AudioEncoder
from audiobat.models.layers import GatedAttention
from audiobat.models.rotary import Places

SINK = 0.3  # mean attention above which a token is a sink (Gu et al., 2410.10781)
Measures = Mapping[str, Tensor]


def attention_measures(attention: Tensor) -> dict[str, Tensor]:
    """The measures of `DEFINITIONS`, each [H], of maps [H, N, N] whose rows (queries) sum to one."""
    tokens = attention.shape[-1]
    received = attention.mean(1)  # [H, N] a_k
    own = attention.diagonal(dim1=1, dim2=2)  # [H, N]
    entropy = -torch.xlogy(attention, attention).sum(-1) / math.log(tokens)  # [H, N]
    strongest = received.amax(1)
    return {
        "first_token": received[:, 0],
        "strongest_token": strongest,
        "strongest_patch": received[:, 1:].amax(1),
        "sink_rate_first": (received[:, 0] > SINK).to(attention.dtype),
        "sink_rate_any": (strongest > SINK).to(attention.dtype),
        "cls_to_cls": attention[:, 0, 0],
        "cls_to_patches": attention[:, 0, 1:].sum(-1),
        "patch_to_cls": attention[:, 1:, 0].mean(-1),
        "patch_to_itself": own[:, 1:].mean(-1),
        "cls_entropy": entropy[:, 0],
        "patch_entropy": entropy[:, 1:].mean(-1),
    }


DEFINITIONS = {
    "first_token": "share that goes to cls, mean over all queries",
    "strongest_token": "the same for the token that gets most",
    "strongest_patch": "the same for the patch that gets most",
    "sink_rate_first": f"share of clips in which cls gets more than {SINK}",
    "sink_rate_any": f"share of clips in which some token gets more than {SINK}",
    "cls_to_cls": "share that cls keeps to itself",
    "cls_to_patches": "share that cls takes from patches",
    "patch_to_cls": "share that a patch takes from cls",
    "patch_to_itself": "share that a patch keeps to itself",
    "cls_entropy": "entropy of what cls attends to, over that of a uniform row",
    "patch_entropy": "the same of what a patch attends to",
}
KINDS = {
    "weights": "attention weights, the softmax of Eq. 12",
    "values": "weight times the value's norm, rows scaled to one",
    "gated": "norm of weight times value after the gate of Eq. 13, rows scaled to one",
}


@torch.no_grad()
def mean_measures(encoder: AudioEncoder, clips: Iterable[Tensor]) -> dict[str, dict[str, Tensor]]:
    """Mean over clips [S] of every measure [L, H], for each of `KINDS`; `gated` only if the encoder has gates.

    A clip longer than `max_frames` counts once for each window of that length.
    """
    sums: dict[str, dict[str, Tensor]] = defaultdict(dict)
    windows = 0
    # Under rotary positions a long clip runs as a whole, whose map would have the square of its length.
    is_rotary = encoder.config.encoder.positions == "rotary"
    parts = (part for clip in clips for part in (clip.split(encoder.max_samples) if is_rotary else [clip]))
    for waveform in parts:
        for window in attention_inputs(encoder, waveform):
            windows += 1
            places = encoder.places(window[0][1].shape[1] - 1)
            for kind, found in _measures_of(window, places).items():
                for name, value in found.items():
                    sums[kind][name] = sums[kind].get(name, 0.0) + value
    return {kind: {name: (total / windows).cpu() for name, total in found.items()} for kind, found in sums.items()}


def attention_inputs(encoder: AudioEncoder, waveform: Tensor) -> Iterator[list[tuple[GatedAttention, Tensor]]]:
    """For each window of a clip [S], every block's attention module and its input [1, n, D] without padding."""
    modules = [module for module in encoder.modules() if isinstance(module, GatedAttention)]
    inputs: list[tuple[GatedAttention, Tensor, Tensor | None]] = []

    def keep(module: GatedAttention, arguments: tuple[Tensor, Tensor | None, int, Places | None]) -> None:
        inputs.append((module, *arguments[:2]))

    handles = [module.register_forward_pre_hook(keep) for module in modules]
    try:
        encoder.forward_intermediates(waveform[None])
    finally:
        for handle in handles:
            handle.remove()
    for i in range(len(inputs[0][1])):
        yield [(m, x[i : i + 1] if valid is None else x[i : i + 1, valid[i]]) for m, x, valid in inputs]


def _measures_of(blocks: list[tuple[GatedAttention, Tensor]], places: Places | None) -> dict[str, dict[str, Tensor]]:
    """Measures [L, H] of one window."""
    by_kind: dict[str, list[Measures]] = defaultdict(list)
    for module, x in blocks:
        by_kind["weights"].append(attention_measures(module.attention_map(x, places=places)[0]))
        ungated = module.contribution_map(x, gated=False, places=places)
        by_kind["values"].append(attention_measures(_rows_to_one(ungated[0])))
        if module.gate is not None:
            gated = module.contribution_map(x, places=places)
            by_kind["gated"].append(attention_measures(_rows_to_one(gated[0])))
    return {
        kind: {name: torch.stack([block[name] for block in blocks]) for name in blocks[0]}
        for kind, blocks in by_kind.items()
    }


def _rows_to_one(maps: Tensor) -> Tensor:
    return maps / maps.sum(-1, keepdim=True).clamp(min=1e-12)
