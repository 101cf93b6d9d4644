"""Release folders: what is saved is what is loaded, and nothing hostile or damaged gets further than one sentence."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import test_convert_beats as beats
import torch
import yaml

from audiobat.config import (
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    FrontendConfig,
    HeadConfig,
    ModelConfig,
    PretrainConfig,
    TaggerConfig,
    to_dict,
)
from audiobat.engine import files
from audiobat.engine.checkpoint import save_checkpoint
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.models import building
from audiobat.models.encoder import AudioEncoder
from audiobat.models.tagger import Tagger
from audiobat.pretraining.objectives.masked_latent_regression import MaskedLatentRegression
from audiobat.zoo import release as release_io
from audiobat.zoo.convert import convert_file
from audiobat.zoo.load import DOORS

FRONTEND = FrontendConfig(n_fft=256, win_length=256, mel_bins=16, f_max=6000.0)
ENCODER = EncoderConfig(dim=16, depth=2, heads=2, patch_size=(16, 8), max_frames=64, gate_bias=False)
MODEL = ModelConfig(FRONTEND, ENCODER)


@pytest.fixture
def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(MODEL)


@pytest.fixture
def release(tmp_path: Path, encoder: AudioEncoder) -> Path:
    release_io.save_release(tmp_path / "mine", encoder)
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
    release_io.save_release(release, encoder, card="# Mine", extra={"hours": 3.5})
    loaded = release_io.load(release)
    assert loaded.config == MODEL
    assert not loaded.training
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    waveform = torch.randn(2, 5000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = (e.eval().forward_intermediates(waveform).patch_tokens for e in (encoder, loaded))
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
    release_io.save_release(release, other)
    assert weights_sha256(release_io.load(release)) == weights_sha256(other) != weights_sha256(encoder)
    precious = release.parent / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(AudiobatError, match="precious holds other files"):
        release_io.save_release(precious, encoder)
    assert (precious / "thesis.txt").exists()


def test_a_failed_save_leaves_the_old_release(release: Path, encoder: AudioEncoder, monkeypatch):
    before = weights_sha256(release_io.load(release))
    torch.manual_seed(1)
    other = AudioEncoder(MODEL)
    written = []

    def full_disk(path: Path, content):
        written.append(path)
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr(release_io, "write_atomic", full_disk)
    with pytest.raises(AudiobatError, match=r"config\.json cannot be written \(No space left on device\): fix"):
        release_io.save_release(release, other)
    assert written
    assert [path.name for path in release.parent.iterdir()] == ["mine"], "nothing half-written is left"
    assert weights_sha256(release_io.load(release)) == before


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
        release_io.load(tmp_path)
    for step in (1, 2):
        torch.manual_seed(step)
        model = MaskedLatentRegression(config)
        save_checkpoint(tmp_path, step, model, torch.optim.AdamW(model.parameters()))
    assert weights_sha256(release_io.load(tmp_path)) == weights_sha256(model.student)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_dict(replace(config, encoder=replace(ENCODER, depth=1)))))
    with pytest.raises(AudiobatError, match=r"holds 2 blocks, but the config says encoder\.depth 1"):
        release_io.load(tmp_path)
    (tmp_path / "config.yaml").write_text("encoder: {dept: 3}")
    with pytest.raises(AudiobatError, match=r"config\.yaml: Unknown field encoder\.dept \(did you mean depth"):
        release_io.load(tmp_path)


def test_names_and_paths_that_lead_nowhere(tmp_path: Path, monkeypatch, encoder: AudioEncoder):
    monkeypatch.setattr(release_io, "WEIGHTS", tmp_path / "weights")
    with pytest.raises(AudiobatError, match="No such folder or name: bat_nano; no weights are shipped"):
        release_io.load("bat_nano")
    release_io.save_release(tmp_path / "weights" / "bat_nano", encoder)
    assert weights_sha256(release_io.load("bat_nano")) == weights_sha256(encoder)
    with pytest.raises(AudiobatError, match=r"bat_nanno \(did you mean bat_nano\?\); the shipped names are bat_nano"):
        release_io.load("bat_nanno")
    with pytest.raises(AudiobatError, match="the Hugging Face Hub is hf:facebook/wav2vec2-base, a release"):
        release_io.load("facebook/wav2vec2-base")
    for name in DOORS:  # which open elsewhere: `predict` and `export` have no use for them
        with pytest.raises(AudiobatError, match=f"^{name}x is no model of audiobat's own.*give a release or a run"):
            release_io.load_tagger(f"{name}x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AudiobatError, match=r"No such folder or name: weights/gone; the shipped names are bat_nano\.$"):
        release_io.load("weights/gone")
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "config.json").write_text('{"model_type": "wav2vec2"}')
    with pytest.raises(AudiobatError, match=r"model_type is 'wav2vec2'.*write hf: before the folder"):
        release_io.load(tmp_path / "transformers")
    with pytest.raises(AudiobatError, match=r"model\.safetensors is a file: give the folder"):
        release_io.load(tmp_path / "weights" / "bat_nano" / "model.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudiobatError, match=r"neither config\.json"):
        release_io.load(tmp_path / "empty")
    with pytest.raises(AudiobatError, match="--device"):
        release_io.load("bat_nano", device="tpu9")


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
        ({"encoder_depth": 10**12}, "encoder.depth is 1000000000000: use 1 to 1000 blocks"),
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
        release_io.load(release)
    assert str(release) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\x00"])
def test_a_config_that_is_no_json_object(release: Path, text: str):
    (release / "config.json").write_text(text)
    with pytest.raises(AudiobatError, match=r"config\.json"):
        release_io.load(release)


def test_tensors_missing_unexpected_or_of_another_shape(release: Path):
    whole = (release / "model.safetensors").read_bytes()

    def fails(edit, words: str) -> None:
        (release / "model.safetensors").write_bytes(whole)
        retouch(release, edit)
        with pytest.raises(AudiobatError, match=words):
            release_io.load(release)

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
        release_io.load(release)


def test_weights_that_are_missing_or_claim_too_much(release: Path):
    file = release / "model.safetensors"
    header = json.dumps({"x": {"dtype": "F32", "shape": [10**15], "data_offsets": [0, 4 * 10**15]}}).encode()
    for content in (len(header).to_bytes(8, "little") + header, (2**62).to_bytes(8, "little") + header):
        file.write_bytes(content)
        with pytest.raises(AudiobatError, match=r"model\.safetensors cannot be read"):
            release_io.load(release)
    file.unlink()
    with pytest.raises(AudiobatError, match=r"model\.safetensors cannot be read"):
        release_io.load(release)


# more of what a hostile or broken folder may hold


def no_network(*_: object) -> None:
    raise AssertionError("a network was made before its sizes were known to be right")


@pytest.mark.parametrize(
    "fields",
    [
        {"encoder_dim": 4 * 10**12},
        {"encoder_mlp_ratio": 1e12},
        {"encoder_max_frames": 16 * 10**12},
        {"encoder_depth": 10**12},
        {"frontend_mel_bins": 16 * 10**12},
        {"frontend_n_fft": 2**62},
        {"encoder_patch_size": [16, 2**40]},
        {"encoder_heads": 2**40},
        {"encoder_dim": 2**70},
        {"encoder_dim": 10**4000},
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_made(release: Path, monkeypatch, fields: dict):
    change(release, **fields)
    monkeypatch.setattr(building, "AudioEncoder", no_network)
    with pytest.raises(AudiobatError, match=r"mine/(config\.json|model\.safetensors)") as caught:
        release_io.load(release)
    assert len(str(caught.value)) < 700


def test_a_file_of_names_alone_buys_no_large_network(release: Path, monkeypatch):
    """A thousand blocks of one number each, and filters that no tensor pays for."""
    retouch(release, lambda t: t.update({f"blocks.{n}.x": torch.zeros(1) for n in range(2, 1_000)}))
    change(release, encoder_depth=1_000)
    monkeypatch.setattr(building, "AudioEncoder", no_network)
    with pytest.raises(AudiobatError, match=r"has no tensor blocks\.2\.attn\.qkv\.weight"):
        release_io.load(release)
    torch.manual_seed(0)
    wide = {"pos_embed": torch.zeros(1, 4, 16), "patch_embed.proj.weight": torch.zeros(16, 1, 16, 2**14)}
    retouch(release, lambda t: [t.pop(name) for name in list(t) if name.startswith("blocks.") and name.endswith("x")])
    retouch(release, lambda t: t.update(wide))
    change(release, encoder_depth=2, encoder_patch_size=[16, 2**14], frontend_mel_bins=2**14, frontend_n_fft=65_536)
    with pytest.raises(AudiobatError, match=r"frontend\.mel_bins is 16384: with n_fft 65536 that is too many filters"):
        release_io.load(release)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "../../../etc/passwd"}, r"model_type is '\.\./\.\./\.\./etc/passwd'"),
        ({"model_type": "os"}, "model_type is 'os'"),
        ({"model_type": "x" * 10**6}, r"model_type is 'xxx.* \.\.\. .*xxx"),
        ({"model_type": "a\nb"}, r"model_type is 'a\\nb'"),
        ({"format": True}, "format is True"),
        ({"format": 1.0}, "format is 1.0"),
        ({"format": None}, "format is None"),
        ({"a\nb": 1}, "unknown field a b"),
        ({"frontend_kind": "/dev/zero"}, "kind is '/dev/zero'"),
        ({"frontend_top_db": float("nan")}, r"frontend\.top_db is nan"),
        ({"frontend_mean": float("-inf")}, r"frontend\.mean is -inf"),
        ({"frontend_sample_rate": True}, r"frontend\.sample_rate is True"),
        ({"frontend_sample_rate": 16_000.0}, r"frontend\.sample_rate is 16000\.0"),
        ({"frontend_norm": ["minmax"]}, r"norm is \['minmax'\]"),
        ({"encoder_patch_size": {"a": 1}}, r"encoder\.patch_size is {'a': 1}"),
        ({"encoder_patch_size": [[16], [8]]}, r"encoder\.patch_size is \[16\]"),
        ({"encoder_pad": 10**6 * "x"}, "pad is 'xxx"),
        ({"encoder_heads": 0}, r"encoder\.heads is 0"),
        ({"encoder_drop_path": 1e308}, r"encoder\.drop_path is"),
        ({"auto_map": {"AutoModel": "evil.Evil"}}, "it was made for transformers"),
    ],
)
def test_fields_of_other_kinds(release: Path, fields: dict, words: str):
    change(release, **fields)
    with pytest.raises(AudiobatError, match=words) as caught:
        release_io.load(release)
    assert str(release / "config.json") in str(caught.value)
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "text", "nothing", "link to nothing"])
def test_files_that_are_none(release: Path, name: str, kind: str):
    (release / name).unlink()
    if kind == "folder":
        (release / name).mkdir()
    elif kind == "pipe":
        os.mkfifo(release / name)  # to read one would wait for ever
    elif kind == "text":
        (release / name).write_bytes(b"<html>404</html>")
    elif kind == "link to nothing":
        (release / name).symlink_to(release / "gone")
    with pytest.raises(AudiobatError, match=rf"{name}"):
        release_io.load(release)


def test_a_config_larger_than_any(release: Path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_JSON", 100)
    with pytest.raises(AudiobatError, match=r"config\.json cannot be read as JSON \(it is larger than"):
        release_io.load(release)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.zeros(1, 1, 16, dtype=torch.float64), "cls_token holds float64 numbers, where weights are float32"),
        (torch.zeros(1, 1, 16, dtype=torch.int64), "cls_token holds int64 numbers"),
        (torch.zeros(1, 1, 16, dtype=torch.bool), "cls_token holds bool numbers"),
        (torch.full((1, 1, 16), float("nan")), "cls_token holds NaN or infinity: the training that made it has failed"),
        (torch.full((1, 1, 16), float("-inf")), "cls_token holds NaN or infinity"),
        (torch.zeros(0), r"cls_token has shape \[0\]"),
    ],
)
def test_tensors_of_another_kind(release: Path, value: torch.Tensor, words: str):
    retouch(release, lambda t: t.update(cls_token=value))
    with pytest.raises(AudiobatError, match=words):
        release_io.load(release)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_without_a_loss(release: Path, encoder: AudioEncoder, dtype: torch.dtype):
    retouch(release, lambda t: t.update({name: value.to(dtype) for name, value in t.items()}))
    for name, value in release_io.load(release).state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, encoder.state_dict()[name].to(dtype).float()), name


@pytest.mark.parametrize("prototypes", [2**40, 2**62, 2**63 - 1])
@pytest.mark.parametrize("kind", ["cgp", "protobin", "ep", "proto_classwise"])
def test_absurd_heads_are_refused(release: Path, encoder: AudioEncoder, kind: str, prototypes: int):
    sizes = {"prototypes": prototypes, "queries": prototypes, "per_class": prototypes}
    release_io.save_release(release, Tagger(encoder, TaggerConfig(HeadConfig(kind="cgp", prototypes=3), ("a", "b"))))
    change(release, tagger={"head": {"kind": kind, **sizes}, "classes": ["a", "b"]})
    with pytest.raises(AudiobatError, match=r"mine/"):
        release_io.load_tagger(release)


# what a folder is that holds no model, or no head


def test_the_output_of_a_probe_is_told_for_what_it_is(tmp_path: Path):
    (tmp_path / "probe" / "results").mkdir(parents=True)
    (tmp_path / "probe" / "results" / "bat_nano_cgp_0.json").write_text("{}")
    words = r"probe is the output of `audiobat probe`, whose results keep neither encoder nor head: make one"
    with pytest.raises(AudiobatError, match=words):
        release_io.load_tagger(tmp_path / "probe")
    with pytest.raises(AudiobatError, match=r"which keeps no model: give the one that was probed"):
        release_io.load(tmp_path / "probe")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudiobatError, match=r"empty has neither config\.json \(a release\) nor config\.yaml"):
        release_io.load_tagger(tmp_path / "empty")


def test_a_run_without_a_head_is_told_for_what_it_is(tmp_path: Path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_dict(PretrainConfig())))
    with pytest.raises(AudiobatError, match="is a run of pre-training, whose encoder has no head: make one"):
        release_io.load_tagger(tmp_path)
    (tmp_path / "config.yaml").write_text("model: bat_nano")
    for load in (release_io.load, release_io.load_tagger):
        with pytest.raises(AudiobatError, match="is a fine-tuning that has written no release yet: run the same"):
            load(tmp_path)
    for text in ("[", "- 1", "\x00", "a: &a [*a]\nb: !!python/object:os.system x", "[" * 3_000):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(AudiobatError, match=r"config\.yaml"):
            release_io.load(tmp_path)


# methods


def test_save_and_from_pretrained(tmp_path: Path, encoder: AudioEncoder):
    encoder.eval().save_pretrained(tmp_path / "mine")
    again = AudioEncoder.from_pretrained(tmp_path / "mine")
    assert weights_sha256(again) == weights_sha256(encoder)
    assert again.config == encoder.config
    before = (tmp_path / "mine" / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(AudiobatError, match="mine exists: give a new folder, or overwrite=True"):
        encoder.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "model.safetensors").stat().st_mtime_ns == before
    tagger = Tagger(encoder, TaggerConfig(HeadConfig(kind="linear"), ("a", "b")))
    tagger.save_pretrained(tmp_path / "mine", overwrite=True)
    assert weights_sha256(Tagger.from_pretrained(tmp_path / "mine")) == weights_sha256(tagger)
    assert AudioEncoder.from_pretrained("bat_nano").dim == 128
    with pytest.raises(AudiobatError, match="no head: make one"):
        Tagger.from_pretrained("bat_nano")


def test_beats_has_a_release_of_its_own(tmp_path: Path):
    encoder = convert_file(beats.file_of(tmp_path / "b.pt")).encoder
    encoder.save_pretrained(tmp_path / "mine")
    again = release_io.load(tmp_path / "mine")
    assert weights_sha256(again) == weights_sha256(encoder)
    waveform = torch.randn(2, 9000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = (e.forward_intermediates(waveform).patch_tokens for e in (encoder, again))
    assert torch.equal(ours, theirs)
    with pytest.raises(AudiobatError, match=r"holds a BeatsEncoder: load it by audiobat\.load"):
        AudioEncoder.from_pretrained(tmp_path / "mine")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format": 2}, "format is 2"),
        ({"max_distance": 10**4000}, "a number has too many digits"),
        ({"max_distance": 2**40}, "max_distance 1099511627776 do not fit"),
        ({"max_distance": 1}, "max_distance 1 do not fit"),
        ({"max_distance": "800"}, "max_distance 800 do not fit"),
        ({"sizes": {"dim": 2**40}}, "unknown field sizes"),
        ({"tagger": {"classes": ["a"]}}, r"head\.safetensors cannot be read"),
    ],
)
def test_a_config_of_beats_that_is_wrong(tmp_path: Path, fields: dict, words: str):
    convert_file(beats.file_of(tmp_path / "b.pt")).encoder.save_pretrained(tmp_path / "mine")
    change(tmp_path / "mine", **fields)
    with pytest.raises(AudiobatError, match=words) as caught:
        release_io.load_tagger(tmp_path / "mine") if "tagger" in fields else release_io.load(tmp_path / "mine")
    assert len(str(caught.value)) < 700


def test_tensors_of_beats_that_do_not_fit(tmp_path: Path):
    convert_file(beats.file_of(tmp_path / "b.pt")).encoder.save_pretrained(tmp_path / "mine")
    whole = (tmp_path / "mine" / "model.safetensors").read_bytes()
    for edit, words in (
        (lambda t: t.pop("blocks.1.fc2.bias"), r"no tensor blocks\.1\.fc2\.bias"),
        (lambda t: t.update(x=torch.zeros(1)), "has a tensor x"),
        (lambda t: t.pop("patch_embed.weight"), r"no tensor patch_embed\.weight"),
        (lambda t: t["norm.bias"].fill_(float("nan")), "norm.bias holds NaN or infinity"),
    ):
        (tmp_path / "mine" / "model.safetensors").write_bytes(whole)
        retouch(tmp_path / "mine", edit)
        with pytest.raises(AudiobatError, match=words):
            release_io.load(tmp_path / "mine")
