"""EAT's and SSLAM's weights to an AudioEncoder: fairseq's files of pre-training and fine-tuning, and Hugging Face's.

SSLAM uses EAT's model class, so that both have the same names and shapes. The network is BAT's without gates, behind
EAT's Kaldi frontend. A table of positions longer than one window continues EAT's formula; the rest of it is left out.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from audiobat.config import FrontendConfig
from audiobat.engine.tensors import check_values, count_blocks
from audiobat.models.patches import sincos_positions
from audiobat.zoo.convert.weights import Converted, Weights, linear_head, size, vit

LAYOUT = "EAT or SSLAM"
MODALITY = "modality_encoders.IMAGE."  # data2vec 2.0's name, which EAT keeps for spectrograms
RENAMED = {
    "extra_tokens": "cls_token",
    "fixed_positional_encoder.positions": "pos_embed",
    "local_encoder.proj": "patch_embed.proj",
    "context_encoder.norm": "pre_norm",
}
DECODER = f"{MODALITY}decoder."
CONV = re.compile(r"^blocks\.(\d+)\.0\.")  # what follows a convolution in its block has no tensors
NO_PART = re.compile(  # tensors that are no part of the encoder: of decoders, other modalities and older versions
    r"modality_encoders\.(IMAGE\.(decoder|positional_encoder)\.|AUDIO\.|TEXT\.)|(shared_decoder|recon_proj|cls_proj)\."
    r"|.*(encoder_mask|alibi_scale|alibi_bias)$"
)
FRAMES = 1024  # of a window, as in training
FBANK = FrontendConfig(kind="kaldi_fbank")  # whose defaults are EAT's
ROUNDING = 1e-3  # more than fp16 has rounded the student's positions by


def matches(names: Collection[str]) -> bool:
    """Whether a file with tensors of these names is EAT's or SSLAM's."""
    bare = {name.removeprefix("model.").removeprefix(MODALITY) for name in names}
    return "local_encoder.proj.weight" in bare


def convert(weights: Weights, teacher: bool = False) -> Converted:
    """The student, whose numbers both papers report; with `teacher`, the `_ema` copy that some files hold.

    Raises AudiobatError for a tensor that is missing, unexpected or of a shape that does not fit.
    """
    path = weights.path
    tensors, left = renamed(weights.chosen(teacher))
    dim, _, patch_frames, patch_bins = size(tensors, "patch_embed.proj.weight", 4, path)
    names: Any = weights.config.get("id2label")  # of a config.json; fairseq's files have AudioSet's order
    made_up = not isinstance(names, Mapping) or all(v == f"LABEL_{k}" for k, v in names.items())  # by transformers
    sizes, classes = (dim, count_blocks(tensors)), {} if made_up else names
    head = linear_head(tensors, ("head", "fc_norm"), sizes, "cls", classes, path)
    tensors["pos_embed"] = positions(tensors, FBANK.mel_bins // patch_bins, FRAMES // patch_frames, dim, weights)
    model = vit(weights, tensors, FBANK, gated_attention=False)
    decoder = {} if teacher else decoder_of(weights)
    return Converted(LAYOUT, model.eval(), head, (*left, *weights.left), decoder)


def decoder_of(weights: Weights) -> dict[str, Tensor]:
    """The tensors of the pre-training decoder, if the file has one, under the names of ours of kind `cnn`."""
    ours: dict[str, Tensor] = {}
    for name, tensor in weights.student.items():
        inner = name.removeprefix("model.").removeprefix(DECODER)
        if inner != name.removeprefix("model."):
            ours[CONV.sub(r"convs.\1.", inner)] = tensor
    check_values(ours, weights.path)
    return ours


def renamed(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the encoder and its head under our names, and the file's names of all others."""
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


def positions(tensors: Mapping[str, Tensor], freq_patches: int, columns: int, dim: int, weights: Weights) -> Tensor:
    """One window of the position table [1, N, D]: the file's, or a computed one if the file has none."""
    computed = sincos_positions((columns, freq_patches), dim)
    if "pos_embed" not in tensors:
        return computed
    _, count, _ = size(tensors, "pos_embed", 3, weights.path)
    table = tensors["pos_embed"][:, : min(count // freq_patches, columns) * freq_patches].float()
    if table.shape[2] == dim and (table - computed[:, : table.shape[1]]).abs().max() > ROUNDING:
        warnings.warn(
            f"{weights.path}: the positions are not EAT's sines and cosines; the file's are used.", stacklevel=2
        )
    return table
