"""Models whose code comes with their weights: tiny folders, laid out as those of EAT, Dasheng and BEATs are."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import dynamic_module_utils

from audiobat.audio.read import pad_batch
from audiobat.errors import AudiobatError
from audiobat.models.features import Encoder, LayerFeatures
from audiobat.zoo.load import load_encoder

CONFIG = """
from transformers import PretrainedConfig

class TinyConfig(PretrainedConfig):
    model_type = {kind!r}
"""

BLOCK = """
import torch
from torch import nn
from transformers import PreTrainedModel
from .configuration_tiny import TinyConfig

class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.attn = nn.MultiheadAttention(dim, 2, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x):
        return self.norm(x + self.attn(x, x, x)[0])
"""

# A wrapper without post_init, blocks that give two things, cls before time-major patches, no feature extractor.
EAT = """
class EatBlock(Block):
    def forward(self, x):
        return super().forward(x), x

class EAT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.extra_tokens = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.proj = nn.Conv2d(1, config.embed_dim, 16, stride=16)
        self.blocks = nn.ModuleList([EatBlock(config.embed_dim) for _ in range(config.depth)])

    def extract_features(self, x):
        x = self.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.extra_tokens.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x, _ = block(x)
        return x

class TinyModel(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = EAT(config)

    def extract_features(self, x):
        return self.model.extract_features(x)
"""

# Mel from a feature extractor, whole-height patches of four frames; `hidden_states` is the last layer alone.
DASHENG = """
from transformers.modeling_outputs import BaseModelOutput

class TinyModel(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        kwargs = config.encoder_kwargs
        self.proj = nn.Conv2d(1, kwargs["embed_dim"], (64, 4), stride=(64, 4))
        self.blocks = nn.ModuleList([Block(kwargs["embed_dim"]) for _ in range(kwargs["depth"])])
        self.post_init()

    def forward(self, input_values, **kwargs):
        x = self.proj(input_values[:, None]).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return BaseModelOutput(hidden_states=x)
"""
EXTRACTOR = """
import numpy as np
from transformers import SequenceFeatureExtractor, BatchFeature

class TinyExtractor(SequenceFeatureExtractor):
    model_input_names = ["input_values"]

    def __init__(self, feature_size=64, sampling_rate=16000, padding_value=0.0, **kwargs):
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)

    def __call__(self, x, sampling_rate=None, return_tensors=None):
        frames = [np.pad(clip, 32)[: 1 + len(clip) // 160 * 160 + 63] for clip in x]  # centred frames of 64, every 160
        mel = [np.stack([f[i : i + 64] for i in range(0, len(f) - 63, 160)], 1) for f in frames]
        return BatchFeature({"input_values": np.stack(mel)}, tensor_type=return_tensors)
"""

# Waveform in; blocks that run time first, so that only the published tuple is [B, N, D].
BEATS = """
from transformers.modeling_outputs import BaseModelOutput

class TinyModel(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.proj = nn.Conv2d(1, config.encoder_embed_dim, 16, stride=16)
        self.layers = nn.ModuleList([Block(config.encoder_embed_dim) for _ in range(config.encoder_layers)])
        self.post_init()

    def forward(self, input_values, output_hidden_states=False):
        fbank = input_values.unfold(1, 400, 160)[..., :128]
        x = self.proj(fbank[:, None]).flatten(2).transpose(1, 2)
        states = [x]
        for layer in self.layers:
            layer.attn.batch_first = False
            states.append(layer(states[-1].transpose(0, 1)).transpose(0, 1))
        return BaseModelOutput(states[-1], tuple(states) if output_hidden_states else None)
"""
SIZES = {
    "eat": {"embed_dim": 8, "depth": 3, "patch_size": 16, "mel_bins": 128},
    "dasheng": {"encoder_kwargs": {"embed_dim": 8, "depth": 3, "patch_size": [64, 4], "target_length": 1008}},
    "beats": {"encoder_embed_dim": 8, "encoder_layers": 3, "input_patch_size": 16},
}
CODE = {"eat": EAT, "dasheng": DASHENG, "beats": BEATS}


pytestmark = pytest.mark.usefixtures("own_remote_modules")


def publish(kind: str, folder: Path) -> Path:
    """Write the files of a repository; returns the folder."""
    folder.mkdir(parents=True)
    auto = {"AutoConfig": "configuration_tiny.TinyConfig", "AutoModel": "modeling_tiny.TinyModel"}
    (folder / "configuration_tiny.py").write_text(CONFIG.format(kind=kind))
    (folder / "modeling_tiny.py").write_text(BLOCK + CODE[kind])
    if kind == "dasheng":
        auto["AutoFeatureExtractor"] = "extraction_tiny.TinyExtractor"
        (folder / "extraction_tiny.py").write_text(EXTRACTOR)
        (folder / "preprocessor_config.json").write_text(
            json.dumps({"feature_extractor_type": "TinyExtractor", "auto_map": auto, "sampling_rate": 16_000})
        )
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "auto_map": auto, **SIZES[kind]}))
    model_class = dynamic_module_utils.get_class_from_dynamic_module(auto["AutoModel"], str(folder))
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
    torch.manual_seed(0)
    weights = {name: torch.randn_like(tensor) * 0.3 for name, tensor in model_class(config).state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def noise(*samples: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(n, generator=generator) for n in samples]


@torch.no_grad()
def features(encoder: Encoder, clips: list[torch.Tensor]) -> LayerFeatures:
    return encoder.forward_intermediates(*pad_batch(clips))


@pytest.mark.parametrize("kind", CODE)
def test_a_clip_is_what_it_is_alone(kind: str, tmp_path: Path):
    encoder = load_encoder(f"hf:{publish(kind, tmp_path / kind)}", trust_remote_code=True)
    assert (encoder.sample_rate, encoder.dim, encoder.depth) == (16_000, 8, 3)
    clips = noise(16_000, 7_000, 16_000)
    found = features(encoder, clips)
    rows = 1 if kind == "dasheng" else 8
    assert found.grid[1] == rows
    for i, clip in enumerate(clips):
        alone = features(encoder, [clip])
        count = alone.patch_tokens.shape[2]
        assert found.valid[i].sum() == count == alone.grid[0] * rows
        torch.testing.assert_close(found.patch_tokens[:, i, :count], alone.patch_tokens[:, 0])
    assert (found.cls_token is not None) == (kind == "eat")
    seconds = 0.04 if kind == "dasheng" else 0.16
    torch.testing.assert_close(found.frame_times, torch.arange(found.grid[0]) * seconds)


@torch.no_grad()
def test_eat_gives_the_outputs_of_its_blocks(tmp_path: Path):
    encoder = load_encoder(f"hf:{publish('eat', tmp_path / 'eat')}", trust_remote_code=True)
    clip = noise(16_000)[0]
    found = features(encoder, [clip])
    assert found.grid == (7, 8)  # 98 frames, completed to 112
    x = encoder.spectrogram(clip[None])
    assert x.shape == (1, 1, 112, 128)
    assert torch.allclose(x[0, 0, 98:], torch.tensor(4.268 / (2 * 4.569)))  # zeros before normalisation
    inner = encoder.model.model
    x = inner.proj(x).flatten(2).transpose(1, 2)
    x = torch.cat([inner.extra_tokens, x], 1)
    for layer, block in enumerate(inner.blocks):
        x = block(x)[0]
        torch.testing.assert_close(found.patch_tokens[layer], x[:, 1:])
        torch.testing.assert_close(found.cls_token[layer], x[:, 0])


@torch.no_grad()
def test_dasheng_is_given_what_its_extractor_makes(tmp_path: Path):
    encoder = load_encoder(f"hf:{publish('dasheng', tmp_path / 'dasheng')}", trust_remote_code=True)
    clip = noise(16_000)[0]
    found = features(encoder, [clip])
    assert found.grid == (101 // 4, 1)
    inputs = encoder.extractor([clip.numpy()], sampling_rate=16_000, return_tensors="pt")
    assert inputs["input_values"].shape == (1, 64, 101)
    torch.testing.assert_close(found.patch_tokens[-1], encoder.model(**inputs).hidden_states)
    assert encoder.max_samples == 1007 * 160


@torch.no_grad()
def test_beats_gives_its_published_tuple(tmp_path: Path):
    encoder = load_encoder(f"hf:{publish('beats', tmp_path / 'beats')}", trust_remote_code=True)
    clip = noise(16_000)[0]
    found = features(encoder, [clip])
    assert found.grid == (98 // 16, 8)
    states = encoder.model(clip[None], output_hidden_states=True).hidden_states
    torch.testing.assert_close(found.patch_tokens, torch.stack(states[1:]))


@torch.no_grad()
def test_what_the_code_computes_is_no_uninitialised_memory(tmp_path: Path, monkeypatch):
    """Buffers that are in no file, with a place in files or without, and a tensor that is no buffer; in float32."""
    folder = publish("beats", tmp_path / "beats")
    code = (folder / "modeling_tiny.py").read_text()
    planted = """
        self.register_buffer("window", torch.hann_window(400), persistent=False)
        self.register_buffer("gain", torch.full((1,), 2.0))
        self.shift = torch.full((1,), 0.5)
        self.post_init()"""
    code = code.replace("        self.post_init()", planted.lstrip("\n"))
    frames = "input_values.unfold(1, 400, 160)"
    code = code.replace(frames, f"({frames} * self.gain * self.window + self.shift)")
    (folder / "modeling_tiny.py").write_text(code)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in weights.items()}, folder / "model.safetensors")
    empty_like = torch.empty_like

    def memory(tensor: torch.Tensor, **options: Any) -> torch.Tensor:
        made = empty_like(tensor, **options)
        return made.fill_(torch.nan) if made.is_floating_point() and not made.is_meta else made

    monkeypatch.setattr(torch, "empty_like", memory)
    draws = torch.random.get_rng_state()
    encoder = load_encoder(f"hf:{folder}", trust_remote_code=True)
    assert torch.equal(torch.random.get_rng_state(), draws)
    monkeypatch.undo()
    model = encoder.model
    assert torch.equal(model.window, torch.hann_window(400))
    assert (model.gain.item(), model.shift.item()) == (2.0, 0.5)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    for name, tensor in weights.items():
        assert torch.equal(model.state_dict()[name], tensor.bfloat16().float())
    assert features(encoder, noise(16_000)).patch_tokens.isfinite().all()


def test_code_is_not_run_unless_trusted(tmp_path: Path):
    folder = publish("beats", tmp_path / "beats")
    (folder / "modeling_tiny.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(AudiobatError, match=r"modeling_tiny.TinyModel.*--trust-remote-code"):
        load_encoder(f"hf:{folder}")


def test_code_that_needs_an_absent_package_says_which(tmp_path: Path):
    folder = publish("beats", tmp_path / "beats")
    code = (folder / "modeling_tiny.py").read_text()
    (folder / "modeling_tiny.py").write_text(f"import absent_kit\n{code}")
    with pytest.raises(AudiobatError, match=r"absent_kit.*: install what it names\."):
        load_encoder(f"hf:{folder}", trust_remote_code=True)


def test_a_model_that_breaks_its_layout_is_refused(tmp_path: Path):
    folder = publish("beats", tmp_path / "beats")
    code = (
        (folder / "modeling_tiny.py")
        .read_text()
        .replace("states[-1], tuple(states)", "states[-1], tuple(s[:, 1:] for s in states)")
    )
    (folder / "modeling_tiny.py").write_text(code)
    encoder = load_encoder(f"hf:{folder}", trust_remote_code=True)
    with pytest.raises(AudiobatError, match=r"\[1, 47, 8\] for 1 clips of 16000 samples.*6 columns of 8 patches"):
        features(encoder, noise(16_000))


def test_an_unknown_kind_is_sent_to_a_file_of_ones_own(tmp_path: Path):
    folder = publish("beats", tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "newcomer"}))
    (folder / "configuration_tiny.py").write_text(CONFIG.format(kind="newcomer"))
    with pytest.raises(AudiobatError, match=r"'newcomer'.*my_file.py:MyEncoder"):
        load_encoder(f"hf:{folder}", trust_remote_code=True)
