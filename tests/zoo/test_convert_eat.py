"""EAT's and SSLAM's files in every layout, against a plain network from the waveform to the tokens of every block."""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import plain_networks as plain
import pytest
import safetensors.torch
import torch

import audiobat
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.models.patches import sincos_positions
from audiobat.zoo import release as release_io
from audiobat.zoo.convert import convert_file
from audiobat.zoo.load import load_encoder

DIM, DEPTH, HEADS, HIDDEN, CLASSES = 24, 3, 2, 96, 5
COLUMNS, ROWS = 64, 8
STEM = "modality_encoders.IMAGE."


def encoder_shapes(dim: int = DIM, depth: int = DEPTH, hidden: int = HIDDEN) -> dict[str, tuple[int, ...]]:
    """fairseq's names of section 3.2, without positions, which are fixed."""
    shapes: dict[str, tuple[int, ...]] = {
        f"{STEM}extra_tokens": (1, 1, dim),
        f"{STEM}local_encoder.proj.weight": (dim, 1, 16, 16),
        f"{STEM}local_encoder.proj.bias": (dim,),
        f"{STEM}context_encoder.norm.weight": (dim,),
        f"{STEM}context_encoder.norm.bias": (dim,),
    }
    for n in range(depth):
        shapes |= plain.block_shapes(f"blocks.{n}.", dim, hidden)
    return shapes


def decoder_shapes(dim: int = DIM) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for n in range(6):
        shapes |= {
            f"{STEM}decoder.blocks.{n}.0.weight": (dim, dim // 8, 3, 3),
            f"{STEM}decoder.blocks.{n}.0.bias": (dim,),
        }
    return shapes | {f"{STEM}decoder.proj.weight": (dim, dim), f"{STEM}decoder.proj.bias": (dim,)}


def tensors(weights: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in weights.items()}


POSITIONS = {
    "long": plain.sines(768, ROWS, DIM),
    "short": plain.sines(COLUMNS, ROWS, DIM),
}  # after and before April 2024
STUDENT = plain.random_weights(encoder_shapes())
TEACHER = plain.random_weights(encoder_shapes(), seed=6)
HEAD = plain.random_weights(
    {"fc_norm.weight": (DIM,), "fc_norm.bias": (DIM,), "head.weight": (CLASSES, DIM), "head.bias": (CLASSES,)}, seed=7
)


def pretraining_file(path: Path, table: str = "long", **changes) -> Path:
    """The dict that fairseq writes, with the classes for which its files need an ordinary unpickler."""
    table_tensor = {f"{STEM}fixed_positional_encoder.positions": POSITIONS[table]}
    model: dict = tensors(STUDENT | table_tensor | plain.random_weights(decoder_shapes()))
    model["_ema"] = tensors(TEACHER | table_tensor)
    model.update(changes)
    saved = {
        "args": None,
        "cfg": {"model": {"_name": "data2vec_multi", "num_heads": HEADS, "depth": 99}, "task": {}},
        "model": {name: value for name, value in model.items() if value is not None},
        "criterion": None,
        "optimizer_history": [{"num_updates": 400_000, "optimizer_name": "CompositeOptimizer"}],
        "task_state": {},
        "extra_state": {"best": np.float64(0.5), "meters": argparse.Namespace(loss=1.0)},
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.zeros(3)}}},
    }
    torch.save(saved, path)
    return path


def fine_tuning_file(path: Path) -> Path:
    nested = {"pretrained_model_args": {"model": {"num_heads": HEADS}}}
    table = {f"{STEM}fixed_positional_encoder.positions": POSITIONS["long"]}
    model = {f"model.{name}": tensor for name, tensor in tensors(STUDENT | table | HEAD).items()}
    torch.save({"cfg": {"model": nested}, "model": model}, path)
    return path


