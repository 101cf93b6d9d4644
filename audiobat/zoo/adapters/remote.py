"""Dasheng, BEATs and EAT, whose Python code comes with their weights and runs only if the user trusts it.

In: windows [W, S]. Out: the outputs of all blocks [L, W, n, D] and cls. Shapes are compared with the known ones of the
kind of model, so that a change in such code is an error and no wrong number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from audiobat.audio.frontends.kaldi_fbank import KaldiFrontend
from audiobat.config import FrontendConfig
from audiobat.errors import AudiobatError
from audiobat.models.patches import pad_frames
from audiobat.zoo.adapters.windows import TimeGrid, WindowedEncoder, recorded_blocks

RATE, HOP, WIN = 16_000, 160, 400  # of all three: 16 kHz, frames of 25 ms (Dasheng: 32 ms, centred) every 10 ms
FRAMES = 1024  # of BEATs' and EAT's windows
BLOCK_LISTS = ("blocks", "layers", "layer")  # names that such code gives to its list of transformer blocks


def grid_of(config: Any) -> TimeGrid:
    """Where a model's patch columns lie, by its `model_type` and the sizes in its config.

    Dasheng's frames are centred, and its patches as high as the spectrogram; BEATs drops a patch that is not whole; EAT
    is given zeros to complete it.
    """
    kind = str(config.model_type)
    if kind == "dasheng":
        _, width = field(config, ("patch_size",), (64, 4))
        window = HOP * (field(config, ("target_length",), 1008) - 1)
        return TimeGrid(window, width * HOP, span=HOP * (width - 1))
    if kind in ("beats", "eat"):
        size = int(field(config, ("patch_size", "input_patch_size"), 16))
        span = WIN + HOP * (size - 1) if kind == "beats" else WIN
        return TimeGrid(WIN + HOP * (FRAMES - 1), size * HOP, span, mel_bins(config) // size)
    raise AudiobatError(
        f"model_type {kind!r} with code of its own is not known here (dasheng, beats and eat are): wrap it as "
        "--model my_file.py:MyEncoder (audiobat/zoo/adapters/custom.py shows how)."
    )


def mel_bins(config: Any) -> int:
    """Of BEATs' and EAT's spectrograms."""
    return int(field(config, ("mel_bins", "num_mel_bins"), 128))


def field(config: Any, names: tuple[str, ...], default: Any) -> Any:
    """The first of `names` that the config, or the `encoder_kwargs` inside it, holds."""
    inner: Mapping[str, Any] = getattr(config, "encoder_kwargs", None) or {}
    for name in names:
        value = inner.get(name, getattr(config, name, None))
        if value is not None:
            return value
    return default


class RemoteEncoder(WindowedEncoder):
    """A model whose class came with its weights."""

    def __init__(self, model: Any, extractor: Any | None) -> None:
        super().__init__()
        self.model = model.eval()
        self.extractor = extractor
        self.sample_rate = int(getattr(extractor, "sampling_rate", RATE))
        self.grid = grid_of(model.config)
        is_eat = model.config.model_type == "eat"
        self.prefix_tokens = 1 if is_eat else 0  # before the patches: cls
        self.fbank = None  # EAT's, with its AudioSet statistics: its code brings no feature extractor
        if is_eat:
            self.fbank = KaldiFrontend(FrontendConfig(kind="kaldi_fbank", mel_bins=mel_bins(model.config)))
        named = [(name.rpartition(".")[2], module) for name, module in model.named_modules()]
        lists = [module for name, module in named if isinstance(module, nn.ModuleList) and name in BLOCK_LISTS]
        if not lists:
            raise AudiobatError(
                f"{type(model).__name__} has no list of blocks ({', '.join(BLOCK_LISTS)}): wrap it as --model "
                "my_file.py:MyEncoder."
            )
        self.blocks = max(lists, key=len)
        with torch.no_grad():  # depth and width are read off an answer: configs call them differently
            states = self.states(torch.zeros(1, self.grid.window, device=next(model.parameters()).device))
        self.depth, self.dim = len(states), states[0].shape[-1]

    def call(self, waveform: Tensor) -> Any:
        """Run the model on windows [W, S], prepared by its own feature extractor if it has one."""
        if self.extractor is not None:
            arrays = list(waveform.detach().cpu().numpy())
            batch = self.extractor(arrays, sampling_rate=self.sample_rate, return_tensors="pt")
            inputs = {name: value.to(waveform.device) for name, value in batch.items() if isinstance(value, Tensor)}
            return self.model(**inputs, output_hidden_states=True)
        if self.fbank is not None:
            return self.model.extract_features(self.spectrogram(waveform))
        return self.model(waveform, output_hidden_states=True)

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """EAT's input [W, 1, frames, mels] of whole patches."""
        assert self.fbank is not None
        spectrogram, _ = self.fbank(waveform)
        width = self.grid.hop // HOP
        frames = -(-spectrogram.shape[1] // width) * width
        return pad_frames(spectrogram, frames, self.fbank.floor)[:, None]

    def states(self, waveform: Tensor) -> list[Tensor]:
        """Windows [W, S] to every block's output [W, prefix + n, D]: the model's `hidden_states`, or by hooks."""
        with recorded_blocks(self.blocks) as recorded:
            output = self.call(waveform)
        published = getattr(output, "hidden_states", None)
        if isinstance(published, tuple | list) and len(published) >= len(self.blocks):
            recorded = list(published[-len(self.blocks) :])
        return recorded

    def run(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Windows [W, S] to patches [L, W, n, D] and cls [L, W, D]; AudiobatError if their shape is another."""
        states = torch.stack(self.states(waveform))
        prefix, freq_patches = self.prefix_tokens, self.freq_patches
        columns, tokens = self.grid.columns(waveform.shape[1]), states.shape[2] - prefix
        if states.shape[1] != len(waveform) or tokens % freq_patches or tokens < columns * freq_patches:
            raise AudiobatError(
                f"{type(self.model).__name__} gives features {list(states.shape[1:])} for {len(waveform)} clips of "
                f"{waveform.shape[1]} samples, but a model of type {self.model.config.model_type} has {columns} "
                f"columns of {freq_patches} patches after {prefix} cls tokens: wrap it as --model my_file.py:MyEncoder."
            )
        return states[:, :, prefix:], states[:, :, 0] if prefix else None
