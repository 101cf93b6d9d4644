"""EAT's decoder (the baseline of Table 4): residual grouped convolutions over the patch grid."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiobat.config import DecoderConfig, ModelConfig, check
from audiobat.engine.randomness import draw_rows
from audiobat.pretraining.cost import Cost
from audiobat.pretraining.decoders.base import Decoder
from audiobat.pretraining.masks.base import Masks

NOISE_STD = 0.01  # of the filler for masked cells, EAT's


class CNNDecoder(Decoder):
    """Residual grouped convolutions over the patch grid, masked cells filled with fresh noise."""

    @classmethod
    def count_weights(cls, config: DecoderConfig, model: ModelConfig) -> int:
        """Those of the convolutions."""
        return config.depth * model.encoder.dim**2 // config.groups * config.kernel_size**2

    def __init__(self, config: DecoderConfig, model: ModelConfig, width: int) -> None:
        super().__init__(config, model, width)
        dim, size = model.encoder.dim, config.kernel_size
        check(dim % config.groups == 0, "decoder.groups", config.groups, f"it must divide encoder.dim {dim}")
        self.convs = nn.ModuleList(
            nn.Conv2d(dim, dim, size, padding=size // 2, groups=config.groups) for _ in range(config.depth)
        )
        self.proj = nn.Linear(dim, width)

    def forward(self, tokens: Tensor, masks: Masks, grid: tuple[int, int], valid: Tensor | None = None) -> Tensor:
        """Visible tokens [R, n, D] to predictions [R, N - n, width]; padding is convolved like any other cell."""
        clones, _, dim = tokens.shape
        cells, device, dtype = grid[0] * grid[1], tokens.device, tokens.dtype
        filler = draw_rows(lambda rows: torch.randn(rows, cells, dim, device=device, dtype=dtype), clones, device)
        filled = (filler * NOISE_STD).scatter(1, masks.visible.unsqueeze(-1).expand(-1, -1, dim), tokens)
        x = filled.transpose(1, 2).unflatten(2, grid)  # [R, D, T, F]
        for conv in self.convs:
            y = F.layer_norm(conv(x).movedim(1, -1), (dim,)).movedim(-1, 1)  # over channels, no learned scale
            x = x + F.gelu(y)
        x = x.flatten(2).transpose(1, 2)  # [R, N, D]
        out: Tensor = self.proj(x.gather(1, masks.masked.unsqueeze(-1).expand(-1, -1, dim)))
        return out

    def cost(self, clones: int, grid: tuple[int, int], visible: int, masked: int) -> Cost:
        """Convolutions over all cells, the projection at masked ones."""
        cells, dim = clones * (visible + masked), self.proj.in_features
        convs = self.config.depth * cells * 2 * self.config.kernel_size**2 * dim**2 / self.config.groups
        kept = self.config.depth * 5 * cells * dim
        return Cost(convs + clones * masked * 2 * dim * self.proj.out_features, kept)
