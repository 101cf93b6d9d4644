"""Every kind of head can be built, is what its class says of it, and a user's own file is one kind more."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from audiobat.config import EncoderConfig, FrontendConfig, HeadConfig, ModelConfig, from_dict
from audiobat.config.registry import kinds
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import LayerFeatures
from audiobat.models.heads import Head, block_inputs, build_head, check_teaches, head_class
from audiobat.probing.cache import pool

KINDS = kinds("head")
CLASSES, FREQ_PATCHES = 3, 2
MODEL = ModelConfig(
    FrontendConfig(mel_bins=8), EncoderConfig(dim=16, depth=3, heads=4, patch_size=(4, 4), max_frames=24)
)
MINE = """
from dataclasses import dataclass

import torch
from torch import nn

from audiobat.config import HeadConfig
from audiobat.models.heads import Probe
from audiobat.models.heads.pooling import layer_index


class Loudest(Probe):
    "The patch of greatest length, times a factor."

    title = "Loudest patch"

    @dataclass(frozen=True)
    class Config(HeadConfig):
        factor: float = 2.0  # of the patch

    @classmethod
    def build(cls, config, dim, depth, classes, freq_patches):
        return cls(dim, classes, config.layer, config.factor)

    def __init__(self, dim, classes, layer, factor):
        super().__init__(nn.Linear(dim, classes))
        self.layer, self.factor = layer, factor

    def pool(self, features):
        tokens = features.patch_tokens[layer_index(self.layer)]
        length = tokens.norm(dim=-1).masked_fill(~features.valid, -1)
        return self.factor * tokens[torch.arange(len(tokens)), length.argmax(1)]
