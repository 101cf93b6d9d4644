"""BEATs' files, against a plain network from the waveform to the tokens of every block."""

import argparse
import math
from pathlib import Path

import numpy as np
import plain_networks as plain
import pytest
import torch

import audiobat
from audiobat.errors import AudiobatError
from audiobat.models.features import Encoder
from audiobat.zoo.convert import convert_file
from audiobat.zoo.convert.beats_encoder import BeatsEncoder, Sizes, bucket
from audiobat.zoo.doctor.encoder import examine
from audiobat.zoo.load import load_encoder

DIM, DEPTH, HEADS, HIDDEN, PATCH_DIM, KERNEL, GROUPS, CLASSES = 24, 3, 2, 48, 20, 16, 4, 5
BUCKETS, FAR = 320, 800
CFG = {
    **{"encoder_layers": 99, "encoder_embed_dim": 7, "layer_norm_first": False, "deep_norm": True},
    **{"num_buckets": BUCKETS, "max_distance": FAR, "gru_rel_pos": True, "activation_fn": "gelu"},
}


def shapes() -> dict[str, tuple[int, ...]]:
    """The public names, at small sizes."""
    found: dict[str, tuple[int, ...]] = {
        "post_extract_proj.weight": (DIM, PATCH_DIM),
        "post_extract_proj.bias": (DIM,),
        "patch_embedding.weight": (PATCH_DIM, 1, 16, 16),
        "encoder.pos_conv.0.bias": (DIM,),
        "encoder.pos_conv.0.weight_g": (1, 1, KERNEL),
        "encoder.pos_conv.0.weight_v": (DIM, DIM // GROUPS, KERNEL),
        "encoder.layer_norm.weight": (DIM,),
        "encoder.layer_norm.bias": (DIM,),
        "layer_norm.weight": (PATCH_DIM,),
        "layer_norm.bias": (PATCH_DIM,),
    }
    for n in range(DEPTH):
        layer = f"encoder.layers.{n}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= {f"{layer}self_attn.{name}.weight": (DIM, DIM), f"{layer}self_attn.{name}.bias": (DIM,)}
        found[f"{layer}self_attn.grep_a"] = (1, HEADS, 1, 1)
        found |= {f"{layer}self_attn.grep_linear.weight": (8, DIM // HEADS), f"{layer}self_attn.grep_linear.bias": (8,)}
        found[f"{layer}self_attn.relative_attention_bias.weight"] = (BUCKETS, HEADS)
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            found |= {f"{layer}{name}.weight": (DIM,), f"{layer}{name}.bias": (DIM,)}
        found |= {f"{layer}fc1.weight": (HIDDEN, DIM), f"{layer}fc1.bias": (HIDDEN,)}
        found |= {f"{layer}fc2.weight": (DIM, HIDDEN), f"{layer}fc2.bias": (DIM,)}
    return found


def table_name(layer: int) -> str:
    return f"encoder.layers.{layer}.self_attn.relative_attention_bias.weight"


WEIGHTS = plain.random_weights(shapes())
WEIGHTS |= {table_name(n): 2 * WEIGHTS[table_name(0)] for n in range(DEPTH)}  # one table, that says something
WEIGHTS["encoder.pos_conv.0.weight_g"] = 1 + np.abs(WEIGHTS["encoder.pos_conv.0.weight_g"])
HEAD = plain.random_weights({"predictor.weight": (CLASSES, DIM), "predictor.bias": (CLASSES,)}, seed=9)
LABELS = {n: f"/m/{n}" for n in reversed(range(CLASSES))}


def file_of(path: Path, weights: dict[str, np.ndarray] = WEIGHTS, cfg: dict | None = None, **changes) -> Path:
    model = {name: torch.from_numpy(value.astype(np.float32)) for name, value in weights.items()} | changes
    saved = {"cfg": CFG | (cfg or {}), "model": {name: value for name, value in model.items() if value is not None}}
    if "predictor.weight" in weights:
        saved["label_dict"] = LABELS
    torch.save(saved, path)
    return path


def plain_bucket(distance: int) -> int:
    """160 buckets for each sign: 80 of one distance each, then 80 whose width grows up to a distance of 800."""
    base = BUCKETS // 2 if distance > 0 else 0
    size = abs(distance)
    if size < 80:
        return base + size
    return base + min(159, 80 + int(math.log(size / 80) / math.log(FAR / 80) * 80))


def plain_conv(x: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    """The grouped convolution over tokens [n, D], its weight being g v / |v| at each place of the kernel."""
    v, g = w["encoder.pos_conv.0.weight_v"], w["encoder.pos_conv.0.weight_g"]
    weight = np.stack([g[0, 0, k] * v[:, :, k] / math.sqrt((v[:, :, k] ** 2).sum()) for k in range(KERNEL)], axis=2)
    out = np.tile(w["encoder.pos_conv.0.bias"], (len(x), 1))
    width = DIM // GROUPS
    for t in range(len(x)):
        for k in range(KERNEL):
            source = t + k - KERNEL // 2
            if 0 <= source < len(x):
                for group in range(GROUPS):
                    part = slice(group * width, (group + 1) * width)
                    out[t, part] += weight[part, :, k] @ x[source, part]
    return out


def plain_attention(x: np.ndarray, w: dict[str, np.ndarray], name: str) -> np.ndarray:
    width, count = DIM // HEADS, len(x)
    q, k, v = (plain.linear(x, w, f"{name}.{part}_proj") for part in "qkv")
    table = w[f"{name}.relative_attention_bias.weight"]
    place = [[plain_bucket(j - i) for j in range(count)] for i in range(count)]
    out = []
    for h in range(HEADS):
        part = slice(h * width, (h + 1) * width)
        opened = plain.linear(q[:, part], w, f"{name}.grep_linear")  # [n, 8]
        update, reset = (1 / (1 + np.exp(-opened[:, half : half + 4].sum(1))) for half in (0, 4))
        gate = update * (reset * w[f"{name}.grep_a"][0, h, 0, 0] - 1) + 2
        score = q[:, part] @ k[:, part].T / math.sqrt(width) + gate[:, None] * table[place, h]
        out.append(plain.softmax(score) @ v[:, part])
    return plain.linear(np.concatenate(out, axis=1), w, f"{name}.out_proj")


def plain_beats(waveform: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Tokens [L, n, D] after every block."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    rows = plain.fbank(waveform.astype(np.float64) * 32768, power=0.85)
    spectrogram = (rows - 15.41663) / (2 * 6.55582)
    x = plain.norm(plain.patches(spectrogram, w["patch_embedding.weight"]), w, "layer_norm", 1e-5)
    x = plain.linear(x, w, "post_extract_proj")
    x = plain.norm(x + plain.gelu(plain_conv(x, w)), w, "encoder.layer_norm", 1e-5)
    layers, weight = [], (2 * DEPTH) ** 0.25
    for n in range(DEPTH):
        layer = f"encoder.layers.{n}."
        x = plain.norm(weight * x + plain_attention(x, w, f"{layer}self_attn"), w, f"{layer}self_attn_layer_norm", 1e-5)
        hidden = plain.gelu(plain.linear(x, w, f"{layer}fc1"))
        x = plain.norm(weight * x + plain.linear(hidden, w, f"{layer}fc2"), w, f"{layer}final_layer_norm", 1e-5)
        layers.append(x)
    return np.array(layers)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return plain.clip(2.5, 1)  # 248 frames, of which the last eight make no whole patch


def test_every_layer_equals_the_plain_network_from_the_waveform_on(tmp_path: Path, sound):
    encoder = load_encoder(file_of(tmp_path / "BEATs_iter3_plus_AS2M.pt"))
    assert isinstance(encoder, Encoder)
    with torch.no_grad():
        features = encoder.forward_intermediates(torch.from_numpy(sound)[None])
    wanted = plain_beats(sound, WEIGHTS)
    assert features.grid == (15, 8)
    assert features.cls_token is None
    assert wanted.std() > 0.3
    assert np.abs(features.patch_tokens[:, 0].numpy() - wanted).max() < 3e-4
    np.testing.assert_allclose(features.frame_times.numpy(), 0.16 * np.arange(15), rtol=1e-6)


def test_the_plain_network_feels_every_tensor(sound):
    rng = np.random.default_rng(0)
    before = plain_beats(sound[:20_000], WEIGHTS)
    for name in [n for n in WEIGHTS if "layers" not in n or ".layers.1." in n]:
        if name.endswith("k_proj.bias"):  # adds the same to all scores of a query
            continue
        changed = WEIGHTS | {name: WEIGHTS[name] + 0.2 * rng.normal(size=WEIGHTS[name].shape)}
        assert np.abs(plain_beats(sound[:20_000], changed) - before).max() > 1e-4, name


def test_buckets_are_the_plain_ones():
    distances = list(range(-1200, 1200))
    ours = bucket(torch.tensor(distances), BUCKETS, FAR)
    assert ours.tolist() == [plain_bucket(d) for d in distances]


def test_the_encoder_keeps_the_rules(tmp_path: Path):
    findings = list(examine(load_encoder(file_of(tmp_path / "a.pt")), torch.device("cpu")))
    assert [f"{name}: {fault}" for name, fault in findings if fault] == []


def test_the_head_comes_along_with_its_classes(tmp_path: Path, sound):
    converted = convert_file(file_of(tmp_path / "a.pt", WEIGHTS | HEAD))
    assert converted.head is not None
    assert converted.head.config.classes == tuple(f"/m/{n}" for n in range(CLASSES))
    with torch.no_grad():
        logits = converted.head.module(converted.encoder.forward_intermediates(torch.from_numpy(sound)[None]))[
            0
        ].numpy()
    w = {name: value.astype(np.float64) for name, value in HEAD.items()}
    wanted = plain.linear(plain_beats(sound, WEIGHTS)[-1], w, "predictor").mean(0)
    assert np.abs(logits - wanted).max() < 1e-3
    with torch.no_grad():
        assert np.abs(converted.tagger().eval()(torch.from_numpy(sound)[None])[0].numpy() - wanted).max() < 1e-3
    with pytest.raises(AudiobatError, match="BEATs: there is no head in this file"):
        convert_file(file_of(tmp_path / "b.pt")).tagger()


def test_it_embeds_as_ours_do(tmp_path: Path, sound):
    encoder = audiobat.load(file_of(tmp_path / "a.pt"))
    vector = encoder.embed(sound, 16_000)
    assert np.abs(vector.numpy() - plain_beats(sound, WEIGHTS)[-1].mean(0)).max() < 3e-4
    with pytest.raises(AudiobatError, match="no cls token"):
        encoder.embed(sound, 16_000, pool="cls")


def test_openbeats_files_are_read_as_the_encoder_that_they_hold(tmp_path: Path, sound):
    """The package openbeats 0.1.1 keeps kernels of ones in its files; ESPnet puts `encoder.` before all names."""
    wanted = load_encoder(file_of(tmp_path / "beats.pt")).forward_intermediates(torch.from_numpy(sound)[None])
    ones = {"patch_embedding_pad.weight": np.ones((1, 1, 16, 16)), "raw2fbank_pad.weight": np.ones((1, 1, 400))}
    files = [file_of(tmp_path / "open.pt", WEIGHTS | ones, {"fbank_mean": 15.41663, "fbank_std": 6.55582})]
    nested = {f"encoder.{name}": torch.from_numpy(value.astype(np.float32)) for name, value in (WEIGHTS | ones).items()}
    torch.save(nested | {"decoder.linear_out.weight": torch.ones(3, DIM)}, tmp_path / "tuned.pth")
    for file in (*files, tmp_path / "tuned.pth"):
        found = load_encoder(file).forward_intermediates(torch.from_numpy(sound)[None])
        assert torch.equal(found.patch_tokens, wanted.patch_tokens)
    assert convert_file(tmp_path / "tuned.pth").left == ("decoder.linear_out.weight",)


def test_every_tensor_is_used_and_nothing_is_left(tmp_path: Path):
    assert convert_file(file_of(tmp_path / "a.pt", WEIGHTS | HEAD)).left == ()
    encoder = load_encoder(file_of(tmp_path / "b.pt"))
    tables = (DEPTH - 1) * WEIGHTS[table_name(0)].size
    lengths = WEIGHTS["encoder.pos_conv.0.weight_g"].size  # which are in the weight now
    total = sum(value.size for value in WEIGHTS.values()) - tables - lengths
    assert sum(parameter.numel() for parameter in encoder.parameters()) == total


def test_a_file_that_does_not_fit_says_where(tmp_path: Path):
    def fails(words: str, cfg: dict | None = None, **changes) -> None:
        file = file_of(tmp_path / "a.pt", cfg=cfg, **changes)
        with pytest.raises(AudiobatError, match=words) as caught:
            load_encoder(file)
        assert str(file) in str(caught.value)

    fails(r"no tensor blocks\.1\.fc2\.bias", **{"encoder.layers.1.fc2.bias": None})
    fails("has a tensor surprise", surprise=torch.zeros(3))
    fails("surprise is no tensor", surprise=argparse.Namespace())
    fails("different tables of relative positions", **{table_name(1): torch.zeros(BUCKETS, HEADS)})
    fails("no table of relative positions", **{table_name(n): None for n in range(DEPTH)})
    fails("weight_g has shape", **{"encoder.pos_conv.0.weight_g": torch.ones(DIM, 1, 1)})
    fails("no tensor pos_conv.weight_v", **{"encoder.pos_conv.0.weight_v": None})
    fails("layer_norm_first True", cfg={"layer_norm_first": True})
    fails("deep_norm False", cfg={"deep_norm": False})
    fails("do not fit each other", cfg={"max_distance": "far"})
    fails("fbank_mean 0.5, but only 15.41663", cfg={"fbank_mean": 0.5})


def test_the_published_size():
    """Iteration 3: 12 blocks of 768, heads of 64, patches of 512 dimensions, a kernel of 128 in 16 groups."""
    sizes = Sizes(768, 12, 12, 3072, 16, 512, False, 128, 16, 320, 800)
    with torch.device("meta"):
        total = sum(parameter.numel() for parameter in BeatsEncoder(sizes).parameters())
    block = 4 * (768**2 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768 + (64 * 8 + 8) + 12
    stem = 512 * 256 + 2 * 512 + (512 * 768 + 768) + (768 * 48 * 128 + 768) + 2 * 768 + 320 * 12
    assert total == 12 * block + stem
