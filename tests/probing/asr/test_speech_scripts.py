"""The scripts that measure the task asr on real speech: a list of what is said, and features that are a spectrogram."""

import csv

import numpy as np
import pytest
import soundfile
import torch
from benchmark_scripts import load_script

from audiobat.models.features import check_features


def test_the_list_has_what_is_said_once_and_every_text_on_one_side(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    texts = [
        *(f"Un animal {word}." for word in ("rojo", "verde", "azul", "blanco", "negro") * 4),
        "Son 3.",
        "Muy largo " * 20,
    ]
    for i, text in enumerate(texts):
        (tmp_path / f"p{i}.txt").write_text(f"English\nfr.utf8=Autre\nes.utf8={text}\n", encoding="utf-8")
        soundfile.write(tmp_path / f"p{i}_desc_es.ogg", rng.normal(0, 0.1, 16_000), 16_000)
    (tmp_path / "copy.txt").write_text("English\nes.utf8=Un animal rojo.\n")
    (tmp_path / "copy_desc_es.ogg").write_bytes((tmp_path / "p0_desc_es.ogg").read_bytes())
    monkeypatch.setattr("sys.argv", ["spoken_set.py", str(tmp_path), str(tmp_path / "es.csv")])
    load_script("spoken_set").main()
    with (tmp_path / "es.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    sides = {(row["text"], row["split"]) for row in rows}
    assert len(sides) == 5
    assert {row["seconds"] for row in rows} == {"1.000"}
    told = capsys.readouterr().out
    for reason in ("digits or signs in the text': 1", "too slow or too fast for its text': 1", "there before': 1"):
        assert reason in told


def test_log_mel_frames_are_features_whose_padding_is_marked():
    encoder = load_script("speech").LogMelFrames()
    waveform = torch.randn(2, 16_000)
    features = encoder.forward_intermediates(waveform, torch.tensor([16_000, 8_000]))
    check_features(encoder, features, 2)
    assert features.frame_times[1].item() == pytest.approx(0.02)
    alone = encoder.forward_intermediates(waveform[1:, :8_000])
    own = features.valid[1].sum()
    torch.testing.assert_close(features.patch_tokens[:, 1:, :own], alone.patch_tokens[:, :, :own])
