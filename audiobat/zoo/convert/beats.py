"""Checkpoints of BEATs and OpenBEATs (`cfg`, `model`; `label_dict` of fine-tuned ones) to a BeatsEncoder and its head.

Names and shapes are those of BEATs' public code and of the package openbeats; no published file was at hand. There,
weight norm splits the convolution's weight in two, and every block repeats one table of relative positions. OpenBEATs
keeps two kernels of ones, by which it finds padding, and fine-tunes in ESPnet, whose files have the encoder under
`encoder.` and, beside it, a head that this package does not know.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiobat.engine.tensors import check_shapes, check_values, count_blocks, read_tensors, shapes_of
from audiobat.errors import AudiobatError
from audiobat.zoo.convert.beats_encoder import FBANK, MODEL_TYPE, BeatsEncoder, Sizes
from audiobat.zoo.convert.pickles import shown
from audiobat.zoo.convert.weights import Converted, Weights, linear_head, size
from audiobat.zoo.release import check_fields

LAYOUT = "BEATs or OpenBEATs"
MAX_DISTANCE = 800  # if the file's config does not name it
FARTHEST = 2**31
FIXED = {  # fields of its config with the only values that our encoder implements, which all published files have
    "layer_norm_first": False,
    "deep_norm": True,
    "activation_fn": "gelu",
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "fbank_mean": FBANK.mean,
    "fbank_std": FBANK.std,
}
ESPNET = "encoder."  # before the names of an encoder in a fine-tuned OpenBEATs
NO_PART = ("patch_embedding_pad.", "raw2fbank_pad.")
RENAMED = (
    (r"patch_embedding\.", "patch_embed."),
    (r"layer_norm\.", "patch_norm."),
    (r"post_extract_proj\.", "project."),
    (r"encoder\.layer_norm\.", "norm."),
    (r"encoder\.pos_conv\.0\.", "pos_conv."),
    (r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.", r"blocks.\1.norm1."),
    (r"encoder\.layers\.(\d+)\.final_layer_norm\.", r"blocks.\1.norm2."),
    (r"encoder\.layers\.(\d+)\.self_attn\.grep_linear\.", r"blocks.\1.attn.gate."),
    (r"encoder\.layers\.(\d+)\.self_attn\.grep_a$", r"blocks.\1.attn.gate_scale"),
    (r"encoder\.layers\.(\d+)\.self_attn\.", r"blocks.\1.attn."),
    (r"encoder\.layers\.(\d+)\.", r"blocks.\1."),
)
TABLE = re.compile(r"blocks\.\d+\.attn\.relative_attention_bias\.weight")


def matches(names: Collection[str]) -> bool:
    """Whether a file with tensors of these names is BEATs'."""
    wanted = {"patch_embedding.weight", "layer_norm.weight", "encoder.layer_norm.weight"}
    return wanted <= set(names) or {f"{ESPNET}{name}" for name in wanted} <= set(names)


def convert(weights: Weights, teacher: bool = False) -> Converted:
    """The encoder, and the head of a fine-tuned file, whose classes are AudioSet's MIDs.

    Raises AudiobatError for a tensor that is missing, unexpected or of a shape that does not fit, and for a config of a
    variant that our encoder does not implement.
    """
    path = weights.path
    theirs = weights.chosen(teacher)
    prefix = ESPNET if f"{ESPNET}patch_embedding.weight" in theirs else ""
    bare = {name.removeprefix(prefix): tensor for name, tensor in theirs.items() if name.startswith(prefix)}
    tensors = renamed({name: tensor for name, tensor in bare.items() if not name.startswith(NO_PART)})
    config = weights.config.get("cfg")
    config = config if isinstance(config, Mapping) else {}
    for name, value in FIXED.items():
        if config.get(name, value) != value:
            raise AudiobatError(
                f"{path}: its config has {name} {shown(config[name])}, but only {value!r} is known here."
            )
    tensors["pos_conv.weight"] = conv_weight(tensors, path)
    tensors["relative_bias.weight"] = shared_table(tensors, path)
    sizes = sizes_of(tensors, config, path)
    labels = weights.config.get("label_dict")
    classes = labels if isinstance(labels, Mapping) else {}
    head = linear_head(tensors, ("predictor", None), (sizes.dim, sizes.depth), "mean", classes, path)
    beside = tuple(name for name in theirs if not name.startswith(prefix))
    return Converted(LAYOUT, make(sizes, tensors, path).eval(), head, (*beside, *weights.left))


