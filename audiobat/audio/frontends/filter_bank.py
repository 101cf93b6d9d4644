"""Frames of a waveform to power in mel bands: an FFT and mel filters, or matrix products alone in a graph for ONNX.

In: waveform [B, S], of which a frontend cuts frames [B, T, W] and applies its window. Out: mel power [B, T, F].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiobat.audio.frontends.base import Frontend
from audiobat.config import FrontendConfig


class FilterBank(Frontend):
    """Base of the frontends whose spectrogram is power in mel bands."""

    window: Tensor  # [win_length]
    filters: Tensor  # [n_fft // 2 + 1, F]

    def __init__(self, config: FrontendConfig, window: Tensor, filters: Tensor) -> None:
        super().__init__(config)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.matrices: MatrixBank | None = None  # what the export to ONNX puts in place of the FFT

    def cut_frames(self, waveform: Tensor, size: int) -> Tensor:
        """Waveform [B, S] to frames [B, T, size], one every hop_length samples; the last ends at S or before it."""
        hop = self.config.hop_length
        if self.matrices is None:
            return waveform.unfold(1, size, hop)
        # Whole blocks of samples side by side: what onnxruntime makes of `unfold` fetches each sample on its own.
        frames, blocks = 1 + (waveform.shape[1] - size) // hop, -(-size // hop)  # blocks that a frame touches
        samples = (frames - 1 + blocks) * hop
        waveform = functional.pad(waveform, (0, samples - waveform.shape[1]))  # or cut off
        rows = waveform.reshape(waveform.shape[0], frames - 1 + blocks, hop)
        touched = torch.arange(frames)[:, None] + torch.arange(blocks)  # [T, blocks]
        return rows.index_select(1, touched.flatten()).reshape(rows.shape[0], frames, blocks * hop)[:, :, :size]

    def mel_of_frames(self, frames: Tensor) -> Tensor:
        """Power in each mel band [B, T, F] of windowed frames [B, T, W], followed by zeros up to n_fft samples."""
        if self.matrices is not None:
            mel: Tensor = self.matrices(frames)
            return mel
        spectrum = torch.fft.rfft(frames, n=self.config.n_fft)
        power = spectrum.real.square() + spectrum.imag.square()  # [B, T, n_fft // 2 + 1]
        powers: Tensor = power @ self.filters
        return powers


class MatrixBank(nn.Module):
    """`FilterBank.mel_of_frames` without an FFT, for onnxruntime, whose own takes twenty times as long.

    The Fourier transform of n = rows * columns samples is two matrix products (Cooley and Tukey, 1965). Of sample
    columns * i + j and bin k + rows * m, with e(x) = exp(-2 pi i x):

        first[k, j] = sum over i of sample * e(i k / rows),    bin = sum over j of first[k, j] * e(j (k + rows m) / n)

    Samples are real, so that k up to rows / 2 gives every bin or its mirror image n - bin, which has the same power.

    Every constant is the left factor of its product: quantize_dynamic of onnxruntime takes a constant on the right for
    the weights of a layer, and a mel filter bank of 8 bits gives other embeddings.
    """

    first: Tensor  # [2 K, rows], real and imaginary part of each k
    second: Tensor  # [K, 2 columns, 2 columns]
    filters: Tensor  # [F, K columns]

    def __init__(self, filters: Tensor, n_fft: int) -> None:
        super().__init__()
        self.rows = min((d for d in range(1, n_fft + 1) if n_fft % d == 0), key=lambda rows: cost(rows, n_fft))
        self.columns = n_fft // self.rows
        k, i, j = (torch.arange(count) for count in (self.rows // 2 + 1, self.rows, self.columns))
        bins = k[:, None] + self.rows * j  # [K, columns]
        first = unit(k[:, None] * i, self.rows)  # [K, rows]
        second = unit(bins[:, :, None] * j, n_fft)  # [K, columns, columns]: of bin, of j
        mirrored = torch.minimum(bins, n_fft - bins).flatten()
        share = filters[mirrored] / mirrored.bincount()[mirrored, None]  # some bins are there twice
        self.register_buffer("first", torch.stack([first.real, first.imag], 1).flatten(0, 1).float())
        complex_product = torch.cat(
            [torch.cat([second.real, -second.imag], 2), torch.cat([second.imag, second.real], 2)], 1
        )
        self.register_buffer("second", complex_product.float())
        self.register_buffer("filters", share.T.contiguous())

    def forward(self, frames: Tensor) -> Tensor:
        """Windowed frames [B, T, W] to mel power [B, T, F]."""
        clips, count, size = frames.shape
        if size < self.rows * self.columns:
            frames = functional.pad(frames, (0, self.rows * self.columns - size))
        halves = self.first @ frames.reshape(-1, self.rows, self.columns)  # [B T, 2 K, columns]
        halves = halves.reshape(-1, len(self.second), 2 * self.columns).permute(1, 2, 0)  # [K, 2 columns, B T]
        spectrum = self.second @ halves  # real parts above imaginary parts
        squares = spectrum * spectrum
        power = squares[:, : self.columns] + squares[:, self.columns :]  # [K, columns, B T]
        mel = self.filters @ power.flatten(0, 1)  # [F, B T]
        return mel.T.reshape(clips, count, len(self.filters))


def cost(rows: int, n_fft: int) -> int:
    """Multiplications for a frame, by the rows in which its samples are arranged."""
    columns = n_fft // rows
    return (rows // 2 + 1) * (2 * rows * columns + 4 * columns**2)


def unit(turns: Tensor, period: int) -> Tensor:
    """exp(-2 pi i turns / period) in double precision."""
    angle = (turns % period).double() * (-2 * math.pi / period)
    return torch.polar(torch.ones_like(angle), angle)
