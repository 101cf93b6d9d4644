"""Audio-MAE's files, against a plain pre-norm network from the waveform to the tokens of every block."""

import argparse
import json
from pathlib import Path

import numpy as np
import plain_networks as plain
import pytest
import torch
from safetensors.torch import save_file

from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.zoo import release as release_io
from audiobat.zoo.convert import convert_file
from audiobat.zoo.load import load_encoder

DIM, DEPTH, HEADS, HIDDEN, CLASSES = 128, 2, 2, 256, 6  # heads of 64 dimensions, as files do not tell their number
COLUMNS, ROWS = 64, 8


def shapes(final_norm: bool) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, DIM),
        "pos_embed": (1, 1 + COLUMNS * ROWS, DIM),
        "patch_embed.proj.weight": (DIM, 1, 16, 16),
        "patch_embed.proj.bias": (DIM,),
    }
    for n in range(DEPTH):
        found |= plain.block_shapes(f"blocks.{n}.", DIM, HIDDEN)
    if final_norm:
        return found | {"norm.weight": (DIM,), "norm.bias": (DIM,)}
    head: dict[str, tuple[int, ...]] = {"head.weight": (CLASSES, DIM), "head.bias": (CLASSES,)}
    return found | head | {"fc_norm.weight": (DIM,), "fc_norm.bias": (DIM,)}


PRETRAINED = plain.random_weights(shapes(final_norm=True))
TUNED = plain.random_weights(shapes(final_norm=False), seed=8)
DECODER = plain.random_weights(
    {
        "mask_token": (1, 1, 8),
        "decoder_pos_embed": (1, 513, 8),
        "decoder_embed.weight": (8, DIM),
        "decoder_embed.bias": (8,),
        "decoder_blocks.0.attn.relative_position_bias_table": (49, 2),
        "decoder_norm.weight": (8,),
        "decoder_pred.weight": (256, 8),
    }
)


def file_of(path: Path, weights: dict[str, np.ndarray], **changes) -> Path:
    """The dict that the training script writes, whose `args` are a Namespace."""
    model = {name: torch.from_numpy(value) for name, value in weights.items()} | changes
    model = {name: value for name, value in model.items() if value is not None}
    torch.save({"model": model, "optimizer": {"state": {}}, "epoch": 31, "args": argparse.Namespace(lr=1e-3)}, path)
    return path


