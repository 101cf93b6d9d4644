"""`audiobat export`: what goes in comes out bit for bit, the card says what is known, and nothing else is touched."""

import contextlib
import hashlib
import inspect
import json
import os
import re
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import test_convert_audio_mae as mae
import test_convert_bat as bat
import test_convert_beats as beats
import test_convert_eat as eat
import torch
import yaml

import audiobat
from audiobat.cli import command as cli
from audiobat.config import (
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    FinetuneConfig,
    FrontendConfig,
    HeadConfig,
    ModelConfig,
    PretrainConfig,
    TaggerConfig,
    from_dict,
    to_dict,
)
from audiobat.config.recipes import load_recipe
from audiobat.engine.checkpoint import save_checkpoint
from audiobat.engine.files import restore
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import DataInfo, Metric, ModelInfo, ResultRecord
from audiobat.finetuning.layer_rates import own_encoder
from audiobat.inference.export_source import last_name, recipe_followed
from audiobat.models.encoder import AudioEncoder
from audiobat.models.tagger import Tagger
from audiobat.pretraining.objectives.masked_latent_regression import MaskedLatentRegression
from audiobat.zoo import release as release_io
from audiobat.zoo.convert import convert_file

FRONTEND = FrontendConfig(sample_rate=8000, n_fft=256, win_length=256, mel_bins=16, f_max=3000.0)
ENCODER = EncoderConfig(dim=16, depth=2, heads=2, patch_size=(16, 8), max_frames=64)
MODEL = ModelConfig(FRONTEND, ENCODER)
CONFIG = PretrainConfig(
    FRONTEND,
    ENCODER,
    DecoderConfig(depth=1, heads=2),
    data=DataConfig(path="/home/somebody/secret/birds.csv", clip_seconds=0.5),
)
WAVEFORM = torch.randn(2, 9000, generator=torch.Generator().manual_seed(1))


def pretraining_run(folder: Path) -> MaskedLatentRegression:
    """A run folder as `pretrain` leaves it, of step 7."""
    torch.manual_seed(0)
    model = MaskedLatentRegression(CONFIG)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(to_dict(CONFIG)))
    (folder / "env.json").write_text(json.dumps({"audiobat": "9.9", "torch": "2.13", "git_commit": None}))
    log = "Pre-training on 5 clips, 9 steps\n... Pre-training on 1234 clips, 9 steps\n"
    (folder / "log.txt").write_text(log)
    save_checkpoint(folder, 7, model, torch.optim.AdamW(model.parameters()), extra={"clips": "abcd"})
    return model


def tagger(seed: int = 0) -> Tagger:
    torch.manual_seed(seed)
    classes = ("ant", "bee", "| a <b> `c` [d]")
    return Tagger(AudioEncoder(MODEL), TaggerConfig(HeadConfig(kind="linear", norm="batch"), classes)).eval()


def finetuning_run(folder: Path, release: str = "release") -> Tagger:
    model = tagger()
    folder.mkdir(parents=True)
    config = replace(FinetuneConfig(recipe="finetune/demo"), data=DataConfig(path="esc50:/home/somebody/esc"))
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": "/x/bat_nano", "test_fold": None, **to_dict(config)}))
    extra = {"data_sha256": "beef", "step": 30, "recipe": "finetune/demo"}
    release_io.save_release(folder / release, model, extra=extra)
    (folder / release).with_name("log.txt").write_text("Fine-tuning on 320 clips, 30 steps")
    return model


def record(
    folder: Path, sha256: str | None, seed: int = 0, value: float = 0.5, kind: str = "cgp", layer: int = -1, **head
) -> Path:
    """A result record of a probe of two blocks."""
    path = folder / "results" / f"m_{kind}_{layer}_{seed}.json"
    ResultRecord(
        model=ModelInfo("mine", sha256, 10),
        data=DataInfo("birds", "d" * 64, {"train": 90, "test": 40}, 0, 3, 3),
        head={"kind": kind, "prototypes": 7, "steps": 2, "layer": layer, "seed": seed, **head},
        preset="paper",
        seed=seed,
        metrics={
            "map": Metric(value, value - 0.125, value + 0.25, "average precision"),
            "auc": Metric(float("nan"), float("nan"), float("nan"), "area under the ROC curve"),
        },
        per_class={"ant": 0.5},
        gate_weights=[0.25, 0.75] if kind == "cgp" else None,
        wall_seconds=1.0,
        clips_per_second=1.0,
        device="cpu",
        environment={},
        git_commit=None,
    ).save(path)
    return path


