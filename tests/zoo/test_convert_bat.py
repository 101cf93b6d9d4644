"""The public BAT layout, against a plain implementation of the whole network: own mel, own attention, own loops."""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.zoo import release as release_io
from audiobat.zoo.convert import convert_file
from audiobat.zoo.load import load_encoder

RATE, N_FFT, HOP, MELS = 16_000, 1024, 160, 128
DIM, DEPTH, HEADS, HIDDEN = 24, 3, 2, 96
COLUMNS, ROWS, PATCH = 64, 8, 16


def random_release(folder: Path, gate: bool = True, gate_bias: bool = True, **config) -> dict[str, np.ndarray]:
    """Write a folder of the public layout with random weights; returns them in double precision."""
    shapes = {
        "patch_embed.proj.weight": (DIM, 1, PATCH, PATCH),
        "patch_embed.proj.bias": (DIM,),
        "pos_embed": (1, COLUMNS * ROWS, DIM),
        "pre_norm.weight": (DIM,),
        "pre_norm.bias": (DIM,),
        "cls_token": (1, 1, DIM),
    }
    for n in range(DEPTH):
        block = f"blocks.{n}."
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}{norm}.weight": (DIM,), f"{block}{norm}.bias": (DIM,)}
        shapes |= {f"{block}attn.qkv.weight": (3 * DIM, DIM), f"{block}attn.qkv.bias": (3 * DIM,)}
        shapes |= {f"{block}attn.proj.weight": (DIM, DIM), f"{block}attn.proj.bias": (DIM,)}
        shapes |= {f"{block}mlp.fc1.weight": (HIDDEN, DIM), f"{block}mlp.fc1.bias": (HIDDEN,)}
        shapes |= {f"{block}mlp.fc2.weight": (DIM, HIDDEN), f"{block}mlp.fc2.bias": (DIM,)}
        if gate:
            shapes[f"{block}attn.gate.weight"] = (DIM, DIM)
        if gate and gate_bias:
            shapes[f"{block}attn.gate.bias"] = (DIM,)
    rng = np.random.default_rng(5)
    weights = {}
    for name, shape in shapes.items():
        fan_in = math.prod(shape[1:]) if name.endswith("weight") and len(shape) > 1 else 1
        value = rng.normal(size=shape) / math.sqrt(fan_in)
        weights[name] = (1 + 0.3 * value if "norm" in name and name.endswith("weight") else value).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bat", "num_heads": HEADS, **config}))
    safetensors.torch.save_file({n: torch.from_numpy(w) for n, w in weights.items()}, folder / "model.safetensors")
    return {name: value.astype(np.float64) for name, value in weights.items()}


# The plain network


