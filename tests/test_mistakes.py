"""Mistakes in a user's own classes are one sentence that names the class and what its protocol asks for."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from audiobat.config import HeadConfig, from_dict
from audiobat.errors import AudiobatError
from audiobat.models.heads import check_users_head

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
