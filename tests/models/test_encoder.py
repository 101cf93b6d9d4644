"""The encoder: what it answers when called, padding that never changes a clip, windows, embeddings, names."""

import numpy as np
import pytest
import torch

import audiobat
from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.errors import AudiobatError
from audiobat.models import encoder as encoder_module
from audiobat.models.encoder import AudioEncoder, pool_features
from audiobat.models.features import Encoder


def tiny(pad="mask", max_frames=64, **frontend):
    torch.manual_seed(0)
    encoder = EncoderConfig(dim=16, depth=3, heads=2, max_frames=max_frames, pad=pad)
    return AudioEncoder(ModelConfig(FrontendConfig(mel_bins=32, n_fft=512, win_length=512, **frontend), encoder)).eval()


@pytest.fixture(scope="module")
def model():
    return tiny()


def same(found, expected) -> bool:
    fields = ("patch_tokens", "cls_token", "valid", "frame_times")
    return found.grid == expected.grid and all(torch.equal(getattr(found, f), getattr(expected, f)) for f in fields)


@torch.no_grad()
def test_a_loaded_model_is_called_on_waveforms():
    model = audiobat.load("bat_nano")
    waveform, lengths = torch.randn(2, 30_000), torch.tensor([30_000, 9_000])
    expected = model.forward_intermediates(waveform, lengths)
    calls = []
    handle = model.register_forward_hook(lambda _, args, features: calls.append((args[0], features)))
    found = model(waveform, lengths)
    handle.remove()
    assert same(found, expected)
    assert calls[0][0] is waveform
    assert calls[0][1] is found
    assert same(model(waveform), model.forward_intermediates(waveform))
    with pytest.raises(AudiobatError, match=r"shape \[30000\]: give \[clips, samples\]"):
        model(waveform[0])
    with pytest.warns(FutureWarning, match="forward_intermediates"):
        assert same(model.forward_layers(waveform, lengths), expected)


