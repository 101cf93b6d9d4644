"""Release folders: what is saved is what is loaded, and nothing hostile or damaged gets further than one sentence."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from audiobat import hub
from audiobat.config import (
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    FrontendConfig,
    ModelConfig,
    PretrainConfig,
    to_dict,
)
from audiobat.encoder import AudioEncoder
from audiobat.errors import AudiobatError
from audiobat.objective import MaskedLatentRegression
from audiobat.tensors import weights_sha256
from audiobat.train.checkpoint import save_checkpoint

FRONTEND = FrontendConfig(n_fft=256, win_length=256, mel_bins=16, f_max=6000.0)
ENCODER = EncoderConfig(dim=16, depth=2, heads=2, patch_size=(16, 8), max_frames=64, gate_bias=False)
MODEL = ModelConfig(FRONTEND, ENCODER)


@pytest.fixture
def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(MODEL)


@pytest.fixture
def release(tmp_path: Path, encoder: AudioEncoder) -> Path:
    hub.save_release(tmp_path / "mine", encoder)
    return tmp_path / "mine"


def change(folder: Path, **fields) -> None:
    """Rewrite fields of config.json; `encoder_x` means encoder.x."""
    config = json.loads((folder / "config.json").read_text())
    for name, value in fields.items():
        group, _, field = name.partition("_")
        if group in ("encoder", "frontend") and field:
            config[group][field] = value
        else:
            config[name] = value
    (folder / "config.json").write_text(json.dumps(config))


def retouch(folder: Path, change) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


def test_round_trip_is_exact(release: Path, encoder: AudioEncoder):
    encoder.pos_embed.add_(0.5)  # as in a converted model: the file's positions count, not the formula's
    hub.save_release(release, encoder, card="# Mine", extra={"hours": 3.5})
    loaded = hub.load(release)
    assert loaded.config == MODEL
    assert not loaded.training
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    waveform = torch.randn(2, 5000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = (e.eval().forward_layers(waveform).patch_tokens for e in (encoder, loaded))
    assert torch.equal(ours, theirs)
    assert (release / "README.md").read_text() == "# Mine"
    assert json.loads((release / "config.json").read_text())["extra"] == {"hours": 3.5}
    assert sorted(path.name for path in release.parent.iterdir()) == ["mine"]


def test_the_card_says_how_to_load_it(release: Path, encoder: AudioEncoder):
    card = (release / "README.md").read_text()
    assert weights_sha256(encoder) in card
    assert 'audiobat.load("mine")' in card


def test_saving_again_replaces_a_release_but_nothing_else(release: Path, encoder: AudioEncoder):
    torch.manual_seed(1)
    other = AudioEncoder(MODEL)
    hub.save_release(release, other)
    assert weights_sha256(hub.load(release)) == weights_sha256(other) != weights_sha256(encoder)
    precious = release.parent / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(AudiobatError, match="precious holds other files"):
        hub.save_release(precious, encoder)
    assert (precious / "thesis.txt").exists()


def test_a_failed_save_leaves_the_old_release(release: Path, encoder: AudioEncoder, monkeypatch):
    before = weights_sha256(hub.load(release))
    torch.manual_seed(1)
    other = AudioEncoder(MODEL)
    written = []

    def full_disk(path: Path, content):
        written.append(path)
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr(hub, "write_atomic", full_disk)
    with pytest.raises(AudiobatError, match=r"config\.json cannot be written \(No space left on device\): mend"):
        hub.save_release(release, other)
    assert written
    assert [path.name for path in release.parent.iterdir()] == ["mine"], "nothing half-written is left"
    assert weights_sha256(hub.load(release)) == before


def test_the_digest_sees_values_names_and_shapes(encoder: AudioEncoder):
    first = weights_sha256(encoder)
    assert first == weights_sha256(encoder)
    with torch.no_grad():
        encoder.blocks[0].norm1.bias[3] += 1e-7
    assert weights_sha256(encoder) != first
    a, b = torch.nn.Module(), torch.nn.Module()
    a.register_buffer("x", torch.zeros(2, 3))
    b.register_buffer("x", torch.zeros(3, 2))
    assert weights_sha256(a) != weights_sha256(b)


def test_a_run_folder_gives_its_latest_student(tmp_path: Path):
    config = PretrainConfig(FRONTEND, ENCODER, DecoderConfig(depth=1, heads=2), data=DataConfig(clip_seconds=0.5))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_dict(config)))
    with pytest.raises(AudiobatError, match="no checkpoint yet"):
        hub.load(tmp_path)
    for step in (1, 2):
        torch.manual_seed(step)
        model = MaskedLatentRegression(config)
        save_checkpoint(tmp_path, step, model, torch.optim.AdamW(model.parameters()))
    assert weights_sha256(hub.load(tmp_path)) == weights_sha256(model.student)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_dict(replace(config, encoder=replace(ENCODER, depth=1)))))
    with pytest.raises(AudiobatError, match=r"holds 2 blocks, but the config says encoder\.depth 1"):
        hub.load(tmp_path)
    (tmp_path / "config.yaml").write_text("encoder: {dept: 3}")
    with pytest.raises(AudiobatError, match=r"config\.yaml: Unknown field encoder\.dept \(did you mean depth"):
        hub.load(tmp_path)


def test_names_and_paths_that_lead_nowhere(tmp_path: Path, monkeypatch, encoder: AudioEncoder):
    monkeypatch.setattr(hub, "WEIGHTS", tmp_path / "weights")
    with pytest.raises(AudiobatError, match="No such folder or name: bat_nano; no weights are shipped"):
        hub.load("bat_nano")
    hub.save_release(tmp_path / "weights" / "bat_nano", encoder)
    assert weights_sha256(hub.load("bat_nano")) == weights_sha256(encoder)
    with pytest.raises(AudiobatError, match=r"bat_nanno \(did you mean bat_nano\?\); the shipped names are bat_nano"):
        hub.load("bat_nanno")
    with pytest.raises(AudiobatError, match=r"model\.safetensors is a file: give the folder"):
        hub.load(tmp_path / "weights" / "bat_nano" / "model.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudiobatError, match=r"neither config\.json"):
        hub.load(tmp_path / "empty")
    with pytest.raises(AudiobatError, match="--device"):
        hub.load("bat_nano", device="tpu9")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "vit"}, "model_type is 'vit'"),
        ({"model_type": ["bat"]}, "model_type is"),
        ({"format": 2}, "format is 2, but this version reads 1"),
        ({"frontent": {}}, r"unknown field frontent \(did you mean frontend"),
        ({"encoder_dept": 3}, r"encoder\.dept \(did you mean depth"),
        ({"encoder_dim": "16"}, "encoder.dim is '16'"),
        ({"encoder_dim": None}, "encoder.dim is None"),
        ({"encoder_dim": 18}, "encoder.dim is 18"),
        ({"encoder_mlp_ratio": float("inf")}, "encoder.mlp_ratio is inf"),
        (
            {"encoder_mlp_ratio": 1e12},
            r"fc1\.weight has shape \[64, 16\], but its config asks for \[16000000000000, 16\]",
        ),
        (
            {"encoder_dim": 4 * 10**12},
            r"pos_embed has shape \[1, 8, 16\], but its config asks for \[1, 8, 4000000000000\]",
        ),
        ({"encoder_max_frames": 16 * 10**12}, "pos_embed has shape"),
        ({"encoder_depth": 10**12}, "holds 2 blocks, but the config says encoder.depth 1000000000000"),
        ({"encoder_depth": 1}, "holds 2 blocks"),
        ({"encoder_patch_size": [8, 8]}, "pos_embed has shape"),
        ({"frontend_mel_bins": 16 * 10**12}, "pos_embed has shape"),
        ({"frontend_n_fft": 10**12}, "frontend.n_fft is 1000000000000"),
        ({"frontend": [1, 2]}, "frontend is"),
        ({"encoder": 3}, "encoder is 3"),
        ({"encoder_gated_attention": False}, r"has a tensor blocks\.0\.attn\.gate\.weight"),
        ({"encoder_gate_bias": True}, r"has no tensor blocks\.0\.attn\.gate\.bias"),
    ],
)
def test_a_config_that_is_wrong_or_hostile(release: Path, fields: dict, words: str):
    change(release, **fields)
    with pytest.raises(AudiobatError, match=words) as caught:
        hub.load(release)
    assert str(release) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\x00"])
def test_a_config_that_is_no_json_object(release: Path, text: str):
    (release / "config.json").write_text(text)
    with pytest.raises(AudiobatError, match=r"config\.json"):
        hub.load(release)


def test_tensors_missing_unexpected_or_of_another_shape(release: Path):
    whole = (release / "model.safetensors").read_bytes()

    def fails(edit, words: str) -> None:
        (release / "model.safetensors").write_bytes(whole)
        retouch(release, edit)
        with pytest.raises(AudiobatError, match=words):
            hub.load(release)

    fails(lambda t: t.pop("blocks.1.mlp.fc2.bias"), r"no tensor blocks\.1\.mlp\.fc2\.bias, .*\(did you mean blocks\.")
    fails(lambda t: t.pop("pos_embed"), "no tensor pos_embed")
    fails(lambda t: t.update(head=torch.zeros(3)), "has a tensor head, which its config has no place for")
    fails(lambda t: t.update(cls_token=torch.zeros(1, 1, 8)), r"cls_token has shape \[1, 1, 8\], .* \[1, 1, 16\]")
    fails(lambda t: t.update({"blocks.7.x": torch.zeros(1)}), "holds 3 blocks")


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
def test_weights_that_were_cut_short(release: Path, kept: float):
    file = release / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(AudiobatError, match=r"model\.safetensors cannot be read as safetensors .*download it again"):
        hub.load(release)


def test_weights_that_are_missing_or_claim_too_much(release: Path):
    file = release / "model.safetensors"
    header = json.dumps({"x": {"dtype": "F32", "shape": [10**15], "data_offsets": [0, 4 * 10**15]}}).encode()
    for content in (len(header).to_bytes(8, "little") + header, (2**62).to_bytes(8, "little") + header):
        file.write_bytes(content)
        with pytest.raises(AudiobatError, match=r"model\.safetensors cannot be read"):
            hub.load(release)
    file.unlink()
    with pytest.raises(AudiobatError, match=r"model\.safetensors cannot be read"):
        hub.load(release)
