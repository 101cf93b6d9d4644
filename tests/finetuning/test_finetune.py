"""`audiobat finetune` from clips to a release: the files of a run, resuming, settings and models it refuses."""

import csv
import itertools
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from tiny_encoder import RATE, write_encoder

import audiobat
from audiobat.cli import command as cli
from audiobat.config import FinetuneConfig, ProbeConfig, from_dict
from audiobat.config.recipes import load_recipe, merge
from audiobat.data.build import clip_table
from audiobat.data.sources.read import read_labelled_clips
from audiobat.data.split import splits_of
from audiobat.engine import loop
from audiobat.engine.checkpoint import load_checkpoint
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.evaluation.compare import compare
from audiobat.evaluation.record import find_records, load_record, load_scores
from audiobat.evaluation.report.run import report
from audiobat.finetuning import run as finetune_run
from audiobat.finetuning.step import Finetuning
from audiobat.finetuning.testing import Evaluator
from audiobat.zoo import release as release_io

TONES = {"low": 300.0, "mid": 1000.0, "top": 2500.0}
TINY = {
    "optim": {"lr": 1e-2, "warmup_steps": 2, "layer_decay": 0.9},
    "augment": {"mixup": {"probability": 0.5}, "spec_augment": {"time_width": 0.1}},
    "data": {"clip_seconds": 0.4, "workers": 0},
    "train": {"steps": 6, "batch_size": 8, "log_every": 1, "precision": "fp32", "device": "cpu"},
    "select": {"every": 2},
}


def config(**fields) -> FinetuneConfig:
    return from_dict(FinetuneConfig, merge(TINY, fields))


def write_tones(folder: Path, labels: list[list[str]], columns: dict[str, list]) -> Path:
    """Clips of 0.3 to 0.6 s: the tones that their labels name, in noise; and the CSV that lists them."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "tones.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", *columns])
        for i, names in enumerate(labels):
            time = np.arange(int(rng.uniform(0.3, 0.6) * RATE)) / RATE
            mix = rng.normal(scale=0.02, size=len(time))
            for name in names:
                mix += 0.2 * np.sin(2 * np.pi * TONES[name] * time + rng.uniform(0, 6))
            soundfile.write(folder / f"{i:03d}.wav", mix, RATE)
            rows.writerow([f"{i:03d}.wav", ";".join(names), *(values[i] for values in columns.values())])
    return folder / "tones.csv"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("models") / "pretrained")


@pytest.fixture(scope="module")
def multi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """52 clips with one or two labels: 32 train, 8 valid, 12 test."""
    rng = np.random.default_rng(1)
    labels = [rng.choice(list(TONES), size=rng.integers(1, 3), replace=False).tolist() for _ in range(52)]
    splits = {"split": 32 * ["train"] + 8 * ["valid"] + 12 * ["test"]}
    return write_tones(tmp_path_factory.mktemp("multi"), labels, splits)


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 clips with one label each, in five folds."""
    labels = [[list(TONES)[i % 3]] for i in range(30)]
    return write_tones(tmp_path_factory.mktemp("folds"), labels, {"fold": [1 + i // 6 for i in range(30)]})


def rows(run: Path) -> list[dict]:
    timing = ("seconds", "steps_per_second", "clips_per_second", "data_wait")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in timing} for line in lines]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run).model