def same(ours, theirs) -> None:
    """Bit for bit the same weights and answers."""
    assert weights_sha256(ours) == weights_sha256(theirs)
    with torch.no_grad():
        for module in (ours, theirs):
            assert not module.training
        if isinstance(ours, Tagger):
            assert ours.config == theirs.config
            assert torch.equal(ours(WAVEFORM), theirs(WAVEFORM))
        else:
            a, b = (m.forward_intermediates(WAVEFORM, torch.tensor([9000, 4000])) for m in (ours, theirs))
            assert torch.equal(a.patch_tokens, b.patch_tokens)
            assert (a.cls_token is None) == (b.cls_token is None)


def front_matter(card: str) -> dict:
    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def test_a_run_of_pretraining_becomes_a_release(tmp_path: Path, capsys):
    model = pretraining_run(tmp_path / "run")
    out = audiobat.export(tmp_path / "run", "release", tmp_path / "birds")
    same(release_io.load(out), model.student.eval())
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    card = (out / "README.md").read_text()
    assert front_matter(card) == {
        "library_name": "audiobat",
        "license": "[your licence]",
        "pipeline_tag": "feature-extraction",
        "tags": ["audio", "audiobat", "self-supervised-learning"],
    }
    for line in (
        "**Data**: birds.csv (sha256 of the table `abcd`)",
        "**Training clips**: 1,234",
        "**Recipe**: custom",
        "**Steps**: 7",
        "**Software**: audiobat 9.9, torch 2.13",
        "mono at 8,000 Hz",
        "16 mel bins from 0 to 3,000 Hz, a frame every 20 ms",
        "above 4,000 Hz, half the sample rate, is not heard; nor is what lies above 3,000 Hz",
        "up to 1.28 s at once",
        "| encoder.depth | 2 | 12 |",
        "| frontend.sample_rate | 8000 | 16000 |",
        "## Results\n\nNot recorded.",
        "[where they came from, and under which licences]",
        'audiobat.load("birds")',
        weights_sha256(model.student),
    ):
        assert line in card, line
    assert "somebody" not in card + (out / "config.json").read_text(), "whose disk it was is nobody's business"
    assert "data.workers" not in card
    printed = capsys.readouterr().out
    assert "records: 0 of these weights" in printed
    assert "to fill in" in printed


def test_a_run_of_finetuning_becomes_a_release_with_its_head(tmp_path: Path):
    model = finetuning_run(tmp_path / "run")
    record(tmp_path / "run", "of the model before", kind="finetune", selection="last", selected=True)
    record(tmp_path / "run", "of the model before", 1, 0.75, kind="finetune", selection="best", selected=False)
    out = audiobat.export(tmp_path / "run", "release", tmp_path / "bugs")
    same(release_io.load_tagger(out), model)
    same(Tagger.from_pretrained(out), model)
    same(release_io.load(out), model.encoder)
    card = (out / "README.md").read_text()
    assert front_matter(card)["pipeline_tag"] == "audio-classification"
    for line in (
        "fine-tuned from bat_nano",
        "**Data**: esc50 (sha256 of the table `beef`)",
        "**Training clips**: 320",
        "**Recipe**: finetune/demo with changes",
        "**Steps**: 30",
        "| birds | Fine-tuning | mAP | 0.500 [0.375, 0.750] | 0 | 40 |",
        "3 classes, several at once: ant, bee, \\| a &lt;b> 'c' \\[d\\]",
        'load_tagger("bugs")',
    ):
        assert line in card, line
    assert "0.750 [0.625" not in card, "the other weights were not kept"
    extra = json.loads((out / "config.json").read_text())["extra"]
    assert (extra["step"], extra["data_sha256"], extra["facts"]["steps"]) == (30, "beef", 30)


