"""A model that answers NaN for a clip: the clip is named and left out, and what is written holds no NaN."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from small_tagger import make_tagger

from audiobat.audio.read import load_audio
from audiobat.config import HeadConfig, ProbeConfig, ProbeTrainConfig
from audiobat.data.skipped import read_skipped
from audiobat.data.sources.read import read_clips
from audiobat.errors import AudiobatError
from audiobat.inference import window_pass
from audiobat.inference.classify import classify
from audiobat.inference.embed import embed
from audiobat.inference.predict import predict
from audiobat.inference.tally import Tally
from audiobat.models.features import LayerFeatures, finite_clips
from audiobat.probing.cache import cache_features
from audiobat.probing.run import probe

RATE, CLIPS, MARK = 8_000, 40, 0.75  # a clip that begins with MARK has no finite features


class Fragile(torch.nn.Module):
    """A sound model but for clips that begin with MARK, of which one frame of the second layer is NaN."""

    sample_rate, dim, depth = RATE, 4, 2

    def __init__(self, always: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project = torch.nn.Linear(800, 4)
        self.always = always

    def forward_intermediates(self, waveform, lengths=None):
        frames = self.project(waveform.unfold(1, 800, 800))
        columns = frames.shape[1]
        counts = torch.full((len(waveform),), columns) if lengths is None else lengths // 800
        second = frames.clone()
        second[(waveform[:, 0] == MARK) | self.always, 0] = torch.nan
        valid = torch.arange(columns) < counts[:, None]
        return LayerFeatures(torch.stack([frames, second]), None, (columns, 1), valid, torch.arange(columns) * 0.1)


def write_clips(folder: Path, marked: tuple[int, ...]) -> Path:
    """Tones of two classes, training and test; those `marked` begin with MARK."""
    folder.mkdir()
    lines = ["path,label,split"]
    for i in range(CLIPS):
        samples = 0.2 * np.sin(2 * np.pi * (400 + 600 * (i % 2)) * np.arange(RATE * (1 + i % 3) // 2) / RATE + i)
        samples[0] = MARK if i in marked else 0.0
        soundfile.write(folder / f"{i:02d}.wav", samples, RATE, subtype="FLOAT")
        lines.append(f"{i:02d}.wav,{'ab'[i % 2]},{'train' if i < 30 else 'test'}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder / "clips.csv"


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_features_leave_the_clip_out(tmp_path: Path, batch_size: int):
    clips = read_clips(write_clips(tmp_path / "clips", (7,)))
    source = cache_features(Fragile(), clips, batch_size=batch_size, progress=False)
    assert source.skipped.keys() == {"07.wav"}
    assert "NaN or infinite values" in source.skipped["07.wav"]
    assert source.indices.tolist() == [i for i in range(CLIPS) if i != 7]
    kept = source.batch(source.indices)
    assert kept.patch_tokens.isfinite().all()
    alone = Fragile().forward_intermediates(torch.from_numpy(load_audio(clips.path(8), RATE))[None])
    columns = alone.grid[0]
    torch.testing.assert_close(source.batch([8]).patch_tokens[:, :, :columns], alone.patch_tokens)


def test_padding_may_hold_anything():
    tokens = torch.zeros(2, 3, 4, 5)
    tokens[:, 0, 3], tokens[1, 2, 1, 0] = torch.nan, torch.inf
    valid = torch.tensor([[True, True, True, False]] * 3)
    features = LayerFeatures(tokens, None, (4, 1), valid, torch.arange(4.0))
    assert finite_clips(features).tolist() == [True, True, False]
    cls = torch.zeros(2, 3, 5)
    cls[1, 1, 1] = torch.nan
    assert finite_clips(LayerFeatures(tokens, cls, (4, 1), valid, torch.arange(4.0))).tolist() == [True, False, False]


def test_a_folder_of_features_remembers_the_clip(tmp_path: Path, capsys):
    clips = read_clips(write_clips(tmp_path / "clips", (2, 3)))
    for _ in range(2):
        source = cache_features(Fragile(), clips, batch_size=4, cache_dir=tmp_path / "cache")
        assert source.skipped.keys() == {"02.wav", "03.wav"}
        assert source.batch(source.indices).patch_tokens.isfinite().all()
    assert "computed again" not in capsys.readouterr().err


def test_features_of_a_batch_that_are_not_kept_are_an_error_that_names_the_clip(tmp_path: Path):
    clips = read_clips(write_clips(tmp_path / "clips", (7,)))
    source = cache_features(Fragile(), clips, batch_size=4, cache_gb=0.0, progress=False)
    with pytest.raises(AudiobatError, match=r"Clip 07.wav: the model gives NaN or infinite values.*cache_gb"):
        source.batch([6, 7])


HEADS = ProbeConfig(HeadConfig("linear", pool="mean"), ProbeTrainConfig(steps=20, warmup_steps=2, batch_size=8))


def test_a_probe_lists_the_clip_and_its_record_holds_no_nan(tmp_path: Path):
    clips = write_clips(tmp_path / "clips", (7, 33))
    [record] = probe(Fragile(), clips, HEADS, out=tmp_path / "out", device="cpu")
    assert (record.data.unreadable, record.data.clips) == (2, {"train": 29, "test": 9})
    assert read_skipped(tmp_path / "out" / "skipped.csv").keys() == {"07.wav", "33.wav"}
    [written] = (tmp_path / "out" / "results").glob("*.json")
    assert "NaN" not in written.read_text()
    assert all(np.isfinite(metric.value) for metric in record.metrics.values())


def test_more_than_one_clip_in_twenty_is_too_many(tmp_path: Path):
    clips = write_clips(tmp_path / "clips", (1, 7, 12, 33, 35))
    with pytest.raises(AudiobatError, match=r"5 of 40 clips seen.*more than 5%.*NaN or infinite"):
        probe(Fragile(), clips, HEADS, device="cpu")


@pytest.mark.parametrize("verb", ["probe", "embed"])
def test_a_model_that_always_answers_nan_is_an_error_that_says_so(tmp_path: Path, verb: str):
    clips = write_clips(tmp_path / "clips", ())
    model, table = Fragile(always=True), tmp_path / "e.npz"
    run = {
        "probe": lambda: probe(model, clips, HEADS, device="cpu"),
        "embed": lambda: embed(model, clips, table, window_seconds=1.0, device="cpu"),
    }[verb]
    with pytest.raises(AudiobatError, match=r"None of the \d+ clips tried can be used: the model gives NaN"):
        run()


def write_recordings(folder: Path) -> Path:
    """Three recordings of four seconds; the second begins its second and its fourth second with MARK."""
    folder.mkdir()
    for i in range(3):
        samples = 0.1 * np.random.default_rng(i).normal(size=4 * RATE)
        samples[[RATE, 3 * RATE]] = MARK if i == 1 else 0.0
        soundfile.write(folder / f"{i}.wav", samples, RATE, subtype="FLOAT")
    return folder


@pytest.mark.parametrize("windows", [1, 3, 64])
def test_embeddings_hold_no_window_of_the_clip(tmp_path: Path, monkeypatch, windows: int):
    """Whether its other windows are in the same pool, in a part that is written, or come after."""
    monkeypatch.setattr(window_pass, "POOL_BATCHES", 1)
    monkeypatch.setattr(window_pass, "PART_SECONDS", 0.0)
    counted, add = [], Tally.add
    monkeypatch.setattr(Tally, "add", lambda self, *counts: counted.extend(counts[2]) or add(self, *counts))
    folder = write_recordings(tmp_path / "recordings")
    out = embed(Fragile(), folder, tmp_path / "e.npz", window_seconds=1.0, batch_size=windows, device="cpu")
    with np.load(out) as table:
        assert table["path"].tolist() == ["0.wav"] * 4 + ["2.wav"] * 4
        assert np.isfinite(table["embedding"]).all()
    assert read_skipped(tmp_path / "e.npz.skipped.csv").keys() == {"1.wav"}
    assert counted == [1]  # once, however many of its windows are bad


@pytest.mark.parametrize("task", ["clip", "frame"])
def test_predictions_hold_no_label_of_the_clip(tmp_path: Path, monkeypatch, task: str):
    tagger, folder = make_tagger(task), write_recordings(tmp_path / "recordings")
    before = predict(tagger, folder, tmp_path / "before.csv", threshold=0.2).read_text().splitlines()
    forward = type(tagger.encoder).forward_intermediates

    def fragile(self, waveform, *args, **kwargs):
        features = forward(self, waveform, *args, **kwargs)
        features.patch_tokens[:, (waveform == MARK).any(1)] = torch.nan
        return features

    monkeypatch.setattr(type(tagger.encoder), "forward_intermediates", fragile)
    after = predict(tagger, folder, tmp_path / "after.csv", threshold=0.2).read_text().splitlines()
    assert after == [line for line in before if not line.startswith("1.wav")]
    assert len(before) > len(after) > 3
    assert read_skipped(tmp_path / "after.csv.skipped.csv").keys() == {"1.wav"}
    with pytest.raises(AudiobatError, match=r"1.wav: the model gives NaN"):
        classify(folder / "1.wav", tagger)
