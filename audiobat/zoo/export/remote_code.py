"""Audiobat models for transformers: a config, a feature extractor, hidden states, and logits where there is a head.

A folder that `export_transformers` wrote has this file, behind the code of audiobat that it imports. transformers makes
models without memory, fills them from model.safetensors, and calls `_init_weights` for tensors that are in no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel, SequenceFeatureExtractor
from transformers.utils import ModelOutput

from audiobat.audio.frontends.base import below, build_frontend
from audiobat.config import HeadConfig, ModelConfig, from_dict
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder, pool_features
from audiobat.models.features import LayerFeatures
from audiobat.models.heads import build_head
from audiobat.models.tagger import surest_frame


class AudiobatConfig(PreTrainedConfig):
    """`frontend`, `encoder` and `head` as a release's config.json has them; classes are `id2label`."""

    model_type = "audiobat"

    def __init__(
        self,
        frontend: dict[str, Any] | None = None,
        encoder: dict[str, Any] | None = None,
        head: dict[str, Any] | None = None,
        task: str = "clip",
        **kwargs: Any,
    ) -> None:
        self.frontend = frontend or {}
        self.encoder = encoder or {}
        self.head = head
        self.task = task  # what the head labels: clip or frame
        super().__init__(**kwargs)

    @property
    def model(self) -> ModelConfig:
        """The encoder's own config, checked."""
        return from_dict(ModelConfig, {"frontend": self.frontend, "encoder": self.encoder})

    @property
    def hidden_size(self) -> int:
        """Width of a token."""
        return self.model.encoder.dim

    @property
    def num_hidden_layers(self) -> int:
        """Blocks."""
        return self.model.encoder.depth


class AudiobatFeatureExtractor(SequenceFeatureExtractor):
    """Raw waveforms of any lengths to `input_values` [B, S], padded at the end, and their `attention_mask` [B, S]."""

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012

    def __init__(self, sampling_rate: int = 16_000, **kwargs: Any) -> None:
        fixed = {"feature_size": 1, "padding_value": 0.0, "padding_side": "right", "return_attention_mask": True}
        super().__init__(sampling_rate=sampling_rate, **(kwargs | fixed))

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        padding: bool | str = True,
        max_length: int | None = None,
        truncation: bool = False,
        **_: Any,
    ) -> Any:
        """One mono waveform [S] in [-1, 1], or a list (or array [B, S]) of them.

        Args:
            raw_speech: arrays, tensors or lists of numbers.
            sampling_rate: of the waveforms, in Hz; it must be the model's, as nothing is resampled here.
            return_tensors: `pt` for what the model takes.
            padding: as transformers has it; by default to the longest.
            max_length: samples, for truncation or padding to a fixed length.
            truncation: cut what is longer than `max_length`.
        """
        if sampling_rate != self.sampling_rate:
            raise AudiobatError(
                f"sampling_rate is {sampling_rate}, and the model takes {self.sampling_rate} Hz: resample the "
                f"waveforms, then pass sampling_rate={self.sampling_rate}."
            )
        single = isinstance(raw_speech, np.ndarray | Tensor) and raw_speech.ndim == 1
        single = single or (isinstance(raw_speech, Sequence) and np.ndim(raw_speech[0]) == 0)
        clips = [np.asarray(clip, dtype=np.float32) for clip in ([raw_speech] if single else raw_speech)]
        for clip in clips:
            if clip.ndim != 1 or not len(clip):
                raise AudiobatError(f"A waveform has shape {list(clip.shape)}: give mono audio [samples], not empty.")
        return self.pad(
            {"input_values": clips},
            padding=padding,
            max_length=max_length,
            truncation=truncation,
            return_tensors=return_tensors,
        )


@dataclass
class AudiobatOutput(ModelOutput):
    """Tokens are cls, then the patches, time by time and the lowest frequencies first."""

    last_hidden_state: Tensor | None = None  # [B, 1 + N, D]
    pooler_output: Tensor | None = None  # [B, D], mean of the clip's own patches
    hidden_states: tuple[Tensor, ...] | None = None  # of the first block's input and each block's output
    token_mask: Tensor | None = None  # [B, 1 + N], 0 on padding


@dataclass
class AudiobatClassifierOutput(ModelOutput):
    """The head's logits; frames are the patch columns."""

    loss: Tensor | None = None
    logits: Tensor | None = None  # [B, C]
    frame_logits: Tensor | None = None  # [B, T, C], zeros on padding; of a head that labels frames
    hidden_states: tuple[Tensor, ...] | None = None