@pytest.mark.parametrize("name", ["bat_base", "bat_nano", "eat_base", "sslam"])
def test_a_pretraining_recipe_is_known_by_its_settings(name: str):
    config = from_dict(PretrainConfig, load_recipe(name))
    elsewhere = replace(config, train=replace(config.train, seed=3, device="cpu"), data=replace(config.data, path="x/"))
    assert recipe_followed(elsewhere) == name
    changed = replace(config, optim=replace(config.optim, weight_decay=0.07))
    assert recipe_followed(changed) == "custom"


def test_a_finetuning_recipe_is_named_and_so_is_what_left_it():
    config = from_dict(FinetuneConfig, load_recipe("finetune/esc50_released"))
    assert recipe_followed(config) == "finetune/esc50_released"
    changed = replace(config, optim=replace(config.optim, lr=1e-3))
    assert recipe_followed(changed) == "finetune/esc50_released with changes"
    assert recipe_followed(replace(changed, recipe=None)) == "custom"


def test_a_fold_is_named_and_exported(tmp_path: Path):
    model = finetuning_run(tmp_path / "run", "folds/3/release")
    with pytest.raises(AudiobatError, match=r"a release for each of its folds: name one of them, such as .*folds/3"):
        audiobat.export(tmp_path / "run", "release", tmp_path / "bugs")
    out = audiobat.export(tmp_path / "run" / "folds" / "3", "release", tmp_path / "bugs")
    same(release_io.load_tagger(out), model)
    assert "**Training clips**: 320" in (out / "README.md").read_text()
    assert "fine-tuned from bat_nano" in (out / "README.md").read_text()


def test_the_card_has_the_results_of_these_weights_and_the_figure_of_layers(tmp_path: Path, capsys):
    model = pretraining_run(tmp_path / "run")
    own = weights_sha256(model.student)
    for seed, value in ((0, 0.25), (5, 0.5)):
        record(tmp_path / "run" / "probe", own, seed, value)
    for layer in (1, 2):
        record(tmp_path / "run" / "probe", own, 0, 0.25 * layer, kind="linear", layer=layer)
    record(tmp_path / "run" / "later", "of other weights", 0, 0.9)
    out = audiobat.export(tmp_path / "run", "release", tmp_path / "birds")
    card = (out / "README.md").read_text()
    assert "| birds | CGP | mAP | 0.375 [0.250, 0.625] | 0, 5 | 40 |" in card
    assert "| birds | CGP | AUC | n/a [n/a, n/a] | 0, 5 | 40 |" in card
    assert "- mAP: average precision." in card
    assert "0.900" not in card
    assert "![Gate weights of CGP and linear probes, block by block](layers.png)" in card
    assert (out / "layers.png").read_bytes().startswith(b"\x89PNG")
    assert "records: 4 of these weights; 1 of others, left out" in capsys.readouterr().out
    again = audiobat.export(out, "release", tmp_path / "again")  # a release keeps its facts
    text = (again / "README.md").read_text()
    assert text.split("## Weights")[0].replace("again", "birds") == card.split("## Weights")[0]
    assert f"read from birds/model.safetensors, sha256 `{sha256(out / 'model.safetensors')}`" in text
    assert (again / "layers.png").read_bytes() == (out / "layers.png").read_bytes()
    same(release_io.load(again), model.student.eval())


def test_records_without_gates_make_no_figure(tmp_path: Path):
    model = pretraining_run(tmp_path / "run")
    record(tmp_path / "run", weights_sha256(model.student), kind="protobin")
    out = audiobat.export(tmp_path / "run", "release", tmp_path / "birds")
    assert not (out / "layers.png").exists()
    assert "layers.png" not in (out / "README.md").read_text()
    assert "| birds | Protobin | mAP |" in (out / "README.md").read_text()


