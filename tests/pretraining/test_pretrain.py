"""`audiobat pretrain` from a folder of audio to a run folder: plan, resume, signals, bad input, collapse in words."""

import dataclasses
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch
import yaml

from audiobat.config import (
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    FrontendConfig,
    MaskConfig,
    ModelConfig,
    OptimConfig,
    PretrainConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from audiobat.config.recipes import load_recipe, merge, recipe_names
from audiobat.data.skipped import SkippedList
from audiobat.engine import loop
from audiobat.engine import run_folder as module
from audiobat.engine.checkpoint import load_checkpoint
from audiobat.engine.run_folder import sole_use
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.models.patches import sincos_positions
from audiobat.pretraining.decoders.vit import ViTDecoder
from audiobat.pretraining.objectives.masked_latent_regression import MaskedLatentRegression
from audiobat.pretraining.plan import make_plan
from audiobat.pretraining.run import CollapseWatch, pretrain
from audiobat.zoo.release import load


def write_tones(folder, clips=6, seconds=0.6):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for n in range(clips):
        time_axis = np.arange(int(seconds * 16_000)) / 16_000
        tone = 0.3 * np.sin(2 * np.pi * (200 + 150 * n) * time_axis) + 0.01 * rng.standard_normal(len(time_axis))
        soundfile.write(folder / f"tone_{n}.wav", tone, 16_000)
    return folder


def config_for(data, steps=4, **train) -> PretrainConfig:
    return PretrainConfig(
        frontend=FrontendConfig(mel_bins=32, n_fft=512, win_length=512),
        encoder=EncoderConfig(dim=16, depth=2, heads=2, max_frames=64, patch_size=(8, 8)),
        decoder=DecoderConfig(depth=1, heads=2),
        mask=MaskConfig(clones=2, block_size=2),
        optim=OptimConfig(warmup_steps=min(2, steps - 1)),
        data=DataConfig(path=str(data), clip_seconds=0.5, workers=0),
        train=TrainConfig(**{"steps": steps, "batch_size": 4, "log_every": 1, "precision": "fp32"} | train),
    )


@pytest.fixture
def tones(tmp_path):
    return write_tones(tmp_path / "tones")


def rows(run):
    timing = ("seconds", "steps_per_second", "clips_per_second", "data_wait")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in timing} for line in lines]


def test_a_run_folder_holds_what_the_design_names(tones, tmp_path):
    run = pretrain(config_for(tones), tmp_path / "run")
    assert {p.name for p in run.iterdir()} == {"config.yaml", "env.json", "metrics.jsonl", "log.txt", "checkpoints"}
    assert from_dict(PretrainConfig, yaml.safe_load((run / "config.yaml").read_text())) == config_for(tones)
    assert json.loads((run / "env.json").read_text())["torch"] == torch.__version__
    last = rows(run)[-1]
    assert last["step"] == 4
    watched = {"loss", "local_loss", "global_loss", "target_variance", "feature_rank", "token_std", "position_share"}
    assert watched <= set(last)
    assert load(run).depth == 2


def test_resuming_gives_the_uninterrupted_run(tones, tmp_path):
    config = config_for(tones, steps=6, save_every=2)
    whole = pretrain(config, tmp_path / "whole")
    cut = tmp_path / "cut"
    pretrain(config, cut, max_seconds=0)
    assert load_checkpoint(cut) is None  # nothing was done yet
    for _ in range(2):
        pretrain(config, cut)
    assert rows(whole) == rows(cut)
    ours, theirs = load_checkpoint(whole).model, load_checkpoint(cut).model
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_sigterm_leaves_a_checkpoint_and_the_same_command_goes_on(tones, tmp_path, monkeypatch):
    config, run = config_for(tones, steps=100_000, save_every=100_000), tmp_path / "run"
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump(
            dataclasses.asdict(config)
            | {
                "encoder": {**dataclasses.asdict(config.encoder), "patch_size": [8, 8]},
                "optim": {**dataclasses.asdict(config.optim), "betas": [0.9, 0.95]},
            }
        )
    )
    command = [
        sys.executable,
        "-m",
        "audiobat",
        "pretrain",
        "--config",
        str(tmp_path / "recipe.yaml"),
        "--out",
        str(run),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    metrics = run / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") > 3):
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    _, told = process.communicate(timeout=600)
    assert process.returncode == 75
    assert "goes on from here" in told
    stopped = load_checkpoint(run).step
    assert stopped >= 3
    monkeypatch.setattr(loop, "monotonic", itertools.count(0, 60).__next__)  # a minute between any two looks at it
    pretrain(config, run, max_seconds=1200)
    assert load_checkpoint(run).step > stopped


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path, capsys):
    pretrain(from_dict(PretrainConfig, load_recipe("bat_nano")), tmp_path / "run", dry_run=True)
    told = capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    for word in ("parameters", "52 a clip (13 in time x 4 in frequency)", "10 visible", "TFLOP a step", "GiB", "steps"):
        assert word in told