def test_a_run_learns_and_leaves_records_of_both_choices_and_a_release(model, multi, tmp_path: Path, capsys):
    settings = config(
        train={"steps": 40, "log_every": 20}, select={"which": "best", "every": 20}, recipe="finetune/as20k"
    )
    best, last = audiobat.finetune(model, multi, tmp_path / "run", settings)
    run = tmp_path / "run"
    assert {p.name for p in run.iterdir()} == {
        *("config.yaml", "env.json", "metrics.jsonl", "log.txt", "checkpoints", "results", "release")
    }
    chance = read_labelled_clips(multi).targets()[40:].mean()
    for record, which in ((best, "best"), (last, "last")):
        assert record.metrics["map"].value > chance + 0.2
        assert record.head["kind"] == "finetune"
        assert (record.head["selection"], record.head["selected"]) == (which, which == "best")
        assert (record.head["head.kind"], record.head["loss"], record.head["lr"]) == ("linear", "bce", 1e-2)
        assert record.preset == "custom", "these are not the recipe's settings"
        assert record.data.clips == {"train": 32, "test": 12}
        assert record.model.sha256 == weights_sha256(release_io.load(model)), "the model before, as probes name it"
        path = run / "results" / f"pretrained_finetune_{which}_0.json"
        assert load_record(path) == record
        assert load_scores(path, record).scores.shape == (12, 3)
    assert best.head["choice"]["step"] in (20, 40)
    validations = {row["step"]: row["valid_map"] for row in rows(run) if "valid_map" in row}
    assert list(validations) == [20, 40]
    assert best.head["choice"]["validation"] == max(validations.values())
    assert last.head["choice"] == {"step": 40, "validation": None}

    tagger = release_io.load_tagger(run)
    assert (tagger.classes, tagger.task, tagger.multi_label) == (("low", "mid", "top"), "clip", True)
    scores = load_scores(run / "results" / "pretrained_finetune_best_0.json", best)
    samples, _ = soundfile.read(multi.parent / str(scores.keys[3]), dtype="float32")
    with torch.no_grad():
        logits = tagger(torch.from_numpy(samples)[None])
    torch.testing.assert_close(logits[0], torch.from_numpy(scores.scores[3]), rtol=1e-4, atol=1e-4)
    extra = json.loads((run / "release" / "config.json").read_text())["extra"]
    assert extra["finetuned_from"] == {"model": "pretrained", "sha256": best.model.sha256}
    assert extra["step"] == best.head["choice"]["step"]

    report([run], tmp_path / "page")
    compare([run], samples=200)
    assert "best weights" in (tmp_path / "page" / "index.html").read_text()
    capsys.readouterr()
    changed = (run / "release" / "README.md").stat().st_mtime_ns
    assert audiobat.finetune(model, multi, run, settings) == [best, last]
    assert "is finished" in capsys.readouterr().out
    assert (run / "release" / "README.md").stat().st_mtime_ns == changed


@pytest.mark.parametrize("freeze", [0, 3])
def test_resuming_at_any_step_gives_the_uninterrupted_run(model, multi, tmp_path: Path, monkeypatch, freeze: int):
    settings = config(train={"freeze_steps": freeze, "ema_decay": 0.8, "drop_path": 0.3, "save_every": 1})
    whole = audiobat.finetune(model, multi, tmp_path / "whole", settings)
    cut = tmp_path / "cut"
    real, stops = Finetuning.after_step, [2, 3, 5]

    def killed_at(self, step):
        real(self, step)
        if stops and step + 1 == stops[0]:
            stops.pop(0)
            raise KeyboardInterrupt  # before the checkpoint of this step

    monkeypatch.setattr(Finetuning, "after_step", killed_at)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            audiobat.finetune(model, multi, cut, settings)
    pieces = audiobat.finetune(model, multi, cut, settings)
    assert not stops
    assert rows(tmp_path / "whole") == rows(cut)
    ours, theirs = weights(tmp_path / "whole"), weights(cut)
    assert {name.partition(".")[0] for name in ours} == {"tagger", "ema", "best", "best_score", "best_step"}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [r.metrics for r in whole] == [r.metrics for r in pieces]


