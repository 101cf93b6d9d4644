"""MTEB's audio benchmarks (MAEB): an encoder of audio, one vector a clip.

mteb.evaluate(AudiobatEncoder("bat_nano"), tasks=mteb.get_tasks(modalities=["audio"]))
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

from audiobat.audio.read import to_waveform
from audiobat.engine.progress import Progress
from audiobat.engine.ranks import pick_device
from audiobat.zoo.integrations.frames import DEFAULT, FrameEmbedder


class AudiobatEncoder(nn.Module):
    """The mean over time and frequency of a layer (1 to depth, or -1) of a model, named as `--model` takes it."""

    mteb_model_meta = None  # MTEB replaces an object without this attribute by an empty model

    def __init__(
        self, model_name: str = DEFAULT, revision: str | None = None, *, device: str = "auto", layer: int = -1
    ) -> None:
        super().__init__()
        self.device = pick_device(device)
        self.frames = FrameEmbedder(model_name, layer).to(self.device)
        self.sampling_rate = self.frames.encoder.sample_rate

    def get_audio_embeddings(
        self, inputs: DataLoader[Any], *, show_progress_bar: bool = True, **_: Any
    ) -> NDArray[np.float32]:
        """Batches whose "audio" lists dicts of `array` [S] or [channels, S] and `sampling_rate` to [clips, D].

        Clips are resampled to the model's rate and run one by one, so that none is padded.
        """
        vectors = []
        with Progress("embed", total=len(inputs), unit="batch", shown=show_progress_bar) as bar:
            for batch in inputs:
                for clip in batch["audio"]:
                    waveform = to_waveform(np.asarray(clip["array"]), int(clip["sampling_rate"]), self.sampling_rate)
                    vectors.append(self.frames(waveform[None].to(self.device)).mean(1).cpu())
                bar.advance()
        return torch.cat(vectors).numpy()

    def encode(self, inputs: DataLoader[Any], **kwargs: Any) -> NDArray[np.float32]:
        """The method that MTEB calls; its description of the task is not needed."""
        return self.get_audio_embeddings(inputs, **kwargs)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosine of each of the first [N, D] with each of the second [M, D]: [N, M]."""
        one, two = (normalize(torch.as_tensor(e), dim=-1) for e in (embeddings1, embeddings2))
        return one @ two.mT

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosine of the first and second [N, D], pair by pair: [N]."""
        return torch.cosine_similarity(torch.as_tensor(embeddings1), torch.as_tensor(embeddings2), dim=-1)