def hugging_face_folder(folder: Path, head: bool, **config) -> Path:
    """Section 3.4: `model.` before every name, and other names of the stem."""
    named = {}
    for name, value in (STUDENT | {f"{STEM}fixed_positional_encoder.positions": POSITIONS["long"]}).items():
        named[f"model.{name.removeprefix(STEM).replace('context_encoder.norm', 'pre_norm')}"] = value
    if head:
        named |= {f"model.{name}": value for name, value in HEAD.items()}
    folder.mkdir()
    safetensors.torch.save_file(tensors(named), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "eat", "num_heads": HEADS, "depth": 99, **config}))
    return folder


def plain_eat(waveform: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    """Tokens [L, 513, D] after every block."""
    w = {name.removeprefix(STEM): value.astype(np.float64) for name, value in w.items()}
    rows = plain.fbank(waveform.astype(np.float64) - waveform.astype(np.float64).mean())
    spectrogram = (plain.fit(rows, 1024) + 4.268) / (2 * 4.569)
    tokens = plain.patches(spectrogram, w["local_encoder.proj.weight"], w["local_encoder.proj.bias"])
    x = np.concatenate([w["extra_tokens"][0], tokens + POSITIONS["short"][0]])
    x = plain.norm(x, w, "context_encoder.norm", 1e-6)
    layers = []
    for n in range(DEPTH):
        x = plain.norm(x + plain.attention(x, w, f"blocks.{n}.attn", HEADS), w, f"blocks.{n}.norm1", 1e-6)
        x = plain.norm(x + plain.mlp(x, w, f"blocks.{n}.mlp"), w, f"blocks.{n}.norm2", 1e-6)
        layers.append(x)
    return np.array(layers)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return plain.clip(3.0, 1)


@pytest.fixture(scope="module")
def expected(sound: np.ndarray) -> dict[str, np.ndarray]:
    return {"student": plain_eat(sound, STUDENT), "teacher": plain_eat(sound, TEACHER)}


def compare(encoder, waveform: np.ndarray, wanted: np.ndarray) -> None:
    with torch.no_grad():
        features = encoder.forward_intermediates(torch.from_numpy(waveform)[None])
    assert features.grid == (COLUMNS, ROWS)
    assert wanted.std() > 0.3  # layers differ and are not constant, so closeness says something
    assert np.abs(features.patch_tokens[:, 0].numpy() - wanted[:, 1:]).max() < 2e-4
    assert np.abs(features.cls_token[:, 0].numpy() - wanted[:, 0]).max() < 2e-4
    assert features.valid.sum() == -(-(1 + (len(waveform) - 400) // 160) // 16) * ROWS


@pytest.mark.parametrize("table", ["short", "long"])
@pytest.mark.parametrize("who", ["student", "teacher"])
def test_a_pretraining_file_equals_the_plain_network(tmp_path: Path, sound, expected, table: str, who: str):
    file = pretraining_file(tmp_path / "EAT-base_epoch30_pt.pt", table)
    encoder = load_encoder(file if who == "student" else f"{file}:teacher")
    compare(encoder, sound, expected[who])


def test_fine_tuning_and_hugging_face_files_equal_the_plain_network(tmp_path: Path, sound, expected):
    for source in (
        fine_tuning_file(tmp_path / "finetuned.pt"),
        hugging_face_folder(tmp_path / "pretrained", head=False),
        hugging_face_folder(tmp_path / "tuned", head=True),
        tmp_path / "tuned" / "model.safetensors",
    ):
        compare(load_encoder(str(source)), sound, expected["student"])


def test_the_plain_network_feels_every_tensor(sound, expected):
    rng = np.random.default_rng(0)
    for name in [n for n in STUDENT if "blocks" not in n or n.startswith("blocks.1.")]:
        changed = STUDENT | {name: STUDENT[name] + 0.2 * rng.normal(size=STUDENT[name].shape)}
        assert np.abs(plain_eat(sound, changed) - expected["student"]).max() > 1e-3, name


def test_ten_seconds_are_one_window_and_thirteen_two(tmp_path: Path):
    encoder = load_encoder(pretraining_file(tmp_path / "a.pt"))
    long = plain.clip(10.0, 2)
    compare(encoder, long, plain_eat(long, STUDENT))
    with torch.no_grad():
        assert encoder.forward_intermediates(torch.zeros(1, 13 * 16_000)).grid == (1298 // 16, ROWS)


def test_audiobat_load_takes_a_file_and_the_encoder_embeds(tmp_path: Path, sound, expected):
    encoder = audiobat.load(pretraining_file(tmp_path / "a.pt"))
    vector = encoder.embed(sound, 16_000, pool="cls", layer=2)
    assert np.abs(vector.numpy() - expected["student"][1, 0]).max() < 2e-4
    assert isinstance(audiobat.load("bat_nano"), AudioEncoder)
    with pytest.raises(AudiobatError, match="did you mean bat_nano"):
        audiobat.load("bat_mano")


def test_every_tensor_is_used_or_listed(tmp_path: Path):
    converted = convert_file(pretraining_file(tmp_path / "a.pt", **{f"{STEM}alibi_scale": torch.ones(1)}))
    no_part = {*decoder_shapes(), f"{STEM}alibi_scale"}
    encoder = {*encoder_shapes(), f"{STEM}fixed_positional_encoder.positions"}
    other = {"last_optimizer_state.state.0.exp_avg"}
    assert set(converted.left) == no_part | other | {f"teacher.{name}" for name in encoder}
    assert converted.head is None
    teacher = convert_file(f"{tmp_path / 'a.pt'}:teacher")
    assert set(teacher.left) == other | {f"student.{name}" for name in encoder | no_part}
    assert convert_file(fine_tuning_file(tmp_path / "b.pt")).left == ()


def test_half_precision_becomes_single(tmp_path: Path):
    halves = {name: tensor.half() for name, tensor in tensors(STUDENT).items()}
    halves[f"{STEM}fixed_positional_encoder.positions"] = torch.from_numpy(POSITIONS["long"]).half()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # fp16 rounds the positions, which is no reason to warn
        encoder = load_encoder(pretraining_file(tmp_path / "a.pt", **halves))
    assert {tensor.dtype for tensor in encoder.state_dict().values()} == {torch.float32}
    name = "blocks.1.mlp.fc1.weight"
    assert torch.equal(encoder.state_dict()[name], halves[name].float())


def test_odd_positions_are_used_and_missing_ones_computed(tmp_path: Path):
    name = f"{STEM}fixed_positional_encoder.positions"
    odd = torch.randn(1, 6144, DIM)
    with pytest.warns(UserWarning, match="positions are not EAT's"):
        encoder = load_encoder(pretraining_file(tmp_path / "a.pt", **{name: odd}))
    assert torch.equal(encoder.pos_embed, odd[:, :512])
    encoder = load_encoder(pretraining_file(tmp_path / "b.pt", **{name: None}))
    np.testing.assert_allclose(encoder.pos_embed.numpy(), POSITIONS["short"], atol=1e-6)


def plain_logits(tokens: np.ndarray) -> np.ndarray:
    w = {name: value.astype(np.float64) for name, value in HEAD.items()}
    return plain.linear(plain.norm(tokens[-1, 0], w, "fc_norm", 1e-6), w, "head")


def test_the_head_comes_along_with_its_classes(tmp_path: Path, sound, expected):
    labels = {str(n): f"sound {n}" for n in range(CLASSES)}
    numbered = {str(n): f"LABEL_{n}" for n in range(CLASSES)}
    for source, names in (
        (fine_tuning_file(tmp_path / "a.pt"), [str(n) for n in range(CLASSES)]),
        (hugging_face_folder(tmp_path / "b", head=True, id2label=labels), list(labels.values())),
        (hugging_face_folder(tmp_path / "c", head=True, id2label=numbered), [str(n) for n in range(CLASSES)]),
    ):
        tagger = convert_file(source).tagger().eval()
        assert list(tagger.classes) == names
        with torch.no_grad():
            logits = tagger(torch.from_numpy(sound)[None])[0].numpy()
        assert np.abs(logits - plain_logits(expected["student"])).max() < 1e-3
        for name, value in HEAD.items():  # as they are, so that fine-tuning goes on from them
            ours = name.replace("fc_norm", "norm").replace("head", "classifier")
            np.testing.assert_array_equal(tagger.head.state_dict()[ours].numpy(), value)
    release_io.save_release(tmp_path / "release", tagger)
    again = release_io.load_tagger(tmp_path / "release")
    with torch.no_grad():
        np.testing.assert_array_equal(again(torch.from_numpy(sound)[None])[0].numpy(), logits)
    with pytest.raises(AudiobatError, match="no head"):
        convert_file(pretraining_file(tmp_path / "d.pt")).tagger()


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_norm_of_another_width_is_told(tmp_path: Path, part: str):
    torch.save({"model": tensors(STUDENT | HEAD | {f"fc_norm.{part}": np.ones(3)})}, tmp_path / "a.pt")
    with pytest.raises(AudiobatError, match=rf"a\.pt: fc_norm\.{part} has shape \[3\]: it does not fit {DIM}"):
        convert_file(tmp_path / "a.pt")


def test_a_converted_model_is_saved_and_loaded_as_a_release(tmp_path: Path):
    encoder = load_encoder(pretraining_file(tmp_path / "a.pt"))
    assert isinstance(encoder, AudioEncoder)
    release_io.save_release(tmp_path / "ours", encoder)
    again = release_io.load(tmp_path / "ours")
    assert again.config == encoder.config
    assert weights_sha256(again) == weights_sha256(encoder)


def test_a_file_that_does_not_fit_says_where(tmp_path: Path):
    def fails(words: str, source: str = "a.pt", **changes) -> None:
        pretraining_file(tmp_path / "a.pt", **changes)
        with pytest.raises(AudiobatError, match=words) as caught:
            load_encoder(str(tmp_path / source))
        assert str(tmp_path / "a.pt") in str(caught.value)

    fails("no tensor cls_token", **{f"{STEM}extra_tokens": None})
    fails(r"no tensor blocks\.1\.attn\.qkv\.bias", **{"blocks.1.attn.qkv.bias": None})
    fails("has a tensor surprise", surprise=torch.zeros(3))
    fails(r"cls_token has shape \[1, 2, 24\]", **{f"{STEM}extra_tokens": torch.zeros(1, 2, DIM)})
    fails("surprise is no tensor but a argparse.Namespace", surprise=argparse.Namespace())
    fails("no teacher beside the student", "a.pt:teacher", _ema=None)
    fails(r"blocks\.2\.norm1\.weight has shape", **{"blocks.2.norm1.weight": torch.zeros(DIM + 1)})


def test_what_a_hostile_file_says_is_not_repeated_at_length(tmp_path: Path):
    """Names and values go into sentences: control characters, or lists of 2^40 leaves, must not."""
    laughs: list = []
    for _ in range(40):
        laughs = [laughs, laughs]
    for changes, top in (
        ({"surprise": laughs}, {}),
        ({"\x1b[31mred": torch.zeros(1)}, {}),
        ({"x" * 10_000: torch.zeros(1)}, {}),
        ({7: torch.zeros(1)}, {}),
        ({}, {"num_heads": laughs}),
    ):
        file = tmp_path / "a.pt"
        torch.save({"model": tensors(STUDENT) | changes, **top}, file)
        with pytest.raises(AudiobatError) as caught:
            load_encoder(file)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500
    torch.save({"model": tensors(STUDENT), "extra": [laughs, {"near": torch.zeros(1)}]}, tmp_path / "b.pt")
    assert convert_file(tmp_path / "b.pt").left == ("extra.1.near",)


def test_a_folder_is_known_by_its_tensors(tmp_path: Path, sound, expected):
    """No reference says what model_type is in the config.json of these projects."""
    for kind in ("eat_audio", None):
        folder = hugging_face_folder(tmp_path / str(kind), head=False, model_type=kind, auto_map={"AutoModel": "a.B"})
        compare(audiobat.load(folder), sound, expected["student"])
    (tmp_path / "None" / "config.json").write_text('{"format": 1}')
    with pytest.raises(AudiobatError, match="model_type is None: it must be audiobat"):
        audiobat.load(tmp_path / "None")  # a damaged release of ours is not taken for another project's


@pytest.mark.parametrize("kind", ["eat", "sslam"])
@pytest.mark.parametrize(("dim", "hidden", "heads"), [(768, 3072, 12), (1024, 4096, 16)])
def test_hugging_faces_base_and_large_are_fairseqs(tmp_path: Path, kind: str, dim: int, hidden: int, heads: int):
    """Two blocks of each width, with the long table: the same tensors under both projects' names; none is left."""
    generator = torch.Generator().manual_seed(0)
    shapes = encoder_shapes(dim, 2, hidden) | {f"{STEM}fixed_positional_encoder.positions": (1, 6144, dim)}
    weights = {name: torch.randn(shape, generator=generator) * 0.02 for name, shape in shapes.items()}
    weights[f"{STEM}fixed_positional_encoder.positions"] = sincos_positions((768, 8), dim)
    torch.save({"model": weights}, tmp_path / "fairseq.pt")
    head = {"model.head.weight": torch.randn(527, dim, generator=generator), "model.head.bias": torch.zeros(527)}
    head |= {"model.fc_norm.weight": torch.ones(dim), "model.fc_norm.bias": torch.zeros(dim)}
    named = {
        f"model.{name.removeprefix(STEM).replace('context_encoder.norm', 'pre_norm')}": tensor
        for name, tensor in weights.items()
    }
    (tmp_path / "hf").mkdir()
    safetensors.torch.save_file(named | head, tmp_path / "hf" / "model.safetensors")
    fields = {"model_type": kind, "embed_dim": dim, "depth": 2, "num_heads": heads, "model_variant": "finetune"}
    (tmp_path / "hf" / "config.json").write_text(json.dumps(fields))
    converted = convert_file(tmp_path / "hf")
    theirs, ours = load_encoder(tmp_path / "fairseq.pt"), converted.encoder
    assert converted.left == ()
    assert ours.config == theirs.config
    assert ours.config.encoder.heads == heads
    assert weights_sha256(ours) == weights_sha256(theirs)
    tagger = converted.tagger()
    assert tagger.classes == tuple(str(n) for n in range(527))
    assert tagger.multi_label
    assert torch.equal(tagger.head.classifier.weight, head["model.head.weight"])


def test_the_published_sizes(tmp_path: Path):
    """Section 2.6: 85,254,144 parameters without the fixed positions, and EAT-large's width and depth."""
    weights = {name: torch.zeros(shape).half() for name, shape in encoder_shapes(768, 12, 3072).items()}
    torch.save({"model": weights}, tmp_path / "base.pt")
    encoder = load_encoder(tmp_path / "base.pt")
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 85_254_144
    assert (encoder.depth, encoder.dim, encoder.config.encoder.heads) == (12, 768, 12)
    weights = {name: torch.zeros(shape).half() for name, shape in encoder_shapes(1024, 2, 4096).items()}
    torch.save({"model": weights}, tmp_path / "large.pt")
    encoder = load_encoder(tmp_path / "large.pt")
    assert (encoder.dim, encoder.config.encoder.heads, encoder.config.encoder.mlp_ratio) == (1024, 16, 4.0)
