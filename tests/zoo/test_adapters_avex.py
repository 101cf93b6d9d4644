"""Models of avex, by a stand-in for its interface: avex imports torchaudio and torchvision, which are not at hand.

The stand-in was written beside avex 1.4.0, whose own BEATs, small and random, gave the same outcome by hand: hop, span,
patches of a column and layers.
"""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from audiobat.audio.read import pad_batch
from audiobat.errors import AudiobatError
from audiobat.zoo.adapters.windows import TimeGrid
from audiobat.zoo.doctor.encoder import examine
from audiobat.zoo.load import load_encoder

LAYERS = ["stem", "block"]


class Model(nn.Module):
    """Two layers of frames of 10 ms; a map [B, C, F, T] as features, as avex's EfficientNets give."""

    def __init__(self, rate: int | None = 8_000) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.audio_processor = SimpleNamespace(sr=rate) if rate else None
        self.stem, self.block = nn.Conv1d(1, 6, 200, 80), nn.Conv1d(6, 6, 1)
        self.wanted: list[str] = []

    def get_model_layers(self) -> list[str]:
        return LAYERS

    def register_hooks_for_layers(self, layers: list[str]) -> list[str]:
        self.wanted = LAYERS if layers == ["all"] else layers
        for layer in self.wanted:
            if layer not in LAYERS:
                raise ValueError(f"Layer '{layer}' not found in model")
        return self.wanted

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        stem = self.stem(x[:, None]).relu()
        return {"stem": stem.mT, "block": self.block(stem).mT}

    def extract_embeddings(self, x: Tensor, *, padding_mask: Any = None, aggregation: str = "none") -> Any:
        found = [self.outputs(x)[name] for name in self.wanted]
        return found if len(found) > 1 else found[0]

    def forward(self, x: Tensor, padding_mask: Any = None) -> Tensor:
        return self.outputs(x)["block"].mT.unflatten(1, (3, 2))


@pytest.fixture(autouse=True)
def avex(monkeypatch) -> ModuleType:
    made: Any = ModuleType("avex")
    models = {"tiny": Model, "no_rate": lambda: Model(None)}
    made.get_model_spec = lambda name: models.get(name)
    made.load_model = lambda name, device, return_features_only: models[name]()
    monkeypatch.setitem(sys.modules, "avex", made)
    return made


@pytest.mark.parametrize(("behind", "names"), [("", ["block"]), (":all", LAYERS), (":stem", ["stem"])])
@torch.no_grad()
def test_features_and_layers(behind: str, names: list[str]):
    encoder = load_encoder(f"avex:tiny{behind}")
    assert (encoder.sample_rate, encoder.depth, encoder.dim) == (8_000, len(names), 6)
    assert encoder.grid == TimeGrid(window=80_000, hop=80, span=200)
    generator = torch.Generator().manual_seed(0)
    clips = [torch.randn(samples, generator=generator) for samples in (4_000, 1_500)]
    found = encoder.forward_intermediates(*pad_batch(clips))
    for i, clip in enumerate(clips):
        plain = Model().outputs(clip[None])
        wanted = torch.cat([plain[name] for name in names])
        torch.testing.assert_close(found.patch_tokens[:, i, : wanted.shape[1]], wanted, atol=1e-5, rtol=1e-4)
    assert [fault for fault in examine(encoder, torch.device("cpu")) if fault[1]] == []


def test_mistakes_are_sentences(monkeypatch, avex):
    for source, sentence in {
        "avex:tine": r"avex has no model tine: avex\.list_models\(\) prints",
        "avex:tiny:blok": "avex:tiny: Layer 'blok' not found in model: it has stem, block",
        "avex:no_rate": "no_rate has no sample_rate",
        "avex:absent.yml": r"avex cannot load absent\.yml \(KeyError: ",
    }.items():
        with pytest.raises(AudiobatError, match=sentence):
            load_encoder(source)
    monkeypatch.setitem(sys.modules, "avex", None)
    with pytest.raises(AudiobatError, match="needs avex: pip install avex"):
        load_encoder("avex:tiny")


def test_what_avex_imports_and_does_not_load_is_named(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "avex")
    (tmp_path / "avex.py").write_text("raise OSError('Could not load this library: _torchaudio.so')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AudiobatError, match=r"avex is installed and cannot be loaded \(OSError: Could not load"):
        load_encoder("avex:tiny")
