"""BAT's public weights to an AudioEncoder: the Hugging Face folder, and the checkpoints of its two training scripts.

The tensors already have our names. Sizes that no config names are read off the tensors. The positions are the file's,
never computed: the release's are in another order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.engine.tensors import count_blocks, read_tensors
from audiobat.errors import AudiobatError
from audiobat.models.building import build
from audiobat.models.encoder import AudioEncoder
from audiobat.zoo.convert.weights import Converted, Weights, attention_heads, size

LAYOUT = "BAT"


def matches(names: Collection[str]) -> bool:
    """Whether a file with tensors of these names is BAT's."""
    return {"patch_embed.proj.weight", "pre_norm.weight", "cls_token"} <= set(names)


def read(folder: Path, config: Mapping[str, Any]) -> AudioEncoder:
    """Build the encoder of BAT's Hugging Face `folder`; of its config.json only the number of heads is used.

    Raises AudiobatError for a tensor that is missing, unexpected or of a shape that does not fit.
    """
    file = folder / "model.safetensors"
    tensors = read_tensors(file)
    return make(Weights(file, tensors, None, config), tensors)


def convert(weights: Weights, teacher: bool = False) -> Converted:
    """The student; with `teacher`, `ema_encoder` of the training script's checkpoint."""
    return Converted(LAYOUT, make(weights, weights.chosen(teacher)).eval(), None, weights.left)


def make(weights: Weights, tensors: Mapping[str, Tensor]) -> AudioEncoder:
    """The encoder of `tensors`, of the file of `weights`."""
    file = weights.path
    frontend = FrontendConfig(kind="mel_db", norm="minmax", n_fft=1024, win_length=1024, hop_length=160, mel_bins=128)
    dim, _, patch_frames, patch_bins = size(tensors, "patch_embed.proj.weight", 4, file)
    _, patches, _ = size(tensors, "pos_embed", 3, file)
    hidden, _ = size(tensors, "blocks.0.mlp.fc1.weight", 2, file)
    try:
        encoder = EncoderConfig(
            dim=dim,
            depth=count_blocks(tensors),
            heads=attention_heads(weights, dim),
            mlp_ratio=hidden / dim,
            patch_size=(patch_frames, patch_bins),
            max_frames=patches * patch_bins // frontend.mel_bins * patch_frames,
            gated_attention="blocks.0.attn.gate.weight" in tensors,
            gate_bias="blocks.0.attn.gate.bias" in tensors,
            pad="grid",  # how it was trained: zeros to the full length, attended to
        )
        return build(ModelConfig(frontend, encoder), tensors, file)
    except AudiobatError as error:
        named = str(error).startswith(str(file))
        raise AudiobatError(str(error) if named else f"{file}: {error}") from None
