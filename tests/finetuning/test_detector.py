"""Fine-tuning on long annotated recordings: what is drawn, where heads start, what a release finds."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_encoder import MODEL, RATE, write_encoder

import audiobat
from audiobat.config import FinetuneConfig, HeadConfig, from_dict
from audiobat.config.recipes import load_recipe, merge
from audiobat.data.build import clip_table
from audiobat.data.loader import CropLoader
from audiobat.data.sources.read import read_labelled_clips
from audiobat.data.split import splits_of
from audiobat.finetuning.crops import crops_of
from audiobat.finetuning.prior import drawn_shares, start_at_prior
from audiobat.finetuning.run import with_validation
from audiobat.models.heads import build_head
from audiobat.zoo import release as release_io

TONES = {"low": 300.0, "mid": 1000.0, "top": 2500.0}
LARGER = replace(MODEL, encoder=replace(MODEL.encoder, dim=32, max_frames=104))
SMALL = {
    "optim": {"lr": 1e-2, "warmup_steps": 6},
    "data": {"clip_seconds": 1.0, "workers": 0},
    "train": {"steps": 60, "batch_size": 16, "log_every": 20, "precision": "fp32", "device": "cpu"},
    "select": {"every": 60},
}


def config(**fields) -> FinetuneConfig:
    return from_dict(FinetuneConfig, merge(merge(load_recipe("finetune/detector"), SMALL), fields))


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten recordings of 40 s in noise, with five tones of 0.3 s in each, a 27th of the time; and their list."""
    folder, rng = tmp_path_factory.mktemp("field"), np.random.default_rng(0)
    with (folder / "events.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "onset", "offset"])
        for i in range(10):
            mix = rng.normal(scale=0.02, size=40 * RATE)
            for place, name in enumerate([*TONES, *rng.choice(list(TONES), 2)]):
                onset = 8 * place + rng.uniform(0.5, 7)
                time = np.arange(int(0.3 * RATE)) / RATE
                mix[int(onset * RATE) :][: len(time)] += 0.2 * np.sin(2 * np.pi * TONES[name] * time)
                rows.writerow([f"{i}.wav", name, round(onset, 3), round(onset + 0.3, 3)])
            soundfile.write(folder / f"{i}.wav", mix, RATE)
    return folder / "events.csv"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("models") / "pretrained", LARGER)


@pytest.mark.parametrize("background", [None, 0.2, 0.0])
def test_crops_show_events_as_often_as_asked(field: Path, background: float | None):
    table = read_labelled_clips(field)
    crops = crops_of(table, config(data={"background": background}))
    loader = CropLoader(crops.table, RATE, 1.0, crops.order, 64, seed=0, workers=0)
    times = torch.arange(12) * 0.08
    shown = []
    for _, batch in zip(range(10), loader, strict=False):
        targets = crops.task.targets(batch.clip_ids, times, batch.starts)
        shown += targets.flatten(1).any(1).tolist()
        for clip_id, start, wave, own in zip(batch.clip_ids, batch.starts, batch.waveform, targets, strict=True):
            loud = wave.unfold(0, 640, 640).square().mean(1).sqrt() > 0.1  # half of a column or more
            assert (own.any(1)[: len(loud)] >= loud).all(), (clip_id, start)
    assert np.mean(shown) == pytest.approx(1 - (0.3 if background is None else background), abs=0.06)


def test_the_prior_is_what_is_drawn(field: Path):
    """The shares of the formula against those of crops."""
    for balance in (None, "labels"):
        crops = crops_of(read_labelled_clips(field), config(data={"balance": balance, "background": 0.3}))
        loader = CropLoader(crops.table, RATE, 1.0, crops.order, 64, seed=1, workers=0)
        times = torch.arange(50) * 0.02
        drawn = [crops.task.targets(b.clip_ids, times, b.starts) for _, b in zip(range(20), loader, strict=False)]
        found = torch.cat(drawn).double().mean((0, 1)).numpy()
        # Crops favour the middle of their rows, where the events are.
        np.testing.assert_allclose(drawn_shares(crops.table, crops.task, crops.data), found, rtol=0.5)


