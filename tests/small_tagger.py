"""A small tagger whose scores spread over [0, 1], sounds for it, and tables of predictions as rows."""

import csv
from pathlib import Path

import numpy as np
import torch

from audiobat.config import EncoderConfig, FrontendConfig, HeadConfig, ModelConfig, TaggerConfig
from audiobat.models.encoder import AudioEncoder
from audiobat.models.tagger import Tagger

RATE = 8000
FRONTEND = FrontendConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=80, mel_bins=16)
MODEL = ModelConfig(FRONTEND, EncoderConfig(dim=8, depth=2, heads=2, patch_size=(16, 8), max_frames=96))
CLASSES = ("dog", "cat, black", "rain", 'a "bell"')
WINDOW = 0.95  # the longest clip of the model: 96 frames of 10 ms, the first and last of them centred on the ends
LEAST = 16 * 80  # samples of a patch column: a rest that is shorter makes no window


def make_tagger(task: str = "clip", multi_label: bool = True, seed: int = 0) -> Tagger:
    """A random model whose scores differ from window to window and spread over [0, 1]."""
    torch.manual_seed(seed)
    config = TaggerConfig(HeadConfig(kind="linear", pool="mean"), CLASSES, task, multi_label)
    tagger = Tagger(AudioEncoder(MODEL), config).eval()
    rng = np.random.default_rng(seed)
    clips = torch.tensor(np.stack([sound(rng, WINDOW, RATE) for _ in range(32)]), dtype=torch.float32)
    with torch.no_grad():
        logits = tagger.frames(clips)[0].flatten(0, 1) if task == "frame" else tagger(clips)
        scale = 1.5 / logits.std(0)
        tagger.head.classifier.weight.mul_(scale[:, None])
        tagger.head.classifier.bias.copy_(-logits.mean(0) * scale)
    return tagger


def sound(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    """Noise, tones and silences that follow one another."""
    total = int(seconds * rate)
    time = np.arange(total) / rate
    parts = [rng.normal(size=total) * 0.2, np.sin(2 * np.pi * rng.uniform(100, 3000) * time) * 0.5, np.zeros(total)]
    which = np.repeat(rng.integers(0, 3, total // 1500 + 1), 1500)[:total]
    return np.choose(which, parts).clip(-1, 1)


def read_csv(path: Path) -> list[tuple[str, float, float, str, float]]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["file", "start", "end", "label", "score"]
    return [(name, float(start), float(end), label, float(score)) for name, start, end, label, score in rows]


def same(one, two) -> None:
    """The same rows, scores as far as another batch may change them."""
    assert [row[:4] for row in one] == [row[:4] for row in two]
    np.testing.assert_allclose([row[4] for row in one], [row[4] for row in two], atol=3e-6)
