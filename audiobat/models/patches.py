"""Spectrogram to patch tokens: the patch embedding, 2-D sine-cosine positions, and the patches that hold frames.

Token n = t * F + f: time-major, frequency fastest (Section 3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PatchEmbed(nn.Module):
    """Non-overlapping patches of (frames, mel bins), each projected to D."""

    def __init__(self, dim: int, patch_size: tuple[int, int], init: str = "xavier") -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(1, dim, kernel_size=patch_size, stride=patch_size)
        if init == "xavier":  # else PyTorch's own
            nn.init.xavier_uniform_(self.proj.weight.view(dim, -1))
            nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Spectrogram [B, T * frames, F * bins] to tokens [B, T * F, D]."""
        tokens: Tensor = self.proj(spectrogram.unsqueeze(1))  # [B, D, T, F]
        return tokens.flatten(2).transpose(1, 2)


def sincos_positions(grid: tuple[int, int], dim: int, order: str = "paper") -> Tensor:
    """Fixed 2-D positions [1, T * F, dim] of a `grid` (T, F): the first half of `dim` encodes frequency, the rest time.

    Each half holds a sine block, then a cosine block, at rates 10000^(-k / (dim / 4)), as in EAT. `order` is
    `encoder.positions`, of which "released" alone differs: the table of BAT's release, which is that of the grid
    (F, T): row r encodes r % T, then r // T. Its tokens are time-major all the same, so that each has a position of its
    own, but neighbours in time are far apart.
    """
    rows, columns = grid[::-1] if order == "released" else grid
    slow = _sincos(torch.arange(rows), dim // 2)[:, None].expand(rows, columns, -1)  # [rows, columns, dim / 2]
    fast = _sincos(torch.arange(columns), dim // 2)[None].expand(rows, columns, -1)
    return torch.cat([fast, slow], dim=-1).reshape(1, rows * columns, dim)


def _sincos(position: Tensor, dim: int) -> Tensor:
    """Sines and cosines of `position` [P] at dim / 2 rates: [P, dim]."""
    rate = 10_000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim // 2))  # rounded once, at the end
    angle = position.double()[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=-1).float()


def pad_frames(spectrogram: Tensor, frames: int, floor: float) -> Tensor:
    """Spectrogram [B, T, F] to [B, frames, F]: cut, or filled with the frontend's `floor`."""
    spectrogram = spectrogram[:, :frames]
    return F.pad(spectrogram, (0, 0, 0, frames - spectrogram.shape[1]), value=floor)


def count_columns(frames: Tensor, patch_frames: int, table: int) -> Tensor:
    """Patch columns [B] of clips of `frames` [B]: the last may hold part of a patch, but behind the `table` a whole.

    A frame more than a window would otherwise open a window of its own.
    """
    return torch.maximum(((frames + patch_frames - 1) // patch_frames).clamp(max=table), frames // patch_frames)


def valid_patches(frames: Tensor, grid: tuple[int, int], patch_frames: int, table: int) -> Tensor:
    """True on the patches of clips of `frames` [B] that `count_columns` counts: bool [B, T * F]."""
    columns, freq_patches = grid
    own = count_columns(frames, patch_frames, table)
    return (torch.arange(columns, device=frames.device) < own[:, None]).repeat_interleave(freq_patches, dim=1)
