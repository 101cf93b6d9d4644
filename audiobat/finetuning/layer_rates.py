"""Layer-wise learning rates: an encoder with its head to AdamW's parameter groups (Table 6, "Layer-Wise LR Decay").

Lower layers hold general features, so they learn more slowly than the head; EAT's code maps layers to rates differently
from BAT's, and both mappings are here.
"""

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
from audiobat.models.heads import head_class, parameter_groups
from audiobat.models.tagger import Tagger


@dataclass(frozen=True)
class LayerRate:
    """A layer's learning rate as a function of the head's at any step: scale * rate + shift."""

    scale: float
    shift: float = 0.0


def layer_of(name: str, depth: int, layer_map: str) -> int:
    """The layer of an encoder's parameter: 0 for patches and cls, b for the b-th block, `depth` + 1 for the last norm.

    The stem norm is of layer 0. Under `released` it learns with the head: the release's code, like that of masked
    autoencoders from which it comes, gives the head's rate to whatever it does not know by name.
    """
    part, _, rest = name.partition(".")
    if part == "blocks":
        return int(rest.partition(".")[0]) + 1
    return depth + 1 if part == "norm" or (part == "pre_norm" and layer_map == "released") else 0


def layer_rate(layer: int, depth: int, optim: FinetuneOptimConfig) -> LayerRate:
    """The rate of layer 0 (stem), 1 to `depth` (blocks) or depth + 1 (head).

    `standard` and `released`: decay^(depth + 1 - layer) times the head's rate at every step.
    `eat`: the stem is as fast as the head, and blocks go from `min_lr` up to decay^(depth + 1 - layer) times `lr` and
    back. With EAT's own numbers this peak lies below `min_lr` for the first three blocks, as it does in EAT.
    """
    scale = optim.layer_decay ** (depth + 1 - layer)
    if optim.layer_map != "eat":
        return LayerRate(scale)
    if layer == 0 or optim.lr == optim.min_lr:
        return LayerRate(1.0)
    # The head's schedule from min_lr to lr, stretched to go from min_lr to scale * lr:
    # min_lr + (scale * lr - min_lr) * (rate - min_lr) / (lr - min_lr).
    slope = (scale * optim.lr - optim.min_lr) / (optim.lr - optim.min_lr)
    return LayerRate(slope, optim.min_lr * (1 - slope))


def own_encoder(tagger: Tagger) -> AudioEncoder:
    """The encoder of a tagger; AudiobatError if its blocks are not audiobat's own, as with BEATs."""
    if not isinstance(tagger.encoder, AudioEncoder):
        raise AudiobatError(f"A {type(tagger.encoder).__name__} cannot be fine-tuned: give an encoder of another kind.")
    return tagger.encoder


def train_only_what_is_read(tagger: Tagger) -> None:
    """Train every parameter but those of blocks above the block that the head reads, which would get no gradient."""
    tagger.requires_grad_(True)
    head = tagger.config.head
    if head_class(head.kind).layers == "one" and head.layer != -1:
        for block in own_encoder(tagger).blocks[head.layer :]:
            block.requires_grad_(False)


def build_groups(tagger: Tagger, optim: FinetuneOptimConfig) -> list[dict[str, object]]:
    """Parameter groups with `lr_scale` and `lr_shift`: for each layer, parameters with and without weight decay.

    Without `decay_1d`, vectors of the encoder do not decay. Of the head only the classifier's matrix decays, as in
    probes, or with `decay_head_1d` its bias and the scale and shift of its norm as well; its groups come last.
    """
    depth = tagger.encoder.depth
    found: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in tagger.encoder.named_parameters():
        if parameter.requires_grad:
            layer = layer_of(name, depth, optim.layer_map)
            found[layer, optim.decay_1d or not is_vector(parameter)].append(parameter)
    groups: list[dict[str, object]] = []
    for (layer, decays), parameters in sorted(found.items(), key=lambda item: item[0]):
        rate = layer_rate(layer, depth, optim)
        decay = optim.weight_decay if decays else 0.0
        groups.append({"params": parameters, "weight_decay": decay, "lr_scale": rate.scale, "lr_shift": rate.shift})
    own_rate = {"lr_scale": 1.0, "lr_shift": 0.0}
    of_head = parameter_groups(tagger.head, optim.weight_decay, optim.decay_head_1d)
    return [*groups, *({**group, **own_rate} for group in of_head)]


def build_adamw(tagger: Tagger, optim: FinetuneOptimConfig) -> AdamW:
    """AdamW over the tagger's parameters; call it once they are on their device."""
    groups = build_groups(tagger, optim)
    fused = all(p.device.type in ("cpu", "cuda") for p in tagger.parameters())  # torch has it for these alone
    return AdamW(groups, lr=optim.lr, betas=optim.betas, fused=fused)


def describe_rates(tagger: Tagger, optim: FinetuneOptimConfig) -> Iterator[str]:
    """A line for each layer: parameters that train, and the highest learning rate."""
    depth = tagger.encoder.depth
    counts: dict[int, int] = defaultdict(int)
    for name, parameter in tagger.encoder.named_parameters():
        counts[layer_of(name, depth, optim.layer_map)] += parameter.numel() if parameter.requires_grad else 0
    counts[depth + 1] += sum(parameter.numel() for parameter in tagger.head.parameters())
    for layer, count in sorted(counts.items()):
        name = "stem" if layer == 0 else "head" if layer > depth else f"block {layer}"
        rate = layer_rate(layer, depth, optim)
        peak = max(rate.scale * end + rate.shift for end in (optim.lr, optim.min_lr))  # eat: min_lr may be the higher
        yield f"  {name:<10}{count:>12,} parameters, learning rate up to {peak:.2e}"
