"""`RUN@STEP`, `RUN:teacher` and both, wherever a model is named; and paths that hold these signs themselves."""

import shutil

import pytest
import torch

import audiobat
from audiobat.config import (
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    FrontendConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    PretrainConfig,
    TargetConfig,
    TrainConfig,
)
from audiobat.engine.checkpoint import save_checkpoint
from audiobat.engine.run_folder import prepare_run
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.pretraining.begin import begin
from audiobat.pretraining.objectives.base import build_objective, encoder_prefix
from audiobat.probing.one_pass import open_model
from audiobat.zoo.doctor.file import facts_of_file
from audiobat.zoo.release import save_release

FRONTEND = FrontendConfig(mel_bins=32, n_fft=512, win_length=512)
ENCODER = EncoderConfig(dim=16, depth=2, heads=2, max_frames=64, patch_size=(8, 8))
SMALL = {
    "frontend": FRONTEND,
    "encoder": ENCODER,
    "decoder": DecoderConfig(depth=1, heads=2),
    "data": DataConfig(clip_seconds=0.5),
    "optim": OptimConfig(warmup_steps=2),
    "train": TrainConfig(steps=30, device="cpu"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with checkpoints of steps 2 to 30, keeping every tenth; at step k biases are k, or -k in the teacher."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    config = PretrainConfig(**SMALL)
    prepare_run(folder, config, "auto", False)
    objective = build_objective(config)
    optimizer = torch.optim.AdamW(p for p in objective.parameters() if p.requires_grad)
    for step in range(2, 31, 2):
        with torch.no_grad():
            objective.student.blocks[0].mlp.fc1.bias.fill_(step)
            objective.teacher.encoder.blocks[0].mlp.fc1.bias.fill_(-step)
        extra = {"encoder": encoder_prefix(objective)}
        save_checkpoint(folder, step, objective, optimizer, extra=extra, keep=2, keep_every=10)
    return folder


def value(encoder):
    return encoder.blocks[0].mlp.fc1.bias[0].item()


def test_every_tenth_and_the_two_newest_checkpoints_stay(run):
    kept = sorted(path.name for path in (run / "checkpoints").glob("step_*"))
    assert kept == ["step_000010", "step_000020", "step_000028", "step_000030"]


@pytest.mark.parametrize(
    ("suffix", "expected"), [("", 30), ("@10", 10), ("@28", 28), (":teacher", -30), ("@20:teacher", -20)]
)
def test_a_step_and_the_teacher_load_by_every_way(run, tmp_path, suffix, expected):
    name = f"{run}{suffix}"
    assert value(audiobat.load(name)) == expected
    named, encoder = open_model(name, trust_remote_code=False)  # of probe and analyze
    assert (named, value(encoder)) == (f"tiny{suffix}", expected)
    audiobat.export(name, "release", tmp_path / "release")
    assert value(audiobat.load(tmp_path / "release")) == expected
    assert (
        abs(expected) == audiobat.zoo.release.read_json(tmp_path / "release" / "config.json")["extra"]["facts"]["steps"]
    )
    assert "parameters" in dict(facts_of_file(run.parent / f"tiny{suffix}"))["loads"]


@pytest.mark.parametrize("suffix", ["@10", ":teacher", "@20:teacher"])
def test_a_run_begins_with_them(run, suffix):
    config = PretrainConfig(**SMALL, init=f"{run}{suffix}")
    objective = build_objective(config)
    beginning = begin(objective, config)
    step = int(suffix.removeprefix("@").split(":")[0] or 30)
    assert value(objective.student) == (-step if "teacher" in suffix else step)
    assert value(objective.teacher.encoder) == -step
    assert (beginning.optimizer is None) == ("teacher" in suffix)  # moments are the student's


def test_a_step_that_is_not_there_names_those_that_are(run):
    with pytest.raises(AudiobatError, match=r"no checkpoint of step 12: it has those of 10, 20, 28, 30\."):
        audiobat.load(f"{run}@12")


@pytest.mark.parametrize("suffix", ["@last", ":student", ":teacher@20", "@"])
def test_what_stands_behind_a_run_and_means_nothing_is_told_what_may_stand_there(run, suffix):
    with pytest.raises(AudiobatError, match=f"behind a run, here {run}, stand @STEP, :teacher or both"):
        audiobat.load(f"{run}{suffix}")


def test_a_damaged_checkpoint_that_is_asked_for_is_an_error_not_another(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "checkpoints" / "step_000020" / "state.pt").write_bytes(b"PK")
    with pytest.raises(AudiobatError, match="step_000020 cannot be read"):
        audiobat.load(f"{copy}@20")


def test_a_path_that_holds_these_signs_means_itself(run, tmp_path):
    for name in ("a@10", "a:teacher", "a"):
        shutil.copytree(run, tmp_path / name)
    for kept in (10, 20, 28):
        shutil.rmtree(tmp_path / "a@10" / "checkpoints" / f"step_0000{kept}")
    assert value(audiobat.load(tmp_path / "a@10")) == 30
    assert value(audiobat.load(tmp_path / "a:teacher")) == 30
    assert value(audiobat.load(f"{tmp_path / 'a@10'}:teacher")) == -30
    assert value(audiobat.load(f"{tmp_path / 'a@10'}@30")) == 30
    assert value(audiobat.load(f"{tmp_path / 'a'}@20")) == 20


def test_what_has_one_set_of_weights_says_so(tmp_path):
    save_release(tmp_path / "r", AudioEncoder(ModelConfig(frontend=FRONTEND, encoder=ENCODER)))
    for suffix in ("@5", ":teacher", "@5:teacher"):
        with pytest.raises(AudiobatError, match=f"is a release.*leave {suffix} out"):
            audiobat.load(f"{tmp_path / 'r'}{suffix}")
    with pytest.raises(AudiobatError, match="leave @5 out"):
        audiobat.load("bat_nano@5")
    with pytest.raises(AudiobatError, match="No such folder or name"):
        audiobat.load(f"{tmp_path}/none@5")
    with pytest.raises(AudiobatError, match="No such folder or name"):
        audiobat.load(f"{tmp_path}/none@{'5' * 25}")
    with pytest.raises(AudiobatError, match="names of models elsewhere begin hub:, timm:, hf:, torchaudio:, avex:"):
        audiobat.load("HF:facebook/wav2vec2-base")
    with pytest.raises(AudiobatError, match="timm: names no model"):
        audiobat.load("timm:")


def test_keep_every_is_a_multiple_of_save_every():
    for wrong in (0, -2000, 3000):
        with pytest.raises(AudiobatError, match=r"train\.keep_every.*multiple of train\.save_every, 2000"):
            TrainConfig(keep_every=wrong)
    assert TrainConfig(keep_every=6000).keep_every == 6000


def test_a_run_without_an_ema_teacher_says_so(run, tmp_path):
    config = PretrainConfig(
        **SMALL, target=TargetConfig(source="spectrogram"), objective=ObjectiveConfig(global_weight=0.0)
    )
    prepare_run(tmp_path / "run", config, "auto", False)
    objective = build_objective(config)
    save_checkpoint(tmp_path / "run", 1, objective, torch.optim.AdamW(objective.parameters()))
    with pytest.raises(AudiobatError, match="keeps no EMA teacher: leave :teacher out"):
        audiobat.load(f"{tmp_path / 'run'}:teacher")
