"""Word and character errors of bat_nano on real speech: python benchmarks/speech.py SET.csv OUT

SET.csv is what `spoken_set.py` writes. Beside bat_nano: the same network untrained, and the log-mel spectrogram itself,
a frame of 20 ms at a time, so that the recogniser on it is an ordinary small one. All have the same recogniser, steps
and seeds. `audiobat report OUT/*` makes the table.
"""

import sys
from pathlib import Path

import torch
from torch import nn

import audiobat
from audiobat.audio.frontends.mel_db import MelFrontend
from audiobat.config import FrontendConfig
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import LayerFeatures
from audiobat.zoo.release import save_release

SETTINGS = {
    "characters": None,
    "hidden": 128,
    "steps": 600,
    "warmup_steps": 60,
    "batch_size": 16,
}


class LogMelFrames(nn.Module):
    """Meets the `Encoder` protocol with one block of 64 mel bins a frame of 20 ms, scaled to each clip's range."""

    def __init__(self) -> None:
        super().__init__()
        config = FrontendConfig(hop_length=320, mel_bins=64)
        self.sample_rate, self.dim, self.depth = config.sample_rate, config.mel_bins, 1
        self.frontend = MelFrontend(config)

    def forward_intermediates(self, waveform, lengths=None):
        """Waveform [B, S] to patch tokens [1, B, T, 64]."""
        spectrogram, frames = self.frontend(waveform, lengths)
        places = torch.arange(spectrogram.shape[1], device=spectrogram.device)
        return LayerFeatures(
            spectrogram[None], None, (len(places), 1), places < frames[:, None], places * 320 / self.sample_rate
        )


def main():
    data, out = sys.argv[1], Path(sys.argv[2])
    torch.manual_seed(0)
    untrained = AudioEncoder(audiobat.load("bat_nano").config)
    save_release(out / "models" / "untrained", untrained)
    models = ["bat_nano", str(out / "models" / "untrained"), f"{__file__}:LogMelFrames"]
    for model in models:
        audiobat.probe(
            model,
            data,
            {"tasks": ["asr"], "by_task": {"asr": SETTINGS}},
            out=out / Path(model).name.rpartition(":")[2],
        )


if __name__ == "__main__":
    main()