def test_shipped_weights_become_a_release(tmp_path: Path):
    out = audiobat.export("bat_nano", "release", tmp_path / "nano")
    same(release_io.load(out), release_io.load("bat_nano"))
    card = (out / "README.md").read_text()
    digest = sha256(release_io.WEIGHTS / "bat_nano" / "model.safetensors")
    for line in ("**Training clips**: 9,000", "**Recipe**: bat_nano", "**Steps**: 16,000", digest):
        assert line in card, line


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def bat_script(folder: Path) -> Path:
    return bat.training_files(folder, bat.random_release(folder / "r", num_heads=1))[0]


def bat_lightning(folder: Path) -> Path:
    return bat.training_files(folder, bat.random_release(folder / "r", num_heads=1))[1]


def bat_folder(folder: Path) -> Path:
    bat.random_release(folder / "r")
    return folder / "r"


FOREIGN = {
    "bat script": (bat_script, False),
    "bat lightning": (bat_lightning, False),
    "bat folder": (bat_folder, False),
    "eat": (lambda f: eat.pretraining_file(f / "a.pt"), False),
    "eat, old positions": (lambda f: eat.pretraining_file(f / "a.pt", "short"), False),
    "eat fine-tuned": (lambda f: eat.fine_tuning_file(f / "a.pt"), True),
    "eat folder": (lambda f: eat.hugging_face_folder(f / "h", head=True), True),
    "sslam folder": (lambda f: eat.hugging_face_folder(f / "h", head=False, model_type="sslam"), False),
    "audio-mae": (lambda f: mae.file_of(f / "a.pth", mae.PRETRAINED | mae.DECODER), False),
    "audio-mae fine-tuned": (lambda f: mae.file_of(f / "a.pth", mae.TUNED), True),
    "beats": (lambda f: beats.file_of(f / "a.pt"), False),
    "beats fine-tuned": (lambda f: beats.file_of(f / "a.pt", beats.WEIGHTS | beats.HEAD), True),
}


@pytest.mark.parametrize("layout", FOREIGN)
@pytest.mark.parametrize("who", ["", ":teacher"])
def test_weights_of_other_projects_become_a_release(tmp_path: Path, layout: str, who: str, capsys):
    make, has_head = FOREIGN[layout]
    source = make(tmp_path)
    if who and layout not in ("bat script", "eat", "eat, old positions"):
        with pytest.raises(
            AudiobatError, match=r"no teacher|No such folder|is a release, which has one set of weights"
        ):
            audiobat.export(f"{source}{who}", "release", tmp_path / "out")
        return
    out = audiobat.export(f"{source}{who}", "release", tmp_path / "out")
    card, printed = (out / "README.md").read_text(), capsys.readouterr().out
    assert sha256(source / "model.safetensors" if source.is_dir() else source) in card
    if layout == "bat folder":
        same(release_io.load(out), release_io.load(source))
        return
    found = convert_file(f"{source}{who}")
    same(audiobat.load(out), found.encoder)
    if has_head:
        same(release_io.load_tagger(out), found.tagger().eval())
    else:
        assert not (out / "head.safetensors").exists()
    left = json.loads((out / "config.json").read_text())["extra"]["facts"]["left"]
    assert tuple(left) == found.left
    for name in found.left:
        assert re.sub(r"\d+", "N", name) in printed, "what was left over is listed"
    assert source.name in card or source.is_dir()