def plain_mae(waveform: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Tokens [L, 513, D] after every block, the last one behind `norm` where there is one."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    rows = plain.fbank(waveform.astype(np.float64) - waveform.astype(np.float64).mean())
    spectrogram = (plain.fit(rows, 1024) + 4.2677393) / (2 * 4.5689974)
    tokens = plain.patches(spectrogram, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"])
    x = np.concatenate([w["cls_token"][0], tokens]) + w["pos_embed"][0]
    layers = []
    for n in range(DEPTH):
        block = f"blocks.{n}."
        x = x + plain.attention(plain.norm(x, w, f"{block}norm1", 1e-6), w, f"{block}attn", HEADS)
        x = x + plain.mlp(plain.norm(x, w, f"{block}norm2", 1e-6), w, f"{block}mlp")
        layers.append(x)
    if "norm.weight" in w:
        layers[-1] = plain.norm(x, w, "norm", 1e-6)
    return np.array(layers)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return plain.clip(2.5, 1)


@pytest.mark.parametrize("weights", [PRETRAINED, TUNED], ids=["pretrained", "tuned"])
def test_every_layer_equals_the_plain_network_from_the_waveform_on(tmp_path: Path, sound, weights):
    encoder = load_encoder(file_of(tmp_path / "pretrained.pth", weights | DECODER))
    wanted = plain_mae(sound, weights)
    with torch.no_grad():
        features = encoder.forward_intermediates(torch.from_numpy(sound)[None])
    assert features.grid == (COLUMNS, ROWS)
    assert wanted.std() > 0.3
    assert np.abs(features.patch_tokens[:, 0].numpy() - wanted[:, 1:]).max() < 3e-4
    assert np.abs(features.cls_token[:, 0].numpy() - wanted[:, 0]).max() < 3e-4


def test_the_plain_network_feels_every_tensor(sound):
    rng = np.random.default_rng(0)
    before = plain_mae(sound, PRETRAINED)
    for name in [n for n in PRETRAINED if "blocks" not in n or n.startswith("blocks.1.")]:
        changed = PRETRAINED | {name: PRETRAINED[name] + 0.2 * rng.normal(size=PRETRAINED[name].shape)}
        assert np.abs(plain_mae(sound, changed) - before).max() > 1e-3, name


def test_the_decoder_is_left_out_and_listed(tmp_path: Path):
    converted = convert_file(file_of(tmp_path / "a.pth", PRETRAINED | DECODER))
    assert set(converted.left) == set(DECODER)
    assert converted.layout == "Audio-MAE"
    assert converted.head is None


def test_the_head_reads_the_mean_patch(tmp_path: Path):
    """A clip that fills the window has no padding, so its own patches are all patches."""
    sound = plain.clip(10.24, 3)
    tagger = convert_file(file_of(tmp_path / "a.pth", TUNED)).tagger().eval()
    tokens = plain_mae(sound, TUNED)[-1, 1:]
    w = {name: value.astype(np.float64) for name, value in TUNED.items()}
    wanted = plain.linear(plain.norm(tokens.mean(0), w, "fc_norm", 1e-6), w, "head")
    with torch.no_grad():
        assert np.abs(tagger(torch.from_numpy(sound)[None])[0].numpy() - wanted).max() < 1e-3
    assert tagger.classes == tuple(str(n) for n in range(CLASSES))
    assert not tagger.multi_label


def test_timms_folders_are_read_with_a_head_and_without(tmp_path: Path, sound):
    """timm's models of the mean keep `fc_norm` where their head is dropped. Checked against timm 1.0.31 itself."""
    wanted = load_encoder(file_of(tmp_path / "tuned.pth", TUNED)).forward_intermediates(torch.from_numpy(sound)[None])
    for name, without in (("head", ()), ("bare", ("head.weight", "head.bias"))):
        folder = tmp_path / name
        folder.mkdir()
        tensors = {name: torch.from_numpy(value) for name, value in TUNED.items() if name not in without}
        save_file(tensors, folder / "model.safetensors")
        config = {"architecture": "vit_base_patch16_224", "num_classes": 0, "pretrained_cfg": {"input_size": [1, 1, 1]}}
        (folder / "config.json").write_text(json.dumps(config))
        found = load_encoder(f"timm:{folder}").forward_intermediates(torch.from_numpy(sound)[None])
        assert torch.equal(found.patch_tokens, wanted.patch_tokens)
    assert convert_file(tmp_path / "bare").left == ("fc_norm.bias", "fc_norm.weight")
    with pytest.raises(AudiobatError, match=r"timm's own models read pictures.*timm:OWNER/NAME"):
        load_encoder("timm:vit_base_patch16_224")


def test_a_converted_model_is_saved_and_loaded_as_a_release(tmp_path: Path, sound):
    encoder = load_encoder(file_of(tmp_path / "a.pth", PRETRAINED))
    assert isinstance(encoder, AudioEncoder)
    release_io.save_release(tmp_path / "ours", encoder)
    again = release_io.load(tmp_path / "ours")
    assert again.config == encoder.config
    assert weights_sha256(again) == weights_sha256(encoder)
    assert (encoder.config.encoder.block_norm, encoder.config.encoder.final_norm) == ("pre", True)


def test_a_file_that_does_not_fit_says_where(tmp_path: Path):
    def fails(words: str, **changes) -> None:
        file = file_of(tmp_path / "a.pth", PRETRAINED, **changes)
        with pytest.raises(AudiobatError, match=words) as caught:
            load_encoder(file)
        assert str(file) in str(caught.value)

    fails(r"no tensor norm\.bias", **{"norm.bias": None})
    fails(r"no tensor blocks\.1\.mlp\.fc2\.bias", **{"blocks.1.mlp.fc2.bias": None})
    fails("has a tensor surprise", surprise=torch.zeros(3))
    fails(
        r"patch_embed\.proj\.weight has shape \[128, 3, 16, 16\]",
        **{
            "patch_embed.proj.weight": torch.zeros(DIM, 3, 16, 16)  # of images, as MAE's own are
        },
    )


def test_the_published_size():
    """ViT-B: 12 blocks of 7,087,872, patch embedding 197,376, cls 768 and the last norm 1,536."""
    config = ModelConfig(
        FrontendConfig(kind="kaldi_fbank", n_fft=512, win_length=400),
        EncoderConfig(gated_attention=False, block_norm="pre", final_norm=True),
    )
    assert sum(p.numel() for p in AudioEncoder(config).parameters()) == 12 * 7_087_872 + 197_376 + 768 + 1_536


def test_the_order_of_norms_is_one_field_and_ours_stays_bit_equal():
    encoder = release_io.load("bat_nano")
    assert encoder.config.encoder.block_norm == "post"
    waveform = torch.from_numpy(plain.clip(2.0, 4))[None]
    with torch.no_grad():
        spectrogram, _ = encoder.spectrogram(waveform)
        patches = encoder.embed_patches(spectrogram)
        x = encoder.pre_norm(torch.cat([encoder.cls_token, patches], dim=1))
        for block, (ours, mlp) in zip(encoder.blocks, encoder.run_blocks(patches), strict=True):
            x = block.norm1(x + block.attn(x))
            theirs = block.mlp(x)
            x = block.norm2(x + theirs)
            assert torch.equal(ours, x)
            assert torch.equal(mlp, theirs)


def test_a_pre_norm_encoder_shows_what_its_attention_reads():
    torch.manual_seed(0)
    small = EncoderConfig(dim=16, depth=2, heads=2, max_frames=64, gated_attention=False, block_norm="pre")
    encoder = AudioEncoder(ModelConfig(FrontendConfig(mel_bins=32, n_fft=512, win_length=512), small)).eval()
    waveform = torch.randn(1, 8000)
    seen = []
    encoder.blocks[1].attn.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        encoder(waveform)
        attention, x = encoder.attention_input(waveform, layer=2)
    assert attention is encoder.blocks[1].attn
    torch.testing.assert_close(x, seen[0])
