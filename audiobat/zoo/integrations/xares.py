"""X-ARES: a class whose name ends in Encoder, the only such name in its file; audio [B, samples] to [B, T, D].

    python -m xares.run --max-jobs 8 audiobat/zoo/integrations/xares.py tasks/*.py

For other weights, a file of three lines:

    from audiobat.zoo.integrations import xares
    class MyEncoder(xares.AudiobatEncoder):
        def __init__(self): super().__init__("hf:facebook/hubert-base-ls960")
"""

from __future__ import annotations

from torch import Tensor, nn

from audiobat.zoo.integrations.frames import DEFAULT, FrameEmbedder


class AudiobatEncoder(nn.Module):
    """Frames of a layer (1 to depth, or -1), the mean over frequency; long audio runs in stretches."""

    def __init__(self, model: str = DEFAULT, layer: int = -1) -> None:
        super().__init__()
        self.frames = FrameEmbedder(model, layer)
        self.sampling_rate = self.frames.encoder.sample_rate
        self.output_dim = self.frames.encoder.dim
        self.hop_size_in_ms = 1000 * self.frames.hop_seconds

    def forward(self, audio: Tensor) -> Tensor:
        """Audio [B, samples] or [samples] to frames [B, T, output_dim]."""
        frames: Tensor = self.frames(audio[None] if audio.ndim == 1 else audio)
        return frames
