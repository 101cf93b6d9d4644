"""A tiny encoder of recordings at 8 kHz, and releases of it with random weights."""

from pathlib import Path

import torch

from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.models.encoder import AudioEncoder
from audiobat.zoo.release import save_release

RATE = 8_000
MODEL = ModelConfig(
    FrontendConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=80, mel_bins=16),
    EncoderConfig(dim=16, depth=2, heads=2, patch_size=(8, 8), max_frames=64),
)


def write_encoder(folder: Path, model: ModelConfig = MODEL, seed: int = 0) -> Path:
    """A release of such a model, with the weights of a seed; returns `folder`."""
    torch.manual_seed(seed)
    save_release(folder, AudioEncoder(model))
    return folder