def test_time_and_the_frozen_start(model, multi, tmp_path: Path):
    settings = config(train={"freeze_steps": 4, "steps": 5, "save_every": 4, "keep": 5})
    assert audiobat.finetune(model, multi, tmp_path / "run", settings, max_seconds=0) == []
    with pytest.raises(AudiobatError, match="fine-tuning that has written no release yet"):
        release_io.load(tmp_path / "run")
    audiobat.finetune(model, multi, tmp_path / "run", settings)
    before = release_io.load(model).state_dict()
    steps = {p.name: torch.load(p / "state.pt")["model"] for p in (tmp_path / "run" / "checkpoints").glob("step_*")}
    for name, tensor in before.items():
        assert torch.equal(steps["step_000004"][f"tagger.encoder.{name}"], tensor), name
    moved = "patch_embed.proj.weight"
    assert not torch.equal(steps["step_000005"][f"tagger.encoder.{moved}"], before[moved])


def test_the_release_has_the_weights_that_were_selected(model, multi, tmp_path: Path, monkeypatch):
    scores = {2: 0.3, 4: 0.9, 6: 0.5}
    seen = {}

    def validate(self, tagger, valid):
        step = 2 * len(seen) + 2
        assert len(valid) == 8
        seen[step] = tagger.head.classifier.weight.detach().clone()
        return {"map": scores[step]}

    monkeypatch.setattr(Evaluator, "validate", validate)
    for which, step in (("best", 4), ("last", 6)):
        seen.clear()
        run = tmp_path / which
        records = audiobat.finetune(model, multi, run, config(select={"which": which}))
        assert [r.head["selection"] for r in records] == [which, "last" if which == "best" else "best"]
        assert torch.equal(release_io.load_tagger(run).head.classifier.weight, seen[step])
        by_name = {r.head["selection"]: r for r in records}
        assert by_name["best"].head["choice"] == {"step": 4, "validation": 0.9}


def test_without_validation_clips_only_the_last_weights_are_reported(model, folded, tmp_path: Path):
    [record] = audiobat.finetune(model, folded, tmp_path / "run", config(), test_fold=2)
    assert record.head["selection"] == "last"
    assert record.data.clips == {"train": 24, "test": 6}
    with pytest.raises(AudiobatError, match=r"no clips validate: mark some as split valid, or set select.held_out"):
        audiobat.finetune(model, folded, tmp_path / "other", config(select={"which": "best"}), test_fold=2)
    held = config(select={"which": "best", "held_out": 0.25})
    records = audiobat.finetune(model, folded, tmp_path / "held", held, test_fold=2)
    assert [r.head["selection"] for r in records] == ["best", "last"]
    assert records[0].data.clips["train"] == 18


def test_five_folds_are_five_trainings_and_one_record_of_their_mean(model, folded, tmp_path: Path, capsys):
    run = tmp_path / "run"
    settings = config(train={"steps": 3})
    assert audiobat.finetune(model, folded, run, settings, max_seconds=0) == []
    [record] = audiobat.finetune(model, folded, run, settings)
    assert list(record.folds) == ["1", "2", "3", "4", "5"]
    assert record.head["loss"] == "ce"
    mean = np.mean([fold["accuracy"] for fold in record.folds.values()])
    assert record.metrics["accuracy"].value == pytest.approx(mean)
    assert record.metrics["accuracy"].sd == pytest.approx(
        np.std([fold["accuracy"] for fold in record.folds.values()], ddof=1)
    )
    table = read_labelled_clips(folded)
    heads = []
    for fold in record.folds:
        tagger = release_io.load_tagger(run / "folds" / fold)
        assert not tagger.multi_label
        heads.append(tagger.head.classifier.weight)
        checkpoint = load_checkpoint(run / "folds" / fold)
        assert checkpoint.step == 3
        assert checkpoint.extra["clips"] == table.select(table.folds != int(fold)).sha256()
    assert not torch.equal(heads[0], heads[1])