@torch.no_grad()
@pytest.mark.parametrize("pad", ["mask", "grid"])
def test_pretraining_sees_what_inference_sees(pad):
    """The tokens and the mask that the objective takes lead to the last block of `forward_intermediates`."""
    model = tiny(pad)
    for samples in (700, 5_000, 10_239):
        waveform = torch.randn(3, samples)
        for lengths in (None, torch.tensor([samples, samples // 2, 1])):
            spectrogram, valid = model.spectrogram(waveform, lengths)
            tokens = model.encode_tokens(model.embed_patches(spectrogram), valid)
            features = model.forward_intermediates(waveform, lengths)
            assert torch.equal(tokens[:, 1:], features.patch_tokens[-1])
            assert torch.equal(tokens[:, 0], features.cls_token[-1])
            if pad == "mask" and lengths is not None:
                assert torch.equal(valid, features.valid)
            else:
                assert valid is None  # attention and the loss see every patch


@torch.no_grad()
@pytest.mark.parametrize(
    ("indices", "numbers"), [(None, [0, 1, 2]), (1, [2]), (2, [1, 2]), ([0], [0]), ([-1, 0, 2], [0, 2]), ((1,), [1])]
)
def test_indices_choose_blocks_as_in_timm(model, indices, numbers):
    waveform, lengths = torch.randn(2, 12_000), torch.tensor([12_000, 3_000])
    every = model.forward_intermediates(waveform, lengths)
    ran = []
    handles = [block.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, block in enumerate(model.blocks)]
    found = model.forward_intermediates(waveform, lengths, indices=indices)
    for handle in handles:
        handle.remove()
    assert torch.equal(found.patch_tokens, every.patch_tokens[numbers])
    assert torch.equal(found.cls_token, every.cls_token[numbers])
    assert torch.equal(found.valid, every.valid)
    assert ran == list(range(numbers[-1] + 1))  # no block runs for nothing


@pytest.mark.parametrize("indices", [0, -1, 4, [], [3], [-4]])
def test_blocks_that_are_not_there_are_named(model, indices):
    with pytest.raises(AudiobatError, match="the model has 3 blocks"):
        model(torch.randn(1, 4_000), indices=indices)


@pytest.mark.parametrize("samples", [1, 400, 4_000, 10_240, 25_000])
def test_a_clip_is_the_same_alone_and_beside_a_longer_one(model, samples):
    torch.manual_seed(samples)
    clip, other = torch.randn(samples) * 0.1, torch.randn(31_000)
    batch = torch.zeros(2, 31_000)
    batch[0, :samples], batch[1] = clip, other
    with torch.no_grad():
        alone = model.forward_intermediates(clip[None])
        beside = model.forward_intermediates(batch, torch.tensor([samples, 31_000]))
    own = alone.patch_tokens.shape[2]
    keep = alone.valid[0]
    torch.testing.assert_close(beside.cls_token[:, :1], alone.cls_token, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        beside.patch_tokens[:, 0, :own][:, keep], alone.patch_tokens[:, 0][:, keep], atol=1e-5, rtol=0
    )
    assert beside.valid[0].sum() == keep.sum()
    for pool in ("cls", "mean"):
        torch.testing.assert_close(pool_features(beside, pool)[0], pool_features(alone, pool)[0], atol=1e-5, rtol=0)


def test_windows_are_concatenated_in_time_and_cls_is_averaged(model):
    """A clip of two whole windows equals its spectrogram's halves run as two clips."""
    frames = 2 * 64
    waveform = torch.randn(1, (frames - 1) * 160)
    features = model.forward_intermediates(waveform)
    assert features.grid == (8, 2)
    spectrogram, _ = model.frontend(waveform)
    halves = torch.stack(spectrogram[0].split(64))
    for layer, (x, _) in enumerate(model.run_blocks(model.embed_patches(halves))):
        torch.testing.assert_close(features.patch_tokens[layer, 0], x[:, 1:].flatten(0, 1))
        torch.testing.assert_close(features.cls_token[layer, 0], x[:, 0].mean(0))


def test_grid_padding_is_attended_to_and_marked_invalid():
    model = tiny(pad="grid")
    features = model.forward_intermediates(torch.randn(1, 3_200))  # 21 frames of 64
    assert features.grid == (4, 2)
    assert features.valid.sum() == 2 * 2
    masked = tiny(pad="mask").forward_intermediates(torch.randn(1, 3_200))
    assert masked.grid == (2, 2)


def test_grid_padding_of_a_standardised_spectrogram_is_a_zero_log_mel():
    model = tiny(pad="grid", norm="global", mean=-4.0, std=2.0)
    spectrogram, _ = model.spectrogram(torch.randn(1, 3_200))
    assert (spectrogram[0, 21:] == 1.0).all()  # (0 + 4) / (2 * 2)


def test_protocol_frame_times_and_depth(model):
    assert isinstance(model, Encoder)
    features = model.forward_intermediates(torch.randn(2, 16_000))
    assert features.patch_tokens.shape == (3, 2, features.grid[0] * 2, 16)
    assert features.grid[1] == model.freq_patches == 2
    assert model.num_prefix_tokens == model.encode_tokens(torch.zeros(1, 5, 16)).shape[1] - 5
    torch.testing.assert_close(features.frame_times[1], torch.tensor(0.16))


def test_embed_takes_arrays_and_keeps_the_mode(model):
    model.train()
    wave = np.random.default_rng(0).standard_normal(8_000).astype(np.float32)
    vector = model.embed(wave, sample_rate=16_000)
    assert model.training
    model.eval()
    features = model.forward_intermediates(torch.from_numpy(wave)[None])
    torch.testing.assert_close(vector, features.patch_tokens[-1, 0].mean(0))
    torch.testing.assert_close(model.embed(wave, sample_rate=16_000, pool="cls"), features.cls_token[-1, 0])
    torch.testing.assert_close(
        model.embed(wave, sample_rate=16_000, pool="mean", layer=2), features.patch_tokens[1, 0].mean(0)
    )


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"layer": 4}, "use 1 to 3"),
        ({"layer": 0}, "use 1 to 3"),
        ({"pool": "max"}, "choose mean or cls"),
        ({}, "sample_rate"),
    ],
)
def test_embed_names_a_bad_argument(model, kwargs, words):
    rate = {"sample_rate": 16_000} if kwargs else {}
    with pytest.raises(AudiobatError, match=words):
        model.embed(np.zeros(4_000, np.float32), **rate, **kwargs)


