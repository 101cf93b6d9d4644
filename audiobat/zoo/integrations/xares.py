"""X-ARES: a class whose name ends in Encoder, the only such name in its file; audio [B, samples] to [B, T, D].

    python -m xares.run --max-jobs 0 audiobat/zoo/integrations/xares.py tasks/esc50_task.py

works in any folder: X-ARES makes a module's name of each path, and both modules are installed. For another model, a
file of three lines in the folder where the command runs, say my_model.py:

    from audiobat.zoo.integrations import xares
    class MyEncoder(xares.AudiobatEncoder):
        def __init__(self): super().__init__("hf:facebook/hubert-base-ls960")
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from audiobat.models import features  # no other name here may end in Encoder
from audiobat.models.identity import digest_of, encoder_facts
from audiobat.zoo.integrations.frames import DEFAULT, FrameEmbedder, check_finite


class AudiobatEncoder(nn.Module):
    """Frames of a layer (1 to depth, or -1), the mean over frequency; long audio runs in stretches."""

    def __init__(self, model: str | Path | features.Encoder = DEFAULT, layer: int = -1) -> None:
        super().__init__()
        self.frames = FrameEmbedder(model, layer)
        self.sampling_rate = self.frames.encoder.sample_rate
        self.output_dim = self.frames.encoder.dim
        self.hop_size_in_ms = 1000 * self.frames.hop_seconds
        # X-ARES keeps embeddings and scores under the name of the class: models need names of their own.
        digest = digest_of(encoder_facts(self.frames.encoder) | {"layer": layer})[:12]
        named = type(self).__name__.removesuffix("Encoder")
        self.__class__ = type(f"{named}_{digest}_Encoder", (type(self),), {})

    def forward(self, audio: Tensor) -> Tensor:
        """Audio [B, samples] or [samples] to frames [B, T, output_dim]."""
        return check_finite(self.frames(audio[None] if audio.ndim == 1 else audio))