def test_folds_are_drawn_for_class_folders_and_told_in_the_plan(model, folded, tmp_path: Path, capsys):
    clips = tmp_path / "clips"
    for clip_id, (key, label) in enumerate(zip(read_labelled_clips(folded).keys, 10 * ["x", "y", "z"], strict=True)):
        (clips / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(folded.parent / key, clips / label / f"{clip_id}.wav")
    argv = ["finetune", "--model", str(model), "--data", str(clips), "--out", str(tmp_path / "run"), "--folds", "3"]
    argv += ["--config", "finetune/demo", "--train.steps", "2", "--optim.warmup_steps", "0", "--data.workers", "0"]
    assert cli.main([*argv, "--dry-run"]) == 0
    plan = capsys.readouterr().out.splitlines()
    assert plan[0] == "folds: 3 of 10 clips, drawn by a hash of their names, each class spread evenly over them"
    assert "fold 1: 20 train, 0 valid, 10 test" in plan[1]
    assert cli.main(argv) == 0
    [record] = [load_record(path) for path in find_records(tmp_path / "run")]
    assert record.data.clips == {"1": 10, "2": 10, "3": 10}
    assert cli.main([*argv[:8], "4", *argv[9:]]) == 2  # other folds are another run
    assert "with folds 3, not 4" in capsys.readouterr().err
    [alone] = audiobat.probe(
        model, clips, {"head": {"kind": "linear"}, "train": {"steps": 2, "warmup_steps": 0}}, folds=3, test_fold=2
    )
    assert alone.data.clips == {"train": 20, "test": 10}
    assert capsys.readouterr().err.startswith(plan[0])


def test_frames_are_learnt_through_the_same_command(model, tmp_path: Path, monkeypatch):
    """A tone sounds in a part of each clip; the labels say when."""
    rng = np.random.default_rng(2)
    time = np.arange(int(0.8 * RATE)) / RATE
    events, splits = [], []
    for i in range(36):
        name, onset = list(TONES)[i % 3], float(rng.uniform(0.1, 0.5))
        tone = 0.3 * np.sin(2 * np.pi * TONES[name] * time) * ((time >= onset) & (time < onset + 0.25))
        soundfile.write(tmp_path / f"{i}.wav", tone + rng.normal(scale=0.01, size=len(time)), RATE)
        events.append([(name, onset, onset + 0.25)])
        splits.append("train" if i < 27 else "test")
    table = clip_table(tmp_path, [f"{i}.wav" for i in range(36)], events=events, splits=splits)
    monkeypatch.setattr(finetune_run, "read_labelled_clips", lambda *source: table)
    settings = config(
        head={"kind": "linear", "norm": "batch"},
        train={"steps": 60, "drop_path": 0.0, "batch_size": 9, "log_every": 30},
    )
    [record] = audiobat.finetune(model, "toy", tmp_path / "run", settings)
    assert record.head["task"] == "frame"
    assert record.metrics["map"].value > 0.8, "chance is 0.1"
    assert "onset_f1" in record.metrics
    tagger = release_io.load_tagger(tmp_path / "run")
    assert tagger.task == "frame"
    samples, _ = soundfile.read(tmp_path / "30.wav", dtype="float32")  # low
    with torch.no_grad():
        logits, times = tagger.frames(torch.from_numpy(samples)[None])
    surest = times[logits[0, :, 0].argmax()].item()
    assert events[30][0][1] - 0.08 <= surest <= events[30][0][2], "a column lasts 0.08 s"
    with pytest.raises(AudiobatError, match=r"augment.time_roll moves sounds away from their labels"):
        audiobat.finetune(model, "toy", tmp_path / "x", config(augment={"time_roll": "eat"}))


def test_a_head_may_go_on_if_its_classes_are_the_datas(model, multi, folded, tmp_path: Path):
    audiobat.finetune(model, multi, tmp_path / "first", config(head={"kind": "linear", "norm": "scaled_layer"}))
    tagger = release_io.load_tagger(tmp_path / "first")
    assert (tagger.head.norm.weight - 1).abs().max() > 1e-3, "the norm's scale is trained"
    [*_, last] = audiobat.finetune(
        tmp_path / "first", multi, tmp_path / "second", config(keep_head=True, optim={"lr": 1e-9, "min_lr": 0.0})
    )
    again = release_io.load_tagger(tmp_path / "second")
    torch.testing.assert_close(again.head.state_dict(), tagger.head.state_dict(), rtol=0, atol=1e-6)
    assert last.head["keep_head"] is True
    for label, words in (
        ("bass", "no class 'bass', which the data have"),
        ("top", "has a class 'mid', which the data"),
    ):
        other = tmp_path / f"{label}.csv"
        text = multi.read_text().replace("mid", label)
        if label == "bass":
            text = text.replace("low", "top")
        other.write_text(text.replace("\n0", f"\n{multi.parent}/0"))
        with pytest.raises(AudiobatError, match=words):
            audiobat.finetune(tmp_path / "first", other, tmp_path / "third", config(keep_head=True))
    with pytest.raises(AudiobatError, match="has multi_label True, the data ask for False"):
        audiobat.finetune(tmp_path / "first", folded, tmp_path / "third", config(keep_head=True), test_fold=1)
    with pytest.raises(AudiobatError, match="holds an encoder and no head"):
        audiobat.finetune(model, multi, tmp_path / "third", config(keep_head=True))
    assert not (tmp_path / "third").exists()


def test_a_label_that_no_training_clip_has_is_named(model, multi, tmp_path: Path):
    table = list(csv.reader(multi.open()))
    table[45][1] = "low;yodel"
    other = tmp_path / "other.csv"
    with other.open("w", newline="") as file:
        csv.writer(file).writerows([table[0], *([f"{multi.parent}/{path}", *rest] for path, *rest in table[1:])])
    with pytest.raises(AudiobatError, match="Label 'yodel' is on 1 test clips and on none that trains"):
        audiobat.finetune(model, other, tmp_path / "run", config())
    assert not (tmp_path / "run").exists()


def test_nothing_is_overwritten_unless_asked(model, multi, tmp_path: Path):
    run = tmp_path / "run"
    audiobat.finetune(model, multi, run, config())
    other = config(optim={"lr": 2e-2})
    with pytest.raises(AudiobatError, match=r"holds a run with optim.lr 0.01, not 0.02"):
        audiobat.finetune(model, multi, run, other)
    with pytest.raises(AudiobatError, match=r"holds a run with model .*pretrained', not .*release'"):
        audiobat.finetune(run / "release", multi, run, config())
    with pytest.raises(AudiobatError, match="holds a run: give --resume auto"):
        audiobat.finetune(model, multi, run, config(), resume="never")
    assert yaml.safe_load((run / "config.yaml").read_text())["optim"]["lr"] == 0.01
    [first, _] = audiobat.finetune(model, multi, run, other, overwrite=True)
    assert first.head["lr"] == 2e-2
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("mine")
    with pytest.raises(AudiobatError, match="other files and no run"):
        audiobat.finetune(model, multi, tmp_path / "thesis", config(), overwrite=True)


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(model, multi, tmp_path: Path, capsys):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(TINY))
    argv = ["finetune", "--model", str(model), "--data", str(multi), "--out", str(tmp_path / "run")]
    argv += ["--config", str(recipe), "--train.save_every", "2"]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # as a disk does that fills up at the first save
    try:
        assert cli.main(argv) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("audiobat: ")
    assert "Traceback" not in "".join(err)
    assert not (tmp_path / "run" / "release").exists()
    assert cli.main(argv) == 0
    assert (tmp_path / "run" / "release" / "head.safetensors").exists()