def test_the_base_plan_is_the_papers():
    plan = make_plan(PretrainConfig())
    assert (plan.grid, plan.step.visible, plan.step.masked) == ((64, 8), 102, 410)
    assert plan.step.tokens["student"] == 48 * 16 * 103
    assert plan.parameters["encoder"] == 92_341_248
    assert plan.clips_seen == 400_000 * 48
    sslam = make_plan(from_dict(PretrainConfig, load_recipe("sslam")))
    assert sslam.step.tokens["student"] == 48 * 8 * 2 * 103, "clean and mixed"
    assert sslam.step.tokens["teacher"] == 48 * (2 * 513 + 273), "clip, mixture, and partner in the mixed columns"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"objective": {"retention_weight": 1.0}},
        {"target": {"source": "spectrogram"}, "objective": {"global_weight": 0.0}},
        {"decoder": {"kind": "cnn", "groups": 1}, "target": {"source": "mlp"}, "mask": {"kind": "random"}},
        {"encoder": {"positions": "rotary", "patch_size": [8, 32], "dim": 96, "depth": 3}},
    ],
    ids=["latents", "mixtures", "spectrogram", "cnn", "rotary, all bins"],
)
def test_flops_match_a_count_of_every_matrix_product(tones, fields, monkeypatch):
    """The plan's forward FLOPs against torch's own counter, for one step of a small run."""
    from types import SimpleNamespace

    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    monkeypatch.setattr("audiobat.engine.linear._product", None)  # the counter knows PyTorch's own operators
    config = config_for(tones)
    config = from_dict(PretrainConfig, merge(to_dict(config), {"encoder": {"dim": 96, "depth": 3}, **fields}))
    plan, model = make_plan(config), MaskedLatentRegression(config)
    model.student.spectrogram = lambda *_: (torch.randn(4, 56, 32), None)  # the frontend is not in the plan
    batch = SimpleNamespace(waveform=torch.randn(4, 8_000), lengths=None)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss, _ = model(batch, 0)
        loss.backward()
    assert plan.step.flops == pytest.approx(counter.get_total_flops(), rel=0.03)


@pytest.mark.parametrize("name", [n for n in recipe_names() if n.startswith("bat_")])
def test_every_recipe_is_a_valid_config(name):
    assert from_dict(PretrainConfig, load_recipe(name)).train.steps > 0


def test_paper_preset_is_table_6():
    config = from_dict(PretrainConfig, load_recipe("bat_base"))
    optim, train = config.optim, config.train
    assert (optim.lr, optim.min_lr, optim.warmup_steps, optim.weight_decay) == (5e-4, 1e-6, 53_000, 0.05)
    assert (train.steps, train.batch_size, config.mask.clones, optim.betas) == (400_000, 48, 16, (0.9, 0.95))
    released = from_dict(PretrainConfig, load_recipe("bat_base_released"))
    assert (released.data.roll, released.encoder.pad) == (True, "grid")
    assert (released.encoder.positions, released.encoder.patch_init) == ("released", "torch")
    assert released.frontend.pad_samples == 163_680
    assert (released.mask.trim, released.optim.warmup, released.train.steps) == ("random", "floored", 10 * 40_261)
    assert (config.mask.trim, config.optim.warmup) == ("last", "linear")
    assert (config.encoder.positions, config.encoder.patch_init) == ("paper", "xavier")
    assert config.frontend.pad_samples == 0
    small = dataclasses.replace(released.encoder, dim=24, heads=2, depth=1)
    model = ModelConfig(released.frontend, small)
    decoder = ViTDecoder(dataclasses.replace(released.decoder, heads=2, depth=1), model, 24)
    assert torch.equal(decoder.pos_embed, sincos_positions((64, 8), 24, "released")[0])
    assert torch.equal(decoder.pos_embed, AudioEncoder(model).pos_embed[0])


