"""Audio towers of larger models: the real classes, small and with random weights, against plain calls of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiobat.zoo.load import load_encoder
from tests.foreign_encoders import CLOSE, check_rules, noise, save

SIZE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
MEL = {"max_source_positions": 100, "num_mel_bins": 128}  # windows of 2 s
TEXT = {**SIZE, "num_hidden_layers": 1, "num_key_value_heads": 2, "vocab_size": 60, "pad_token_id": 0}
TOKENS = [f"{name}_token_id" for name in ("pad", "eos", "bos", "cls", "sep")]
QWEN = {"d_model": 16, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
LISTENERS: dict[str, tuple[type, Callable[[], Any]]] = {  # the tower's class, and the whole model
    "qwen2_audio": (
        hf.Qwen2AudioEncoder,
        lambda: hf.Qwen2AudioForConditionalGeneration(
            hf.Qwen2AudioConfig(
                audio_config=hf.Qwen2AudioEncoderConfig(**QWEN, **MEL),
                text_config=hf.Qwen2Config(**TEXT),
                audio_token_index=5,
            )
        ),
    ),
    "voxtral": (
        hf.VoxtralEncoder,
        lambda: hf.VoxtralForConditionalGeneration(
            hf.VoxtralConfig(
                audio_config=hf.VoxtralEncoderConfig(**{**SIZE, "intermediate_size": 64}, **MEL),
                text_config=hf.LlamaConfig(**TEXT),
                audio_token_id=5,
            )
        ),
    ),
    "audioflamingo3": (
        hf.AudioFlamingo3Encoder,
        lambda: hf.AudioFlamingo3ForConditionalGeneration(
            hf.AudioFlamingo3Config(
                audio_config=hf.AudioFlamingo3EncoderConfig(**{**SIZE, "intermediate_size": 64}, **MEL),
                text_config=hf.Qwen2Config(**TEXT),
                audio_token_id=5,
            )
        ),
    ),
}


@pytest.mark.parametrize("kind", LISTENERS)
@torch.no_grad()
def test_the_tower_of_a_language_model_comes_alone(kind: str, tmp_path: Path):
    tower_class, make = LISTENERS[kind]
    extractor = hf.WhisperFeatureExtractor(feature_size=128, chunk_length=2)
    whole = make()
    assert whole.config.model_type == kind
    encoder = load_encoder(f"hf:{save(tmp_path, whole, extractor)}")
    assert type(encoder.model) is tower_class
    assert (encoder.sample_rate, encoder.dim, encoder.depth) == (16_000, 16, 3)
    clips = noise(2.0, 0.405, 1.0)
    found = check_rules(encoder, clips)
    torch.testing.assert_close(found.frame_times, torch.arange(100) * 0.02)
    tower = whole.model.audio_tower.eval()
    for i, clip in enumerate(clips):
        given = extractor(clip.numpy(), sampling_rate=16_000, return_tensors="pt", return_attention_mask=True)
        torch.testing.assert_close(encoder.inputs(clip[None]), given.input_features, atol=1e-4, rtol=1e-4)
        masks: dict[str, Tensor] = {}
        count = (int(given.attention_mask.sum()) - 1) // 2 + 1
        if kind == "audioflamingo3":
            masks = {"input_features_mask": given.attention_mask}
        if kind == "qwen2_audio":
            masks = {"attention_mask": (torch.arange(100) < count)[None, None, None].expand(1, 1, 100, 100)}
        output = tower(given.input_features, **masks, output_hidden_states=True)
        assert found.valid[i].sum() == count
        wanted = torch.stack(output.hidden_states[1:-1])[:, 0]  # [L - 1, T, D]
        torch.testing.assert_close(found.patch_tokens[:-1, i, :count], wanted[:, :count], **CLOSE)
        last = found.patch_tokens[-1:, i, : count // 2 * 2]
        if kind != "voxtral":
            last = tower.avg_pooler(last.mT).mT
        read = tower.layer_norm(last)
        torch.testing.assert_close(read, output.last_hidden_state[:, : read.shape[1]], **CLOSE)


@pytest.mark.parametrize("kind", ["qwen2_audio_encoder", "voxtral_encoder", "audioflamingo3_encoder", "musicflamingo"])
def test_a_tower_that_was_saved_alone_or_elsewhere_is_the_same(kind: str, tmp_path: Path):
    """Music Flamingo has Audio Flamingo's tower; a tower may be published without its language model."""
    name = kind.removesuffix("_encoder")
    if kind == "musicflamingo":
        audio = hf.AudioFlamingo3EncoderConfig(**{**SIZE, "intermediate_size": 64}, **MEL)
        config = hf.MusicFlamingoConfig(audio_config=audio, text_config=hf.Qwen2Config(**TEXT), audio_token_id=5)
        saved = hf.MusicFlamingoForConditionalGeneration(config)
        tower = saved.model.audio_tower
    else:
        saved = tower = LISTENERS[name][1]().model.audio_tower
    assert saved.config.model_type == kind
    encoder = load_encoder(f"hf:{save(tmp_path, saved, hf.WhisperFeatureExtractor(feature_size=128, chunk_length=2))}")
    for part, tensor in tower.state_dict().items():
        assert torch.equal(encoder.model.state_dict()[part], tensor)
    with torch.no_grad():
        assert encoder.forward_intermediates(noise(1.0)[0][None]).patch_tokens.shape == (3, 1, 50, 16)


