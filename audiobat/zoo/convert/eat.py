"""EAT's and SSLAM's weights to an AudioEncoder: fairseq's files of pre-training and fine-tuning, and Hugging Face's.

Both projects have one class, so their files have the same names and shapes. The network is BAT's without gates, behind
EAT's Kaldi frontend; position rows beyond one window are EAT's own formula again and are left out.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.engine.tensors import count_blocks
from audiobat.models.building import build
from audiobat.models.patches import sincos_positions
from audiobat.zoo.convert.weights import Converted, Weights, attention_heads, linear_head, size

LAYOUT = "EAT or SSLAM"
MODALITY = "modality_encoders.IMAGE."  # its historic name: a spectrogram
RENAMED = {
    "extra_tokens": "cls_token",
    "fixed_positional_encoder.positions": "pos_embed",
    "local_encoder.proj": "patch_embed.proj",
    "context_encoder.norm": "pre_norm",
}
NO_PART = re.compile(  # of the encoder: decoders, and what sibling models and older versions have
    r"modality_encoders\.(IMAGE\.(decoder|positional_encoder)\.|AUDIO\.|TEXT\.)|(shared_decoder|recon_proj|cls_proj)\."
    r"|.*(encoder_mask|alibi_scale|alibi_bias)$"
)
FRAMES = 1024  # of a window: what it was trained on
FBANK = FrontendConfig(kind="kaldi_fbank", n_fft=512, win_length=400, mel_bins=128, f_min=20.0, norm="global")
ROUNDING = 1e-3  # of the student's positions, which fp16 has rounded


def matches(names: Collection[str]) -> bool:
    """Whether tensors of these names are of this kind."""
    bare = {name.removeprefix("model.").removeprefix(MODALITY) for name in names}
    return "local_encoder.proj.weight" in bare


def convert(weights: Weights, teacher: bool = False) -> Converted:
    """The student by default, as in every published number; the `_ema` copy, if the file has one, with `teacher`.

    Raises AudiobatError for a tensor that is missing, unexpected or of an unlikely shape.
    """
    path = weights.path
    tensors, left = renamed(weights.chosen(teacher))
    dim, _, patch_frames, patch_bins = size(tensors, "patch_embed.proj.weight", 4, path)
    hidden, _ = size(tensors, "blocks.0.mlp.fc1.weight", 2, path)
    depth, rows = count_blocks(tensors), FBANK.mel_bins // patch_bins
    head = linear_head(tensors, ("head", "fc_norm"), (dim, depth), "cls", names_of_classes(weights.config), path)
    tensors["pos_embed"] = positions(tensors, rows, FRAMES // patch_frames, dim, weights)
    encoder = EncoderConfig(
        dim=dim,
        depth=depth,
        heads=attention_heads(weights, dim),
        mlp_ratio=hidden / dim,
        patch_size=(patch_frames, patch_bins),
        max_frames=tensors["pos_embed"].shape[1] // rows * patch_frames,
        gated_attention=False,
        pad="grid",  # how it was trained: zeros to the full length, attended to
    )
    model = build(ModelConfig(FBANK, encoder), tensors, path)
    return Converted(LAYOUT, model.eval(), head, (*left, *weights.left))


def renamed(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Our names for the tensors that an encoder or its head has, and the file's names of the others."""
    ours: dict[str, Tensor] = {}
    left: list[str] = []
    for full, tensor in tensors.items():
        name = full.removeprefix("model.")
        if NO_PART.match(name):
            left.append(full)
            continue
        name = name.removeprefix(MODALITY)
        for theirs, our in RENAMED.items():
            if name == theirs or name.startswith(f"{theirs}."):
                name = our + name.removeprefix(theirs)
        ours[name] = tensor
    return ours, left


def positions(tensors: Mapping[str, Tensor], rows: int, columns: int, dim: int, weights: Weights) -> Tensor:
    """One window of the position table [1, N, D]: the file's, or computed where it has none."""
    computed = sincos_positions((columns, rows), dim)
    if "pos_embed" not in tensors:
        return computed
    _, count, _ = size(tensors, "pos_embed", 3, weights.path)
    table = tensors["pos_embed"][:, : min(count // rows, columns) * rows].float()
    if table.shape[2] == dim and (table - computed[:, : table.shape[1]]).abs().max() > ROUNDING:
        warnings.warn(
            f"{weights.path}: the positions are not EAT's sines and cosines; the file's are used.", stacklevel=2
        )
    return table


def names_of_classes(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`id2label` of a config.json that names classes; fairseq's files do not: their 527 are in AudioSet's own order."""
    names = config.get("id2label")
    return names if isinstance(names, Mapping) and any(v != f"LABEL_{k}" for k, v in names.items()) else {}
