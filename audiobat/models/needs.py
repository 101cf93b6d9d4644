"""What an encoder and the clips that go into it take of memory at the least, from settings alone: nothing is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from audiobat.config import FrontendConfig, ModelConfig, TrainConfig
from audiobat.config.user_files import is_user_class
from audiobat.engine.memory import FLOAT, Need
from audiobat.engine.ranks import place
from audiobat.errors import AudiobatError

M = TypeVar("M", bound=nn.Module)

TRAINED = 4 * FLOAT  # bytes of a weight that AdamW trains: itself, its gradient, two moments
TRAINED_DIVIDED = 2 * FLOAT  # what a rank has of it in a step under `train.shard: fsdp2`: itself and its gradient
OF_ENCODER = "encoder.dim, encoder.depth or encoder.mlp_ratio"
OF_CLIPS = "train.batch_size, data.clip_seconds or frontend.mel_bins"


def bytes_of_weight(train: TrainConfig) -> float:
    """Bytes that a trained weight takes on each rank."""
    return TRAINED_DIVIDED if train.shard == "fsdp2" and place()[1] > 1 else TRAINED


def block_weights(dim: int, mlp_ratio: float, gated: bool) -> int:
    """Weights of the matrices of a transformer block, `models.layers.Block`."""
    return dim**2 * (4 + gated) + 2 * dim * int(dim * mlp_ratio)


def encoder_needs(model: ModelConfig, per_weight: float, copies: int = 1) -> list[Need]:
    """An `AudioEncoder`, whose weights take `per_weight` bytes, all copies together; each has tables of its own."""
    encoder, frontend = model.encoder, model.frontend
    blocks = encoder.depth * block_weights(encoder.dim, encoder.mlp_ratio, encoder.gated_attention)
    weights = blocks + encoder.dim * encoder.patch_size[0] * encoder.patch_size[1]
    columns, rows = model.position_grid
    positions = FLOAT * columns * rows * encoder.dim
    filters = 0 if is_user_class(frontend.kind) else FLOAT * (frontend.n_fft // 2 + 1) * frontend.mel_bins
    of_table = "encoder.max_frames, frontend.mel_bins or encoder.dim"
    return [
        Need("the encoder's weights", per_weight * weights, OF_ENCODER),
        Need("positions of patches", copies * positions, of_table),
        Need("mel filters", copies * filters, "frontend.mel_bins or frontend.n_fft"),
    ]


def clip_needs(model: ModelConfig, clips: int, samples: int, per_patch: float, settings: str = OF_CLIPS) -> list[Need]:
    """A batch of clips [B, S] of `samples`: waveforms, spectrograms, `per_patch` float32 numbers for each patch.

    Of one clip the frames and their spectra count, too: a CPU makes those of a few clips at a time.
    """
    frontend, longest = model.frontend, max(samples, model.frontend.pad_samples)
    frames = spectrogram_frames(frontend, longest)
    shown = model.encoder.max_frames if model.encoder.pad == "grid" else min(frames, model.encoder.max_frames)
    patches = max(shown // model.encoder.patch_size[0], 1) * model.grid[1]
    spectra = 0
    if not is_user_class(frontend.kind):
        spectra = FLOAT * frames * (clips * frontend.mel_bins + frontend.win_length + frontend.n_fft)
    return [
        Need("waveforms", FLOAT * clips * longest, settings),
        Need("spectrograms", spectra, settings),
        Need("tokens of patches", FLOAT * clips * patches * per_patch, settings),
    ]


def built_without_memory(build: Callable[[], M], what: str) -> M:
    """The module that `build` makes, on the meta device, where weights of any size take no memory.

    Raises AudiobatError for more weights than can be counted.
    """
    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, OverflowError, TypeError) as error:
        if "overflow" not in str(error).lower():
            raise
        raise AudiobatError(f"No machine has the memory for a {what} of this size: lower its settings.") from None


def spectrogram_frames(frontend: FrontendConfig, samples: int) -> int:
    """Frames that every built-in frontend makes of so many samples, at the least."""
    return max(samples - frontend.win_length, 0) // frontend.hop_length + 1