class AudiobatModel(PreTrainedModel):
    """Waveforms to the hidden states of the encoder."""

    config_class = AudiobatConfig
    base_model_prefix = "audiobat"
    main_input_name = "input_values"
    _supports_sdpa = True
    _no_split_modules = ["Block"]  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected = {r"^head\."}  # noqa: RUF012

    def __init__(self, config: AudiobatConfig) -> None:
        super().__init__(config)
        with torch.device("cpu"):  # filters cannot be computed without memory
            self.encoder = AudioEncoder(config.model)
            self.add_head()
        self.post_init()

    def add_head(self) -> None:
        """This class has no head."""

    def _init_weights(self, module: nn.Module) -> None:
        """Compute the frontend's filters, which are in no file, in float32 whatever the model's type.

        The rest as transformers does.
        """
        if module is self.encoder.frontend:
            computed = build_frontend(self.config.model.frontend)
            for name in module._non_persistent_buffers_set:
                setattr(module, name, getattr(computed, name).to(getattr(module, name).device))
        else:
            super()._init_weights(module)

    def features(
        self, input_values: Tensor, attention_mask: Tensor | None, with_states: bool | None
    ) -> tuple[LayerFeatures, tuple[Tensor, ...] | None]:
        """The encoder's features, and its hidden states if `with_states` (None: if the config says so)."""
        lengths = None if attention_mask is None else lengths_of(attention_mask)
        spectrogram, frames = self.encoder.frontend(input_values, lengths)
        if self.encoder.pos_embed.dtype != self.dtype:  # transformers leaves what is no parameter in float32
            self.encoder.pos_embed = self.encoder.pos_embed.to(self.dtype)
        wanted = self.config.output_hidden_states if with_states is None else with_states
        # Of the first block, which transformers counts as a hidden state, a few clips at a time.
        inputs: list[Tensor] = []
        block = self.encoder.blocks[0]
        hooks = [block.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))] if wanted else []
        try:
            features = self.encoder.forward_spectrogram(spectrogram.to(self.dtype), None if lengths is None else frames)
        finally:
            for hook in hooks:
                hook.remove()
        if not wanted:
            return features, None
        clips, patches = features.valid.shape
        first = torch.cat(inputs).unflatten(0, (clips, -1))  # [B, windows, 1 + n, D], the same cls in each
        stem = torch.cat([first[:, 0, :1], first[:, :, 1:].flatten(1, 2)[:, :patches]], dim=1)
        return features, (stem, *(tokens_of(features, layer) for layer in range(len(features.patch_tokens))))

    def answer(self, output: ModelOutput, return_dict: bool | None) -> Any:
        """The output itself, or its values as a tuple."""
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Waveforms [B, S] and their mask [B, S] (None: nothing is padding) to an AudiobatOutput."""
        features, states = self.features(input_values, attention_mask, output_hidden_states)
        output = AudiobatOutput(
            last_hidden_state=tokens_of(features, -1),
            pooler_output=pool_features(features),
            hidden_states=states,
            token_mask=F.pad(features.valid.long(), (1, 0), value=1),
        )
        return self.answer(output, return_dict)


class AudiobatForAudioClassification(AudiobatModel):
    """Waveforms to the logits of the classes that `config.id2label` names."""

    _keys_to_ignore_on_load_unexpected = set[str]()  # noqa: RUF012

    def add_head(self) -> None:
        """Build the head that `config.head` describes."""
        self.head: Any = self.new_head()

    def new_head(self) -> Any:
        """A head that nobody has trained."""
        head = from_dict(HeadConfig, self.config.head, "head")
        encoder = self.encoder
        return build_head(head, encoder.dim, encoder.depth, self.config.num_labels, encoder.config.grid[1])

    def _init_weights(self, module: nn.Module) -> None:
        """Give what the file lacks of a head, or has for another number of classes, the values of a new head."""
        path = next((path for path, part in self.head.named_modules() if part is module), None)
        if path is None:
            super()._init_weights(module)
            return
        new = self.new_head().get_submodule(path)
        values = dict(new.named_parameters(recurse=False)) | dict(new.named_buffers(recurse=False))
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if not getattr(tensor, "_is_hf_initialized", False):  # as transformers marks what it has loaded
                tensor.copy_(values[name])

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
    ) -> Any:
        """As `AudiobatModel`, to an AudiobatClassifierOutput.

        With labels, [B] of one class each or [B, C] of several, there is a loss: cross-entropy, or binary for several.
        """
        features, states = self.features(input_values, attention_mask, output_hidden_states)
        frames = self.head.frames(features) if self.config.task == "frame" else None
        logits = self.head(features) if frames is None else surest_frame(frames, features)
        loss = None
        if labels is not None and self.config.problem_type == "multi_label_classification":
            loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype)) + self.head.penalty()
        elif labels is not None:
            loss = F.cross_entropy(logits, labels) + self.head.penalty()
        output = AudiobatClassifierOutput(loss=loss, logits=logits, frame_logits=frames, hidden_states=states)
        return self.answer(output, return_dict)


def lengths_of(attention_mask: Tensor) -> Tensor:
    """Samples [B] of each clip by its mask [B, S]; AudiobatError unless that is ones, then zeros."""
    lengths = attention_mask.sum(1)
    if torch.compiler.is_compiling():  # values cannot be checked then
        return lengths
    if not lengths.all() or not torch.equal(attention_mask.bool(), below(lengths, attention_mask.shape[1])):
        raise AudiobatError("attention_mask must be ones, one at least, and then zeros: pad clips at their end.")
    return lengths


def tokens_of(features: LayerFeatures, layer: int) -> Tensor:
    """Cls and patches [B, 1 + N, D] of one block."""
    assert features.cls_token is not None
    return torch.cat([features.cls_token[layer][:, None], features.patch_tokens[layer]], dim=1)