def test_the_head_of_beats_keeps_the_order_of_its_classes(tmp_path: Path, monkeypatch):
    source = beats.file_of(tmp_path / "a.pt", beats.WEIGHTS | beats.HEAD)
    out = audiobat.export(source, "release", tmp_path / "out")
    again = release_io.load_tagger(out)
    assert again.classes == tuple(f"/m/{n}" for n in range(beats.CLASSES))
    tokens = convert_file(source).encoder.forward_intermediates(WAVEFORM[:1]).patch_tokens[-1, 0]
    weight, bias = (torch.from_numpy(beats.HEAD[f"predictor.{part}"]).float() for part in ("weight", "bias"))
    torch.testing.assert_close(again(WAVEFORM[:1])[0], tokens.mean(0) @ weight.T + bias, atol=1e-5, rtol=1e-5)
    soundfile.write(tmp_path / "a.wav", WAVEFORM[0].numpy() / 10, 16_000)
    rows = audiobat.predict(out, tmp_path / "a.wav", tmp_path / "a.csv", top=1, workers=0).read_text().splitlines()
    assert len(rows) == 2
    words = "A BeatsEncoder cannot be fine-tuned"
    with pytest.raises(AudiobatError, match=words):
        own_encoder(again)


def test_the_head_keeps_the_order_of_its_classes(tmp_path: Path):
    names = {"0": "zebra", "1": "ant", "2": "mole", "3": "bee", "4": "cow"}
    source = eat.hugging_face_folder(tmp_path / "h", head=True, id2label=names)
    out = audiobat.export(source, "release", tmp_path / "out")
    assert release_io.load_tagger(out).classes == ("zebra", "ant", "mole", "bee", "cow")


# what is refused, and that nothing is touched


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    release_io.save_release(tmp_path / "mine", tagger())
    return tmp_path / "mine"


@pytest.mark.parametrize(
    ("out", "overwrite", "words"),
    [
        ("theirs", False, "theirs exists: give another, or --overwrite"),
        ("precious", True, "precious holds other files and no release"),
        ("precious", False, "precious exists"),
        ("precious/thesis.txt", True, "thesis.txt is a file"),
        ("json", True, "json holds other files and no release"),
        ("mine", True, "holds the model itself"),
        (".", True, "holds other files"),
        ("mine/deeper", False, "lies inside the model's folder"),
        ("mine/deeper/still", True, "lies inside the model's folder"),
        ("link/deeper", False, "lies inside the model's folder"),
        ("a.onnx", False, "a.onnx is to be a folder of --to release"),
    ],
)
def test_an_out_that_will_not_do(tmp_path: Path, release: Path, out: str, overwrite: bool, words: str):
    release_io.save_release(tmp_path / "theirs", tagger(1))
    for name, file in (("precious", "thesis.txt"), ("json", "config.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text('{"model_type": "vit"}')
    (tmp_path / "link").symlink_to(release)
    before = tree(tmp_path)
    with pytest.raises(AudiobatError, match=words) as caught:
        audiobat.export(release, "release", tmp_path / out, overwrite=overwrite)
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_overwrite_replaces_an_older_release_whole(tmp_path: Path, release: Path):
    theirs = tagger(1)
    release_io.save_release(tmp_path / "theirs", theirs, files={"layers.png": b"old"})
    audiobat.export(release, "release", tmp_path / "theirs", overwrite=True)
    same(release_io.load_tagger(tmp_path / "theirs"), release_io.load_tagger(release))
    assert not (tmp_path / "theirs" / "layers.png").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "theirs"]


def test_what_an_earlier_export_has_left_is_no_hindrance(tmp_path: Path, release: Path):
    for rubbish in ("out.tmp", "out.old.tmp"):
        (tmp_path / rubbish).mkdir()
        (tmp_path / rubbish / "config.json").write_text("{")
    shutil.rmtree(tmp_path / "out.old.tmp")
    (tmp_path / "out.tmp" / "model.safetensors").write_bytes(b"half")
    audiobat.export(release, "release", tmp_path / "out")
    same(release_io.load_tagger(tmp_path / "out"), release_io.load_tagger(release))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


@pytest.mark.parametrize("call", ["rename", "replace", "fsync", "mkdir"])
@pytest.mark.parametrize("at", range(4))
def test_killed_anywhere_a_release_is_old_or_new(tmp_path: Path, release: Path, monkeypatch, call: str, at: int):
    """What dies between the two renames is given back by the next export."""
    old = tagger(1)
    release_io.save_release(tmp_path / "out", old)

    class Killed(BaseException):
        pass

    count = iter(range(100))
    owner = os if call == "fsync" else Path
    real = getattr(owner, call)

    def dying(*args, **kwargs):
        if next(count) == at:
            raise Killed
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, call, dying)
        with contextlib.suppress(Killed):
            audiobat.export(release, "release", tmp_path / "out", overwrite=True)
    restore(tmp_path / "out")
    assert weights_sha256(release_io.load_tagger(tmp_path / "out")) in (
        weights_sha256(old),
        weights_sha256(release_io.load_tagger(release)),
    )
    audiobat.export(release, "release", tmp_path / "out", overwrite=True)
    same(release_io.load_tagger(tmp_path / "out"), release_io.load_tagger(release))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


