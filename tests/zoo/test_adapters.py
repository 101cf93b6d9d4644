"""Hugging Face models as encoders: the real classes, small and random, against plain calls of them, clip by clip."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    ClapAudioConfig,
    ClapAudioModel,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from audiobat.errors import AudiobatError
from audiobat.zoo.adapters.huggingface import read
from audiobat.zoo.adapters.windows import TimeGrid, WindowedEncoder
from audiobat.zoo.load import load_encoder
from tests.foreign_encoders import CLOSE, check_rules, features, noise, save

SPEECH = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
FAMILY = {
    "wav2vec2": (Wav2Vec2Model, Wav2Vec2Config(**SPEECH), True),
    "wav2vec2-large": (Wav2Vec2Model, Wav2Vec2Config(**SPEECH, **LARGE), True),
    "hubert": (HubertModel, HubertConfig(**SPEECH), False),
    "hubert-large": (HubertModel, HubertConfig(**SPEECH, **LARGE), True),
    "wavlm": (WavLMModel, WavLMConfig(**SPEECH), False),
}


@pytest.mark.parametrize("kind", FAMILY)
@torch.no_grad()
def test_wav2vec2_and_its_kin(kind: str, tmp_path: Path):
    model_class, config, normalise = FAMILY[kind]
    extractor = Wav2Vec2FeatureExtractor(do_normalize=normalise)
    encoder = load_encoder(f"hf:{save(tmp_path, model_class(config), extractor)}")
    assert isinstance(encoder, WindowedEncoder)
    assert (encoder.sample_rate, encoder.dim, encoder.depth) == (16_000, 16, 3)
    clips = [3 * clip + 0.2 for clip in noise(1.0, 0.4, 1.0)]
    found = check_rules(encoder, clips)
    torch.testing.assert_close(found.frame_times[1:].diff(), torch.full((47,), 0.02))
    plain = model_class.from_pretrained(tmp_path).eval()
    for i, clip in enumerate(clips):
        inputs = extractor(clip.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
        torch.testing.assert_close(encoder.inputs(clip[None]), inputs, atol=1e-5, rtol=1e-5)
        wanted = torch.stack(plain(inputs, output_hidden_states=True).hidden_states[1:])  # [L, 1, T, D]
        torch.testing.assert_close(found.patch_tokens[:, i, : wanted.shape[2]], wanted[:, 0], **CLOSE)
        assert found.valid[i].sum() == wanted.shape[2]


def test_a_clip_shorter_than_a_token_gives_one(tmp_path: Path):
    model = Wav2Vec2Model(FAMILY["wav2vec2"][1])
    encoder = load_encoder(f"hf:{save(tmp_path, model, Wav2Vec2FeatureExtractor())}")
    found = features(encoder, noise(0.01))
    assert found.grid == (1, 1)
    assert found.patch_tokens.isfinite().all()


def test_long_clips_run_in_windows_on_an_even_grid(tmp_path: Path):
    model = Wav2Vec2Model(FAMILY["wav2vec2"][1])
    encoder = load_encoder(f"hf:{save(tmp_path, model, Wav2Vec2FeatureExtractor())}")
    encoder.grid = TimeGrid(window=16_000, hop=320, span=400)  # 49 tokens; the next window starts at 49 * 320
    clip = noise(2.5)[0]
    found = check_rules(encoder, [clip, clip[:20_000]])
    assert found.grid[0] == (40_000 - 400) // 320 + 1  # as many as in one go
    torch.testing.assert_close(found.frame_times, torch.arange(124) * 0.02)
    second = features(encoder, [clip[49 * 320 : 49 * 320 + 16_000]])
    torch.testing.assert_close(found.patch_tokens[:, 0, 49:98], second.patch_tokens[:, 0], **CLOSE)


@torch.no_grad()
def test_ast(tmp_path: Path):
    size = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    extractor = ASTFeatureExtractor(max_length=256)
    encoder = load_encoder(f"hf:{save(tmp_path, ASTModel(ASTConfig(**size, max_length=256)), extractor)}")
    assert (encoder.sample_rate, encoder.dim, encoder.depth) == (16_000, 16, 3)
    clips = noise(1.0, 0.5, 2.575)  # the last one holds 256 frames
    found = check_rules(encoder, clips)
    assert found.grid == ((256 - 16) // 10 + 1, 12)
    torch.testing.assert_close(found.frame_times, torch.arange(25) * 0.1)
    plain = ASTModel.from_pretrained(tmp_path).eval()
    for i, clip in enumerate(clips):
        inputs = extractor(clip.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
        torch.testing.assert_close(encoder.inputs(clip[None]), inputs, atol=1e-4, rtol=1e-4)
        wanted = torch.stack(plain(inputs, output_hidden_states=True).hidden_states[1:])[:, 0]  # [L, 2 + F * T, D]
        torch.testing.assert_close(found.cls_token[:, i], wanted[:, :2].mean(1), **CLOSE)
        by_row = wanted[:, 2:].reshape(3, 12, 25, 16)
        mine = found.patch_tokens[:, i].reshape(3, 25, 12, 16)
        frames = 1 + (len(clip) - 400) // 160
        whole = (frames - 16) // 10 + 1  # columns without padding
        assert found.valid[i].reshape(25, 12).sum(0).tolist() == [whole] * 12
        for t in range(whole):
            torch.testing.assert_close(mine[:, t], by_row[:, :, t], **CLOSE)


def test_cls_of_a_long_clip_is_the_mean_over_its_windows_by_columns(tmp_path: Path):
    size = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 8}
    model = ASTModel(ASTConfig(**size, max_length=64))
    encoder = load_encoder(f"hf:{save(tmp_path, model, ASTFeatureExtractor(max_length=64))}")
    long, brief = noise(1.2, 0.4)
    found = check_rules(encoder, [long, brief])
    step = 5 * 1600  # five columns fit in 64 frames
    parts = [long[:10_480], long[step : step + 10_480], long[2 * step :]]
    alone = [features(encoder, [part]) for part in parts]
    columns = [part.grid[0] for part in alone]
    assert columns == [5, 5, 1]
    wanted = sum(part.cls_token * n for part, n in zip(alone, columns, strict=True)) / 11
    torch.testing.assert_close(found.cls_token[:, :1], wanted, **CLOSE)
    assert found.grid[0] == (1 + (19_200 - 400) // 160 - 16) // 10 + 1


def test_ast_without_normalisation(tmp_path: Path):
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    extractor = ASTFeatureExtractor(max_length=64, do_normalize=False)
    encoder = load_encoder(f"hf:{save(tmp_path, ASTModel(ASTConfig(**size, max_length=64)), extractor)}")
    clip = noise(0.3)[0]
    inputs = extractor(clip.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    torch.testing.assert_close(encoder.inputs(clip[None]), inputs, atol=1e-4, rtol=1e-4)


def whisper_parts(seconds: int) -> tuple[WhisperModel, WhisperFeatureExtractor]:
    config = WhisperConfig(
        d_model=16,
        encoder_layers=3,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        vocab_size=40,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        max_source_positions=50 * seconds,
    )
    return WhisperModel(config), WhisperFeatureExtractor(chunk_length=seconds)


@torch.no_grad()
def test_whisper(tmp_path: Path):
    model, extractor = whisper_parts(2)
    encoder = load_encoder(f"hf:{save(tmp_path, model, extractor)}")
    assert (encoder.sample_rate, encoder.dim, encoder.depth) == (16_000, 16, 3)
    clips = noise(1.0, 2.0, 0.33, 2.5)  # the last one has half a second in a second window
    found = check_rules(encoder, clips)
    assert found.grid == (125, 1)
    plain = WhisperModel.from_pretrained(tmp_path).eval().encoder
    for i, clip in enumerate(clips):
        start = 0
        for part in clip.split(32_000):
            inputs = extractor(part.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
            torch.testing.assert_close(encoder.inputs(part[None]), inputs, atol=1e-4, rtol=1e-4)
            wanted = torch.stack(plain(inputs, output_hidden_states=True).hidden_states[1:])[:, 0]
            count = -(-len(part) // 320)
            torch.testing.assert_close(found.patch_tokens[:, i, start : start + count], wanted[:, :count], **CLOSE)
            start += count
        assert found.valid[i].sum() == start


@pytest.mark.parametrize(("fusion", "padding"), [(True, "repeatpad"), (False, "repeatpad"), (False, "repeat")])
@torch.no_grad()
def test_clap(fusion: bool, padding: str, tmp_path: Path):
    config = ClapAudioConfig(
        patch_embeds_hidden_size=8,
        depths=[1, 1, 1, 2],
        num_attention_heads=[1, 1, 2, 2],
        hidden_size=64,
        enable_fusion=fusion,
        spec_size=256,
    )
    extractor = ClapFeatureExtractor(truncation="fusion" if fusion else "rand_trunc", padding=padding)
    encoder = load_encoder(f"hf:{save(tmp_path, ClapAudioModel(config), extractor)}")
    assert (encoder.sample_rate, encoder.dim, encoder.depth) == (48_000, 64, 2)
    clips = noise(10.0, 3.1, rate=48_000)
    found = check_rules(encoder, clips)
    assert found.grid == (32, 2)
    torch.testing.assert_close(found.frame_times, torch.arange(32) * 0.3125)
    plain = ClapAudioModel.from_pretrained(tmp_path).eval()
    for i, clip in enumerate(clips):
        inputs = extractor(clip.numpy(), sampling_rate=48_000, return_tensors="pt")
        torch.testing.assert_close(encoder.inputs(clip[None]), inputs.input_features, atol=2e-3, rtol=1e-4)
        output = plain(**inputs, output_hidden_states=True)
        count = int(found.valid[i].sum()) // 2
        assert count == -(-len(clip) // 15_000)
        mine = found.patch_tokens[:, i].reshape(2, 32, 2, 64)[:, :count]
        # The model itself lays the bands of its last layer end to end, after a LayerNorm.
        wanted = output.last_hidden_state[0].permute(2, 1, 0)[:count]  # [T, F, D]
        torch.testing.assert_close(plain.audio_encoder.norm(mine[-1]), wanted, atol=1e-3, rtol=1e-3)
        corner = output.hidden_states[-1][0, :, 0, 0]  # [D, H, W]: the picture's first cell is time 0, lowest band
        torch.testing.assert_close(mine[-1, 0, 0], corner, atol=1e-3, rtol=1e-3)
    recorded = []
    hook = plain.audio_encoder.layers[-1].blocks[0].register_forward_hook(lambda *call: recorded.append(call[2][0]))
    plain(**inputs)
    hook.remove()
    picture = recorded[0].reshape(4, 2, 8, 64)  # band, frequency, time in the band
    torch.testing.assert_close(found.patch_tokens[0, 1].reshape(32, 2, 64)[9], picture[1, :, 1], atol=1e-3, rtol=1e-3)


def test_the_encoder_in_a_whole_model_is_found(tmp_path: Path, caplog):
    """Checkpoints have a head on top, or a text half beside: the adapter takes the encoder, with its weights."""
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
    audio = {
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1, 1, 2],
        "num_attention_heads": [1, 1, 2, 2],
        "hidden_size": 64,
    }
    clap = ClapModel(ClapConfig(text_config=text, audio_config=audio))
    encoder = load_encoder(f"hf:{save(tmp_path / 'clap', clap, ClapFeatureExtractor())}")
    name = "audio_encoder.layers.3.blocks.1.output.dense.weight"
    torch.testing.assert_close(encoder.state_dict()[f"model.{name}"], clap.audio_model.state_dict()[name])
    model = Wav2Vec2ForCTC(Wav2Vec2Config(**SPEECH, vocab_size=12))
    encoder = load_encoder(f"hf:{save(tmp_path / 'ctc', model, Wav2Vec2FeatureExtractor())}")
    torch.testing.assert_close(
        encoder.state_dict()["model.encoder.layers.1.feed_forward.output_dense.weight"],
        model.wav2vec2.encoder.layers[1].feed_forward.output_dense.weight.detach(),
    )
    assert "UNEXPECTED" not in caplog.text  # transformers' table of tensors that are none of the encoder


def test_weights_that_lack_a_layer_are_refused(tmp_path: Path):
    save(tmp_path, HubertModel(FAMILY["hubert"][1]), Wav2Vec2FeatureExtractor())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(AudiobatError, match=r"lack 16 tensors of HubertModel, such as encoder.layers.3"):
        load_encoder(f"hf:{tmp_path}")


def test_a_folder_without_its_extractor_or_model_is_refused(tmp_path: Path):
    with pytest.raises(AudiobatError, match=r"The config of .*absent"):
        load_encoder(f"hf:{tmp_path / 'absent'}")
    save(tmp_path, HubertModel(FAMILY["hubert"][1]), None)
    with pytest.raises(AudiobatError, match="feature extractor"):
        load_encoder(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(AudiobatError, match=r"model_type 'bert'.*my_file.py:MyEncoder"):
        load_encoder(f"hf:{tmp_path}")


def test_transformers_is_named_when_missing(monkeypatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(AudiobatError, match=r"audiobat\[hf\]"):
        load_encoder(f"hf:{tmp_path}")


def test_an_empty_or_odd_waveform_is_refused(tmp_path: Path):
    model, extractor = whisper_parts(1)
    encoder = load_encoder(f"hf:{save(tmp_path, model, extractor)}")
    for waveform in (torch.zeros(16_000), torch.zeros(2, 0)):
        with pytest.raises(AudiobatError, match="give \\[clips, samples\\]"):
            encoder.forward_intermediates(waveform)


def test_adapters_import_no_transformers():
    code = "import sys, audiobat.models; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_time_grid_counts_columns_as_convolutions_do():
    grid = TimeGrid(window=16_000, hop=320, span=400)
    conv = torch.nn.Conv1d(1, 1, 400, stride=320)
    for samples in (400, 719, 720, 16_000):
        assert grid.columns(samples) == conv(torch.zeros(1, 1, samples)).shape[2]
    assert grid.columns(1) == 1


def test_a_name_that_cannot_be_reached_is_one_sentence_after_one_question(monkeypatch, tmp_path: Path, capfd):
    asked = []

    def model_info(name: str, timeout: float) -> None:
        asked.append((name, timeout))
        raise ConnectionError("[Errno -2] Name or service not known")

    monkeypatch.setattr(huggingface_hub, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(AudiobatError, match=r"The page of nobody/nothing cannot be read \(ConnectionError: .*network"):
        load_encoder("hf:nobody/nothing")
    assert asked == [("nobody/nothing", 5.0)]
    assert "Retrying" not in capfd.readouterr().err


BROKEN = """
import sys
from audiobat.errors import AudiobatError
from audiobat.zoo.load import load_encoder