def test_the_prior_of_clips():
    table = clip_table("", list("abcd"), labels=[["x"], ["x", "y"], ["x"], []])
    plain = {"balance": None}
    crops = crops_of(table, config(data=plain))
    np.testing.assert_allclose(drawn_shares(table, crops.task, crops.data), [0.75, 0.25])
    crops = crops_of(table, config(data=plain | {"background": 0.7}))
    np.testing.assert_allclose(drawn_shares(table, crops.task, crops.data), [0.3, 0.1])


def test_what_chooses_thresholds(field: Path):
    """Drawn test recordings under `held_out: null`, where nothing else is to be chosen; else clips that validate."""
    table = read_labelled_clips(field)
    [split] = splits_of(table, None)
    counts = {}
    for name, select in (("null", {"held_out": None}), ("best", {"which": "best"}), ("tenth", {"held_out": 0.1})):
        found = with_validation(table, split, config(select=select))
        counts[name] = (len(found.train), len(found.valid), len(found.test), found.drawn)
    assert counts == {"null": (8, 0, 2, True), "best": (7, 1, 2, True), "tenth": (7, 1, 2, True)}
    marked = replace(table, splits=np.array(["test"] * 2 + ["train"] * 8))
    [split] = splits_of(marked, None)
    found = with_validation(marked, split, config())
    assert (len(found.train), len(found.valid), len(found.test), found.drawn) == (7, 1, 2, False)


@pytest.mark.parametrize("kind", ["linear", "cgp", "mean_time_keep_freq", "proto_classwise"])
def test_a_head_starts_at_the_prior_unless_its_classifier_is_of_its_own_kind(kind: str):
    torch.manual_seed(0)
    head = build_head(HeadConfig(kind=kind, prototypes=8), 16, 2, 3, 4)
    before = head.classifier.bias.clone()
    start_at_prior(head, np.array([0.5, 0.02, 0.0]))
    bias = head.classifier.bias
    if kind == "proto_classwise":
        assert torch.equal(bias, before)
    else:
        np.testing.assert_allclose(bias.detach(), np.log([1, 0.02 / 0.98, 1e-4 / (1 - 1e-4)]), rtol=1e-5)


@pytest.fixture(scope="module")
def run(field: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "detector"
    audiobat.finetune(model, field, out, config())
    return out


def test_the_release_finds_the_tones_and_nothing_in_noise(run: Path, field: Path, tmp_path: Path):
    tagger = release_io.load_tagger(run)
    assert len(tagger.config.thresholds) == 3
    rng = np.random.default_rng(9)
    noise = torch.from_numpy(rng.normal(scale=0.02, size=(4, RATE)).astype(np.float32))
    with torch.no_grad():
        logits, _ = tagger.frames(noise)
    assert (tagger.scores(logits) < torch.tensor(tagger.config.thresholds)).all()
    tones = audiobat.predict(run, field.parent, tmp_path / "found.csv", median=1)
    with tones.open(newline="") as file:
        found = list(csv.DictReader(file))
    with field.open(newline="") as file:
        true = list(csv.DictReader(file))
    hits = sum(
        any(
            (f["file"], f["label"]) == (t["path"], t["label"]) and abs(float(f["start"]) - float(t["onset"])) < 0.2
            for f in found
        )
        for t in true
    )
    assert 2 * hits / (len(found) + len(true)) > 0.8


def test_start_is_nearer_to_the_truth_than_zero(field: Path, model: Path, tmp_path: Path):
    """The loss of the first step: from a bias of 0 it is log 2 a cell, from the prior a fraction of that."""
    losses = {}
    for bias in ("prior", "head"):
        out = tmp_path / bias
        audiobat.finetune(
            model, field, out, config(train={"bias": bias, "steps": 1, "log_every": 1}, optim={"warmup_steps": 0})
        )
        losses[bias] = float((out / "metrics.jsonl").read_text().split('"loss": ')[1].split(",")[0].split("}")[0])
    assert losses["head"] > 0.6
    assert losses["prior"] < 0.35
