"""The recogniser: features of all blocks to log-probabilities of characters, frame by frame (BAT's release).

A softmax gate mixes the blocks' raw tokens; the mean over frequency leaves one vector a patch column; a transposed
convolution makes several frames of each; then LSTMs in both directions, a layer norm and a matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiobat.models.features import LayerFeatures
from audiobat.models.heads.pooling import check_depth
from audiobat.probing.columns import column_means


class BothWays(nn.Module):
    """Layers of LSTMs, each over a clip from its begin and from its end; [B, T, dim] to [B, T, 2 * hidden].

    The clips of a batch are turned about within their lengths. PyTorch's packed sequences would do the same, ten times
    slower on a CPU.
    """

    def __init__(self, dim: int, hidden: int, layers: int) -> None:
        super().__init__()
        widths = [dim] + [2 * hidden] * (layers - 1)
        self.onward = nn.ModuleList(nn.LSTM(width, hidden, batch_first=True) for width in widths)
        self.back = nn.ModuleList(nn.LSTM(width, hidden, batch_first=True) for width in widths)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Frames behind the `lengths` [B] of clips have no say in the others."""
        places = torch.arange(frames.shape[1], device=frames.device)
        mirrored = lengths[:, None] - 1 - places
        mirrored = torch.where(mirrored < 0, places, mirrored)  # [B, T]
        for onward, back in zip(self.onward, self.back, strict=True):
            found = [onward(frames)[0], turned(back(turned(frames, mirrored))[0], mirrored)]
            frames = torch.cat(found, -1)
        return frames


def turned(frames: Tensor, places: Tensor) -> Tensor:
    """Frames [B, T, D] in the order of `places` [B, T]."""
    return frames.gather(1, places[..., None].expand_as(frames))


class Recogniser(nn.Module):
    """LayerFeatures of `depth` blocks of width `dim` to log-probabilities of `classes` characters, 0 being the blank.

    Each column becomes `upsample` frames. All of it is fp32.
    """

    def __init__(self, dim: int, depth: int, classes: int, upsample: int, hidden: int = 512, layers: int = 2) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(depth))
        self.upsample = nn.ConvTranspose1d(dim, dim, upsample, stride=upsample)
        self.lstm = BothWays(dim, hidden, layers)
        self.norm = nn.LayerNorm(2 * hidden)
        self.classifier = nn.Linear(2 * hidden, classes)

    @property
    def gate_weights(self) -> Tensor:
        """Share of each block in the mix, [L], summing to one."""
        return self.gate.softmax(0)

    def forward(self, features: LayerFeatures) -> tuple[Tensor, Tensor]:
        """Log-probabilities [B, frames, classes] and the frames [B] of each clip; padding has no influence."""
        check_depth(features, len(self.gate))
        features = column_means(features)
        order = (~features.valid).int().argsort(stable=True, dim=1)  # windows may leave padding between columns
        columns = features.valid.sum(1)  # [B]
        mixed = torch.einsum("l,lbtd->btd", self.gate_weights, features.patch_tokens.float())
        mixed = mixed.masked_fill(~features.valid[..., None], 0.0)
        mixed = turned(mixed, order)[:, : int(columns.max())]
        frames = self.upsample(mixed.transpose(1, 2)).transpose(1, 2)  # [B, T * upsample, D]
        lengths = columns * self.upsample.stride[0]
        logits: Tensor = self.classifier(self.norm(self.lstm(frames, lengths)))
        return logits.log_softmax(-1), lengths
