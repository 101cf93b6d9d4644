"""Visible tokens and masks to predictions at the masked cells: the ViT of Section 5.3 or EAT's CNN.

The cls token never enters (Section 3: the decoder takes z_m only).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiobat.config import PretrainConfig
from audiobat.models.layers import Block, init_weights
from audiobat.models.patches import sincos_positions
from audiobat.pretraining.masking import Masks

NOISE_STD = 0.01  # of the CNN's filler for masked cells, EAT's


class ViTDecoder(nn.Module):
    """Gated post-norm blocks, a learned mask token and trainable positions (Section 5.3; the rest is the release's)."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        dim, decoder, encoder = config.encoder.dim, config.decoder, config.encoder
        self.mask_token = nn.Parameter(torch.empty(dim))
        self.pos_embed = nn.Parameter(sincos_positions(config.model.grid, dim)[0])
        self.blocks = nn.ModuleList(
            Block(dim, decoder.heads, decoder.mlp_ratio, encoder.gated_attention, encoder.gate_bias)
            for _ in range(decoder.depth)
        )
        self.proj = nn.Linear(dim, config.target_width, bias=False)
        self.apply(init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, masks: Masks, grid: tuple[int, int], valid: Tensor | None = None) -> Tensor:
        """Visible tokens [R, n, D] to predictions [R, N - n, D]; `valid` bool [R, N] hides padding from attention.

        Blocks treat tokens as a set, so visible tokens first, masked ones after, saves putting them back in order.
        """
        order = torch.cat([masks.visible, masks.masked], dim=1)  # [R, N]
        fill = self.mask_token.to(tokens.dtype).expand(*masks.masked.shape, -1)
        x = torch.cat([tokens, fill], dim=1) + F.embedding(order, self.pos_embed).to(tokens.dtype)
        keep = None if valid is None else valid.gather(1, order)
        for block in self.blocks:
            x, _ = block(x, keep)
        out: Tensor = self.proj(x[:, masks.visible.shape[1] :])
        return out


class CNNDecoder(nn.Module):
    """Residual grouped convolutions over the patch grid, masked cells filled with fresh noise."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        dim, decoder = config.encoder.dim, config.decoder
        self.convs = nn.ModuleList(
            nn.Conv2d(dim, dim, decoder.kernel_size, padding=decoder.kernel_size // 2, groups=decoder.groups)
            for _ in range(decoder.depth)
        )
        self.proj = nn.Linear(dim, config.target_width)

    def forward(self, tokens: Tensor, masks: Masks, grid: tuple[int, int], valid: Tensor | None = None) -> Tensor:
        """Visible tokens [R, n, D] to predictions [R, N - n, D] on the (T, F) `grid`."""
        rows, dim = len(tokens), tokens.shape[-1]
        filled = torch.randn(rows, grid[0] * grid[1], dim, device=tokens.device, dtype=tokens.dtype) * NOISE_STD
        filled = filled.scatter(1, masks.visible.unsqueeze(-1).expand(-1, -1, dim), tokens)
        x = filled.transpose(1, 2).unflatten(2, grid)  # [R, D, T, F]
        for conv in self.convs:
            y = F.layer_norm(conv(x).movedim(1, -1), (dim,)).movedim(-1, 1)  # over channels, no learned scale
            x = x + F.gelu(y)
        x = x.flatten(2).transpose(1, 2)  # [R, N, D]
        out: Tensor = self.proj(x.gather(1, masks.masked.unsqueeze(-1).expand(-1, -1, dim)))
        return out


def build_decoder(config: PretrainConfig) -> nn.Module:
    """The decoder that `config.decoder.kind` names."""
    return ViTDecoder(config) if config.decoder.kind == "vit" else CNNDecoder(config)
