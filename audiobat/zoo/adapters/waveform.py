"""wav2vec 2.0, HuBERT, WavLM and their relatives, which read samples: one token for each 20 ms, no cls.

In: windows [W, S]. Out: the outputs of all transformer blocks [L, W, T, D], as in the model's own `hidden_states`.
"""

from __future__ import annotations

from itertools import accumulate
from math import prod
from operator import mul
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiobat.zoo.adapters.windows import TimeGrid, WindowedEncoder

WINDOW_SECONDS = 30  # our choice: attention over longer clips costs too much, and the models were trained on less
EPS = 1e-7  # that the feature extractor adds to the variance


class WaveformEncoder(WindowedEncoder):
    """A model of the wav2vec 2.0 family. Its convolutions need no padding, and windows bring none."""

    def __init__(self, model: nn.Module, extractor: Any) -> None:
        super().__init__()
        self.model = model
        config: Any = model.config
        self.sample_rate = extractor.sampling_rate
        self.dim, self.depth = config.hidden_size, config.num_hidden_layers
        self.normalise = extractor.do_normalize
        steps = accumulate(config.conv_stride[:-1], mul, initial=1)  # samples between two inputs of each convolution
        self.grid = TimeGrid(
            window=WINDOW_SECONDS * self.sample_rate,
            hop=prod(config.conv_stride),
            span=1 + sum((kernel - 1) * step for kernel, step in zip(config.conv_kernel, steps, strict=True)),
        )

    def inputs(self, waveform: Tensor) -> Tensor:
        """As the feature extractor prepares each clip: zero mean and unit variance, if the model was trained so."""
        if not self.normalise:
            return waveform
        variance, mean = torch.var_mean(waveform, 1, correction=0, keepdim=True)
        return (waveform - mean) / torch.sqrt(variance + EPS)

    def run(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Windows [W, S] to block outputs [L, W, T, D]; a window shorter than a single token is filled with zeros."""
        x = self.inputs(waveform)
        x = F.pad(x, (0, max(0, self.grid.span - x.shape[1])))
        states = self.model(x, output_hidden_states=True).hidden_states
        return torch.stack(states[1:]), None