def test_a_dry_run_writes_nothing_and_shows_the_rates(model, multi, tmp_path: Path, capsys):
    audiobat.finetune(model, multi, tmp_path / "run", config(), dry_run=True)
    shown = capsys.readouterr().out
    assert "32 train, 8 valid, 12 test" in shown
    assert "learning rate up to 7.29e-03" in shown  # of the stem: 0.9^3 of 1e-2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"head": {"kind": "knn"}}, "head.kind is 'knn': it gives no gradients to a model"),
        ({"train": {"freeze_steps": 6}}, "train.freeze_steps is 6: use 0 or more, and less than train.steps 6"),
        ({"optim": {"warmup_steps": 6}}, "optim.warmup_steps is 6: it must end before train.steps 6"),
        ({"optim": {"layer_decay": 0.0}}, "optim.layer_decay is 0.0"),
        ({"data": {"roll": True}}, "data.roll is True: fine-tuning has augment.roll"),
        ({"select": {"which": "bset"}}, r"select.which is 'bset'.*did you mean best"),
        ({"train": {"loss": "ce"}}, "train.loss is ce, but some clips have several labels"),
        ({"task": "frame"}, "task is frame, but the clips have no events"),
        ({"data": {"balance": "colour"}}, "data.balance is 'colour'"),
        (
            {"data": {"balance": "labels", "epoch_clips": 200, "replacement": False}},
            "An epoch of 200 clips cannot be drawn",
        ),
        ({"head": {"kind": "linear", "layer": 7}}, "head.layer is 7 and the model has 2 blocks"),
    ],
)
def test_settings_that_cannot_work_get_one_sentence(model, multi, tmp_path: Path, fields: dict, words: str):
    for dry_run in (True, False):
        with pytest.raises(AudiobatError, match=words):
            audiobat.finetune(model, multi, tmp_path / "run", config(**fields), dry_run=dry_run)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "setting"),
    [
        ({"head": {"kind": "cgp", "prototypes": 10**10}}, "head.prototypes"),
        ({"train": {"batch_size": 10**9}}, "train.batch_size"),
        ({"data": {"clip_seconds": 1e12}}, "data.clip_seconds"),
        ({"data": {"workers": 10**9}}, "data.workers"),
    ],
)
def test_sizes_that_no_machine_has_room_for_are_refused_and_still_have_a_plan(
    model, multi, tmp_path: Path, fields: dict, setting: str, capsys
):
    with pytest.raises(AudiobatError, match=f"A step takes .* lower .*{setting}"):
        audiobat.finetune(model, multi, tmp_path / "run", config(**fields))
    assert not (tmp_path / "run").exists()
    audiobat.finetune(model, multi, tmp_path / "run", config(**fields), dry_run=True)
    shown = capsys.readouterr().out
    assert "warning: A step takes" in shown
    assert "learning rate up to" in shown