def perception(folder: Path, text: bool) -> Any:
    """A folder with PE's audio encoder, with its text tower beside it or alone; returns the encoder."""
    codec = {"model_type": "dac", "encoder_hidden_size": 4, "codebook_dim": 8, "downsampling_ratios": [2, 8, 10, 12]}
    audio = hf.PeAudioEncoderConfig(**SIZE, head_dim=8, dac_config=codec)
    whole: Any = hf.PeAudioEncoder(audio)
    if text:
        beside = hf.ModernBertConfig(**{**SIZE, "num_hidden_layers": 1}, **dict.fromkeys(TOKENS, 0), vocab_size=60)
        whole = hf.PeAudioModel(hf.PeAudioConfig(text_config=beside, audio_config=audio))
    save(folder, whole, hf.PeAudioFeatureExtractor())
    return (whole.audio_encoder if text else whole).eval()


@torch.no_grad()
def test_perception_encoder(tmp_path: Path):
    tower = perception(tmp_path, text=False)
    extractor = hf.PeAudioFeatureExtractor()
    encoder = load_encoder(f"hf:{tmp_path}")
    assert (encoder.sample_rate, encoder.dim, encoder.depth) == (48_000, 16, 3)
    clips = noise(1.0, 0.41, 0.0001, rate=48_000)
    found = check_rules(encoder, clips)
    torch.testing.assert_close(found.frame_times, torch.arange(25) * 0.04)
    for i, clip in enumerate(clips):
        given = extractor(clip.numpy(), sampling_rate=48_000, return_tensors="pt")
        assert torch.equal(encoder.inputs(clip[None]), given["input_values"])
        output = tower(**given, output_hidden_states=True)
        count = output.last_hidden_state.shape[1]
        assert found.valid[i].sum() == count
        wanted = torch.stack(output.hidden_states[1:-1])[:, 0]
        torch.testing.assert_close(found.patch_tokens[:-1, i, :count], wanted[:, 1:], **CLOSE)
        torch.testing.assert_close(found.cls_token[:-1, i], wanted[:, 0], **CLOSE)
        read = tower.output(tower.norm(found.cls_token[-1:, i]))
        torch.testing.assert_close(read, output.pooler_output, **CLOSE)


@pytest.mark.parametrize("kind", ["pe_audio", "pe_audio_video"])
def test_perception_encoder_comes_without_what_stands_beside_it(kind: str, tmp_path: Path):
    tower = perception(tmp_path, text=True)
    if kind == "pe_audio_video":  # the real class wants timm: its config, and the names that it gives to these weights
        config = hf.PeAudioConfig.from_pretrained(tmp_path)
        parts = {"audio_config": config.audio_config.to_dict(), "video_config": {"model_type": "pe_video_encoder"}}
        hf.PeAudioVideoConfig(text_config=config.text_config, audio_video_config=parts).save_pretrained(tmp_path)
        weights = load_file(tmp_path / "model.safetensors")
        named = {f"audio_model.{name}": tensor for name, tensor in weights.items()}
        save_file(named, tmp_path / "model.safetensors", metadata={"format": "pt"})
    encoder = load_encoder(f"hf:{tmp_path}")
    assert type(encoder.model) is hf.PeAudioEncoder
    for name, tensor in tower.state_dict().items():
        assert torch.equal(encoder.model.state_dict()[name], tensor)
