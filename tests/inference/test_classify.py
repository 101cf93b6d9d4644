"""`classify`: the scores of the model's own windows, joined as the docstring says."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import audiobat
from audiobat.config import EncoderConfig, FrontendConfig, HeadConfig, ModelConfig, TaggerConfig
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.models.tagger import Tagger

RATE = 8000
FRONTEND = FrontendConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=80, mel_bins=16)
MODEL = ModelConfig(FRONTEND, EncoderConfig(dim=8, depth=2, heads=2, patch_size=(16, 8), max_frames=96))
WINDOW = round(0.95 * RATE)


def tagger_of(multi_label: bool, task: str = "clip") -> Tagger:
    torch.manual_seed(1)
    head = HeadConfig(kind="linear", pool="mean")
    tagger = Tagger(AudioEncoder(MODEL), TaggerConfig(head, ("a", "b", "c"), task, multi_label)).eval()
    torch.nn.init.normal_(tagger.head.classifier.weight, std=3.0)
    return tagger


@pytest.mark.parametrize(("multi_label", "task"), [(True, "clip"), (False, "clip"), (True, "frame")])
@pytest.mark.parametrize("seconds", [0.4, 0.95, 10.0])
def test_scores_are_those_of_the_windows_joined(tmp_path: Path, multi_label: bool, task: str, seconds: float):
    tagger = tagger_of(multi_label, task)
    samples = np.random.default_rng(0).normal(scale=0.1, size=round(seconds * RATE)).astype(np.float32)
    samples *= np.linspace(0.01, 1, len(samples), dtype=np.float32)
    soundfile.write(tmp_path / "x.wav", samples, RATE, subtype="FLOAT")
    found = audiobat.classify(tmp_path / "x.wav", tagger)
    cuts = [samples[at : at + WINDOW] for at in range(0, len(samples), WINDOW)]
    cuts = [cut for cut in cuts if cut is cuts[0] or len(cut) >= 16 * 80]
    with torch.no_grad():
        scores = np.stack([tagger.scores(tagger(torch.from_numpy(cut)[None]))[0].numpy() for cut in cuts])
    sizes = np.array([len(cut) for cut in cuts])
    whole = scores.max(0) if multi_label else (scores * sizes[:, None]).sum(0) / sizes.sum()
    assert [label for label, _ in found] == ["abc"[i] for i in np.argsort(-whole)]
    np.testing.assert_allclose([score for _, score in found], np.sort(whole)[::-1], atol=1e-5)
    assert audiobat.classify(samples, tagger, sample_rate=RATE) == found


def test_a_release_is_named_by_its_folder_and_mistakes_are_sentences(tmp_path: Path):
    tagger = tagger_of(True)
    tagger.save_pretrained(tmp_path / "birds")
    soundfile.write(tmp_path / "x.wav", np.random.default_rng(0).normal(scale=0.1, size=RATE), RATE)
    tagger.train()
    found = audiobat.classify(str(tmp_path / "x.wav"), model=f"{tmp_path}/birds/")
    assert found == audiobat.classify(tmp_path / "x.wav", tagger)
    assert tagger.training
    assert found[0].score >= found[1].score >= found[2].score
    (tmp_path / "bad.wav").write_text("no audio")
    with pytest.raises(AudiobatError, match=r"bad\.wav cannot be read"):
        audiobat.classify(tmp_path / "bad.wav", tagger)
    assert tagger.training
    with pytest.raises(AudiobatError, match="sample_rate is required"):
        audiobat.classify(np.zeros(RATE), tagger)
    with pytest.raises(AudiobatError, match="holds an encoder and no head"):
        audiobat.classify(tmp_path / "x.wav", "bat_nano")
