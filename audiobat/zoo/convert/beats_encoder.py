"""BEATs (Chen et al., 2212.09058): patches, a convolution for positions, blocks with gated relative positions.

In: waveform [B, S]. Out: the outputs of all blocks, 8 tokens for each 160 ms, no cls. The constants are those of BEATs'
public code; files of weights do not hold them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiobat.audio.frontends.kaldi_fbank import KaldiFrontend
from audiobat.config import FrontendConfig
from audiobat.zoo.adapters.windows import TimeGrid, WindowedEncoder

MODEL_TYPE = "audiobat_beats"  # in config.json of a release
FRAMES = 1024  # of a window, our choice: the model runs on any length, and was trained on 10 s
FBANK = FrontendConfig(kind="kaldi_fbank", mean=15.41663, std=6.55582)  # of samples as 16-bit numbers
SCALE = 2.0**15  # BEATs' code multiplies samples in [-1, 1] so
POVEY = 0.85  # Kaldi's default window is a Hann window to this power
GATE_PARTS = 4  # values that are summed to one gate


class Sizes(NamedTuple):
    """The sizes of a model, as its tensors show them."""

    dim: int
    depth: int
    heads: int
    hidden: int
    patch: int
    patch_dim: int
    patch_bias: bool
    kernel: int  # of the convolution for positions
    groups: int
    buckets: int  # of distances between tokens
    max_distance: int  # the last bucket begins before it


class BeatsEncoder(WindowedEncoder):
    """Meets the `Encoder` protocol; clips run in windows without padding."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.sample_rate, self.dim, self.depth = FBANK.sample_rate, sizes.dim, sizes.depth
        hop = FBANK.hop_length
        self.grid = TimeGrid(
            window=FBANK.win_length + (FRAMES - 1) * hop,
            hop=sizes.patch * hop,
            span=FBANK.win_length + (sizes.patch - 1) * hop,
            freq_patches=FBANK.mel_bins // sizes.patch,
        )
        self.frontend = BeatsFrontend(FBANK)
        self.patch_embed = nn.Conv2d(1, sizes.patch_dim, sizes.patch, sizes.patch, bias=sizes.patch_bias)
        self.patch_norm = nn.LayerNorm(sizes.patch_dim)
        self.project = nn.Linear(sizes.patch_dim, sizes.dim) if sizes.patch_dim != sizes.dim else nn.Identity()
        self.pos_conv = nn.Conv1d(sizes.dim, sizes.dim, sizes.kernel, padding=sizes.kernel // 2, groups=sizes.groups)
        self.norm = nn.LayerNorm(sizes.dim)
        self.relative_bias = nn.Embedding(sizes.buckets, sizes.heads)
        self.blocks = nn.ModuleList(BeatsBlock(sizes) for _ in range(sizes.depth))

    def release_fields(self) -> dict[str, Any]:
        """The fields of a release of this encoder: every size but one is told by the tensors."""
        return {"model_type": MODEL_TYPE, "format": 1, "max_distance": self.sizes.max_distance}

    def run(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Windows [W, S] to block outputs [L, W, n, D]; a window shorter than a patch is filled with zeros."""
        waveform = F.pad(waveform, (0, max(0, self.grid.span - waveform.shape[1])))
        spectrogram, _ = self.frontend(waveform)  # [W, T, 128]
        patches = self.patch_embed(spectrogram.unsqueeze(1)).flatten(2).transpose(1, 2)  # whole patches only
        x = self.project(self.patch_norm(patches))  # [W, n, D]
        near = self.pos_conv(x.transpose(1, 2))[:, :, : x.shape[1]]  # an even kernel gives a token too many
        x = self.norm(x + F.gelu(near).transpose(1, 2))
        place = torch.arange(x.shape[1], device=x.device)
        found = bucket(place - place[:, None], self.sizes.buckets, self.sizes.max_distance)
        bias = self.relative_bias(found).permute(2, 0, 1)  # [H, n, n] by the distance from query to key
        layers = []
        for block in self.blocks:
            x = block(x, bias)
            layers.append(x)
        return torch.stack(layers), None


class BeatsFrontend(KaldiFrontend):
    """Kaldi's filter bank of 16-bit numbers under Povey's window."""

    def __init__(self, config: FrontendConfig) -> None:
        super().__init__(config)
        self.window = self.window**POVEY

    def raw_spectrogram(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Waveform [B, S] in [-1, 1] to log-mel [B, T, F]."""
        return super().raw_spectrogram(waveform * SCALE, lengths)


class BeatsAttention(nn.Module):
    """Multi-head attention with a bias for distance, which each query scales by GRU-like gates (as in WavLM)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(4))
        self.gate = nn.Linear(dim // heads, 2 * GATE_PARTS)
        self.gate_scale = nn.Parameter(torch.ones(1, heads, 1, 1))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Tokens [B, n, D] and the shared bias [H, n, n] to [B, n, D]."""
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )  # [B, H, n, d]
        update, reset = self.gate(q).unflatten(-1, (2, GATE_PARTS)).sum(-1).sigmoid().split(1, dim=-1)  # [B, H, n, 1]
        gated = (update * (reset * self.gate_scale - 1) + 2) * bias
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=gated)
        projected: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))
        return projected


class BeatsBlock(nn.Module):
    """A post-norm block whose residual weighs (2 * depth)^(1/4), as DeepNorm's."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.residual = (2 * sizes.depth) ** 0.25
        self.attn = BeatsAttention(sizes.dim, sizes.heads)
        self.norm1 = nn.LayerNorm(sizes.dim)
        self.fc1 = nn.Linear(sizes.dim, sizes.hidden)
        self.fc2 = nn.Linear(sizes.hidden, sizes.dim)
        self.norm2 = nn.LayerNorm(sizes.dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Tokens [B, n, D] to [B, n, D]."""
        x = self.norm1(self.residual * x + self.attn(x, bias))
        out: Tensor = self.norm2(self.residual * x + self.fc2(F.gelu(self.fc1(x))))
        return out


def bucket(distance: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Buckets of key minus query position: half for each sign, one for each near distance, logarithmic beyond."""
    half = buckets // 2
    exact = half // 2
    size = distance.abs()
    scaled = torch.log(size.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (scaled * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(size < exact, size, far) + half * (distance > 0)
