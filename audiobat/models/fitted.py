"""An encoder as a data set wants it heard: with that set's statistics in its frontend, and a window of its length."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch

from audiobat.config import ModelConfig, StatisticsConfig
from audiobat.models.encoder import AudioEncoder

E = TypeVar("E")


def fitted(encoder: E, statistics: StatisticsConfig, max_frames: int | None) -> E:
    """The encoder with `statistics`, if its norm is global, and with a window of at most `max_frames`.

    The weights are the same; of the positions, the first columns are kept. One that needs no change, or is not of
    audiobat's own kind, is returned as it is.

    Raises:
        AudiobatError: the window is no multiple of the encoder's patch.
    """
    if not isinstance(encoder, AudioEncoder):
        return encoder
    own = encoder.config
    frames = min(own.encoder.max_frames, max_frames or own.encoder.max_frames)
    wanted = ModelConfig(statistics.apply(own.frontend), replace(own.encoder, max_frames=frames))
    if wanted == own:
        return encoder
    columns, rows = wanted.grid
    state = encoder.state_dict()
    state["pos_embed"] = state["pos_embed"][:, : columns * rows]
    with torch.random.fork_rng():  # weights are drawn, and replaced at once
        fresh = AudioEncoder(wanted)
    fresh.load_state_dict(state)
    return fresh.to(encoder.pos_embed.device).train(encoder.training)  # type: ignore[return-value]
