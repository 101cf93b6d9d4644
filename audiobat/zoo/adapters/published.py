"""Models of the transformers package: wav2vec 2.0 and its kin; AST, Whisper's encoder and CLAP's audio tower.

In: windows [W, S]. Out: the outputs of all blocks, time-major. Inputs are the feature extractors' numbers, batched in
torch: samples for wav2vec 2.0, HuBERT, WavLM, SEW and Moonshine, log-mel windows of one fixed length, as they were
trained, for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from audiobat.audio.frontends.kaldi_fbank import KaldiFrontend
from audiobat.config import FrontendConfig
from audiobat.models.patches import pad_frames
from audiobat.zoo.adapters.windows import TimeGrid, WindowedEncoder, recorded_blocks

WINDOW_SECONDS = 30  # our choice: attention over longer clips costs too much, and the models were trained on less
EPS = 1e-7  # that the feature extractor of wav2vec 2.0 adds to the variance
AMIN = 1e-10  # mel power below which the extractors of Whisper and CLAP take no logarithm


class TransformersEncoder(WindowedEncoder):
    """Base of these adapters: the model, and the rate that its feature extractor takes."""

    window: Tensor  # of the STFT, where there is one
    filters: Tensor  # [bins, mel]

    def __init__(self, model: Any, extractor: Any) -> None:
        super().__init__()
        self.model = model
        self.sample_rate = extractor.sampling_rate

    def states(self, inputs: Tensor) -> Tensor:
        """The model's own `hidden_states` [L, W, n, D], but for the input of the first block."""
        return torch.stack(self.model(inputs, output_hidden_states=True).hidden_states[1:])

    def add_filters(self, n_fft: int, filters: Any) -> None:
        """Keep what `mel_power` needs: a Hann window of `n_fft` samples and mel filters [bins, mel]."""
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)

    def mel_power(self, waveform: Tensor, samples: int, hop: int, ends: str = "reflect") -> Tensor:
        """Waveform [W, S], zero-padded to `samples`, to mel power [W, mel, frames], by a centred STFT.

        Before the start and behind the end it finds the reflected samples, or zeros if `ends` is "constant".
        """
        padded = F.pad(waveform, (0, samples - waveform.shape[1]))
        stft = torch.stft(padded, len(self.window), hop, window=self.window, pad_mode=ends, return_complex=True)
        return self.filters.T @ (stft.real.square() + stft.imag.square())


class WaveformEncoder(TransformersEncoder):
    """A model of the wav2vec 2.0 family. Its convolutions need no padding, and windows bring none.

    The blocks of SEW and SEW-D run on means of two tokens: 40 ms each, not the 20 ms of the model's last output.
    """

    def __init__(self, model: Any, extractor: Any) -> None:
        super().__init__(model, extractor)
        self.dim, self.depth = model.config.hidden_size, self.blocks()
        self.normalise = extractor.do_normalize
        kernels, strides = self.convolutions()
        mean_of = getattr(model.config, "squeeze_factor", 1)
        window = WINDOW_SECONDS * self.sample_rate
        self.grid = TimeGrid.of_convolutions(window, (*kernels, mean_of), (*strides, mean_of))

    def blocks(self) -> int:
        """How many the model has."""
        return int(self.model.config.num_hidden_layers)

    def convolutions(self) -> tuple[Sequence[int], Sequence[int]]:
        """Kernels and strides of the convolutions that make tokens of samples."""
        return self.model.config.conv_kernel, self.model.config.conv_stride

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
        return self.states(x), None


class MoonshineAudioEncoder(WaveformEncoder):
    """Moonshine's encoder, one token for each 24 ms. The last layer is the one after the final LayerNorm."""

    def blocks(self) -> int:
        """Those of the encoder: by `num_hidden_layers` the config means the decoder's."""
        return int(self.model.config.encoder_num_hidden_layers)

    def convolutions(self) -> tuple[Sequence[int], Sequence[int]]:
        """Kernels and strides, which are no settings of this model."""
        three = (self.model.conv1, self.model.conv2, self.model.conv3)
        return [conv.kernel_size[0] for conv in three], [conv.stride[0] for conv in three]


