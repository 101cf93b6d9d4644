"""The source of each value of a recipe: how comments are read, and that recipes named after a source have them all."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from audiobat.config.plain import flatten
from audiobat.config.recipes import load_recipe, recipe_names
from audiobat.config.sources import HEADING, as_yaml, comments_of, settings_of, source_of_default
from audiobat.errors import AudiobatError

COMMENTED = """\
# A recipe of two sentences. It has
# a second one.
base: bat_base
optim: # of the group
  lr: 1e-4 # Table 9,
           # and its footnote
  betas: [0.9, 0.95]  # two numbers
  # above the field,
  # in two lines
  warmup_steps: 10
  min_lr: 0
  # behind wins
  grad_clip: "4 # no comment" # four
data:
  path: a#b
  clip_seconds: 1.0
train: {steps: 3, seed: 4} # of a group on one line
mask:
  kind: random #
target:
  layers: # null
encoder:
  patch_size: # sides
  - 16
  - 8
"""


def test_the_comment_of_a_field():
    assert comments_of(COMMENTED) == {
        HEADING: "A recipe of two sentences",
        "optim": "of the group",
        "optim.lr": "Table 9, and its footnote",
        "optim.betas": "two numbers",
        "optim.warmup_steps": "above the field, in two lines",
        "optim.min_lr": "of the group",
        "optim.grad_clip": "four",
        "train": "of a group on one line",
        "train.steps": "of a group on one line",
        "train.seed": "of a group on one line",
        "target.layers": "null",
        "encoder.patch_size": "sides",
    }


@pytest.mark.parametrize(
    ("text", "comments"),
    [
        ("", {}),
        ("# A heading alone", {HEADING: "A heading alone"}),
        ("encoder:\n  depth: 3\n", {}),
        ("encoder:\n  depth:\n", {}),
        ("title: |\n  a # no comment\n", {}),
        ("title: 'a\n  b' # two lines\n", {"title": "two lines"}),
        ("a: &one 1 # one\nb: *one\n", {"a": "one", "b": "one"}),
    ],
)
def test_texts_with_few_comments(text: str, comments: dict):
    assert comments_of(text) == {HEADING: ""} | comments


@dataclass(frozen=True)
class Part:
    """A group of settings (Section 3.1 and Table 9)."""

    plain: int = 1  # a number; paper: 2
    named: str = "both"  # one: EAT's; both: SSLAM's, by its code
    pair: tuple[int, int] = (1, 2)  # each (EAT's; SSLAM's) or all; the release's; the paper has none (Table 6)
    filled: int = 0  # 0: as `plain`


@dataclass(frozen=True)
class Whole:
    """Groups."""

    part: Part = field(default_factory=lambda: Part(plain=7))  # EAT's


@pytest.mark.parametrize(
    ("path", "value", "source"),
    [
        ("part.plain", 1, "default (Section 3.1, Table 9)"),
        ("part.plain", 7, "default: EAT's"),
        ("part.named", "both", "default: SSLAM's, by its code"),
        ("part.pair", [1, 2], "default: the release's; the paper has none (Table 6)"),
    ],
)
def test_the_source_of_a_default(path: str, value: object, source: str):
    assert source_of_default(Whole, Part, path, value) == source


SOURCES = {  # recipe, field: source
    ("sslam", "optim.min_lr"): r".*EAT.* \(eat_base\)",  # of its base
    ("sslam", "optim.lr"): "(?!.*eat_base).*SSLAM.*",  # its own
    ("eat_base", "frontend.n_fft"): "follows from the other fields of frontend",
    ("bat_base", "frontend.n_fft"): r"default \(Section 5.1, Table 2\)",
    ("bat_base", "decoder.depth"): r"default \(Section 5.3, Table 4\)",
    ("finetune/as20k", "optim.betas"): r"default \(Table 6\)",
    ("ladder/7_bat", "encoder.gated_attention"): r"Table 3, third row \(ladder/4_gates\)",
    ("finetune/sslam_as20k", "train.steps"): r".*Table 6.* \(finetune/as20k\)",  # of its base's base
}


@pytest.mark.parametrize(("name", "field"), SOURCES)
def test_where_a_value_comes_from(name: str, field: str):
    assert re.fullmatch(SOURCES[name, field], settings_of(name)[field].source)


def test_a_comment_that_names_no_source_is_told_with_the_heading(tmp_path: Path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "# EAT's rates: a try\nbase: bat_nano\noptim:\n  lr: 1e-4 # halved\n  min_lr: 0 # BEATs, run.py\n"
    )
    settings = settings_of(recipe)
    assert settings["optim.lr"].source == "EAT's rates: halved"
    assert settings["optim.min_lr"].source == "BEATs, run.py"
    recipe.write_text("base: bat_nano\noptim:\n  lr: 1e-4 # halved\n  min_lr: 0\n")
    settings = settings_of(recipe)
    assert settings["optim.lr"].source == "halved"
    assert settings["optim.min_lr"].source == f"({recipe})"


OWN = ("bat_nano", "bat_tiny", "bat_small", "bat_large", "bats_250khz", "birds_32khz", "demo", "demo_probe")
OWN += ("tuned_probe", "finetune/demo", "finetune/detector", "probe/fair")  # recipes of our own making
OF_A_SOURCE = [name for name in recipe_names() if name not in OWN and not name.startswith(("benchmark/", "suite/"))]
A_SOURCE = re.compile(r"Table \d|Section \d|\b(paper|authors|EAT|SSLAM|data2vec|Audio-MAE)\b|\brelease")


@pytest.mark.parametrize("name", OF_A_SOURCE)
def test_each_value_of_a_recipe_named_after_a_source_has_one(name: str):
    settings = settings_of(name)
    given = flatten(load_recipe(name)).keys() - {"recipe"}
    assert [field for field in given if not A_SOURCE.search(settings[field].source)] == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (5e-5, "5e-5"),
        (1e22, "1e+22"),
        (0.1, "0.1"),
        (400_000, "400000"),
        ([16, 8], "[16, 8]"),
        ([], "[]"),
        (["cgp", "a b"], '[cgp, "a b"]'),
        ("mel_db", "mel_db"),
        ("finetune/as20k", "finetune/as20k"),
        ("my.py:Mine", '"my.py:Mine"'),
        ("null", '"null"'),
        ("12", '"12"'),
        ("1e3", '"1e3"'),
        ("a # b", '"a # b"'),
        ("", '""'),
    ],
)
def test_values_as_yaml(value: object, text: str):
    assert as_yaml(value) == text


def test_an_error_names_the_recipe(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("encoder:\n  depht: 3\n")
    with pytest.raises(AudiobatError, match=r"mine\.yaml: Unknown field encoder\.depht \(did you mean depth"):
        settings_of(tmp_path / "mine.yaml")