"""


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(MODEL).eval()


@pytest.fixture(scope="module")
def features(encoder: AudioEncoder):
    """Two clips, one of them shorter, with what went into each block."""
    waveform = torch.randn(2, 16 * 160 - 1, generator=torch.Generator().manual_seed(1))
    return block_inputs(encoder, waveform, torch.tensor([waveform.shape[1], 8 * 160 - 1]))


def made(kind: str, encoder: AudioEncoder, classes: int = CLASSES, **settings) -> Head:
    config = replace(HeadConfig(kind, 6, queries=4, per_class=2, neighbours=2), **settings)
    torch.manual_seed(2)
    head = head_class(kind).build_for(config, encoder, classes, FREQ_PATCHES)
    if not head.trains:
        head.fit(torch.randn(5, encoder.dim), torch.rand(5, classes) > 0.5)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return head.eval()


def changed(features: LayerFeatures, block: int) -> LayerFeatures:
    """The same with other tokens for one block."""
    tokens = features.patch_tokens.clone()
    tokens[block] = torch.randn(tokens[block].shape, generator=torch.Generator().manual_seed(5))
    cls = features.cls_token.clone()
    cls[block] = tokens[block, :, 0]
    parts = {"patch_tokens": tokens, "cls_token": cls}
    if hasattr(features, "inputs"):
        inputs = [x.clone() for x in features.inputs]
        inputs[block] = torch.randn(inputs[block].shape, generator=torch.Generator().manual_seed(6))
        parts["inputs"] = tuple(inputs)
    return replace(features, **parts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_named_after_its_file_and_gives_logits(kind: str, encoder, features):
    head = made(kind, encoder)
    assert type(head).__module__.rpartition(".")[2] == kind
    assert type(head).title
    assert head(features).shape == (2, CLASSES)
    assert head.frames(features).shape == (2, 4, CLASSES)
    assert head.penalty().shape == ()
    if kind != "vqt":
        alone = build_head(HeadConfig(kind, 6, queries=4), encoder.dim, encoder.depth, CLASSES, FREQ_PATCHES)
        assert type(alone) is type(head)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_says_which_blocks_change_the_logits(kind: str, encoder, features):
    """A head that reads one block is blind to others; fine-tuning freezes what no head reads."""
    head = made(kind, encoder, layer=2)
    moved = [not torch.equal(head(changed(features, block)), head(features)) for block in range(3)]
    assert moved == ([True] * 3 if head.layers == "all" else [False, True, False])


@pytest.mark.parametrize("kind", KINDS)
def test_reads_is_enough_to_make_the_logits(kind: str, encoder, features):
    head = made(kind, encoder)
    plain = LayerFeatures(**{name: value for name, value in vars(features).items() if name != "inputs"})
    if head.reads == "blocks":
        with pytest.raises(AudiobatError, match="block_inputs"):
            head(plain)
        return
    torch.testing.assert_close(head(plain), head(features))
    if head.reads == "means":  # one patch a clip is as good
        torch.testing.assert_close(head(pool(plain)), head(plain))
        torch.testing.assert_close(
            made(kind, encoder, pool="mean")(pool(plain)), made(kind, encoder, pool="mean")(plain)
        )
    elif kind != "mean_time_keep_freq":  # which refuses the grid of one patch
        assert not torch.allclose(head(pool(plain)), head(plain))


@pytest.mark.parametrize("kind", KINDS)
def test_trains_teaches_and_prototypes_are_what_parameters_and_gradients_say(kind: str, encoder, features):
    head = made(kind, encoder)
    assert head.trains == bool(list(head.parameters()))
    sizes = [sum(p.numel() for p in made(kind, encoder, prototypes=count).parameters()) for count in (6, 7)]
    assert head.has_prototypes == (sizes[0] != sizes[1])
    waveform = torch.randn(2, 16 * 160 - 1)
    taught = encoder(waveform) if head.reads != "blocks" else block_inputs(encoder, waveform)
    logits = head(taught)
    learns = (
        logits.requires_grad
        and torch.autograd.grad(logits.sum(), encoder.blocks[-1].mlp.fc1.weight, allow_unused=True)[0] is not None
    )
    assert head.teaches == learns
    if head.teaches:
        check_teaches(kind)
    else:
        with pytest.raises(AudiobatError, match=f"head.kind is '{kind}': it gives no gradients"):
            check_teaches(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gate_is_of_every_block_or_there_is_none(kind: str, encoder):
    gate = made(kind, encoder).gate_weights
    assert gate is None or (gate.shape, round(float(gate.detach().sum()), 5)) == ((3,), 1.0)
    assert (gate is not None) == (kind in ("cgp", "linear_cgp"))


def test_a_users_own_class_is_a_head_with_its_own_settings(tmp_path: Path, encoder, features):
    (tmp_path / "mine.py").write_text(MINE)
    kind = f"{tmp_path / 'mine.py'}:Loudest"
    config = from_dict(HeadConfig, {"kind": kind, "factor": 3.0, "layer": 1}, "head")
    head = build_head(config, encoder.dim, encoder.depth, CLASSES)
    assert (head.factor, head.layer, type(head).title) == (3.0, 1, "Loudest patch")
    assert head(features).shape == (2, CLASSES)
    assert head.frames(features).shape == (2, 4, CLASSES)
    assert HeadConfig("linear", layer=2).with_kind(kind) == type(config)(kind, layer=2, factor=2.0)
    assert config.with_kind("linear") == HeadConfig("linear", layer=1)
    with pytest.raises(AudiobatError, match=r"head\.factr.*did you mean head\.factor|factr.*did you mean factor"):
        from_dict(HeadConfig, {"kind": kind, "factr": 3.0}, "head")


def test_a_class_that_is_no_head_is_refused(tmp_path: Path):
    (tmp_path / "other.py").write_text(
        "class Other:\n    def build(self): ...\n    def forward(self, x): ...\n    def penalty(self): ...\n"
    )
    with pytest.raises(AudiobatError, match=r"other\.py:Other is no head: derive Other from Probe or Head"):
        head_class(f"{tmp_path / 'other.py'}:Other")


def test_an_unknown_kind_lists_those_that_there_are():
    with pytest.raises(AudiobatError, match=r"head\.kind is 'liner': choose one of att.*did you mean linear"):
        HeadConfig("liner")