@pytest.mark.parametrize("at", range(4))
def test_a_full_disk_leaves_the_older_release(tmp_path: Path, release: Path, monkeypatch, at: int):
    old = tagger(1)
    release_io.save_release(tmp_path / "out", old)
    count = iter(range(100))
    real = os.fsync

    def full(number: int) -> None:
        if next(count) == at:
            raise OSError(28, "No space left on device")
        real(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AudiobatError, match=r"out\.tmp/\S+ cannot be written \(No space left on device\)"):
        audiobat.export(release, "release", tmp_path / "out", overwrite=True)
    assert weights_sha256(release_io.load_tagger(tmp_path / "out")) == weights_sha256(old)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_shared(tmp_path: Path, value: float):
    model = pretraining_run(tmp_path / "run")
    with torch.no_grad():
        model.student.blocks[1].mlp.fc1.weight[3, 2] = value
    save_checkpoint(tmp_path / "run", 8, model, torch.optim.AdamW(model.parameters()))
    with pytest.raises(AudiobatError, match=r"step_000008: blocks\.1\.mlp\.fc1\.weight holds NaN or infinity"):
        audiobat.export(tmp_path / "run", "release", tmp_path / "out")
    with pytest.raises(AudiobatError, match=r"blocks\.1\.mlp\.fc1\.weight holds NaN or infinity"):
        model.student.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"to": "keras"}, "to is 'keras': choose one of release, onnx, transformers"),
        ({"to": "onnx"}, r"out is to be an ONNX file: call it out\.onnx"),
        ({"push": "nobody"}, "'nobody' is no name on the hub: give OWNER/NAME"),
        ({"private": True}, "private is about push"),
        ({"to": "onnx", "out": "out.onnx", "push": "a/b"}, "push shares folders"),
        ({"model": "bat_nanno"}, "did you mean bat_nano"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path: Path, arguments: dict, words: str):
    given = {"model": "bat_nano", "to": "release", "out": "out", **arguments}
    with pytest.raises(AudiobatError, match=words):
        audiobat.export(given.pop("model"), given.pop("to"), tmp_path / given.pop("out"), **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"steps": "many"}, r"config\.json: extra\.facts\.steps is 'many'"),
        ({"results": [{"data": 1}]}, r"extra\.facts\.results\.data is 1"),
        ({"stepss": 1}, r"Unknown field extra\.facts\.stepss \(did you mean steps"),
        ("all", r"extra\.facts is 'all'"),
    ],
)
def test_facts_of_a_hostile_release(tmp_path: Path, release: Path, facts, words: str):
    config = json.loads((release / "config.json").read_text())
    (release / "config.json").write_text(json.dumps(config | {"extra": {"facts": facts}}))
    with pytest.raises(AudiobatError, match=words):
        audiobat.export(release, "release", tmp_path / "out")


def test_a_card_is_no_place_for_markup_of_others(tmp_path: Path, release: Path):
    config = json.loads((release / "config.json").read_text())
    evil = "x\n---\nlicense: mit\n---\n| a | <script>alert(1)</script> `b` [c](http://d)" + 1000 * "y"
    config["extra"] = {"facts": {"data": evil, "recipe": evil, "settings": [[evil, evil, evil]], "left": [evil]}}
    (release / "config.json").write_text(json.dumps(config))
    card = (audiobat.export(release, "release", tmp_path / "out") / "README.md").read_text()
    assert front_matter(card)["license"] == "[your licence]"
    assert "<script" not in card
    assert "[c](" not in card
    assert max(map(len, card.splitlines())) < 1000


