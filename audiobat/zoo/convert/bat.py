"""BAT's public weights to an AudioEncoder: the Hugging Face folder, and the checkpoints of its two training scripts.

The tensors already have our names. Sizes that no config names are read off the tensors. The positions are the file's,
never computed: the release's are in another order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from audiobat.config import FrontendConfig
from audiobat.engine.tensors import read_tensors
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.zoo.convert.weights import Converted, Weights, vit

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
    try:
        return make(Weights(file, tensors, None, config), tensors)
    except AudiobatError as error:
        raise AudiobatError(str(error) if str(file) in str(error) else f"{file}: {error}") from None


def convert(weights: Weights, teacher: bool = False) -> Converted:
    """The student; with `teacher`, `ema_encoder` of the training script's checkpoint."""
    return Converted(LAYOUT, make(weights, weights.chosen(teacher)).eval(), None, weights.left)


def make(weights: Weights, tensors: Mapping[str, Tensor]) -> AudioEncoder:
    """The encoder of `tensors`, of the file of `weights`."""
    gate, bias = (f"blocks.0.attn.gate.{part}" in tensors for part in ("weight", "bias"))
    more: dict[str, bool | str] = {"gated_attention": gate, "gate_bias": bias, "positions": "released"}
    return vit(weights, tensors, FrontendConfig(kind="mel_db"), **more)
