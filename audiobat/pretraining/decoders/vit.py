"""The decoder of Section 5.3: a few gated post-norm transformer blocks over visible tokens and mask tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiobat.config import DecoderConfig, ModelConfig, check
from audiobat.engine.linear import Linear
from audiobat.models.layers import Block, init_weights
from audiobat.models.needs import block_weights
from audiobat.models.patches import sincos_positions
from audiobat.pretraining.cost import Cost, transformer_cost
from audiobat.pretraining.decoders.base import Decoder
from audiobat.pretraining.masks.base import Masks


class ViTDecoder(Decoder):
    """Gated post-norm blocks, a learned mask token and trainable positions (Section 5.3; the rest is the release's).

    Every cell of a crop has a position of its own, whatever positions the encoder has.
    """

    @classmethod
    def count_weights(cls, config: DecoderConfig, model: ModelConfig) -> int:
        """Those of the blocks' matrices, and the positions."""
        dim, (columns, rows) = model.encoder.dim, model.grid
        blocks = config.depth * block_weights(dim, config.mlp_ratio, model.encoder.gated_attention)
        return blocks + columns * rows * dim

    def __init__(self, config: DecoderConfig, model: ModelConfig, width: int) -> None:
        super().__init__(config, model, width)
        encoder, dim = model.encoder, model.encoder.dim
        check(dim % config.heads == 0, "decoder.heads", config.heads, f"it must divide encoder.dim {dim}")
        self.mask_token = nn.Parameter(torch.empty(dim))
        self.pos_embed = nn.Parameter(sincos_positions(model.grid, dim, encoder.positions)[0])
        self.blocks = nn.ModuleList(
            Block(dim, config.heads, config.mlp_ratio, encoder.gated_attention, encoder.gate_bias)
            for _ in range(config.depth)
        )
        self.proj = Linear(dim, width, bias=False)
        self.gated = encoder.gated_attention
        self.apply(init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, masks: Masks, grid: tuple[int, int], valid: Tensor | None = None) -> Tensor:
        """Visible tokens [R, n, D] to predictions [R, N - n, width]; `valid` bool [R, N] hides padding from attention.

        Blocks treat tokens as a set, so visible tokens first, masked ones after, saves putting them back in order.
        """
        order = torch.cat([masks.visible, masks.masked], dim=1)  # [R, N]
        fill = self.mask_token.to(tokens.dtype).expand(*masks.masked.shape, -1)
        x = torch.cat([tokens, fill], dim=1) + F.embedding(order, self.pos_embed).to(tokens.dtype)
        keep = None if valid is None else valid.gather(1, order)
        *before, last = self.blocks
        for block in before:
            x, _ = block(x, keep)
        x, _ = last(x, keep, masks.visible.shape[1])  # nothing is predicted at the visible cells
        out: Tensor = self.proj(x)
        return out

    def cost(self, clones: int, grid: tuple[int, int], visible: int, masked: int) -> Cost:
        """Blocks over all cells, the last and the projection at masked ones."""
        clip = clones, visible + masked, self.proj.in_features
        recompute = any(block.recompute for block in self.blocks)
        blocks = transformer_cost(
            *clip, self.config.depth, self.config.mlp_ratio, self.gated, asking=masked, recompute=recompute
        )
        project = clones * masked * 2 * self.proj.in_features * self.proj.out_features
        return blocks._replace(flops=blocks.flops + project)
