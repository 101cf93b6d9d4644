"""The demo, small: every part runs, its numbers are its records', no recording leaks, and it replaces itself."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from audiobat.config import (
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    FrontendConfig,
    HeadConfig,
    MaskConfig,
    OptimConfig,
    PretrainConfig,
    ProbeConfig,
    ProbeTrainConfig,
    TrainConfig,
)
from audiobat.data.scenes import held_out_sources, make_scenes
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import ResultRecord, find_records, load_record
from audiobat.models.encoder import AudioEncoder
from audiobat.studies import demo as module
from audiobat.studies.demo import HEADS, DemoSettings, _run, demo, write_clip_table
from audiobat.studies.demo_report import interval
from audiobat.zoo.release import save_release

SMALL = PretrainConfig(
    frontend=FrontendConfig(mel_bins=32, hop_length=640, n_fft=1024),
    encoder=EncoderConfig(dim=16, depth=2, heads=2, max_frames=112),
    decoder=DecoderConfig(depth=1, heads=2),
    mask=MaskConfig(clones=2, block_size=2),
    optim=OptimConfig(warmup_steps=0),
    data=DataConfig(clip_seconds=4.0, workers=0),
    train=TrainConfig(batch_size=4, log_every=1, steps=4, device="cpu"),
)
MINUTES = 600.0  # the small runs end by their steps, however busy the machine is
SETTINGS = DemoSettings(
    pretrain=SMALL,
    probe=ProbeConfig(
        head=HeadConfig(prototypes=8, pool="mean", norm="batch"),
        train=ProbeTrainConfig(steps=6, warmup_steps=1, batch_size=8),
    ),
    clips_train=40,
    clips_test=24,
    playable=2,
)


def load_records(folder: Path) -> list[ResultRecord]:
    return [load_record(path) for path in find_records(folder)]


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    torch.manual_seed(5)
    save_release(folder, AudioEncoder(SMALL.model))
    return folder


@pytest.fixture(scope="module")
def out(release, tmp_path_factory) -> Path:
    return _run(tmp_path_factory.mktemp("demo") / "new" / "demo", MINUTES, 3, replace(SETTINGS, model=release))


def test_the_table_holds_three_models_under_three_heads(out, release):
    records = load_records(out)
    found = {(record.model.id, record.head["kind"]) for record in records}
    assert found == {(m, h) for m in ("tiny", "tiny untrained", "log-mel statistics") for h in HEADS}
    assert {(r.head["steps"], r.head["prototypes"], r.head["lr"], r.seed) for r in records} == {(6, 8, 1e-3, 3)}
    text = (out / "table.md").read_text(encoding="utf-8")
    page = (out / "index.html").read_text(encoding="utf-8")
    for record in records:
        metric = record.metrics["map"]
        assert interval(metric) in text
        assert f'data-value="{metric.value!r}"' in page
        assert f"[{100 * metric.low:.1f}, {100 * metric.high:.1f}]" in page


def test_shipped_and_untrained_differ_in_weights_alone(out):
    digests = {r.model.id: (r.model.sha256, r.model.parameters) for r in load_records(out)}
    assert digests["tiny"][0] != digests["tiny untrained"][0]
    assert digests["tiny"][1] == digests["tiny untrained"][1]


def test_every_block_has_its_linear_record(out):
    layers = load_records(out / "results" / "layers")
    assert sorted((r.model.id, r.head["layer"]) for r in layers) == [("tiny", 1), ("tiny untrained", 1)]


def test_the_page_is_small_and_holds_all_parts(out):
    page = (out / "index.html").read_text(encoding="utf-8")
    assert len(page) < 6e6
    assert set(re.findall(r'(?:src|href)="(\w+:)', page)) == {"data:"}
    assert page.count("<audio") == 2
    assert page.count("data:image/svg+xml") == 6
    for words in (
        "pre-trained beforehand",
        "mixed from a seed for this demo",
        "CC BY-SA 3.0",
        "computed in this run",
        "Shipped weights",
    ):
        assert words in page
    rows_of_run = (out / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in rows_of_run] == [1, 2, 3, 4]
    assert "4 steps in" in page


def test_figures_are_written_in_both_kinds(out):
    names = {"frontends", "live", "attention", "heads", "layers", "classes"}
    assert {p.name for p in (out / "figures").iterdir()} == {f"{n}.{kind}" for n in names for kind in ("svg", "png")}


def test_pretraining_never_hears_what_test_scenes_are_made_of(tmp_path):
    kept, left_out = write_clip_table(tmp_path / "data" / "clips.csv")
    with (tmp_path / "data" / "clips.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert len(listed) == kept == len(read_clips(tmp_path / "data" / "clips.csv"))
    assert kept + left_out == 554 + 366
    assert all(Path(row["path"]).is_file() for row in listed)
    sources = {row["source"] for row in listed}
    assert not sources & held_out_sources()
    for scene in make_scenes(0, 20, seed=9):
        assert scene.bed not in sources
        assert not sources & {event.source for event in scene.events}
    assert {row["category"] for row in listed} == {"event", "voice", "ambience", "music"}


def test_the_live_run_is_of_this_seed_and_those_clips(out):
    config = (out / "run" / "config.yaml").read_text()
    assert "seed: 3" in config
    assert str(out / "data" / "clips.csv") in config


def test_a_second_demo_replaces_the_first_and_uses_its_scenes_again(out, release):
    (out / "figures" / "live.svg").write_text("older")
    (out / "results" / "half.json.tmp").write_text("{")  # of one that was killed
    before = (out / "scenes" / "scenes.csv").stat().st_mtime_ns
    first = {r.model.id + r.head["kind"]: r.metrics["map"] for r in load_records(out)}
    _run(out, MINUTES, 3, replace(SETTINGS, model=release))
    assert (out / "figures" / "live.svg").read_text() != "older"
    assert (out / "scenes" / "scenes.csv").stat().st_mtime_ns == before
    assert {r.model.id + r.head["kind"]: r.metrics["map"] for r in load_records(out)} == first  # same seed


@pytest.mark.parametrize("name", ["thesis.tex", "results/notes.txt", "figures/mine.svg", "results/mine.json"])
def test_a_folder_with_other_content_is_refused_and_left_alone(out, release, tmp_path, name):
    theirs = tmp_path / "theirs"
    (theirs / name).parent.mkdir(parents=True, exist_ok=True)
    (theirs / name).write_text("mine")
    (theirs / "demo.json").write_text("{}")
    (theirs / "table.md").write_text("of an earlier demo")
    with pytest.raises(AudiobatError, match=f"{name}.*give another --out"):
        _run(theirs, 1.0, 3, replace(SETTINGS, model=release))
    assert (theirs / name).read_text() == "mine"
    assert (theirs / "table.md").exists()


def test_records_of_another_command_are_not_an_earlier_demo(release, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").write_text("{}")
    with pytest.raises(AudiobatError, match=r"results/a\.json"):
        _run(tmp_path, 1.0, 3, replace(SETTINGS, model=release))
    (tmp_path / "file").write_text("")
    with pytest.raises(AudiobatError, match="is a file"):
        _run(tmp_path / "file", 1.0, 3, replace(SETTINGS, model=release))


def test_missing_weights_are_an_error_before_anything_is_written(tmp_path):
    with pytest.raises(AudiobatError, match="bat_nona"):
        _run(tmp_path / "demo", 1.0, 0, replace(SETTINGS, model="bat_nona"))
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_the_live_run_needs_time(release, tmp_path, seconds):
    with pytest.raises(AudiobatError, match="more than 0"):
        _run(tmp_path / "demo", seconds, 0, replace(SETTINGS, model=release))


def test_a_signal_during_the_live_run_ends_the_demo(release, tmp_path, monkeypatch):
    def stopped(config, out, **_):
        short = replace(config, train=replace(config.train, steps=1))
        return real(short, out)

    real = module.pretrain
    monkeypatch.setattr(module, "pretrain", stopped)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "demo", 60.0, 0, replace(SETTINGS, model=release))
    assert not (tmp_path / "demo" / "results").exists()


def test_the_public_demo_runs_the_shipped_settings(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(module, "_run", lambda *arguments: seen.append(arguments) or arguments[0])
    assert demo(tmp_path / "x", 7.0, 2) == tmp_path / "x"
    ((out, seconds, seed, settings),) = seen
    assert (out, seconds, seed) == (tmp_path / "x", 7.0, 2)
    assert (settings.model, settings.clips_train, settings.clips_test) == ("bat_nano", 1200, 400)
    assert settings.probe.head.prototypes == 512
    assert settings.pretrain.frontend == replace(settings.pretrain.frontend, sample_rate=16_000)


def test_scenes_of_the_demo_are_those_of_its_seed(out):
    table = read_labelled_clips(out / "scenes" / "scenes.csv")
    scenes = list(make_scenes(2, 0, seed=3))
    for scene, labels in zip(scenes, table.targets(), strict=False):
        assert scene.labels == tuple(name for name, has in zip(table.classes, labels, strict=True) if has)
