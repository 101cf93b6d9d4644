"""MTEB's audio benchmarks (MAEB): a clip to one vector, the mean over time and frequency of a layer.

mteb.evaluate(AudiobatEncoder("bat_nano"), mteb.get_benchmark("MAEB(v1, audio-only)"))
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

from audiobat.audio.read import to_waveform
from audiobat.engine.progress import Progress
from audiobat.engine.ranks import pick_device
from audiobat.errors import AudiobatError
from audiobat.models.features import NOT_FINITE, Encoder
from audiobat.models.identity import digest_of, encoder_facts
from audiobat.zoo.integrations.frames import DEFAULT, STRETCH_SECONDS, FrameEmbedder
from audiobat.zoo.load import short_name

TESTED = "2.26.24"  # the version of MTEB with which this was run
AT_ONCE = 320.0  # seconds of audio that go through the model together, at most

# What a description must hold, and this one leaves open.
OPEN = (
    *("loader", "languages", "release_date", "max_tokens", "license", "open_weights", "training_datasets"),
    *("public_training_code", "public_training_data"),
)


class AudiobatEncoder(nn.Module):
    """A layer (1 to depth, or -1) of a frozen encoder: an object, or a name as `--model` takes it."""

    def __init__(
        self,
        model_name: str | Path | Encoder = DEFAULT,
        revision: str | None = None,
        *,
        device: str = "auto",
        layer: int = -1,
    ) -> None:
        super().__init__()
        self.device = pick_device(device)
        self.frames = FrameEmbedder(model_name, layer).to(self.device)
        self.sampling_rate = self.frames.encoder.sample_rate
        self.name = short_name(model_name) if isinstance(model_name, str | Path) else type(model_name).__name__
        self.layer = layer

    @cached_property
    def mteb_model_meta(self) -> Any:
        """MTEB's ModelMeta. Results are kept under its name, its revision (of the weights and settings) and its layer.

        Raises AudiobatError for an MTEB that describes models in another way, as versions without audio do.
        """
        from mteb.models.model_meta import ModelMeta

        encoder = self.frames.encoder
        weights = list(encoder.parameters()) if isinstance(encoder, nn.Module) else []
        # None would make MTEB take the results of the last revision of this name.
        revision = digest_of(encoder_facts(encoder)) if isinstance(encoder, nn.Module) else uuid4().hex
        facts: dict[str, Any] = {
            "name": f"audiobat/{re.sub('[^A-Za-z0-9._]+', '-', self.name)}",
            "revision": revision[:12],
            "modalities": ["audio"],
            "framework": ["PyTorch"],
            "similarity_fn_name": "cosine",
            "embed_dim": encoder.dim,
            "n_parameters": sum(tensor.numel() for tensor in weights),
            "memory_usage_mb": sum(tensor.nbytes for tensor in weights) / 2**20,
            "use_instructions": False,
            "experiment_kwargs": None if self.layer == -1 else {"layer": self.layer},
        }
        try:
            return ModelMeta(**dict.fromkeys(OPEN), **facts)
        except ValueError as error:
            raise AudiobatError(
                f"mteb {version('mteb')} takes no such description of an audio model: pip install mteb=={TESTED}."
            ) from error

    @torch.no_grad()
    def get_audio_embeddings(
        self, inputs: DataLoader[Any], *, show_progress_bar: bool = True, precision: str = "float32", **_: Any
    ) -> NDArray[np.float32]:
        """Batches whose "audio" lists items with `array` [S] or [channels, S] and `sampling_rate` to [clips, D].

        Clips are resampled to the model's rate. Those of one length in a batch run together, so that none is padded.

        Raises AudiobatError for a batch without audio, a clip that is empty or has NaN features, another precision.
        """
        if precision != "float32":
            raise AudiobatError(f"precision is {precision!r}: embeddings are float32, so leave it out.")
        vectors: list[Tensor] = []
        with Progress("embed", total=len(inputs), unit="batch", shown=show_progress_bar) as bar:
            for batch in inputs:
                if "audio" not in batch:
                    raise AudiobatError(f"The task gives {', '.join(batch)} and no audio: it is none for this model.")
                vectors += self._embed(batch["audio"], len(vectors))
                bar.advance()
        return torch.stack(vectors).numpy()

    def _embed(self, clips: list[Any], first: int) -> list[Tensor]:
        """One vector [D] for each clip of a batch; `first` is the place of the first one in the task's data."""
        by_length: dict[int, list[tuple[int, Tensor]]] = defaultdict(list)
        for i, clip in enumerate(clips):
            try:
                waveform = to_waveform(np.asarray(clip["array"]), int(clip["sampling_rate"]), self.sampling_rate)
            except AudiobatError as error:
                raise AudiobatError(f"Clip {first + i} of the task: {error}") from error
            by_length[len(waveform)].append((i, waveform))
        vectors: dict[int, Tensor] = {}
        for length, alike in by_length.items():
            at_once = max(1, int(AT_ONCE / min(length / self.sampling_rate, STRETCH_SECONDS)))
            for k in range(0, len(alike), at_once):
                places, waveforms = zip(*alike[k : k + at_once], strict=True)
                found = self.frames(torch.stack(waveforms).to(self.device)).mean(1).cpu()
                vectors.update(zip(places, found, strict=True))
        for i, vector in vectors.items():
            if not vector.isfinite().all():
                raise AudiobatError(f"Clip {first + i} of the task: {NOT_FINITE}")
        return [vectors[i] for i in range(len(clips))]

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
