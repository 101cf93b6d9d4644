"""`doctor FILE`: what a checkpoint is, what is in it, and whether it is safe."""

import argparse
import os
import pickle
from pathlib import Path

import pytest
import torch

from audiobat.cli.command import main
from audiobat.config import HeadConfig, TaggerConfig
from audiobat.errors import AudiobatError
from audiobat.models.tagger import Tagger
from audiobat.zoo import release as release_io
from audiobat.zoo.doctor.file import facts_of_file

HERE = release_io.WEIGHTS / "bat_nano" / "model.safetensors"


def eat(path: Path, **more) -> Path:
    """A file of EAT's layout with a decoder, a teacher and a head."""
    dim, stem = 8, "modality_encoders.IMAGE."
    shapes = {
        f"{stem}extra_tokens": (1, 1, dim),
        f"{stem}local_encoder.proj.weight": (dim, 1, 16, 16),
        f"{stem}local_encoder.proj.bias": (dim,),
        f"{stem}context_encoder.norm.weight": (dim,),
        f"{stem}context_encoder.norm.bias": (dim,),
        f"{stem}decoder.proj.weight": (dim, dim),
        **{f"blocks.0.norm{n}.{part}": (dim,) for n in (1, 2) for part in ("weight", "bias")},
        **{"blocks.0.attn.qkv.weight": (3 * dim, dim), "blocks.0.attn.qkv.bias": (3 * dim,)},
        **{"blocks.0.attn.proj.weight": (dim, dim), "blocks.0.attn.proj.bias": (dim,)},
        **{"blocks.0.mlp.fc1.weight": (16, dim), "blocks.0.mlp.fc1.bias": (16,)},
        **{"blocks.0.mlp.fc2.weight": (dim, 16), "blocks.0.mlp.fc2.bias": (dim,)},
        **{"head.weight": (9, dim), "head.bias": (9,)},
    }
    model = {name: torch.zeros(shape) for name, shape in shapes.items()}
    teacher = {name: tensor for name, tensor in model.items() if "decoder" not in name}
    torch.save({"model": {**model, "_ema": teacher}, "cfg": {"a": 1}, **more}, path)
    return path


def test_a_checkpoint_is_described(tmp_path: Path, capsys):
    file = eat(tmp_path / "eat.pt")
    assert main(["doctor", str(file)]) == 0
    lines = dict(line.strip().split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["file"].startswith(f"{file}, 0.0 MiB, torch")
    assert lines["holds"] == "model (20 tensors, 0.00M values, float32), cfg (dict)"
    assert lines["safe"] == "yes: tensors and plain containers alone"
    assert lines["is"] == "EAT or SSLAM: 20 tensors, 0.00M values, float32"
    assert lines["teacher"] == f"19 tensors, 0.00M values, float32; --model {file}:teacher takes it"
    assert lines["loads"] == "0.00M parameters, 1 blocks of 8, 16000 Hz"
    assert lines["head"] == "9 classes: 0, 1, 2, 3, 4, 5, and 3 more"
    assert lines["left out"].startswith(
        "20 tensors that are no part of the encoder: modality_encoders.IMAGE.decoder.proj.weight, teacher."
    )


class Made:
    """Unpickled by an ordinary reader, this calls `function(*args)`."""

    def __init__(self, function, *args):
        self.made = (function, args)

    def __reduce__(self):
        return self.made


class Odd:
    """A class that nobody knows."""


def test_classes_of_trainers_are_usual_and_others_are_marked(tmp_path: Path):
    facts = dict(facts_of_file(eat(tmp_path / "a.pt", args=argparse.Namespace(a=1))))
    assert facts["safe"] == "yes: argparse.Namespace, as trainers leave them, became stubs, which do nothing"
    facts = dict(facts_of_file(eat(tmp_path / "b.pt", odd=Odd())))
    assert facts["safe"].startswith("! here: ")
    assert "test_doctor_file.Odd" in facts["safe"]


@pytest.mark.parametrize("call", [Made(os.system, "touch MARK"), Made(eval, "1"), Made(os.mkdir, "MARK")])
def test_a_hostile_file_is_named_and_not_run(tmp_path: Path, monkeypatch, capsys, call: Made):
    monkeypatch.chdir(tmp_path)
    eat(Path("evil.pt"), extra_state=[call])
    assert main(["doctor", "evil.pt"]) == 2
    told = capsys.readouterr()
    assert "safe  ! no: it names " in told.out
    assert "loads" not in told.out
    assert "a reader of pickles would run that. audiobat did not" in told.err
    assert list(tmp_path.iterdir()) == [tmp_path / "evil.pt"]


def test_what_is_no_model_or_cut_says_so(tmp_path: Path):
    file = tmp_path / "a.pt"
    torch.save({"x": torch.zeros(3)}, file)
    with pytest.raises(AudiobatError, match=r"1 tensors of no model that is known here \(x"):
        list(facts_of_file(file))
    file.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(AudiobatError, match="holds a list and no dict of tensors"):
        list(facts_of_file(file))
    file.write_bytes(b"PK\x03\x04")
    with pytest.raises(AudiobatError, match="cut or damaged"):
        list(facts_of_file(file))


def test_a_release_is_described_by_its_folder_its_weights_and_its_run(tmp_path: Path, capsys):
    for name in (HERE.parent, HERE):
        assert main(["doctor", str(name)]) == 0
        said = capsys.readouterr().out
        assert "1.32M parameters, 6 blocks of 128, 16000 Hz" in said
    assert f"belongs to  the release {HERE.parent}, which is what --model takes" in said
    encoder = release_io.load("bat_nano")
    described = TaggerConfig(HeadConfig(kind="linear", pool="mean"), ("a", "b"))
    release_io.save_release(tmp_path / "run" / "release", Tagger(encoder, described))
    assert main(["doctor", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path / 'run'}, a release in {tmp_path / 'run' / 'release'}" in said
    assert "head  linear, 2 classes: a, b" in said


def test_a_file_that_is_not_there_says_what_is(tmp_path: Path, capsys):
    assert main(["doctor", str(tmp_path / "eat.pt")]) == 2
    said = capsys.readouterr().err
    assert f"no file or folder {tmp_path / 'eat.pt'} ({tmp_path} holds no checkpoint): check" in said
    (tmp_path / "eat_2.pt").touch()
    assert main(["doctor", str(tmp_path / "eat.pt")]) == 2
    assert f"({tmp_path} holds eat_2.pt)" in capsys.readouterr().err
    assert main(["doctor", str(tmp_path / "no" / "eat.pt")]) == 2
    assert f"({tmp_path / 'no'} is not there either)" in capsys.readouterr().err


def test_what_holds_clips_and_no_model_is_sent_to_prepare(tmp_path: Path):
    for name in ("a.wav", "clips.csv"):
        (tmp_path / name).write_bytes(b"RIFF")
        with pytest.raises(AudiobatError, match=rf"{name} is no model: `audiobat prepare SOURCE --dry-run`"):
            list(facts_of_file(tmp_path / name))
    with pytest.raises(AudiobatError, match="is no release, run or model of Hugging Face, and holds no checkpoint"):
        list(facts_of_file(tmp_path))
