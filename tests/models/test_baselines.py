"""The trivial models: plain formulas on each clip alone, and a linear head on them near logistic regression."""

import hashlib

import numpy as np
import pytest
import soundfile
import torch
from scipy.fft import dct
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

import audiobat
from audiobat.audio.frontends.mel_db import MelFrontend
from audiobat.config import FrontendConfig, HeadConfig, ProbeTrainConfig
from audiobat.data.sources.read import read_clips
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.models.baselines import BASELINES, LogMelEncoder, load_baseline
from audiobat.models.features import Encoder
from audiobat.probing.cache import cache_features
from audiobat.probing.training import predict, train_head
from audiobat.zoo.doctor.encoder import examine

LENGTHS = (9_000, 16_000, 319, 400, 6_400)  # the third has one frame, the fourth two


@pytest.fixture(scope="module")
def waveforms() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, generator=generator) * 0.1 for length in LENGTHS]


def deviation(x: np.ndarray) -> np.ndarray:
    return x.std(0, ddof=1) if len(x) > 1 else np.zeros(x.shape[1])


def log_mel(waveform: torch.Tensor) -> np.ndarray:
    """Between 0 and 1, [T, 64]."""
    return MelFrontend(FrontendConfig(hop_length=320, mel_bins=64))(waveform[None])[0][0].numpy()


def expected_logmel(waveform: torch.Tensor) -> np.ndarray:
    x = log_mel(waveform)
    return np.concatenate([x.mean(0), deviation(x), x.max(0)])


def expected_mfcc(waveform: torch.Tensor) -> np.ndarray:
    """By scipy's cosine transform."""
    mfcc = dct(log_mel(waveform), type=2, norm="ortho", axis=1)[:, :20]
    return np.concatenate([mfcc.mean(0), *(deviation(np.diff(mfcc, n=n, axis=0)) for n in range(3))])


def expected_random(waveform: torch.Tensor) -> np.ndarray:
    """By the bits of the hash, one at a time."""
    stream = int.from_bytes(hashlib.shake_256(b"audiobat baseline:random").digest(64 * 512 // 8), "big")
    signs = [2 * (stream >> (64 * 512 - 1 - place) & 1) - 1 for place in range(64 * 512)]
    hidden = np.maximum(0, (log_mel(waveform) - 0.5) @ np.reshape(signs, (64, 512)) / 8)
    return np.concatenate([hidden.mean(0), hidden.max(0)])


EXPECTED = {"logmel": expected_logmel, "mfcc": expected_mfcc, "random": expected_random}


@pytest.mark.parametrize("name", BASELINES)
def test_a_padded_batch_holds_each_clips_own_statistics(name, waveforms):
    encoder = audiobat.load(f"baseline:{name}")
    assert isinstance(encoder, Encoder)
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True, padding_value=0.3)
    features = encoder.forward_intermediates(padded, torch.tensor(LENGTHS))
    assert features.patch_tokens.shape == (encoder.depth, 5, 1, encoder.dim)
    assert features.cls_token is None
    assert features.grid == (1, 1)
    assert features.valid.all()
    for token, waveform in zip(features.patch_tokens[0, :, 0].numpy(), waveforms, strict=True):
        wanted = EXPECTED[name](waveform)
        np.testing.assert_allclose(token, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max() + 2e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_a_model_as_any_other(name, waveforms):
    encoder = load_baseline(name)
    assert {rule: fault for rule, fault in examine(encoder, torch.device("cpu")) if fault} == {}
    token = encoder.forward_intermediates(waveforms[0][None]).patch_tokens[0, 0, 0]
    torch.testing.assert_close(encoder.embed(waveforms[0], 16_000), token)


def test_records_tell_baselines_apart_and_the_same_one_from_run_to_run():
    digests = [weights_sha256(load_baseline(name)) for name in BASELINES]
    assert len(set(digests)) == len(BASELINES)
    assert digests == [weights_sha256(load_baseline(name)) for name in BASELINES]


def test_a_name_that_is_no_baseline_ends_in_a_sentence_with_the_names_there_are():
    with pytest.raises(AudiobatError, match=r"did you mean logmel\?\): choose from baseline:logmel, baseline:mfcc, "):
        audiobat.load("baseline:log_mel")


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