for folder in sys.argv[1:]:
    try:
        load_encoder(f"hf:{folder}")
    except AudiobatError as error:
        print(error)
"""


def test_a_torchaudio_that_does_not_load_is_named(tmp_path: Path):
    """As a wheel for CUDA does beside a PyTorch without it: found by its name, and broken when it is imported."""
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    folder = save(tmp_path / "ast", ASTModel(ASTConfig(**size, max_length=64)), ASTFeatureExtractor(max_length=64))
    (tmp_path / "torchaudio-9.0.dist-info").mkdir()
    (tmp_path / "torchaudio-9.0.dist-info" / "METADATA").write_text("Name: torchaudio\nVersion: 9.0\n")
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text("from torchaudio import extension\n")
    (tmp_path / "torchaudio" / "extension.py").write_text('raise OSError("libcudart.so.13: cannot open")\n')
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-c", BROKEN, str(folder), str(tmp_path / "absent")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    broken, absent = done.stdout.splitlines()
    assert "OSError: libcudart.so.13" in broken
    assert "torchaudio is installed and fails to load; remove it (pip uninstall torchaudio)" in broken
    assert "network" not in broken
    assert absent.endswith("check the name, the folder or the network.")  # another fault is not blamed on the package


def test_a_package_is_named_through_the_error_that_transformers_makes_of_it(tmp_path: Path, monkeypatch):
    (tmp_path / "planted_vision.py").write_text('raise RuntimeError("operator nms does not exist")\n')
    monkeypatch.syspath_prepend(tmp_path)

    def reader(_: str) -> None:
        try:
            importlib.import_module("planted_vision")
        except RuntimeError as error:
            raise ModuleNotFoundError("Could not import module 'ASTModel'.") from error

    with pytest.raises(
        AudiobatError, match=r"\(RuntimeError: operator nms .*\): planted_vision is installed and fails"
    ):
        read("model", "somewhere", reader)
