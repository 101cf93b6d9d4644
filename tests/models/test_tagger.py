"""An encoder with a head: its answers are the head's, and a release gives them back bit for bit."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from audiobat.config import EncoderConfig, FrontendConfig, HeadConfig, ModelConfig, TaggerConfig
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.models.tagger import Tagger
from audiobat.zoo import release as release_io

MODEL = ModelConfig(
    FrontendConfig(n_fft=256, win_length=256, mel_bins=16, f_max=6000.0),
    EncoderConfig(dim=16, depth=2, heads=2, patch_size=(16, 8), max_frames=64),
)
CLASSES = ("ant", "bee", "cicada")
HEADS = (
    HeadConfig(kind="linear", norm="layer"),
    HeadConfig(kind="linear", norm="scaled_layer"),
    HeadConfig(kind="linear", norm="batch"),  # has buffers
    HeadConfig(kind="cgp", prototypes=7),
    HeadConfig(kind="mean_time_keep_freq"),
    HeadConfig(kind="proto_classwise", per_class=2),
)


def make(head: HeadConfig, **fields) -> Tagger:
    torch.manual_seed(0)
    tagger = Tagger(AudioEncoder(MODEL), TaggerConfig(head, CLASSES, **fields)).eval()
    for buffer in (b for name, b in tagger.head.named_buffers() if name.endswith("running_mean")):
        buffer.normal_()
    return tagger


def audio(clips: int = 2, samples: int = 8000) -> torch.Tensor:
    return torch.randn(clips, samples, generator=torch.Generator().manual_seed(1))


def change(folder: Path, **fields) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["tagger"] |= fields
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("head", HEADS, ids=lambda head: f"{head.kind}-{head.norm}")
@pytest.mark.parametrize("task", ["clip", "frame"])
def test_a_release_gives_the_same_answers(head: HeadConfig, task, tmp_path: Path):
    tagger = make(head, task=task, multi_label=False)
    release_io.save_release(tmp_path / "mine", tagger, extra={"step": 3})
    loaded = release_io.load_tagger(tmp_path / "mine")
    assert loaded.config == tagger.config
    assert (loaded.classes, loaded.task, loaded.multi_label, loaded.training) == (CLASSES, task, False, False)
    lengths = torch.tensor([8000, 3000])
    with torch.no_grad():
        assert torch.equal(loaded(audio(), lengths), tagger(audio(), lengths))
        for ours, theirs in zip(loaded.frames(audio()), tagger.frames(audio()), strict=True):
            assert torch.equal(ours, theirs)
        encoder = release_io.load(tmp_path / "mine")  # the head is left out
        assert torch.equal(encoder.embed(audio()[0], 16_000), tagger.encoder.embed(audio()[0], 16_000))


def test_a_clip_is_as_sure_as_its_surest_frame():
    tagger = make(HEADS[0], task="frame")
    lengths = torch.tensor([8000, 2600])  # the second clip is 17 frames: two columns of four
    with torch.no_grad():
        logits, (frames, times) = tagger(audio(), lengths), tagger.frames(audio(), lengths)
    assert frames.shape == (2, 4, 3)
    assert times.tolist() == pytest.approx([0.0, 0.16, 0.32, 0.48])
    assert torch.equal(logits[0], frames[0].amax(0))
    assert torch.equal(logits[1], frames[1, :2].amax(0))
    assert not frames[1, 2:].any()


def test_scores_are_probabilities():
    logits = torch.tensor([[0.0, 1.0, -2.0]])
    assert torch.equal(make(HEADS[0]).scores(logits), logits.sigmoid())
    assert torch.equal(make(HEADS[0], multi_label=False).scores(logits), logits.softmax(-1))


def test_a_run_stands_for_its_release(tmp_path: Path):
    release_io.save_release(tmp_path / "run" / release_io.RELEASE, make(HEADS[0]))
    assert release_io.load_tagger(tmp_path / "run").classes == CLASSES
    assert release_io.load(tmp_path / "run").depth == 2


def test_the_card_says_how_to_load_the_head(tmp_path: Path):
    release_io.save_release(tmp_path / "bugs", make(HEADS[0]))
    card = (tmp_path / "bugs" / "README.md").read_text()
    assert 'load_tagger("bugs")' in card
    assert "3 classes" in card


def test_an_encoder_alone_is_no_tagger(tmp_path: Path):
    release_io.save_release(tmp_path / "mine", make(HEADS[0]).encoder)
    with pytest.raises(AudiobatError, match="no head: make one with `audiobat finetune`"):
        release_io.load_tagger(tmp_path / "mine")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"classes": ["ant", "bee"]}, r"head.safetensors: classifier.weight has shape \[3, 16\]"),
        ({"classes": []}, "config.json: tagger.classes is .*: name at least one class"),
        ({"classes": ["ant", "ant", "bee"]}, "config.json: tagger.classes is .*: name each class once"),
        ({"classes": [1, 2, 3]}, "config.json: tagger.classes is 1: it must be of type str"),
        ({"color": 1}, "config.json: Unknown field tagger.color"),
        ({"task": "song"}, "config.json: .*task is 'song'"),
        ({"head": {"kind": "vqt"}}, "config.json: head.kind is 'vqt': it gives no gradients"),
        ({"head": {"kind": "cgp", "prototypes": 10**12}}, "head.safetensors has no tensor prototypes"),
        (
            {"head": {"kind": "linear", "norm": "none", "pool": "mean"}, "classes": ["x"] * 1},
            "classifier.weight has shape",
        ),
        ({"head": {"kind": "linear", "layer": 9}}, "config.json: head.layer is 9 and the model has 2 blocks"),
    ],
)
def test_a_bad_config_gets_a_sentence(fields, sentence: str, tmp_path: Path):
    release_io.save_release(tmp_path / "mine", make(HEADS[0]))
    change(tmp_path / "mine", **fields)
    with pytest.raises(AudiobatError, match=sentence):
        release_io.load_tagger(tmp_path / "mine")


def test_a_bad_head_file_gets_a_sentence(tmp_path: Path):
    release_io.save_release(tmp_path / "mine", make(HEADS[0]))
    file = tmp_path / "mine" / "head.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AudiobatError, match=r"head.safetensors cannot be read as safetensors"):
        release_io.load_tagger(tmp_path / "mine")
    file.unlink()
    with pytest.raises(AudiobatError, match=r"head.safetensors cannot be read as safetensors"):
        release_io.load_tagger(tmp_path / "mine")
    safetensors.torch.save_file({"classifier.bias": torch.zeros(3)}, file)
    with pytest.raises(AudiobatError, match=r"head.safetensors has no tensor classifier.weight"):
        release_io.load_tagger(tmp_path / "mine")
    assert release_io.load(tmp_path / "mine").depth == 2  # the encoder's file is whole
