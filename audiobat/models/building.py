"""A config and named tensors, read from a file, to an encoder or to its head: every tensor has its place and its size.

The sizes that the config asks for are compared with the tensors before memory of that size is taken: a file from
elsewhere may ask for any.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from audiobat.config import ModelConfig, TaggerConfig, check
from audiobat.engine.tensors import check_shapes, check_values, count_blocks, shapes_of
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder, BaseEncoder
from audiobat.models.tagger import Tagger

FILTERS = 2**26  # most values that the mel filters of a config may have: more than any real frontend's


def build(config: ModelConfig, tensors: Mapping[str, Tensor], where: Path) -> AudioEncoder:
    """Build the encoder that `config` describes and give it `tensors`, which were read from `where`.

    Raises AudiobatError that names the tensor or the field: a tensor missing, left over, of another shape or type, or
    not finite; another number of blocks; more mel filters than fit.
    """
    columns, freq_patches = config.position_grid
    dim, encoder, frontend = config.encoder.dim, config.encoder, config.frontend
    blocks = count_blocks(tensors)
    if blocks != encoder.depth:
        raise AudiobatError(f"{where} holds {blocks} blocks, but the config says encoder.depth {encoder.depth}.")
    hidden = int(dim * encoder.mlp_ratio)
    sizes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, columns * freq_patches, dim),
        "patch_embed.proj.weight": (dim, 1, *encoder.patch_size),
    }
    for n in range(blocks):
        sizes |= {f"blocks.{n}.attn.qkv.weight": (3 * dim, dim), f"blocks.{n}.attn.proj.weight": (dim, dim)}
        sizes |= {f"blocks.{n}.mlp.fc1.weight": (hidden, dim), f"blocks.{n}.mlp.fc2.weight": (dim, hidden)}
    found = shapes_of(tensors)
    check_shapes({name: found[name] for name in sizes if name in found}, sizes, where)
    fits = (frontend.n_fft // 2 + 1) * frontend.mel_bins <= FILTERS  # filters are in no file: nothing else limits them
    check(fits, "frontend.mel_bins", frontend.mel_bins, f"with n_fft {frontend.n_fft} that is too many filters")
    model = AudioEncoder(config)
    check_shapes(found, shapes_of(model.state_dict()), where)
    check_values(tensors, where)
    model.load_state_dict(tensors)
    return model


def build_tagger(encoder: BaseEncoder, config: TaggerConfig, tensors: Mapping[str, Tensor], where: Path) -> Tagger:
    """Put a head that `config` describes on `encoder` and give it `tensors`, which were read from `where`.

    Raises AudiobatError that names the tensor: missing, left over, of another shape or type, or not finite.
    """
    with torch.device("meta"):  # shapes without memory: the config may ask for any size
        try:
            wanted = Tagger(encoder, config).head.state_dict()
        except (RuntimeError, OverflowError, TypeError):  # more numbers than can be counted
            raise AudiobatError(f"tagger.head is {config.head}: no file holds one of that size.") from None
    check_shapes(shapes_of(tensors), shapes_of(wanted), where)
    check_values(tensors, where, wanted)
    tagger = Tagger(encoder, config)
    tagger.head.load_state_dict(tensors)
    return tagger
