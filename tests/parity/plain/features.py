"""A clip of any length through an encoder: every block's patches and cls token."""

import torch
from torch import Tensor

from .networks import PATCH, Weights, below, encode, patch_tokens


def of_window(spectrogram: Tensor, w: Weights, positions: Tensor, heads: int) -> list[Tensor]:
    """Blocks' outputs [1 + N, D] of whole patches."""
    tokens = patch_tokens(spectrogram, below(w, "patch_embed.proj"))
    return [block for block, _ in encode(tokens + positions[: len(tokens)], w, heads)]


def padded(spectrogram: Tensor, frames: int) -> Tensor:
    return torch.cat([spectrogram, spectrogram.new_zeros(frames - len(spectrogram), spectrogram.shape[1])])


def released(spectrogram: Tensor, w: Weights, positions: Tensor, heads: int, columns: int) -> tuple[Tensor, Tensor]:
    """BAT's release: patches [L, N, D] of the clip's own columns, and cls [L, D].

    A clip that is shorter than the position table is padded up to it, and attends to its padding. A longer one runs in
    windows, the last with as many columns as are left, if any is whole; its cls is the mean over windows.
    """
    size = columns * PATCH
    if len(spectrogram) <= size:
        own = -(-len(spectrogram) // PATCH)
        blocks = torch.stack(of_window(padded(spectrogram, size), w, positions, heads))
        return blocks[:, 1 : 1 + own * (len(positions) // columns)], blocks[:, 0]
    whole = spectrogram[: len(spectrogram) // PATCH * PATCH]
    windows = [torch.stack(of_window(part, w, positions, heads)) for part in whole.split(size)]
    return torch.cat([x[:, 1:] for x in windows], 1), torch.stack([x[:, 0] for x in windows]).mean(0)


def alone(spectrogram: Tensor, w: Weights, positions: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """A clip of at most one window without any padding but that of its last patch."""
    whole = padded(spectrogram, -(-len(spectrogram) // PATCH) * PATCH)
    blocks = torch.stack(of_window(whole, w, positions, heads))
    return blocks[:, 1:], blocks[:, 0]
