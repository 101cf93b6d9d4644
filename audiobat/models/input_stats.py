"""An encoder with the statistics of another data set in its frontend, and with a window of that set's length."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch

from audiobat.config import ModelConfig, StatisticsConfig, check
from audiobat.models.encoder import AudioEncoder

E = TypeVar("E")


def with_input_stats(encoder: E, statistics: StatisticsConfig, max_frames: int | None) -> E:
    """The encoder with `statistics`, if its frontend's norm is `global`, and a window of at most `max_frames` frames.

    The weights are the same; of the position embeddings, the first columns are kept. An encoder that needs no change,
    or is not of audiobat's own kind, is returned as it is.

    Raises:
        AudiobatError: the window is no multiple of the encoder's patch, or the frontend pads waveforms to more than it.
    """
    if not isinstance(encoder, AudioEncoder):
        return encoder
    own = encoder.config
    frames = min(own.encoder.max_frames, max_frames or own.encoder.max_frames)
    wanted = ModelConfig(statistics.apply(own.frontend), replace(own.encoder, max_frames=frames))
    if wanted == own:
        return encoder
    window, pad = frames * wanted.frontend.hop_length, wanted.frontend.pad_samples
    hint = f"the model's window has {frames} frames, less than that: use 0, no padding"
    check(pad <= window, "frontend.pad_seconds", wanted.frontend.pad_seconds, hint)  # else windows would be all zeros
    columns, freq_patches = wanted.position_grid
    state = encoder.state_dict()
    state["pos_embed"] = state["pos_embed"][:, : columns * freq_patches]  # time-major, so the first columns come first
    with torch.random.fork_rng():  # a new encoder draws weights, which are replaced at once
        fresh = AudioEncoder(wanted)
    fresh.load_state_dict(state)
    return fresh.to(encoder.pos_embed.device).train(encoder.training)  # type: ignore[return-value]
