"""Speech encoders of transformers that read log-mel frames of a clip of any length: w2v-BERT, Parakeet, LASR.

In: windows [W, S]. Out: the outputs of all blocks, time-major, no cls. Frames are those of the feature extractors,
batched in torch. w2v-BERT and Parakeet normalise each mel bin over the clip, here over the window: the deviation of a
single frame is not defined, so that a shorter window is filled with zeros to two.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from audiobat.zoo.adapters.published import WINDOW_SECONDS, TransformersEncoder
from audiobat.zoo.adapters.windows import TimeGrid

HOP, WIN, N_FFT = 160, 400, 512  # of w2v-BERT's frames, which no setting changes
INT16 = 2**15  # w2v-BERT's floor below the logarithm is one for samples of 16 bits
MEL_FLOOR, LASR_FLOOR, PARAKEET_GUARD = 2**-23, 1e-5, 2**-24
PREEMPHASIS = 0.97  # w2v-BERT's


class FrameEncoder(TransformersEncoder):
    """Base: pads a short window with zeros, and runs the model on what `inputs` makes of the samples."""

    shortest: int  # samples that make a token, and a deviation where there is one

    def __init__(self, model: Any, extractor: Any) -> None:
        super().__init__(model, extractor)
        self.dim, self.depth = model.config.hidden_size, model.config.num_hidden_layers

    def inputs(self, waveform: Tensor) -> Tensor:
        """Windows [W, S] to what the feature extractor makes of each, [W, T, mel bins]."""
        raise NotImplementedError

    def run(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Windows [W, S] to block outputs [L, W, T, D]."""
        return self.states(self.inputs(F.pad(waveform, (0, max(0, self.shortest - waveform.shape[1]))))), None


class Wav2Vec2BertEncoder(FrameEncoder):
    """w2v-BERT 2.0: pairs of Kaldi's frames, one token for each 20 ms. A frame without a second one makes no token."""

    def __init__(self, model: Any, extractor: Any) -> None:
        super().__init__(model, extractor)
        self.pair = extractor.stride
        self.shortest = WIN + HOP * (max(2, self.pair) - 1)
        self.grid = TimeGrid.of_convolutions(WINDOW_SECONDS * self.sample_rate, (WIN, self.pair), (HOP, self.pair))
        self.register_buffer("window", torch.from_numpy(extractor.window).float(), persistent=False)
        self.register_buffer("filters", torch.from_numpy(extractor.mel_filters).float(), persistent=False)

    def inputs(self, waveform: Tensor) -> Tensor:
        """Windows [W, S] to pairs of log-mel frames, each bin with mean 0 and deviation 1: [W, T, 2 * mel bins]."""
        frames = (INT16 * waveform).unfold(1, WIN, HOP)  # [W, frames, WIN]
        frames = frames - frames.mean(2, keepdim=True)
        first = (1 - PREEMPHASIS) * frames[..., :1]
        frames = torch.cat([first, frames[..., 1:] - PREEMPHASIS * frames[..., :-1]], 2) * self.window
        power = torch.fft.rfft(frames, N_FFT).abs().square()
        mel = (power @ self.filters).clamp(min=MEL_FLOOR).log()
        variance, mean = torch.var_mean(mel, 1, keepdim=True)
        mel = (mel - mean) / torch.sqrt(variance + 1e-7)
        tokens = mel.shape[1] // self.pair
        pairs: Tensor = mel[:, : tokens * self.pair].unflatten(1, (tokens, self.pair)).flatten(2)
        return pairs


class ParakeetAudioEncoder(FrameEncoder):
    """Parakeet's encoder (FastConformer): eight frames make a token, for each 80 ms.

    The last of the centred frames is none of the clip: it is masked, as its feature extractor says.
    """

    def __init__(self, model: Any, extractor: Any) -> None:
        super().__init__(model, extractor)
        self.hop, self.preemphasis = extractor.hop_length, extractor.preemphasis
        self.shortest = 2 * self.hop
        hop = self.hop * model.config.subsampling_factor
        self.grid = TimeGrid(WINDOW_SECONDS * self.sample_rate, hop, span=self.hop)
        left = (extractor.n_fft - extractor.win_length) // 2
        window = torch.hann_window(extractor.win_length, periodic=False)
        window = F.pad(window, (left, extractor.n_fft - extractor.win_length - left))
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", extractor.mel_filters.mT.clone(), persistent=False)

    def inputs(self, waveform: Tensor) -> Tensor:
        """Windows [W, S] to log-mel [W, frames, mel], each bin with mean 0 and deviation 1; the last frame is zeros."""
        if self.preemphasis is not None:
            waveform = torch.cat([waveform[:, :1], waveform[:, 1:] - self.preemphasis * waveform[:, :-1]], 1)
        power = self.mel_power(waveform, waveform.shape[1], self.hop, "constant").mT  # [W, frames, mel]
        mel = (power + PARAKEET_GUARD).log()[:, : waveform.shape[1] // self.hop]
        deviation, mean = torch.std_mean(mel, 1, keepdim=True)
        return F.pad((mel - mean) / (deviation + 1e-5), (0, 0, 0, 1))

    def states(self, inputs: Tensor) -> Tensor:
        """The model's own `hidden_states` [L, W, n, D] under the mask of the clips' own frames."""
        mask = torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
        mask[:, -1] = False
        return torch.stack(self.model(inputs, attention_mask=mask, output_hidden_states=True).hidden_states[1:])


class LasrAudioEncoder(FrameEncoder):
    """LASR's encoder (MedASR): one token for each 40 ms. The last layer is the one after the final LayerNorm."""

    def __init__(self, model: Any, extractor: Any) -> None:
        super().__init__(model, extractor)
        self.hop, self.n_fft = extractor.hop_length, extractor.n_fft
        kernel, stride = model.config.subsampling_conv_kernel_size, model.config.subsampling_conv_stride
        kernels, strides = (extractor.win_length, kernel, kernel), (self.hop, stride, stride)
        self.grid = TimeGrid.of_convolutions(WINDOW_SECONDS * self.sample_rate, kernels, strides)
        self.shortest = self.grid.span
        window = torch.hann_window(extractor.win_length, periodic=False)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", extractor.mel_filters.float(), persistent=False)

    def inputs(self, waveform: Tensor) -> Tensor:
        """Windows [W, S] to log-mel [W, frames, mel]."""
        frames = waveform.unfold(1, len(self.window), self.hop) * self.window
        mel: Tensor = torch.fft.rfft(frames, self.n_fft).abs().square() @ self.filters
        return mel.clamp(min=LASR_FLOOR).log()
