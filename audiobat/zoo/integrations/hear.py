r"""HEAR's common API (2021): a module with `load_model`, `get_scene_embeddings` and `get_timestamp_embeddings`.

    python -m heareval.embeddings.runner audiobat.zoo.integrations.hear --tasks-dir tasks \
        --model-options '{"model_file_path": "hf:facebook/hubert-base-ls960"}'

Without the last line it is `bat_nano`. HEAR's own `--model` takes files alone, and gives every model one folder of
embeddings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiobat.errors import AudiobatError
from audiobat.zoo.integrations.frames import DEFAULT, FrameEmbedder, check_finite

RATES = (16_000, 22_050, 32_000, 44_100, 48_000)  # at which HEAR's tasks are published


class HearModel(nn.Module):
    """An encoder with the attributes that HEAR asks for."""

    def __init__(self, frames: FrameEmbedder) -> None:
        super().__init__()
        self.frames = frames
        self.sample_rate = frames.encoder.sample_rate
        self.scene_embedding_size = self.timestamp_embedding_size = frames.encoder.dim


def load_model(model_file_path: str = "") -> HearModel:
    """Load a model, named as `--model` takes it; by default the shipped weights.

    Raises AudiobatError if the model's sample rate is not one of HEAR's.
    """
    model = HearModel(FrameEmbedder(model_file_path or DEFAULT))
    if model.sample_rate not in RATES:
        raise AudiobatError(f"HEAR has no audio at {model.sample_rate} Hz: choose a model at one of {RATES}.")
    return model.eval()


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """Audio [B, samples] in [-1, 1] to one vector each [B, D]: the mean over time and frequency."""
    return frames_of(audio, model).mean(1)


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Audio [B, samples] to frames [B, T, D] and the middle of each in ms [B, T], evenly spaced, inside the clip."""
    frames = frames_of(audio, model)
    hop, duration = 1000 * model.frames.hop_seconds, 1000 * audio.shape[1] / model.sample_rate
    middles = (torch.arange(frames.shape[1], device=audio.device) + 0.5) * hop
    inside = max(1, int((middles <= duration).sum()))  # the last column may reach beyond the end
    middles = middles[:inside].clamp(max=duration)
    return frames[:, :inside], middles.expand(len(audio), -1)


def frames_of(audio: Tensor, model: HearModel) -> Tensor:
    """Frames [B, T, D] of audio [B, samples]."""
    if audio.ndim != 2:
        raise AudiobatError(f"HEAR's audio has shape {list(audio.shape)}: give [clips, samples].")
    return check_finite(model.frames(audio))
