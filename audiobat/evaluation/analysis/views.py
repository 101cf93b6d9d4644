"""A clip to q views of it after every block, [L, q, D]: masked clones for our own encoders, crops for others."""

from __future__ import annotations

import torch
from torch import Tensor

from audiobat.config import MaskConfig
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import Encoder
from audiobat.models.heads.pooling import mean_valid
from audiobat.pretraining.masks.base import seeded_generator
from audiobat.pretraining.masks.inverse_block import InverseBlockMask

CROP_SHARE = 0.5  # of the clip
MASKED = "mean visible patch of masked clones (inverse blocks, 80% masked)"
CROPPED = f"mean patch of random crops of {CROP_SHARE:.0%} of the clip, as masks cannot be put on this model"


def views_of(encoder: Encoder, waveform: Tensor, count: int, number: int) -> Tensor:
    """Mean-pooled views [L, count, D] of a clip [S], a function of its `number`."""
    draw = masked_views if isinstance(encoder, AudioEncoder) else cropped_views
    return draw(encoder, waveform, count, number)  # type: ignore[arg-type]


@torch.no_grad()
def masked_views(encoder: AudioEncoder, waveform: Tensor, count: int, number: int) -> Tensor:
    """Masked clones as in pre-training: the mean over visible patches, [L, count, D]; a long clip's first window."""
    tokens = encoder.embed_patches(encoder.spectrogram(waveform[None])[0])  # [1, N, D]
    rows = encoder.config.grid[1]
    generator = seeded_generator(tokens.device, number)
    visible = InverseBlockMask(MaskConfig()).draw(count, (tokens.shape[1] // rows, rows), generator).visible  # [q, n]
    blocks = encoder.run_blocks(tokens[0][visible], patches=visible)
    return torch.stack([block[:, 1:].mean(1) for block, _ in blocks])


@torch.no_grad()
def cropped_views(encoder: Encoder, waveform: Tensor, count: int, number: int) -> Tensor:
    """Random crops: the mean over their patches, [L, count, D]."""
    size = max(1, round(CROP_SHARE * len(waveform)))
    generator = seeded_generator(torch.device("cpu"), number)
    starts = torch.randint(len(waveform) - size + 1, (count,), generator=generator).tolist()
    features = encoder.forward_intermediates(torch.stack([waveform[start : start + size] for start in starts]))
    return torch.stack([mean_valid(layer.float(), features.valid) for layer in features.patch_tokens])
