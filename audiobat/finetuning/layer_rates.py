"""Layer-wise learning rates: an encoder with its head to AdamW's parameter groups (Table 6; EAT's own mapping)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.optim import AdamW

from audiobat.config import FinetuneOptimConfig
from audiobat.engine.optim import is_vector
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.models.heads import parameter_groups
from audiobat.models.tagger import Tagger

READS_ALL_BLOCKS = ("cgp", "linear_cgp", "head2toe")  # heads for which `head.layer` means nothing


@dataclass(frozen=True)
class LayerRate:
    """How a layer's learning rate follows the head's: scale * rate + shift."""

    scale: float
    shift: float = 0.0


def layer_of(name: str) -> int:
    """The layer of an encoder's parameter: 0 for the stem (patches, cls, stem norm), b for the b-th block."""
    group, _, rest = name.partition(".")
    return int(rest.partition(".")[0]) + 1 if group == "blocks" else 0


def layer_rate(layer: int, depth: int, optim: FinetuneOptimConfig) -> LayerRate:
    """The rate of layer 0 (stem), 1 to `depth` (blocks) or depth + 1 (head).

    `standard`: decay^(depth + 1 - layer) times the head's rate at every step (BEiT's, the release's). `eat`: the stem
    is as fast as the head, and blocks go from `min_lr` to decay^(depth + 1 - layer) times `lr` and back. With EAT's
    numbers that peak lies below `min_lr` for the first three blocks, as in EAT.
    """
    scale = optim.layer_decay ** (depth + 1 - layer)
    if optim.layer_map == "standard":
        return LayerRate(scale)
    if layer == 0 or optim.lr == optim.min_lr:
        return LayerRate(1.0)
    # The same schedule between other ends: min_lr + (scale * lr - min_lr) * (rate - min_lr) / (lr - min_lr).
    slope = (scale * optim.lr - optim.min_lr) / (optim.lr - optim.min_lr)
    return LayerRate(slope, optim.min_lr * (1 - slope))


def own_encoder(tagger: Tagger) -> AudioEncoder:
    """The encoder of a tagger; AudiobatError if it is of a class that fine-tuning does not know, such as BEATs'."""
    if not isinstance(tagger.encoder, AudioEncoder):
        raise AudiobatError(f"A {type(tagger.encoder).__name__} cannot be fine-tuned: give an encoder of another kind.")
    return tagger.encoder


def train_only_what_is_read(tagger: Tagger) -> None:
    """Let every parameter learn but those of blocks above the one that the head reads, which get no gradient."""
    tagger.requires_grad_(True)
    head = tagger.config.head
    if head.kind not in READS_ALL_BLOCKS and head.layer != -1:
        for block in own_encoder(tagger).blocks[head.layer :]:
            block.requires_grad_(False)


def build_groups(tagger: Tagger, optim: FinetuneOptimConfig) -> list[dict[str, object]]:
    """Parameter groups with `lr_scale` and `lr_shift`: those of a layer that decay, those that do not; the head's last.

    Unless `decay_1d`, vectors of the encoder do not decay; of the head only the classifier's matrix does, as in probes.
    """
    found: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in tagger.encoder.named_parameters():
        if parameter.requires_grad:
            found[layer_of(name), optim.decay_1d or not is_vector(parameter)].append(parameter)
    groups: list[dict[str, object]] = []
    for (layer, decays), parameters in sorted(found.items(), key=lambda item: item[0]):
        rate = layer_rate(layer, tagger.encoder.depth, optim)
        decay = optim.weight_decay if decays else 0.0
        groups.append({"params": parameters, "weight_decay": decay, "lr_scale": rate.scale, "lr_shift": rate.shift})
    rest = {"lr_scale": 1.0, "lr_shift": 0.0}
    return [*groups, *({**group, **rest} for group in parameter_groups(tagger.head, optim.weight_decay))]


def build_adamw(tagger: Tagger, optim: FinetuneOptimConfig) -> AdamW:
    """AdamW over the tagger's parameters, which are on their device already."""
    groups = build_groups(tagger, optim)
    fused = all(p.device.type in ("cpu", "cuda") for p in tagger.parameters())
    return AdamW(groups, lr=optim.lr, betas=optim.betas, fused=fused)


def describe_rates(tagger: Tagger, optim: FinetuneOptimConfig) -> Iterator[str]:
    """A line for each layer: parameters that learn, and the highest learning rate."""
    depth = tagger.encoder.depth
    counts: dict[int, int] = defaultdict(int)
    for name, parameter in tagger.encoder.named_parameters():
        counts[layer_of(name)] += parameter.numel() if parameter.requires_grad else 0
    counts[depth + 1] = sum(parameter.numel() for parameter in tagger.head.parameters())
    for layer, count in sorted(counts.items()):
        name = "stem" if layer == 0 else "head" if layer > depth else f"block {layer}"
        rate = layer_rate(layer, depth, optim)
        peak = max(rate.scale * end + rate.shift for end in (optim.lr, optim.min_lr))
        yield f"  {name:<10}{count:>12,} parameters, learning rate up to {peak:.2e}"
