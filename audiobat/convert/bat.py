"""The public BAT release (config.json with `model_type: bat`, model.safetensors) to an AudioEncoder, files as they are.

Its tensors already carry our names. What its config does not tell is read off the tensors, positions included: the
release's are scrambled, so they are taken from the file, never computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.encoder import AudioEncoder
from audiobat.errors import AudiobatError
from audiobat.hub import build, count_blocks, read_tensors

HEADS = ("num_heads", "num_attention_heads", "heads")  # names under which a config may tell them
HEAD_DIM = 64  # where it does not


def read(folder: Path, config: Mapping[str, Any]) -> AudioEncoder:
    """Build the encoder of a release in `folder`, given its config.json; of that only the number of heads is used.

    Raises AudiobatError for a tensor that is missing, unexpected or of an unlikely shape.
    """
    file = folder / "model.safetensors"
    tensors = read_tensors(file)
    frontend = FrontendConfig(kind="mel_db", norm="minmax", n_fft=1024, win_length=1024, hop_length=160, mel_bins=128)
    dim, _, patch_frames, patch_bins = shape(tensors, "patch_embed.proj.weight", 4, file)
    _, patches, _ = shape(tensors, "pos_embed", 3, file)
    hidden, _ = shape(tensors, "blocks.0.mlp.fc1.weight", 2, file)
    try:
        encoder = EncoderConfig(
            dim=dim,
            depth=count_blocks(tensors),
            heads=heads(config, dim, folder / "config.json"),
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


def shape(tensors: Mapping[str, Tensor], name: str, dims: int, file: Path) -> tuple[int, ...]:
    """The shape of tensor `name`, which must have `dims` dimensions."""
    if name not in tensors:
        raise AudiobatError(f"{file} has no tensor {name}: it is no BAT release.")
    found = tuple(tensors[name].shape)
    if len(found) != dims or min(found) == 0:
        raise AudiobatError(f"{file}: {name} has shape {list(found)}, but a BAT release has {dims} dimensions there.")
    return found


def heads(config: Mapping[str, Any], dim: int, file: Path) -> int:
    """Attention heads: what the config says under any known name, else heads of 64 dimensions."""
    for name in HEADS:
        if name in config:
            value = config[name]
            if type(value) is not int or value < 1 or dim % value:
                raise AudiobatError(f"{file}: {name} is {value!r}: it must be a whole number that divides {dim}.")
            return value
    return max(1, dim // HEAD_DIM)
