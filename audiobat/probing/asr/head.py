"""The recogniser: features of all blocks to log-probabilities of characters, frame by frame (BAT's release).

A softmax gate mixes the blocks' raw tokens; the mean over frequency leaves one vector a patch column; a transposed
convolution makes several frames of each; then LSTMs in both directions, a layer norm and a matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from audiobat.models.features import LayerFeatures
from audiobat.models.heads.pooling import check_depth
from audiobat.probing.columns import column_means


class Recogniser(nn.Module):
    """LayerFeatures of `depth` blocks of width `dim` to log-probabilities of `classes` characters, 0 being the blank.

    Each column becomes `upsample` frames. All of it is fp32.
    """

    def __init__(self, dim: int, depth: int, classes: int, upsample: int, hidden: int = 512, layers: int = 2) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(depth))
        self.upsample = nn.ConvTranspose1d(dim, dim, upsample, stride=upsample)
        self.lstm = nn.LSTM(dim, hidden, layers, batch_first=True, bidirectional=True)
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
        mixed = mixed.gather(1, order[..., None].expand_as(mixed))[:, : int(columns.max())]
        frames = self.upsample(mixed.transpose(1, 2)).transpose(1, 2)  # [B, T * upsample, D]
        lengths = columns * self.upsample.stride[0]
        packed = pack_padded_sequence(frames, lengths.cpu(), batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        logits: Tensor = self.classifier(self.norm(hidden))
        return logits.log_softmax(-1), lengths