def test_a_model_that_is_not_ours_is_refused(multi, tmp_path: Path):
    (tmp_path / "mine.py").write_text(
        "import torch\nclass Mine(torch.nn.Module):\n    sample_rate, dim, depth = 8000, 4, 1\n"
        "    def forward_intermediates(self, waveform, lengths=None): ...\n"
    )
    with pytest.raises(AudiobatError, match=r"mine.py:Mine is no encoder of audiobat's own"):
        audiobat.finetune(f"{tmp_path / 'mine.py'}:Mine", multi, tmp_path / "run", config())


def start(model: Path, data: Path, out: Path, settings: dict, **environment: str) -> subprocess.Popen:
    """The command line in a process of its own."""
    recipe = out.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(settings))
    argv = ["finetune", "--model", str(model), "--data", str(data), "--out", str(out), "--config", str(recipe)]
    env = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.Popen([sys.executable, "-m", "audiobat", *argv], stderr=subprocess.PIPE, text=True, env=env)


def test_two_processes_train_test_and_choose_as_one_does(model, multi, tmp_path: Path):
    """Also where the head learns alone first: then the encoder has no gradients to share."""
    settings = merge(TINY, {"augment": {"mixup": {"probability": 0.0}, "spec_augment": {"time_width": 0.0}}})
    settings = merge(settings, {"train": {"drop_path": 0.0, "freeze_steps": 2, "ema_decay": 0.5}})
    alone = audiobat.finetune(model, multi, tmp_path / "alone", from_dict(FinetuneConfig, settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    out = tmp_path / "together"
    ranks = [start(model, multi, out, settings, RANK=str(r), LOCAL_RANK=str(r), **world) for r in range(2)]
    for process in ranks:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    ours, theirs = rows(tmp_path / "alone"), rows(out)
    assert [list(row) for row in ours] == [list(row) for row in theirs]
    for one, two in zip(ours, theirs, strict=True):
        assert one == pytest.approx(two, rel=1e-3), "gradients are the same but for rounding, which Adam magnifies"
    for record in alone:
        name = f"pretrained_finetune_{record.head['selection']}_0.json"
        other = load_record(out / "results" / name)
        assert other.data == record.data
        scores = load_scores(out / "results" / name, other)
        assert list(scores.keys) == list(load_scores(tmp_path / "alone" / "results" / name, record).keys)
        assert other.metrics["map"].value == pytest.approx(record.metrics["map"].value, abs=0.05)


def test_sigterm_leaves_a_checkpoint_and_the_same_command_goes_on(model, multi, tmp_path: Path, monkeypatch):
    settings = merge(TINY, {"train": {"steps": 100_000, "save_every": 100_000}, "select": {"every": 100_000}})
    process = start(model, multi, tmp_path / "run", settings)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") > 3):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 75
    assert "goes on from here" in errors
    stopped = load_checkpoint(tmp_path / "run").step
    assert stopped >= 3
    assert not (tmp_path / "run" / "release").exists()
    monkeypatch.setattr(loop, "monotonic", itertools.count(0, 60).__next__)  # a minute between any two looks at it
    audiobat.finetune(model, multi, tmp_path / "run", from_dict(FinetuneConfig, settings), max_seconds=1200)
    assert load_checkpoint(tmp_path / "run").step > stopped


def test_a_clip_never_both_trains_and_validates(multi):
    """With a fold that tests, all other folds train, whatever split their clips are marked with."""
    table = replace(read_labelled_clips(multi), folds=np.arange(52) % 4)
    [split] = splits_of(table, 3)
    found = finetune_run.with_validation(table, split, config())
    assert (len(found.train), len(found.valid), len(found.test)) == (39, 0, 13)
    found = finetune_run.with_validation(table, split, config(select={"held_out": 0.2}))
    assert sorted([*found.train, *found.valid, *found.test]) == list(range(52))
    assert len(found.valid) > 4


def test_bat_nano_fine_tuned_beats_its_own_linear_probe(tmp_path):
    """Sweeps of 440 Hz, up or down, from anywhere: the mean of frozen tokens says little of the direction."""
    rate, rng = 16_000, np.random.default_rng(1)
    time, lines = np.arange(rate) / rate, ["path,label,split"]
    for i in range(288):
        direction = 1 - 2 * (i % 2)
        sweep = np.sin(2 * np.pi * (rng.uniform(600, 3000) * time + direction * 220 * time**2))
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * sweep + rng.normal(scale=0.01, size=rate), rate)
        lines.append(f"{i}.wav,{'up' if direction > 0 else 'down'},{'train' if i < 192 else 'test'}")
    clips = tmp_path / "sweeps.csv"
    clips.write_text("\n".join(lines))
    brief = {"head": {"kind": "linear"}, "train": {"steps": 200, "warmup_steps": 20}}
    [frozen] = audiobat.probe("bat_nano", clips, from_dict(ProbeConfig, merge(load_recipe("demo_probe"), brief)))
    shorter = {"train": {"steps": 80}, "optim": {"warmup_steps": 8}, "data": {"clip_seconds": 1.0}}
    shorter |= {"augment": {"mixup": {"probability": 0.0}}}  # so few steps learn little from mixtures
    tune = from_dict(FinetuneConfig, merge(load_recipe("finetune/demo"), shorter))
    [tuned] = audiobat.finetune("bat_nano", clips, tmp_path / "tuned", tune)
    assert frozen.metrics["accuracy"].value > 0.6  # chance is 0.5
    assert tuned.metrics["accuracy"].value > frozen.metrics["accuracy"].value + 0.08  # measured: 1.00 and 0.77
