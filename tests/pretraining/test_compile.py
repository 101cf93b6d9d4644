"""A step under torch.compile: equal to the eager one, whole graphs, and no new ones from step to step."""

import pytest
import torch
from torch._dynamo.utils import counters

from audiobat.config import (
    DecoderConfig,
    EncoderConfig,
    MaskConfig,
    ObjectiveConfig,
    PretrainConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from audiobat.config.recipes import merge
from audiobat.engine.ranks import pick_compile
from audiobat.errors import AudiobatError
from audiobat.pretraining.objectives.masked_latent_regression import MaskedLatentRegression
from tests.pretraining.test_objective import batch_of, tiny

CPU = torch.device("cpu")
SMALL = {
    "encoder": EncoderConfig(dim=16, depth=1, heads=2, max_frames=64, patch_size=(8, 8)),
    "decoder": DecoderConfig(depth=1, heads=2),
    "mask": MaskConfig(clones=4, block_size=2),
    "train": TrainConfig(accumulate=2),
}


@pytest.fixture(autouse=True)
def forgotten_graphs():
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def step(model, number, lengths=None, samples=10_000):
    loss, stats = model(batch_of(2, samples, lengths), number)
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    return {"loss": loss.detach(), **stats, **grads}


def test_a_compiled_step_is_the_eager_step():
    torch.manual_seed(0)
    model = MaskedLatentRegression(tiny(**SMALL))
    lengths = torch.tensor([10_000, 3_000])
    eager = step(model, 0, lengths)
    model.compile_step()
    for name, value in step(model, 0, lengths).items():
        assert float((value - eager[name]).norm()) <= 1e-5 * float(eager[name].norm()) + 1e-7, name
    assert counters["stats"]["unique_graphs"] == 2  # the targets, and a chunk of clones


@pytest.mark.parametrize(
    "parts",
    [{}, {"objective": {"retention_weight": 0.5}, "encoder": {"positions": "rotary"}}],
    ids=["latents", "mixtures, rotary"],
)
def test_graphs_are_whole_and_made_once_for_a_length(parts, monkeypatch):
    monkeypatch.setattr(
        torch, "compile", lambda f, real=torch.compile, **_: real(f, backend="eager")
    )  # tracing is the test
    torch.manual_seed(0)
    model = MaskedLatentRegression(from_dict(PretrainConfig, merge(to_dict(tiny(**SMALL)), parts)))
    model.compile_step()
    made = []
    for samples in (10_000, 10_000, 10_000, 8_000, 10_000, 6_000, 8_000, 6_000, 4_000):
        step(model, len(made), samples=samples)
        made.append(counters["stats"]["unique_graphs"])
    kinds = 3 if parts else 2  # the targets, and the clones of clips and of mixtures
    assert made[:3] == [kinds] * 3
    lengths_seen = [1, 1, 1, 2, 2, 3, 3, 3, 4]
    assert all(count <= (kinds + bool(parts)) * seen for count, seen in zip(made, lengths_seen, strict=True))
    assert not counters["graph_break"]


def test_clips_that_run_apart_need_few_graphs_however_they_are_mixed(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda f, real=torch.compile, **_: real(f, backend="eager"))
    torch.manual_seed(0)
    model = MaskedLatentRegression(
        tiny(**SMALL | {"objective": ObjectiveConfig(apart=True), "train": TrainConfig(accumulate=3)})
    )
    model.compile_step()
    made = []
    for lengths in ([10_000, 7_200, 4_700], [6_000] * 2 + [4_700], [8_500] * 2 + [6_000], [4_700, 10_000, 8_500]):
        model(batch_of(3, lengths=torch.tensor(lengths)), len(made))[0].backward()
        made.append(counters["stats"]["unique_graphs"])
    assert made[1:] == [6] * 3  # of one clip, of one clip of any length, of any clips
    assert not counters["graph_break"]


def test_draws_of_a_compiled_step_are_those_of_the_eager_one(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda f, real=torch.compile, **_: real(f, backend="eager"))
    torch.manual_seed(0)
    model = MaskedLatentRegression(tiny(**SMALL | {"decoder": DecoderConfig(kind="cnn", depth=1, groups=4)}))
    model.targets.compile = lambda: None
    torch.manual_seed(5)
    eager = step(model, 0)
    model.compile_step()
    torch.manual_seed(5)
    torch.testing.assert_close(step(model, 0), eager)
    before = counters["stats"]["unique_graphs"]
    step(model, 1)
    assert counters["stats"]["unique_graphs"] == before


def test_without_a_compiler_on_is_refused_and_auto_goes_without(monkeypatch):
    assert not pick_compile("auto", CPU)
    assert not pick_compile("off", CPU)
    monkeypatch.setattr("audiobat.engine.ranks.shutil.which", lambda name: None)
    monkeypatch.setattr("audiobat.engine.ranks.has_triton", lambda: False)
    with pytest.raises(AudiobatError, match=r"needs a C\+\+ compiler, which is not here"):
        pick_compile("on", CPU)
    assert not pick_compile("auto", torch.device("cuda"))
    with pytest.raises(AudiobatError, match="needs the package triton"):
        pick_compile("on", torch.device("cuda"))
