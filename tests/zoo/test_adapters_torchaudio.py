"""Bundles of torchaudio: a tiny one of the real classes where torchaudio loads, else of a stand-in for its interface.

torchaudio's wheels ask for the PyTorch that they were built with, and cannot be imported beside another: the stand-in
has the parts that the adapter uses, under their names. Both give the same weights to the same formulas.
"""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiobat.audio.read import pad_batch
from audiobat.errors import AudiobatError
from audiobat.zoo.adapters.windows import TimeGrid
from audiobat.zoo.doctor.encoder import examine
from audiobat.zoo.load import load_encoder

try:
    import torchaudio
except (ImportError, OSError):
    torchaudio = None

CONVS = ((8, 10, 5), (8, 3, 2), (8, 2, 2))  # channels, kernel, stride
SIZES = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": list(CONVS),
    "extractor_conv_bias": False,
    "encoder_embed_dim": 16,
    "encoder_projection_dropout": 0.0,
    "encoder_pos_conv_kernel": 4,
    "encoder_pos_conv_groups": 2,
    "encoder_num_layers": 2,
    "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.0,
    "encoder_ff_interm_features": 16,
    "encoder_ff_interm_dropout": 0.0,
    "encoder_dropout": 0.0,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.0,
    "aux_num_out": None,
}


class Conv(nn.Module):
    def __init__(self, channels: int, outputs: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        self.conv = nn.Conv1d(channels, outputs, kernel_size, stride)


class Extractor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        inputs = (1, *(channels for channels, _, _ in CONVS))
        self.conv_layers = nn.ModuleList(Conv(c, *conv) for c, conv in zip(inputs, CONVS, strict=False))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.feature_extractor = Extractor()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def extract_features(self, waveforms: Tensor) -> tuple[list[Tensor], None]:
        x = waveforms[:, None]
        for layer in self.feature_extractor.conv_layers:
            x = layer.conv(x).relu()
        x, states = x.mT, []
        for block in self.blocks:
            x = x + block(x).tanh() + x.mean(1, keepdim=True)
            states.append(x)
        return states, None


class Normalised(nn.Module):
    """As torchaudio wraps a model: over all clips of a batch together."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.normalize_waveform = model, True

    def extract_features(self, waveforms: Tensor) -> Any:
        return self.model.extract_features(F.layer_norm(waveforms, waveforms.shape))


class Bundle:
    sample_rate = 16_000.0

    def __init__(self, normalise: bool) -> None:
        self.normalise = normalise

    def get_model(self) -> nn.Module:
        torch.manual_seed(0)
        model = Model() if torchaudio is None else torchaudio.models.wav2vec2_model(**SIZES)
        return (Normalised(model) if self.normalise else model).eval()


class Offline(Bundle):
    def get_model(self) -> nn.Module:
        raise OSError("no route to host")


@pytest.fixture
def pipelines(monkeypatch) -> ModuleType:
    made = ModuleType("torchaudio.pipelines")
    made.TINY, made.TINY_LARGE, made.FAR = Bundle(False), Bundle(True), Offline(False)  # type: ignore[attr-defined]
    made.Wav2Vec2Bundle = Bundle  # type: ignore[attr-defined]
    made.TACOTRON2 = object()  # type: ignore[attr-defined]  # of another kind
    monkeypatch.setitem(sys.modules, "torchaudio.pipelines", made)
    if torchaudio is None:
        monkeypatch.setitem(sys.modules, "torchaudio", made)
    return made


@pytest.mark.parametrize("name", ["TINY", "TINY_LARGE"])
@torch.no_grad()
def test_a_bundles_layers_clip_by_clip(name: str, pipelines):
    encoder = load_encoder(f"torchaudio:{name}")
    assert encoder.grid == TimeGrid(window=30 * 16_000, hop=20, span=10 + 2 * 5 + 10)
    assert encoder.depth == 2
    generator = torch.Generator().manual_seed(0)
    clips = [gain * torch.randn(n, generator=generator) + 0.1 for n, gain in ((1600, 1.0), (1600, 0.01), (700, 0.1))]
    found = encoder.forward_intermediates(*pad_batch(clips))
    plain = getattr(pipelines, name).get_model()
    for i, clip in enumerate(clips):
        states, _ = plain.extract_features(clip[None])  # alone, where the whole batch is the clip
        wanted = torch.cat(states)  # [L, T, D]
        assert found.valid[i].sum() == wanted.shape[1]
        torch.testing.assert_close(found.patch_tokens[:, i, : wanted.shape[1]], wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.frame_times[:3], torch.tensor([0, 1, 2]) / 800)
    assert [fault for fault in examine(encoder, torch.device("cpu")) if fault[1]] == []


def test_mistakes_are_sentences(pipelines, monkeypatch):
    with pytest.raises(AudiobatError, match=r"no bundle TINI.*did you mean TINY.*: it has FAR, TINY, TINY_LARGE\."):
        load_encoder("torchaudio:TINI")
    with pytest.raises(AudiobatError, match=r"weights of torchaudio's FAR .*no route to host.*/checkpoints"):
        load_encoder("torchaudio:FAR")
    monkeypatch.setitem(sys.modules, "torchaudio.pipelines", None)
    with pytest.raises(AudiobatError, match=r"needs torchaudio"):
        load_encoder("torchaudio:TINY")


def test_a_torchaudio_that_does_not_load_is_named_as_the_reason(tmp_path, monkeypatch):
    (tmp_path / "torchaudio").mkdir()
    text = "raise OSError('Could not load this library: _torchaudio.so')"
    (tmp_path / "torchaudio" / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(AudiobatError, match=r"torchaudio is installed and cannot be loaded \(OSError: Could not load"):
        load_encoder("torchaudio:WAV2VEC2_BASE")
