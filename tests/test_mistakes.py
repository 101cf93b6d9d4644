"""Mistakes in a user's own classes are one sentence that names the class and what its protocol asks for."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from audiobat.config import HeadConfig, PretrainConfig, from_dict
from audiobat.errors import AudiobatError
from audiobat.models.heads import check_users_head
from audiobat.pretraining.first_step import try_step
from audiobat.pretraining.objectives.base import build_objective
from audiobat.pretraining.run import CollapseWatch, pretrain

HEAD = """\
import torch
from torch import nn
from audiobat.models.heads import Head, Probe

class Fine(Probe):
    @classmethod
    def build(cls, config, dim, depth, classes, freq_patches):
        return cls(nn.Linear(dim, classes))

    def pool(self, features):
        return features.patch_tokens[-1].mean(1)

class Mine({bases}):
{body}
"""
ENCODER = SimpleNamespace(dim=8, depth=2)
HEADS = {
    "no build": ("Probe", "def pool(self, features): ...", "Mine lacks build: a head defines build and"),
    "no pool": ("Probe", "build = Fine.build", "Mine lacks pool: a head defines build and, derived from Probe, pool"),
    "no classify": ("Head", "build = Fine.build; pool = Fine.pool", "Mine lacks classify"),
    "no fit": ("Fine", "trains = False", "Mine lacks fit"),
    "reads": (
        "Fine",
        "reads = 'patchs'",
        r"Mine\.reads is 'patchs': use patches or means or blocks .did you mean patches",
    ),
    "layers": ("Fine", "layers = 3", r"Mine\.layers is 3: use one or all\."),
    "pools tokens": (
        "Fine",
        "def pool(self, features): return features.patch_tokens[-1]",
        r"Mine\.pool gives \(2, 2, 8\) for 2 clips: give one vector a clip, \(2, 8\)",
    ),
    "pools another width": (
        "Fine",
        "def pool(self, features): return features.patch_tokens[-1].mean(1)[:, :3]",
        r"Mine\.pool gives \(2, 3\) for 2 clips: give one vector a clip, \(2, 8\)",
    ),
    "pools none": ("Fine", "def pool(self, features): ...", r"Mine\.pool gives \('NoneType',\)"),
    "logits": (
        "Fine",
        "def forward(self, features): return features.patch_tokens[-1]",
        r"Mine gives logits \(2, 2, 8\) for 2 clips and 3 classes: give \(2, 3\)",
    ),
}


@pytest.mark.parametrize(("bases", "body", "sentence"), HEADS.values(), ids=HEADS)
def test_a_head_that_cannot_work_is_refused_before_there_are_features(tmp_path, monkeypatch, bases, body, sentence):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(HEAD.format(bases=bases, body=f"    {body}"))
    check_users_head(from_dict(HeadConfig, {"kind": "mine.py:Fine"}), ENCODER, 3)
    with pytest.raises(AudiobatError, match=rf"^mine\.py line 13: {sentence}") as caught:
        check_users_head(from_dict(HeadConfig, {"kind": "mine.py:Mine"}), ENCODER, 3)
    assert "\n" not in str(caught.value)


def test_what_a_head_raises_names_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(HEAD.format(bases="Fine", body="    def pool(self, features): raise KeyError('x')"))
    with pytest.raises(AudiobatError, match=r"^mine\.py line 14: Mine\.pool fails .KeyError: 'x'.: fix it"):
        check_users_head(from_dict(HeadConfig, {"kind": "mine.py:Mine"}), ENCODER, 3)


PART = """\
import torch
from torch import nn
from audiobat.models.encoder import AudioEncoder
from audiobat.pretraining.decoders.base import Decoder
from audiobat.pretraining.masks.base import Mask, Masks
from audiobat.pretraining.objectives.base import Objective, embed_clips
from audiobat.pretraining.targets.base import Targets, TargetSource

def cells(count, grid):
    return torch.arange(grid[0] * grid[1]).expand(count, -1)

class OneLinear(Decoder):
    def __init__(self, config, model, width):
        super().__init__(config, model, width)
        self.out = nn.Linear(model.encoder.dim, width)

    def forward(self, tokens, masks, grid, valid=None):
        return self.out(tokens.mean(1, keepdim=True)).expand(-1, masks.masked.shape[1], -1)

class Noise(TargetSource):
    has_cls_target = False

    def __init__(self, config, model, student):
        super().__init__(config, model, student)
        self.width, self.patches = 3, model.grid[0] * model.grid[1]

    def forward(self, spectrogram, valid=None, waveform=None, lengths=None):
        return Targets(torch.randn(len(spectrogram), CELLS, 3), None, 1.0)

class Square(Objective):
    def __init__(self, config):
        super().__init__(config)
        self.encoder = AudioEncoder(config.model)

    def forward(self, batch, step):
        tokens = embed_clips(self.encoder, batch).tokens
        return self.finish(tokens)

    def finish(self, tokens):
        return tokens.square().mean(), {"mean": tokens.mean().item()}

class Mine(BASE):
    BODY