def test_bad_clips_are_skipped_and_listed(tones, tmp_path):
    for n in range(40):
        soundfile.write(tones / f"more_{n}.wav", np.full(9_000, 0.1) * np.sin(np.arange(9_000) * 0.01 * n), 16_000)
    (tones / "torn.wav").write_bytes(b"RIFF")
    soundfile.write(tones / "one.wav", np.array([0.5]), 16_000)
    soundfile.write(tones / "silent.wav", np.zeros(9_000), 16_000)
    soundfile.write(tones / "eight.wav", np.random.default_rng(0).standard_normal((9_000, 8)) * 0.1, 16_000)
    run = pretrain(config_for(tones, steps=15), tmp_path / "run")
    listed = (run / "skipped.csv").read_text()
    assert "torn.wav" in listed
    assert len(listed.splitlines()) == 2, "one-sample, silent and 8-channel clips are usable"


def test_the_list_of_a_killed_and_resumed_run_is_whole(tones, tmp_path, monkeypatch):
    """The clip comes once, before the kill: the run that resumes does not see it."""
    for n in range(24):
        soundfile.write(tones / f"more_{n}.wav", np.full(9_000, 0.1) * np.sin(np.arange(9_000) * 0.01 * n), 16_000)
    (tones / "torn.wav").write_bytes(b"RIFF")
    config, run = config_for(tones, steps=7, save_every=4, seed=1), tmp_path / "run"
    killed = False

    class Killed(BaseException):
        """Stands for SIGKILL."""

    def kill(self, step):
        nonlocal killed
        killed = step == 5
        if killed:
            raise Killed

    def add(self, found, real=SkippedList.add):
        if killed:  # nothing is written any more
            raise Killed
        real(self, found)

    with monkeypatch.context() as patch:
        patch.setattr(MaskedLatentRegression, "after_step", kill)
        patch.setattr(SkippedList, "add", add)
        with pytest.raises(Killed):
            pretrain(config, run)
    before = (run / "skipped.csv").read_bytes()
    assert b"torn.wav" in before
    (run / "skipped.csv").rename(tmp_path / "aside.csv")
    pretrain(config, shutil.copytree(run, tmp_path / "forgets"))
    assert not (tmp_path / "forgets" / "skipped.csv").exists()  # so it is the list that remembers
    (tmp_path / "aside.csv").rename(run / "skipped.csv")
    pretrain(config, run)
    pretrain(config, tmp_path / "whole")
    assert (run / "skipped.csv").read_bytes() == before == (tmp_path / "whole" / "skipped.csv").read_bytes()


def test_a_run_with_many_unreadable_clips_stops_and_keeps_what_it_wrote(tones, tmp_path):
    for i in range(5):
        (tones / f"torn_{i}.wav").write_bytes(b"RIFF")
    with pytest.raises(AudiobatError, match="unreadable, more than 5%"):
        pretrain(config_for(tones, steps=50), tmp_path / "run")
    assert "torn_4.wav" in (tmp_path / "run" / "skipped.csv").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": DataConfig(clip_seconds=60)}, "max_frames holds 0.64 s"),
        (
            {"data": DataConfig(clip_seconds=0.01), "encoder": EncoderConfig(max_frames=64, patch_size=(8, 32))},
            "single",
        ),
        ({"optim": OptimConfig(warmup_steps=4)}, r"end before train\.steps 4"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(tones, change, words):
    with pytest.raises(AudiobatError, match=words):
        dataclasses.replace(config_for(tones), **change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"path": None}, "give --data"),
        ({"path": "no/such/folder"}, "no/such/folder"),
        ({"balance": "category"}, "no such column"),
    ],
)
def test_data_mistakes_are_one_sentence(tones, tmp_path, change, words):
    config = config_for(tones)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **change))
    with pytest.raises(AudiobatError, match=words):
        pretrain(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudiobatError, match="empty"):
        pretrain(config_for(tmp_path / "empty"), tmp_path / "run")


def test_a_run_of_another_config_is_not_mixed_up(tones, tmp_path):
    run = pretrain(config_for(tones), tmp_path / "run")
    other = config_for(tones)
    other = dataclasses.replace(other, encoder=dataclasses.replace(other.encoder, depth=3))
    with pytest.raises(AudiobatError, match=r"encoder\.depth 2, not 3"):
        pretrain(other, run)
    with pytest.raises(AudiobatError, match="holds a run"):
        pretrain(config_for(tones), run, resume="never")
    pretrain(other, run, overwrite=True)
    assert load(run).depth == 3


def test_a_run_that_made_nothing_gives_way_to_one_of_another_config(tones, tmp_path, capsys):
    config, out = config_for(tones), tmp_path / "run"
    with pytest.raises(AudiobatError, match="not finite"):
        pretrain(dataclasses.replace(config, optim=OptimConfig(lr=1e30, warmup_steps=0)), out)
    (out / "checkpoints").mkdir(exist_ok=True)
    (out / "checkpoints" / "step_000001.tmp").touch()
    pretrain(config, out)
    assert "made nothing: it begins anew" in capsys.readouterr().err
    assert load(out).depth == config.encoder.depth
    assert not list(out.rglob("*.tmp"))