def test_silence_is_finite(model):
    assert torch.isfinite(model.forward_intermediates(torch.zeros(1, 8_000)).patch_tokens).all()


def test_parameters_are_named_as_the_release_names_them(model):
    names = set(model.state_dict())
    block = {
        f"blocks.0.{n}.{p}"
        for n in ("norm1", "attn.qkv", "attn.gate", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        for p in ("weight", "bias")
    }
    stem = {"patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed", "cls_token"}
    assert block | stem | {"pre_norm.weight", "pre_norm.bias"} == {
        n for n in names if "blocks.1" not in n and "blocks.2" not in n
    }


def test_base_has_the_published_parameter_count():
    parameters = sum(p.numel() for p in AudioEncoder().parameters())
    assert parameters == 92_341_248  # 85,254,144 and 7,087,104 of gates


@pytest.mark.parametrize("pad", ["mask", "grid"])
@pytest.mark.parametrize("samples", [700, 5_000, 12_000])  # less than a patch, less than a window, two windows
def test_a_spectrogram_gives_what_its_waveform_gives(pad: str, samples: int):
    torch.manual_seed(0)
    frontend = FrontendConfig(n_fft=256, win_length=256, mel_bins=16)
    model = AudioEncoder(ModelConfig(frontend, EncoderConfig(dim=16, depth=2, heads=2, max_frames=48, pad=pad))).eval()
    waveform, lengths = torch.randn(2, samples), torch.tensor([samples, samples // 2])
    for own in (None, lengths):
        expected = model.forward_intermediates(waveform, own)
        spectrogram, frames = model.frontend(waveform, own)
        found = model.forward_spectrogram(spectrogram, None if own is None else frames)
        assert same(found, expected)
        assert torch.equal(model.column_times(spectrogram.shape[1]), expected.frame_times)


@pytest.mark.parametrize("pad", ["mask", "grid"])
@pytest.mark.parametrize("samples", [700, 5_000, 12_000])  # less than a patch, less than a window, two windows
def test_few_clips_at_once_give_what_all_at_once_give(pad: str, samples: int, monkeypatch):
    torch.manual_seed(0)
    frontend = FrontendConfig(n_fft=256, win_length=256, mel_bins=16)
    model = AudioEncoder(ModelConfig(frontend, EncoderConfig(dim=16, depth=2, heads=2, max_frames=48, pad=pad))).eval()
    waveform, lengths = torch.randn(5, samples), torch.tensor([samples, 1, samples // 2, samples, samples // 3 + 1])
    sizes = []
    model.patch_embed.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    monkeypatch.setattr(encoder_module, "rows_at_once", lambda *_: 2)
    for own in (None, lengths):
        whole = model.forward_intermediates(waveform, own, [0, -1])  # a graph is needed: nothing is cut
        count = sizes.pop()  # windows of five clips
        assert not sizes
        with torch.no_grad():
            parts = model.forward_intermediates(waveform, own, [0, -1])
        assert sizes == [count * 2 // 5, count * 2 // 5, count // 5]
        sizes.clear()
        assert torch.equal(parts.valid, whole.valid)
        assert parts.grid == whole.grid
        torch.testing.assert_close(parts.patch_tokens, whole.patch_tokens, atol=1e-6, rtol=0)
        torch.testing.assert_close(parts.cls_token, whole.cls_token, atol=1e-6, rtol=0)
        assert torch.equal(parts.frame_times, whole.frame_times)