def plain_spectrogram(waveform: np.ndarray) -> np.ndarray:
    """Mel dB within 80 dB of the clip's maximum, then min-max to [0, 1]: [T, 128]."""
    padded = np.pad(waveform.astype(np.float64), N_FFT // 2, mode="reflect")
    window = np.array([0.5 - 0.5 * math.cos(2 * math.pi * n / N_FFT) for n in range(N_FFT)])
    frames = [padded[t * HOP : t * HOP + N_FFT] * window for t in range(1 + len(waveform) // HOP)]
    power = np.abs(np.fft.rfft(np.stack(frames))) ** 2
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    corner = [700 * (10 ** (top * m / (MELS + 1) / 2595) - 1) for m in range(MELS + 2)]
    bank = np.zeros((N_FFT // 2 + 1, MELS))
    for k in range(N_FFT // 2 + 1):
        hertz = k * RATE / N_FFT
        for m in range(MELS):
            left, centre, right = corner[m : m + 3]
            bank[k, m] = max(0.0, min((hertz - left) / (centre - left), (right - hertz) / (right - centre)))
    db = 10 * np.log10(np.maximum(power @ bank, 1e-10))
    db = np.maximum(db, db.max() - 80)
    return (db - db.min()) / (db.max() - db.min() + 1e-8)


def plain_norm(x: np.ndarray, w: dict, name: str) -> np.ndarray:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def plain_linear(x: np.ndarray, w: dict, name: str) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def plain_attention(x: np.ndarray, w: dict, name: str) -> np.ndarray:
    size = DIM // HEADS
    qkv = plain_linear(x, w, f"{name}.qkv")
    heads = []
    for h in range(HEADS):
        q, k, v = (qkv[:, part * DIM + h * size : part * DIM + (h + 1) * size] for part in range(3))
        score = q @ k.T / math.sqrt(size)
        weight = np.exp(score - score.max(1, keepdims=True))
        heads.append(weight / weight.sum(1, keepdims=True) @ v)
    out = np.concatenate(heads, axis=1)
    if f"{name}.gate.weight" in w:
        out = out / (1 + np.exp(-plain_linear(x, w, f"{name}.gate")))
    return plain_linear(out, w, f"{name}.proj")


def plain_window(spectrogram: np.ndarray, w: dict) -> list[np.ndarray]:
    """Tokens [1 + 512, D] after every block, for a spectrogram [1024, 128]; fewer for one of fewer whole patches."""
    kernel = w["patch_embed.proj.weight"].reshape(DIM, -1)
    tokens = []
    for t in range(len(spectrogram) // PATCH):
        for f in range(ROWS):
            patch = spectrogram[t * PATCH : (t + 1) * PATCH, f * PATCH : (f + 1) * PATCH]
            tokens.append(kernel @ patch.reshape(-1) + w["patch_embed.proj.bias"])
    x = np.concatenate([w["cls_token"][0], np.stack(tokens) + w["pos_embed"][0, : len(tokens)]])
    x = plain_norm(x, w, "pre_norm")
    layers = []
    for n in range(DEPTH):
        x = plain_norm(x + plain_attention(x, w, f"blocks.{n}.attn"), w, f"blocks.{n}.norm1")
        hidden = plain_linear(x, w, f"blocks.{n}.mlp.fc1")
        hidden = 0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        x = plain_norm(x + plain_linear(hidden, w, f"blocks.{n}.mlp.fc2"), w, f"blocks.{n}.norm2")
        layers.append(x)
    return layers


def plain_network(waveform: np.ndarray, w: dict) -> tuple[np.ndarray, np.ndarray]:
    """Patch tokens [L, N, D] of all windows, one after another, and cls [L, D], their mean.

    One window is padded to 1,024 frames; of several the last runs as it is, in whole patches.
    """
    spectrogram = plain_spectrogram(waveform)
    spectrogram = np.pad(spectrogram, ((0, max(0, 1024 - len(spectrogram))), (0, 0)))
    starts = range(0, len(spectrogram) - PATCH + 1, 1024)
    windows = [np.array(plain_window(spectrogram[start : start + 1024], w)) for start in starts]  # [L, 1 + n, D]
    return np.concatenate([window[:, 1:] for window in windows], axis=1), np.mean(
        [window[:, 0] for window in windows], 0
    )


def clip(seconds: float, seed: int) -> np.ndarray:
    """A gliding tone with noise, so that no frame and no bin looks like another."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * (200 + 150 * seed + 90 * t) * t)
    return (0.4 * tone * (0.2 + t / seconds) + 0.02 * rng.normal(size=len(t))).astype(np.float32)


def worst(ours: torch.Tensor, plain: np.ndarray) -> float:
    return float(np.abs(ours.numpy().astype(np.float64) - plain).max())


@pytest.mark.parametrize(("gate", "gate_bias"), [(True, True), (True, False), (False, False)])
def test_every_layer_equals_the_plain_network_from_the_waveform_on(tmp_path: Path, gate: bool, gate_bias: bool):
    weights = random_release(tmp_path, gate, gate_bias)
    encoder = release_io.load(tmp_path)
    waveform = clip(3.0, 1)
    with torch.no_grad():
        features = encoder.forward_intermediates(torch.from_numpy(waveform)[None])
    patches, cls = plain_network(waveform, weights)
    assert features.grid == (COLUMNS, ROWS)
    assert patches.std() > 0.3  # layers differ and are not constant, so closeness says something
    assert worst(features.patch_tokens[:, 0], patches) < 1e-4
    assert worst(features.cls_token[:, 0], cls) < 1e-4
    assert features.valid.sum() == -(-301 // PATCH) * ROWS


def test_ten_three_and_thirteen_seconds_together(tmp_path: Path):
    weights = random_release(tmp_path)
    encoder = release_io.load(tmp_path)
    clips = [clip(10.0, 0), clip(3.0, 1), clip(13.0, 2)]
    lengths = torch.tensor([len(c) for c in clips])
    batch = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(c) for c in clips], batch_first=True)
    with torch.no_grad():
        features = encoder.forward_intermediates(batch, lengths)
    for index, waveform in enumerate(clips):
        patches, cls = plain_network(waveform, weights)
        assert worst(features.patch_tokens[:, index, : patches.shape[1]], patches) < 1e-4
        assert worst(features.cls_token[:, index], cls) < 1e-4
        frames = 1 + len(waveform) // HOP
        assert features.valid[index].sum() == (frames // PATCH if frames > 1024 else -(-frames // PATCH)) * ROWS


def test_the_plain_network_feels_every_tensor(tmp_path: Path):
    """The comparison above would be worth little if some tensor had no effect on it."""
    weights = random_release(tmp_path)
    rng = np.random.default_rng(0)
    spectrogram = rng.random((1024, MELS))
    before = plain_window(spectrogram, weights)[-1]
    for name in [n for n in weights if "blocks" not in n or n.startswith("blocks.1.")]:
        changed = weights | {name: weights[name] + 0.2 * rng.normal(size=weights[name].shape)}
        assert np.abs(plain_window(spectrogram, changed)[-1] - before).max() > 1e-4, name


def test_what_the_tensors_and_the_config_decide(tmp_path: Path):
    weights = random_release(tmp_path / "a", architectures=["Whatever"], depth=99, hidden_size=-1)
    encoder = release_io.load(tmp_path / "a")
    assert isinstance(encoder, AudioEncoder)
    config = encoder.config.encoder
    assert (config.dim, config.depth, config.heads, config.mlp_ratio) == (DIM, DEPTH, HEADS, HIDDEN / DIM)
    assert (config.max_frames, config.pad, config.gated_attention, config.gate_bias) == (1024, "grid", True, True)
    np.testing.assert_array_equal(encoder.pos_embed.numpy(), weights["pos_embed"])  # random here, so never computed
    assert encoder.config.encoder.positions == "released"
    random_release(tmp_path / "b", gate_bias=False, num_heads=3)
    assert release_io.load(tmp_path / "b").config.encoder.heads == 3
    assert not release_io.load(tmp_path / "b").config.encoder.gate_bias
    random_release(tmp_path / "c")
    for names, heads in (({"num_attention_heads": 4}, 4), ({"heads": 6}, 6), ({}, 1)):
        (tmp_path / "c" / "config.json").write_text(json.dumps({"model_type": "bat", **names}))
        assert release_io.load(tmp_path / "c").config.encoder.heads == heads


def test_a_converted_model_is_saved_and_loaded_as_a_release(tmp_path: Path):
    random_release(tmp_path / "theirs")
    encoder = release_io.load(tmp_path / "theirs")
    release_io.save_release(tmp_path / "ours", encoder)
    again = release_io.load(tmp_path / "ours")
    assert again.config == encoder.config
    assert weights_sha256(again) == weights_sha256(encoder)


def test_a_folder_that_is_no_bat_release_says_why(tmp_path: Path):
    weights = random_release(tmp_path)
    file = tmp_path / "model.safetensors"

    def fails(words: str, config: dict | None = None, **changes) -> None:
        tensors = {n: torch.from_numpy(w.astype(np.float32)) for n, w in (weights | changes).items() if w is not None}
        safetensors.torch.save_file(tensors, file)
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bat", **(config or {"num_heads": HEADS})}))
        with pytest.raises(AudiobatError, match=words) as caught:
            release_io.load(tmp_path)
        assert str(tmp_path) in str(caught.value)

    fails("no tensor pos_embed", pos_embed=None)
    fails(r"no tensor blocks\.1\.attn\.gate\.bias", **{"blocks.1.attn.gate.bias": None})
    fails("has a tensor fc_norm", fc_norm=np.zeros(3))
    fails(r"pos_embed has shape \[512, 24\]", pos_embed=weights["pos_embed"][0])
    fails("pos_embed has shape", pos_embed=weights["pos_embed"][:, :511])
    fails("patch_embed.proj.weight has shape", **{"patch_embed.proj.weight": np.zeros((DIM, 1, 16, 0))})
    fails("num_heads is 5", config={"num_heads": 5})
    fails("heads is '2'", config={"heads": "2"})


def training_files(folder: Path, weights: dict[str, np.ndarray]) -> tuple[Path, Path]:
    """The checkpoints of the plain training script and of the Lightning-style one (lineage, X.4)."""
    student = {name: torch.from_numpy(value.astype(np.float32)) for name, value in weights.items()}
    decoder = {"mask_token": torch.zeros(DIM), "proj.weight": torch.zeros(DIM, DIM)}
    script = {"encoder": student, "decoder": decoder, "ema_encoder": {n: t + 1 for n, t in student.items()}}
    script |= {"optimized_steps": 402_610, "args": argparse.Namespace(lr=5e-4)}
    torch.save(script, folder / "script.pt")
    state = {f"student.encoder.{name}": tensor for name, tensor in student.items()}
    state |= {f"student.decoder.{name}": tensor for name, tensor in decoder.items()}
    torch.save({"state_dict": state, "epoch": 9, "hyper_parameters": argparse.Namespace(a=1)}, folder / "a.ckpt")
    return folder / "script.pt", folder / "a.ckpt"


def test_training_checkpoints_hold_what_the_release_holds(tmp_path: Path):
    weights = random_release(tmp_path / "release", num_heads=1)  # what 24 dimensions have where nothing is told
    script, lightning = training_files(tmp_path, weights)
    wanted = release_io.load(tmp_path / "release")
    for source in (script, lightning, tmp_path / "release" / "model.safetensors"):
        assert weights_sha256(load_encoder(source)) == weights_sha256(wanted)
        assert load_encoder(source).config == wanted.config
    teacher = load_encoder(f"{script}:teacher")
    torch.testing.assert_close(teacher.cls_token, wanted.cls_token + 1)
    left = {"decoder.mask_token", "decoder.proj.weight"}
    assert set(convert_file(script).left) == left | {f"teacher.{name}" for name in weights}
    assert set(convert_file(f"{script}:teacher").left) == left | {f"student.{name}" for name in weights}
    assert set(convert_file(lightning).left) == {"student.decoder.mask_token", "student.decoder.proj.weight"}
    with pytest.raises(AudiobatError, match="no teacher"):
        load_encoder(f"{lightning}:teacher")


def test_a_folder_of_another_model_type_is_known_by_its_tensors(tmp_path: Path):
    """The reference names the tensors of BAT's folder, not the model_type in its config.json."""
    random_release(tmp_path / "release", num_heads=2)
    wanted = load_encoder(tmp_path / "release")
    for config in ({"num_heads": 2}, {"num_heads": 2, "model_type": "vit", "auto_map": {"AutoModel": "a.B"}}):
        (tmp_path / "release" / "config.json").write_text(json.dumps(config))
        found = load_encoder(tmp_path / "release")
        assert found.config == wanted.config
        assert weights_sha256(found) == weights_sha256(wanted)


def test_a_training_checkpoint_is_as_strict_as_a_release(tmp_path: Path):
    weights = random_release(tmp_path / "release")
    for changed, words in (
        ({n: w for n, w in weights.items() if n != "blocks.0.norm1.bias"}, r"no tensor blocks\.0\.norm1\.bias"),
        (weights | {"fc_norm.weight": np.zeros(3)}, "has a tensor fc_norm"),
    ):
        for file in training_files(tmp_path, changed):
            with pytest.raises(AudiobatError, match=words) as caught:
                load_encoder(file)
            assert str(file) in str(caught.value)


def test_the_file_of_a_release_of_ours_is_not_taken_for_theirs(tmp_path: Path):
    with pytest.raises(AudiobatError, match="give that folder"):
        load_encoder(release_io.WEIGHTS / "bat_nano" / "model.safetensors")