def test_two_processes_cannot_train_in_one_folder(tones, tmp_path):
    run = pretrain(config_for(tones), tmp_path / "run")
    with sole_use(run), pytest.raises(AudiobatError, match="Another process is at work"):
        pretrain(config_for(tones), run, overwrite=True)
    assert load(run).depth == 2, "the run is untouched"


def test_a_worker_that_outlives_its_parent_keeps_no_folder_locked(tmp_path):
    forks = multiprocessing.get_context("fork")
    begun = forks.Event()
    with sole_use(tmp_path / "run"):
        worker = forks.Process(target=lambda: (begun.set(), time.sleep(60)))
        worker.start()
        assert begun.wait(30)
        with pytest.raises(AudiobatError, match="Another process is at work"), sole_use(tmp_path / "run"):
            pass
    try:
        with sole_use(tmp_path / "run"):  # as after the end of the parent: its own lock is gone
            assert worker.is_alive()
    finally:
        worker.kill()
        worker.join()


def test_resuming_on_other_clips_is_said(tones, tmp_path, capsys):
    config = config_for(tones, steps=6, save_every=2)
    run = pretrain(config, tmp_path / "run", max_seconds=0)
    pretrain(config, run)
    for path in sorted((run / "checkpoints").glob("step_*"))[-1:]:
        shutil.rmtree(path)
    assert "other clips" not in capsys.readouterr().err
    write_tones(tones, clips=7)
    pretrain(config, run)
    assert "other clips than before step 4" in capsys.readouterr().err


def test_a_folder_with_other_files_is_refused(tones, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    with pytest.raises(AudiobatError, match="other files"):
        pretrain(config_for(tones), tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "thesis.tex").read_text() == "mine"


def test_a_checkpoint_of_another_shape_is_named(tones, tmp_path):
    run = pretrain(config_for(tones), tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("dim: 16", "dim: 24"))
    bigger = config_for(tones)
    bigger = dataclasses.replace(bigger, encoder=dataclasses.replace(bigger.encoder, dim=24))
    with pytest.raises(AudiobatError, match="does not fit this model"):
        pretrain(bigger, run)


def test_collapse_is_said_in_words_once():
    said = []
    log = type("Log", (), {"say": lambda self, sentence: said.append(sentence)})()
    watch = CollapseWatch(log, MaskedLatentRegression)
    healthy = {"step": 1, "target_variance": 0.3, "feature_rank": 9.0, "token_std": 0.4, "prediction_variance": 0.5}
    watch(healthy)
    watch({"step": 1, "loss": 0.1})  # of an objective without these statistics
    assert not said
    for step in (2, 3):
        watch(healthy | {"step": step, "target_variance": 1e-4})
    assert len(said) == 1
    assert "collapse at step 2" in said[0]
    assert "lower optim.lr" in said[0]


def test_a_run_that_collapses_says_so(tones, tmp_path, capsys):
    config = config_for(tones, steps=60, log_every=10)
    config = dataclasses.replace(
        config,
        optim=OptimConfig(lr=0.3, warmup_steps=0),
        target=dataclasses.replace(config.target, ema_start=0.5, ema_end=0.5),
    )
    pretrain(config, tmp_path / "run")
    assert "Warning: collapse" in (tmp_path / "run" / "log.txt").read_text()


def test_a_kill_while_a_run_is_made_or_overwritten_leaves_a_folder_that_works(tones, tmp_path, monkeypatch):
    run = pretrain(config_for(tones, steps=1), tmp_path / "run")
    other = config_for(tones, steps=2)

    def killed(path):
        raise KeyboardInterrupt

    real = module.remove
    for dies_at in ("env.json", "checkpoints", "config.yaml"):
        monkeypatch.setattr(module, "remove", lambda p, dies_at=dies_at: killed(p) if p.name == dies_at else real(p))
        with pytest.raises(KeyboardInterrupt):
            pretrain(other, run, overwrite=True)
    monkeypatch.setattr(module, "remove", real)
    pretrain(other, run, overwrite=True)
    assert rows(run)[-1]["step"] == 2
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.yaml.tmp").write_text("frontend:")  # killed before its first rename
    pretrain(config_for(tones, steps=1), begun)
    (begun / "config.yaml").write_bytes(b"\xff")
    with pytest.raises(AudiobatError, match=r"config\.yaml"):
        pretrain(config_for(tones, steps=1), begun)
