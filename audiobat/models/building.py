"""A config and named tensors to an encoder or its head: none missing, none left over, none of another size or kind.

Sizes are held against the tensors before anything of that size is made, as a config may ask for any.
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

FILTERS = 2**26  # values of a spectrogram's filters: more than any real one has


def build(config: ModelConfig, tensors: Mapping[str, Tensor], where: Path) -> AudioEncoder:
    """An encoder of `config` with `tensors`, read from `where`, as its weights: none missing, none left over.

    The sizes in `config` are held against the tensors before anything of that size is made.
    """
    columns, rows = config.grid
    dim, encoder, frontend = config.encoder.dim, config.encoder, config.frontend
    blocks = count_blocks(tensors)
    if blocks != encoder.depth:
        raise AudiobatError(f"{where} holds {blocks} blocks, but the config says encoder.depth {encoder.depth}.")
    hidden = int(dim * encoder.mlp_ratio)
    sizes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, columns * rows, dim),
        "patch_embed.proj.weight": (dim, 1, *encoder.patch_size),
    }
    for n in range(blocks):
        sizes |= {f"blocks.{n}.attn.qkv.weight": (3 * dim, dim), f"blocks.{n}.attn.proj.weight": (dim, dim)}
        sizes |= {f"blocks.{n}.mlp.fc1.weight": (hidden, dim), f"blocks.{n}.mlp.fc2.weight": (dim, hidden)}
    found = shapes_of(tensors)
    check_shapes({name: found[name] for name in sizes if name in found}, sizes, where)
    many = (frontend.n_fft // 2 + 1) * frontend.mel_bins <= FILTERS
    check(many, "frontend.mel_bins", frontend.mel_bins, f"with n_fft {frontend.n_fft} that is too many filters")
    model = AudioEncoder(config)
    check_shapes(found, shapes_of(model.state_dict()), where)
    check_values(tensors, where)
    model.load_state_dict(tensors)
    return model


def build_tagger(encoder: BaseEncoder, config: TaggerConfig, tensors: Mapping[str, Tensor], where: Path) -> Tagger:
    """`encoder` with a head of `config` and of `tensors`, read from `where`: none missing, none left over."""
    with torch.device("meta"):  # a config may ask for any size: nothing of it is made before the tensors agree
        try:
            wanted = Tagger(encoder, config).head.state_dict()
        except (RuntimeError, OverflowError, TypeError):  # more numbers than can be counted
            raise AudiobatError(f"tagger.head is {config.head}: no file holds one of that size.") from None
    check_shapes(shapes_of(tensors), shapes_of(wanted), where)
    check_values(tensors, where, wanted)
    tagger = Tagger(encoder, config)
    tagger.head.load_state_dict(tensors)
    return tagger