"""
TINY = {
    "frontend": {"mel_bins": 32, "n_fft": 512, "win_length": 512},
    "encoder": {"dim": 16, "depth": 2, "heads": 2, "max_frames": 64, "patch_size": [8, 8]},
    "decoder": {"depth": 1, "heads": 2},
    "mask": {"clones": 2, "block_size": 2},
    "objective": {"global_weight": 0.0},
    "data": {"clip_seconds": 0.5, "path": "."},
    "train": {"device": "cpu"},
}
CELLS = 28  # 7 columns of 4 patches
DRAW, PREDICT = "def draw(self, count, grid, generator): ", "def forward(self, tokens, masks, grid, valid=None): "
TARGET = "def forward(self, spectrogram, valid=None, waveform=None, lengths=None): "
MASK, FINISH = ("mask", "Mask"), "def finish(self, tokens): return "
FINE = {
    "mask": ("mask", "Mask", DRAW + "i = cells(count, grid); return Masks(i[:, :9], i[:, 9:])"),
    "decoder": ("decoder", "OneLinear", "pass"),
    "target": ("target", "Noise", "pass"),
    "objective": ("objective", "Square", "pass"),
}
PARTS = {
    "tuple of masks": (
        *MASK,
        DRAW + "i = cells(count, grid); return i[:, :9], i[:, 9:]",
        "draw returns a tuple: it must",
    ),
    "one mask": (
        *MASK,
        DRAW + "i = cells(1, grid); return Masks(i[:, :9], i[:, 9:])",
        "draw returns 1 rows of visible",
    ),
    "float masks": (*MASK, DRAW + "i = cells(count, grid); return Masks(i[:, :9], i / 2)", "masked patches .* int64"),
    "outside": (
        *MASK,
        DRAW + "i = cells(count, grid); return Masks(i, i + 9)",
        "masked patches from 9 to 36: the grid has 0",
    ),
    "overlap": (*MASK, DRAW + "i = cells(count, grid); return Masks(i, i)", "visible and masked at once"),
    "width of 1": (
        "decoder",
        "OneLinear",
        PREDICT + "return tokens.new_zeros(*masks.masked.shape, 1)",
        r"\[R, m, width\]",
    ),
    "one row": (
        "decoder",
        "OneLinear",
        PREDICT + "return self.out(tokens.mean(1, keepdim=True))",
        r"here \[4, \d+, 16\]",
    ),
    "no targets": ("target", "Noise", TARGET + "return spectrogram", "returns a Tensor: it must be Targets"),
    "another grid": (
        "target",
        "Noise",
        TARGET + "return Targets(torch.zeros(2, 99, 3), None, 1.0)",
        r"here \[2, 28, 3\]",
    ),
    "another width": (
        "target",
        "Noise",
        TARGET + "return Targets(torch.zeros(2, 28, 8), None, 1.0)",
        r"here \[2, 28, 3\]",
    ),
    "cls": (
        "target",
        "Noise",
        TARGET + "return Targets(torch.zeros(2, 28, 3), spectrogram, 1.0)",
        "has_cls_target is False",
    ),
    "variances": (
        "target",
        "Noise",
        TARGET + "x = torch.zeros(2, 28, 3); return Targets(x, None, x)",
        "variance that is no",
    ),
    "vector": ("objective", "Square", FINISH + "tokens.mean((1, 2)), {}", r"a loss \[2\]: it must be .* a scalar"),
    "loss alone": ("objective", "Square", FINISH + "tokens.mean()", "returns a Tensor: it must be .loss, statistics"),
    "no gradient": ("objective", "Square", FINISH + "(torch.zeros(()), {})", "a loss without gradient"),
    "wide statistic": (
        "objective",
        "Square",
        FINISH + "(tokens.mean(), {'x': tokens})",
        "a statistic x that is no scalar",
    ),
}


def objective_of(seam: str, base: str, body: str, cells: int = CELLS):
    Path("mine.py").write_text(PART.replace("BASE", base).replace("BODY", body).replace("CELLS", str(cells)))
    field = "source" if seam == "target" else "kind"
    kind = {seam: {**TINY.get(seam, {}), field: "mine.py:Mine"}}
    return build_objective(from_dict(PretrainConfig, {**TINY, **kind}))


@pytest.mark.parametrize("part", FINE.values(), ids=FINE)
def test_a_part_that_keeps_its_protocol_passes_and_is_checked_once(tmp_path, monkeypatch, part):
    monkeypatch.chdir(tmp_path)
    objective = objective_of(*part)
    before = set(vars(objective.mask)) if hasattr(objective, "mask") else set()
    try_step(objective)
    assert not any(module._forward_hooks for module in objective.modules())
    assert not hasattr(objective, "mask") or set(vars(objective.mask)) == before


@pytest.mark.parametrize(("seam", "base", "body", "sentence"), PARTS.values(), ids=PARTS)
def test_what_a_part_returns_is_checked_and_its_class_named(tmp_path, monkeypatch, seam, base, body, sentence):
    monkeypatch.chdir(tmp_path)
    objective = objective_of(seam, base, body)
    with pytest.raises(AudiobatError, match=rf"^mine\.py line 42: Mine\..*{sentence}.*docs/variants\.md") as caught:
        try_step(objective)
    assert "\n" not in str(caught.value)


def test_a_dry_run_finds_the_mistake(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objective = objective_of("target", "Noise", "pass", cells=99)  # an IndexError within the objective, unchecked
    with pytest.raises(AudiobatError, match=r"^mine\.py line 42: Mine\.forward returns patch_targets \[2, 99, 3\]"):
        pretrain(objective.config, tmp_path / "run", dry_run=True)


def test_health_that_watches_no_statistic_is_one_warning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = []
    objective = objective_of(
        "objective", "Square", 'health = {"maen": (1e-3, "nothing is left"), "mean": (1.0, "flat")}'
    )
    watch = CollapseWatch(SimpleNamespace(say=said.append), objective)
    for step in (1, 2):
        watch({"step": step, "loss": 0.5, "mean": 0.5})
    assert said == [
        "Warning: health watches maen, which is no statistic: there are loss, mean.",
        "Warning: collapse at step 1: flat (mean 0.5, below 1.0).",
    ]
