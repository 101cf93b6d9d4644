"""`audiobat recipes`: what is listed, shown and compared, against configs built and compared without it."""

import re
from pathlib import Path

import pytest

import audiobat
from audiobat.config import ProbeConfig
from audiobat.config.differences import differences
from audiobat.config.plain import flatten, from_dict, to_dict
from audiobat.config.recipes import kind_of, load_recipe, parse_yaml, recipe_files, recipe_names
from audiobat.config.sources import CONFIGS, Setting, settings_of
from audiobat.errors import AudiobatError

VARIANTS = Path(__file__).parents[2] / "examples/variants"
SETTINGS = [name for name in recipe_names() if kind_of(name) in CONFIGS]


def config(name: str | Path, kind: str = "pretrain"):
    return from_dict(CONFIGS[kind], load_recipe(name))


def flat(name: str | Path, kind: str = "pretrain") -> dict:
    return flatten(to_dict(config(name, kind)))


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_shown_is_the_recipe_again(name: str, capsys):
    audiobat.recipes("show", name)
    text = capsys.readouterr().out
    assert text.split()[:6] == recipe_files(name)[-1].text.split()[:6], "what the file says first"
    shown = from_dict(CONFIGS[kind_of(name)], parse_yaml(text, name))
    assert shown == config(name, kind_of(name))
    fields = [line for line in text.splitlines() if not line.startswith("#") and not line.endswith(":")]
    assert all(re.search(r": \S.*  # \w", line) for line in fields), "each with its source"


def test_what_is_said_of_the_heads_of_one_kind(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(VARIANTS)
    mine = tmp_path / "mine.yaml"
    kinds = "  'gated_mean.py:GatedMean': {train: {steps: 5}} # Table 9\n  cgp: {head: {layer: 2}}\n"
    mine.write_text(f"base: probe/fair\nby_kind:\n{kinds}")
    found = differences("probe/fair", mine)
    assert found.pop("by_kind.gated_mean.py:GatedMean.train.steps") == (Setting(None, "not set"), Setting(5, "Table 9"))
    assert [(x.value, y.value) for x, y in found.values()] == [(None, 2)]
    audiobat.recipes("show", mine)
    assert from_dict(ProbeConfig, parse_yaml(capsys.readouterr().out, "")) == config(mine, "probe")


@pytest.mark.parametrize("b", ["bat_base_released", "sslam", "audio_mae", "bats_250khz"])
def test_the_fields_in_which_two_recipes_differ(b: str):
    found = differences("bat_base", b)
    ours, theirs = flat("bat_base"), flat(b)
    assert list(found) == [field for field in ours if ours[field] != theirs[field]]
    assert {field: (x.value, y.value) for field, (x, y) in found.items()} == {
        field: (ours[field], theirs[field]) for field in found
    }


def test_the_name_of_a_recipe_is_no_difference():
    assert "recipe" not in differences("finetune/as20k", "finetune/as2m")
    assert differences("bat_base", "ladder/7_bat") == {}


def test_fields_that_one_kind_alone_has(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(VARIANTS)
    (tmp_path / "mine.yaml").write_text("base: bat_nano\nfrontend: {kind: 'pcen.py:PCEN', smoothing: 0.04}\n")
    one, other = differences("bat_nano", tmp_path / "mine.yaml")["frontend.smoothing"]
    assert (one, other.value) == (Setting(None, "not set"), 0.04)


def test_the_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    audiobat.recipes("diff", ["bat_base", "eat_base"])
    text = capsys.readouterr().out
    lines = text.splitlines()
    at = lines.index("objective.global_weight")
    assert re.match(r"  bat_base  1\.0   +default \(Eq\. 5\)", lines[at + 1])
    assert re.match(r"  eat_base  192\.0 +EAT", lines[at + 2])
    assert lines[at + 1].index("default") == lines[at + 2].index("EAT"), "columns"
    audiobat.recipes("diff", ["bat_base", "ladder/7_bat"])
    assert capsys.readouterr().out == "bat_base and ladder/7_bat have the same settings.\n"


def test_the_list_has_every_recipe_below_its_kind(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    audiobat.recipes()
    lines = capsys.readouterr().out.splitlines()
    kinds = {line.removesuffix(":"): i for i, line in enumerate(lines) if line.endswith(":")}
    assert list(kinds) == [*CONFIGS, "benchmark", "suite"]
    for kind, start in kinds.items():
        names = recipe_names(kind)
        below = [line.split() for line in lines[start + 1 : start + 1 + len(names)]]
        assert [words[0] for words in below] == names
        assert min(map(len, below)) > 3, "a sentence"


def test_files_of_a_users_own(tmp_path: Path):
    short = tmp_path / "short.yaml"
    short.write_text("train:\n  steps: 3000\n  batch_size: 8\noptim:\n  warmup_steps: 5\n")  # of two kinds
    assert {field: y.value for field, (_, y) in differences("finetune/as20k", short).items()}["train.steps"] == 3000
    assert differences("bat_base", short)["train.steps"][0].value == 400_000
    heirs = tmp_path / "heirs.yaml"
    heirs.write_text("base: short.yaml\ntrain:\n  seed: 3\n")
    assert {field: y.source for field, (_, y) in differences(short, heirs).items()} == {"train.seed": f"({heirs})"}
    with pytest.raises(AudiobatError, match=r"of different kinds"):
        differences("probe/fair", heirs)
    (tmp_path / "run.yaml").write_text("train: {steps: 5000}\n")  # shorter than the warm-ups of two kinds
    assert "augment.roll" in settings_of(tmp_path / "run.yaml"), (
        "pre-training has a longer warm-up, fine-tuning has not"
    )
    assert "head.kind" not in differences("probe/paper/as20k", tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("action", "names", "words"),
    [
        ("diff", ["bat_base", "probe/paper/as20k"], "bat_base to pretrain and probe/paper/as20k to probe"),
        ("diff", ["finetune/demo", "demo"], "finetune/demo to finetune and demo to pretrain"),
        ("diff", ["bat_base", "bat_bose"], r"No recipe 'bat_bose' \(did you mean bat_base"),
        ("diff", ["bat_base"], "takes 2 recipes, not 1: as in `audiobat recipes diff bat_base"),
        ("show", [], "show takes 1 recipe, not 0"),
        ("list", ["bat_base"], "list takes 0 recipes, not 1"),
        ("show", ["benchmark/table1"], "benchmark/table1 lists runs and has no settings"),
        ("dif", ["bat_base"], r"action is 'dif': choose one of list, show, diff \(did you mean diff"),
    ],
)
def test_mistakes(action: str, names: list[str], words: str):
    with pytest.raises(AudiobatError, match=words):
        audiobat.recipes(action, names)
