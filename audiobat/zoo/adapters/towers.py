"""Audio towers of large models of the transformers package, loaded without the rest: Qwen2-Audio, Voxtral, PE-AV.

In: windows [W, S]. Out: the outputs of all blocks, time-major. `part_of` says how such a tower is found in a model's
config and in its files, so that a language model of billions of parameters never comes into memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from audiobat.zoo.adapters.published import WINDOW_SECONDS, TransformersEncoder, WhisperAudioEncoder
from audiobat.zoo.adapters.windows import TimeGrid, recorded_blocks


def part_of(config: Any) -> dict[str, Any]:
    """What `AutoModel.from_pretrained` is to be told, beside the source, to load the tower of a model alone."""
    inner = config.audio_config
    inner = getattr(inner, "audio_config", inner)  # PE-AV's audio half has a text tower, too
    prefixes = r"^(model\.)?audio_tower\.|^(audio_model\.|audio_video_encoder\.embedder\.)?audio_encoder\."
    return {"config": inner, "key_mapping": {prefixes: ""}}


class LanguageModelTower(WhisperAudioEncoder):
    """The relative of Whisper's encoder in Qwen2-Audio, Audio Flamingo 3, Music Flamingo and Voxtral: 20 ms a token.

    Layers are the blocks' outputs; the language model reads the last after a LayerNorm, and in the Flamingos and in
    Qwen2-Audio after the mean of each two tokens. These hide the zeros behind a clip, and Voxtral does not.
    """

    def run(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Windows [W, S] to block outputs [L, W, T, D]."""
        inputs = self.inputs(waveform)
        own = torch.arange(inputs.shape[2], device=inputs.device) < -(-waveform.shape[1] // self.hop)  # [frames]
        masks: dict[str, Tensor] = {}
        if self.model.config.model_type == "audioflamingo3_encoder":
            masks = {"input_features_mask": own.expand(len(inputs), -1)}
        elif self.model.config.model_type == "qwen2_audio_encoder":
            hidden = torch.zeros_like(inputs[:1, :1, ::2]).masked_fill(~own[::2], torch.finfo(inputs.dtype).min)
            masks = {"attention_mask": hidden[:, None].expand(len(inputs), -1, -1, -1)}  # [W, 1, 1, T]
        with recorded_blocks(self.model.layers) as states:
            self.model(inputs, **masks)
        return torch.stack(states), None


class PEAudioTower(TransformersEncoder):
    """The audio tower of Perception Encoder (PE-AV, PE-A-Frame): a codec's encoder, then blocks; cls, 40 ms a token.

    The end of a clip is reflected until a token is whole. The last layer is before the final norm and projection.
    """

    def __init__(self, model: Any, extractor: Any) -> None:
        super().__init__(model, extractor)
        self.dim, self.depth, hop = model.config.hidden_size, model.config.num_hidden_layers, extractor.hop_length
        self.grid = TimeGrid(WINDOW_SECONDS * self.sample_rate, hop, span=1)

    def inputs(self, waveform: Tensor) -> Tensor:
        """Windows [W, S] to [W, 1, S + reflected samples]; a short one is reflected to and fro."""
        samples = waveform.shape[1]
        period = max(1, 2 * (samples - 1))
        at = torch.arange(-(-samples // self.grid.hop) * self.grid.hop, device=waveform.device) % period
        return waveform[:, None, torch.minimum(at, period - at)]

    def run(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Windows [W, S] to block outputs [L, W, T, D] and cls [L, W, D]."""
        with recorded_blocks(self.model.layers) as states:
            self.model(self.inputs(waveform))
        tokens = torch.stack(states)
        return tokens[:, :, 1:], tokens[:, :, 0]