def read(folder: Path, config: Mapping[str, Any]) -> BeatsEncoder:
    """Build the encoder of a release that `save_release` wrote, given its config.json.

    Raises AudiobatError as `convert` does.
    """
    check_fields(config, MODEL_TYPE, ("model_type", "format", "max_distance", "tagger", "extra"))
    file = folder / "model.safetensors"
    tensors = read_tensors(file)
    return make(sizes_of(tensors, config, file), tensors, file)


def make(sizes: Sizes, tensors: Mapping[str, Tensor], path: Path) -> BeatsEncoder:
    """The encoder of these sizes with these tensors, all of which it must have a place for."""
    with torch.device("meta"):  # shapes without memory: the file may name any size
        wanted = shapes_of(BeatsEncoder(sizes).state_dict())
    check_shapes(shapes_of(tensors), wanted, path)
    check_values(tensors, path)
    encoder = BeatsEncoder(sizes)
    encoder.load_state_dict(tensors)
    return encoder


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors under our names; an unknown name stays, and `check_shapes` reports it as left over."""
    ours = {}
    for name, tensor in tensors.items():
        for pattern, our in RENAMED:
            if re.match(pattern, name):
                name = re.sub(f"^{pattern}", our, name)
                break
        ours[name] = tensor
    return ours


def conv_weight(tensors: dict[str, Tensor], path: Path) -> Tensor:
    """The convolution's weight from its direction and, for each place of the kernel, its length."""
    size(tensors, "pos_conv.weight_v", 3, path)
    size(tensors, "pos_conv.weight_g", 3, path)
    direction, length = tensors.pop("pos_conv.weight_v").float(), tensors.pop("pos_conv.weight_g").float()
    if length.shape != (1, 1, direction.shape[2]):
        raise AudiobatError(f"{path}: pos_conv.weight_g has shape {list(length.shape)}: one length for each place.")
    return length * direction / direction.square().sum((0, 1), keepdim=True).sqrt()


def shared_table(tensors: dict[str, Tensor], path: Path) -> Tensor:
    """The table of relative positions, which must be the same in all blocks."""
    tables = [tensors.pop(name) for name in list(tensors) if TABLE.fullmatch(name)]
    if not tables:
        raise AudiobatError(f"{path} has no table of relative positions (relative_attention_bias.weight).")
    if any(not torch.equal(table, tables[0]) for table in tables):
        raise AudiobatError(f"{path}: its blocks have different tables of relative positions, where BEATs' share one.")
    return tables[0]


def sizes_of(tensors: Mapping[str, Tensor], config: Mapping[str, Any], path: Path) -> Sizes:
    """Every size, read off the tensors; only the farthest distance is in the config."""
    patch_dim, _, patch, _ = size(tensors, "patch_embed.weight", 4, path)
    dim, in_group, kernel = size(tensors, "pos_conv.weight", 3, path)
    buckets, heads = size(tensors, "relative_bias.weight", 2, path)
    hidden, _ = size(tensors, "blocks.0.fc1.weight", 2, path)
    far = config.get("max_distance", MAX_DISTANCE)
    fits = dim % heads == 0 and dim % in_group == 0 and 128 % patch == 0 and buckets >= 4
    if not fits or type(far) is not int or not buckets // 4 < far <= FARTHEST:
        raise AudiobatError(
            f"{path}: width {dim}, {heads} heads, groups of {in_group}, patches of {patch}, {buckets} buckets and "
            f"max_distance {shown(far)} do not fit each other."
        )
    return Sizes(
        dim=dim,
        depth=count_blocks(tensors),
        heads=heads,
        hidden=hidden,
        patch=patch,
        patch_dim=patch_dim,
        patch_bias="patch_embed.bias" in tensors,
        kernel=kernel,
        groups=dim // in_group,
        buckets=buckets,
        max_distance=far,
    )