class ASTEncoder(TransformersEncoder):
    """Audio Spectrogram Transformer: overlapping patches of a Kaldi filter bank, zero-padded to `max_length` frames.

    AST has a cls and a distillation token; `cls_token` is the mean of both, which is what its own head reads. Its
    frequency-major patches are put in time-major order. Columns that reach into the padding are left out.
    """

    def __init__(self, model: Any, extractor: Any) -> None:
        super().__init__(model, extractor)
        config: Any = model.config
        self.dim, self.depth = config.hidden_size, config.num_hidden_layers
        self.frames = config.max_length
        # Where AST does not normalise, (x - 0) / (2 * 0.5) does nothing.
        mean, std = (extractor.mean, extractor.std) if extractor.do_normalize else (0.0, 0.5)
        mels = extractor.num_mel_bins
        fbank = FrontendConfig("kaldi_fbank", self.sample_rate, mel_bins=mels, mean=mean, std=std)
        self.frontend = KaldiFrontend(fbank)
        win, hop = self.frontend.config.win_length, self.frontend.config.hop_length
        self.grid = TimeGrid(
            window=win + (self.frames - 1) * hop,
            hop=config.time_stride * hop,
            span=win + (config.patch_size - 1) * hop,
            freq_patches=(config.num_mel_bins - config.patch_size) // config.frequency_stride + 1,
        )

    def inputs(self, waveform: Tensor) -> Tensor:
        """Windows [W, S] to the filter bank [W, max_length, mel bins]."""
        fbank, _ = self.frontend(waveform)
        return pad_frames(fbank, self.frames, self.frontend.floor)

    def run(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Windows [W, S] to patches [L, W, T * F, D] and cls [L, W, D]."""
        states = self.states(self.inputs(waveform))
        frequency_major = states[:, :, 2:].unflatten(2, (self.freq_patches, -1))  # [L, W, F, T, D]
        return frequency_major.transpose(2, 3).flatten(2, 3), states[:, :, :2].mean(2)


class WhisperAudioEncoder(TransformersEncoder):
    """Whisper's encoder: log-mel of 30 s, zero-padded before the STFT; one token for each 20 ms, no cls.

    The last layer is the one after the final LayerNorm, as in the model's own `hidden_states`.
    """

    def __init__(self, model: Any, extractor: Any) -> None:
        super().__init__(model, extractor)
        config: Any = model.config
        self.dim, self.depth = config.d_model, config.encoder_layers
        self.hop, self.samples = extractor.hop_length, extractor.n_samples
        self.grid = TimeGrid(window=self.samples, hop=self.hop * model.conv2.stride[0], span=1)
        self.add_filters(extractor.n_fft, extractor.mel_filters)

    def inputs(self, waveform: Tensor) -> Tensor:
        """Windows [W, S] to log-mel [W, mel, frames], each with a floor 8 below its own maximum (in powers of ten)."""
        mel = self.mel_power(waveform, self.samples, self.hop)[..., :-1]
        log_mel = mel.clamp(min=AMIN).log10()
        return (torch.maximum(log_mel, log_mel.amax((1, 2), keepdim=True) - 8.0) + 4.0) / 4.0

    def run(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Windows [W, S] to block outputs [L, W, T, D]."""
        return self.states(self.inputs(waveform)), None


class ClapAudioTower(TransformersEncoder):
    """CLAP's Swin tower: mel dB of 10 s; a shorter clip is repeated, as the extractor says.

    The stages of a Swin differ in width and grid, so the layers are the blocks of the last stage. The tower folds time
    into four bands of one square image; here the bands are laid end to end again. No cls. CLAP's extractor marks a clip
    that it gets alone as `is_longer`, and in a batch not always; here every clip is marked, as if it were alone.
    """

    def __init__(self, model: Any, extractor: Any) -> None:
        super().__init__(model, extractor)
        config: Any = model.config
        stages = len(config.depths)
        self.dim, self.depth = config.patch_embeds_hidden_size * 2 ** (stages - 1), config.depths[-1]
        self.side = config.spec_size // model.audio_encoder.patch_stride[0] // 2 ** (stages - 1)
        self.bands = config.spec_size // config.num_mel_bins
        self.hop, self.samples, self.padding = extractor.hop_length, extractor.nb_max_samples, extractor.padding
        self.copies = 4 if config.enable_fusion else 1
        self.grid = TimeGrid(
            window=self.samples,
            hop=self.samples // (self.side * self.bands),
            span=1,
            freq_patches=self.side // self.bands,
        )
        fused = extractor.truncation == "fusion"
        filters = extractor.mel_filters if fused else extractor.mel_filters_slaney
        self.add_filters(extractor.fft_window_size, filters)

    def inputs(self, waveform: Tensor) -> Tensor:
        """Windows [W, S] to mel dB [W, copies, frames, mel]."""
        times = self.samples // waveform.shape[1]
        if self.padding in ("repeat", "repeatpad"):
            waveform = waveform.repeat(1, times + (self.padding == "repeat"))[:, : self.samples]
        mel = self.mel_power(waveform, self.samples, self.hop)
        db = 10 * mel.clamp(min=AMIN).log10()
        return db.mT[:, None].expand(-1, self.copies, -1, -1)

    def run(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Windows [W, S] to the last stage's block outputs [L, W, T * F, D]."""
        longer = torch.ones(len(waveform), 1, dtype=torch.bool, device=waveform.device)
        with recorded_blocks(self.model.audio_encoder.layers[-1].blocks) as states:
            self.model(self.inputs(waveform), is_longer=longer)
        folded = torch.stack(states).unflatten(2, (self.bands, self.freq_patches, self.side))  # [L, W, band, F, t, D]
        return folded.transpose(3, 4).flatten(2, 4), None