# the command line, and the other forms


def test_the_command_line(tmp_path: Path, release: Path, capsys):
    out = tmp_path / "out"
    assert cli.main(["export", "--model", str(release), "--to", "release", "--out", str(out)]) == 0
    same(release_io.load_tagger(out), release_io.load_tagger(release))
    assert f"release: {out}" in capsys.readouterr().out
    assert cli.main(["export", "--model", str(release), "--to", "release", "--out", str(out)]) == 2
    assert "exists: give another, or --overwrite" in capsys.readouterr().err
    assert cli.main(["export", "--model", str(release), "--to", "release", "--out", str(out), "--overwrite"]) == 0


def test_other_forms_get_the_model_and_the_card(tmp_path: Path, release: Path, monkeypatch):
    calls = []

    def to_onnx(model, file) -> None:
        calls.append((model, None))
        Path(file).write_bytes(b"onnx")

    def to_transformers(model, folder, card) -> None:
        calls.append((model, card))
        Path(folder).mkdir()
        (Path(folder) / "config.json").write_text('{"model_type": "audiobat"}')
        (Path(folder) / "README.md").write_text(card)

    for name, function in (("onnx", to_onnx), ("transformers", to_transformers)):
        module = types.ModuleType(name)
        setattr(module, f"export_{name}", function)
        monkeypatch.setitem(sys.modules, f"audiobat.zoo.export.{name}", module)
    audiobat.export(release, "onnx", tmp_path / "a.onnx")
    audiobat.export(release, "transformers", tmp_path / "folder")
    for model, card in calls:
        same(model, release_io.load_tagger(release))
        assert card is None or card.startswith("---\nlibrary_name: transformers\n")
        assert card is None or "mono at 8,000 Hz.\n" in card, "nothing is resampled"
        assert card is None or 'AutoModelForAudioClassification.from_pretrained("folder", trust' in card
    assert (tmp_path / "a.onnx").read_bytes() == b"onnx"
    with pytest.raises(AudiobatError, match=r"a\.onnx exists"):
        audiobat.export(release, "onnx", tmp_path / "a.onnx")
    audiobat.export(release, "onnx", tmp_path / "a.onnx", overwrite=True)
    audiobat.export(release, "transformers", tmp_path / "folder", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "folder", "mine"]
    with pytest.raises(AudiobatError, match="is a BeatsEncoder"):
        audiobat.export(beats.file_of(tmp_path / "b.pt"), "onnx", tmp_path / "b.onnx")


def test_the_real_exporters_take_what_they_are_given():
    from audiobat.zoo.export.onnx import export_onnx
    from audiobat.zoo.export.transformers import export_transformers

    assert list(inspect.signature(export_onnx).parameters) == ["model", "file"]
    assert list(inspect.signature(export_transformers).parameters) == ["model", "folder", "card"]


def test_a_failed_transformers_export_leaves_the_older_one(tmp_path: Path, release: Path, monkeypatch):
    module = types.ModuleType("transformers")

    def fails(model, folder, card) -> None:
        Path(folder).mkdir()
        raise OSError(28, "No space left on device", str(folder))

    module.export_transformers = fails  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "audiobat.zoo.export.transformers", module)
    release_io.save_release(tmp_path / "out", tagger(1))
    before = tree(tmp_path)
    with pytest.raises(AudiobatError, match="No space left"):
        audiobat.export(release, "transformers", tmp_path / "out", overwrite=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/data/mine/clips.csv", "clips.csv"),
        ("esc50:/data/ESC-50", "esc50"),
        ("hf://datasets/a/b.parquet", "b.parquet"),
        ("C:\\data\\clips.csv", "clips.csv"),
        ("hub:owner/name", "name"),
        ("clips/", "clips"),
    ],
)
def test_sources_are_named_without_their_path(source: str, name: str):
    assert last_name(source) == name
