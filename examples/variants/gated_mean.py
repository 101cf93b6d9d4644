"""A head: the mean of a block's patches, each weighted by a gate that it opens itself, then a linear classifier.

    audiobat probe --model bat_nano --data clips.csv --out runs/probe --config demo_probe \
        --heads examples/variants/gated_mean.py:GatedMean,cgp
    audiobat finetune --model bat_nano --data clips.csv --out runs/tagger --config finetune/demo \
        --head.kind examples/variants/gated_mean.py:GatedMean --head.hidden 32

A short sound fills few patches of a clip: a plain mean drowns it, a gate may leave the others out.
"""

from dataclasses import dataclass

from torch import nn

from audiobat.config import HeadConfig, check
from audiobat.models.heads import Probe
from audiobat.models.heads.pooling import layer_index


class GatedMean(Probe):
    """sum(g x) / sum(g) over valid patches x, with g = sigmoid(MLP(x))."""

    title = "Gated mean"

    @dataclass(frozen=True)
    class Config(HeadConfig):
        hidden: int = 16  # width of the gate's MLP

        def __post_init__(self):
            super().__post_init__()
            check(self.hidden > 0, "head.hidden", self.hidden, "it must be positive")

    @classmethod
    def build(cls, config, dim, depth, classes, freq_patches):
        """A head on block `config.layer` of a model of width `dim`."""
        return cls(config, dim, classes)

    def __init__(self, config, dim, classes):
        super().__init__(nn.Linear(dim, classes), dropout=config.dropout)
        self.layer = layer_index(config.layer)
        self.gate = nn.Sequential(nn.Linear(dim, config.hidden), nn.GELU(), nn.Linear(config.hidden, 1))

    def pool(self, features):
        """One vector a clip, [B, D]."""
        tokens = features.patch_tokens[self.layer].to(self.classifier.weight.dtype)  # [B, N, D]
        gate = self.gate(tokens).sigmoid() * features.valid.unsqueeze(-1)  # [B, N, 1], 0 on padding
        return (gate * tokens).sum(1) / gate.sum(1).clamp(min=1e-6)
