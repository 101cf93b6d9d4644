"""The trivial model: the plain formula on each clip alone, and a linear head on it near logistic regression."""

import numpy as np
import pytest
import soundfile
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from audiobat.audio.frontends.base import build_frontend
from audiobat.config import FrontendConfig, HeadConfig, ProbeTrainConfig
from audiobat.data.sources.read import read_clips
from audiobat.models.baselines import LogMelEncoder
from audiobat.models.features import Encoder
from audiobat.probing.cache import cache_features
from audiobat.probing.training import predict, train_head

LENGTHS = (9_000, 16_000, 319, 6_400)


@pytest.fixture(scope="module")
def waveforms() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, generator=generator) * 0.1 for length in LENGTHS]


def expected(waveform: torch.Tensor) -> torch.Tensor:
    """The formula of benchmarks/trivial_scenes.py."""
    spectrogram, _ = build_frontend(FrontendConfig(hop_length=320, mel_bins=64))(waveform[None], None)
    spread = spectrogram.std(1) if spectrogram.shape[1] > 1 else torch.zeros(1, 64)
    return torch.cat([spectrogram.mean(1), spread, spectrogram.amax(1)], dim=1)[0]


def test_a_padded_batch_holds_each_clips_own_statistics(waveforms):
    encoder = LogMelEncoder()
    assert isinstance(encoder, Encoder)
    assert sum(p.numel() for p in encoder.parameters()) == 0
    padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
    features = encoder.forward_intermediates(padded, torch.tensor(LENGTHS))
    assert features.patch_tokens.shape == (encoder.depth, 4, 1, encoder.dim)
    assert features.cls_token is None
    assert features.grid == (1, 1)
    assert features.valid.all()
    for token, waveform in zip(features.patch_tokens[0, :, 0], waveforms, strict=True):
        torch.testing.assert_close(token, expected(waveform), rtol=0, atol=2e-5)  # the third has a single frame


def test_without_lengths_a_batch_is_taken_whole(waveforms):
    features = LogMelEncoder().forward_intermediates(waveforms[0][None])
    torch.testing.assert_close(features.patch_tokens[0, 0, 0], expected(waveforms[0]), rtol=0, atol=2e-5)


def test_its_linear_head_comes_near_the_best_logistic_regression(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.random((160, 6)) < 0.25
    time = np.arange(3_200) / 16_000
    tones = np.sin(2 * np.pi * np.array([200, 450, 900, 1_700, 3_000, 5_500])[:, None] * time)
    for i, row in enumerate(labels):
        mix = rng.normal(scale=1.5, size=len(time)) + (rng.uniform(0.1, 1.0, 6) * row) @ tones
        soundfile.write(tmp_path / f"{i:03d}.wav", mix / 10, 16_000)
    source = cache_features(LogMelEncoder(), read_clips(tmp_path), progress=False)
    train, test, targets = np.arange(110), np.arange(110, 160), torch.from_numpy(labels)
    settings = ProbeTrainConfig(steps=600, warmup_steps=60, batch_size=64, lr=1e-2)
    head, _ = train_head(source, train, targets, HeadConfig("linear", norm="batch"), settings, 6, False)
    ours = average_precision_score(labels[test], predict(head, source, test).numpy(), average="macro")

    x = source.batch(np.arange(160)).patch_tokens[0, :, 0].numpy()
    scaler = StandardScaler().fit(x[train])
    theirs = []
    for strength in (1e-3, 1e-2, 1e-1, 1.0):
        model = OneVsRestClassifier(LogisticRegression(C=strength, max_iter=500))
        model.fit(scaler.transform(x[train]), labels[train])
        scores = model.predict_proba(scaler.transform(x[test]))
        theirs.append(average_precision_score(labels[test], scores, average="macro"))
    assert max(theirs) > labels[test].mean() + 0.4  # there is something to learn
    assert ours > max(theirs) - 0.08
