"""The demo, small: every part runs, its numbers are its records', no recording leaks, and it replaces itself."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

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
from audiobat.data.split import split_for_probe
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import ResultRecord, find_records, load_record
from audiobat.models.encoder import AudioEncoder
from audiobat.probing import training
from audiobat.probing.run import probe_source
from audiobat.probing.training import draw_clips
from audiobat.studies import demo as module
from audiobat.studies.demo import HEADS, DemoSettings, Goal, Phases, _run, demo, outlook, read_log, write_clip_table
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


def test_the_table_holds_every_model_and_baseline_under_three_heads(out, release):
    records = load_records(out)
    found = {(record.model.id, record.head["kind"]) for record in records}
    models = ("tiny", "tiny untrained", "baseline:logmel", "baseline:mfcc", "baseline:random")
    assert found == {(m, h) for m in models for h in HEADS}
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
    assert "0.0% of the 16,000 steps that made tiny" in page
    assert re.search(
        r"Whole demo \d.*: pre-train live \d[\w ]+, mix scenes \d[\w ]+, probe tiny \d[\w ]+, probe tiny untra", page
    )


def test_all_heads_of_a_model_train_in_one_pass_and_become_what_they_become_alone(out, release, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(training, "draw_clips", lambda *given: drawn.append(given) or draw_clips(*given))
    table = read_labelled_clips(out / "scenes" / "scenes.csv")
    encoder, train = AudioEncoder.from_pretrained(release), replace(SETTINGS.probe.train, seed=3)
    config = replace(SETTINGS.probe, heads=HEADS, layers=True, train=train)
    probed = module.probe_model("tiny", encoder, table, config, tmp_path)
    assert len(drawn) == 1
    assert [record.head["kind"] for record in probed.records] == list(HEADS)
    layers = load_records(tmp_path / "results" / "layers")
    assert len(layers) == 1
    split = split_for_probe(table)
    for record in [*probed.records, *layers]:
        head = replace(SETTINGS.probe.head, kind=record.head["kind"], layer=record.head["layer"])
        alone = replace(SETTINGS.probe, head=head, train=train)
        [expected] = probe_source("tiny", encoder, probed.source, table, *split, alone)
        assert record.metrics == expected.metrics
        assert record.gate_weights == expected.gate_weights


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


def test_the_live_run_says_how_far_it_will_get_and_goes_on_from_there(tmp_path, monkeypatch, capsys):
    now, done, parts = [0.0], [0], []

    def run_until_the_time_is_up(config, run, max_seconds):  # 2 steps/s, a row for each
        parts.append((done[0], max_seconds))
        begun = now[0]
        run.mkdir(exist_ok=True)
        with (run / "metrics.jsonl").open("a") as log:
            while now[0] < begun + max_seconds:
                now[0], done[0] = now[0] + 0.5, done[0] + 1
                row = {"step": done[0], "seconds": now[0] - begun, "steps_per_second": 2.0}
                log.write(json.dumps(row) + "\n")

    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "pretrain", run_until_the_time_is_up)
    monkeypatch.setattr(module, "load_checkpoint", lambda _: SimpleNamespace(step=done[0]))
    endless = replace(SMALL, train=replace(SMALL.train, steps=10_000))
    run = module.pretrain_live(tmp_path, 120.0, 3, endless, Goal("tiny", 500, 800))
    assert parts == [(0, 10.0), (20, 110.0)]
    said = capsys.readouterr().err
    assert "about 240 steps" in said
    assert "800 clips about 1.2 times" in said
    assert "take 48.0% of the 500 steps that made tiny" in said
    log = read_log(run)
    assert (log[-1]["step"], log[-1]["seconds"]) == (240, 120.0)


def test_the_outlook_leaves_out_the_slow_first_row():
    log = [
        {"step": 5, "seconds": 4.0, "steps_per_second": 1.25},
        {"step": 15, "seconds": 9.0, "steps_per_second": 3.0},
    ]
    goal = Goal("bat", 1000, 50)
    text = outlook(log, 20.0, replace(SMALL.train, steps=900, batch_size=8), goal)
    assert "2 steps/s" in text
    assert "about 55 steps" in text
    assert "50 clips about 8.8 times" in text
    assert "5.5% of the 1,000 steps" in text
    assert "about 30 steps" in outlook(log[:1], 20.0, replace(SMALL.train, steps=900), goal)
    assert "about 18 steps" in outlook(log, 20.0, replace(SMALL.train, steps=18), goal)  # the run ends there
    assert "about 15 steps" in outlook(log, -1.0, replace(SMALL.train, steps=900), goal)


def test_seconds_of_a_run_that_went_on_are_those_of_all_its_parts(tmp_path):
    parts = [2.0, 4.0, 1.0, 3.0, 3.5]  # the second part begins where they fall
    rows = [{"step": step, "seconds": seconds} for step, seconds in enumerate(parts, start=1)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row["seconds"] for row in read_log(tmp_path)] == [2.0, 4.0, 5.0, 7.0, 7.5]


def test_phases_note_their_seconds(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    phases = Phases()
    phases.begin(1, "listen", " twice")
    now[0] = 3.0
    phases.begin(2, "speak")
    now[0] = 4.5
    assert phases.took() == {"listen": 3.0, "speak": 1.5}
    assert capsys.readouterr().err.splitlines() == ["[1/5] listen twice", "[2/5] speak"]


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
