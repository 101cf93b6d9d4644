"""The registry: kinds are files, a user's own class is found and checked, every mistake is one sentence."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from audiobat.config import DecoderConfig, from_dict, registry, to_dict
from audiobat.config.registry import SEAMS, Seam, choices, config_class_of, find, kinds
from audiobat.config.user_files import errors_of_user_code, run_file
from audiobat.errors import AudiobatError

DECODER = """\
from dataclasses import dataclass
from audiobat.config import DecoderConfig

class Mine:
    @dataclass(frozen=True)
    class Config(DecoderConfig):
        sharpness: float = 0.5  # of the edges

    @classmethod
    def build(cls, config, model, width):
        return cls()

    def forward(self, tokens, masks, grid, valid=None):
        return 1 / 0

class NoForward:
    @classmethod
    def build(cls, config, model, width): ...

class WrongConfig(Mine):
    class Config: ...

number = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(DECODER)
    return Path("mine.py")


@pytest.mark.parametrize("seam", SEAMS)
def test_each_file_of_a_seam_is_a_kind_unless_it_is_shared(seam):
    folder = registry.PACKAGE / SEAMS[seam].folder
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert set(kinds(seam)) == files - set(SEAMS[seam].shared)
    assert set(SEAMS[seam].shared) < files


def test_a_new_file_is_a_new_kind(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "decoys"
    folder.mkdir()
    (folder / "base.py").write_text("")
    (folder / "plain.py").write_text(DECODER.split("class NoForward")[0])
    monkeypatch.setitem(SEAMS, "decoder", Seam("decoys", ("build", "forward")))
    monkeypatch.setattr(registry, "PACKAGE", tmp_path)
    monkeypatch.setattr(registry, "ROOT", "")
    assert kinds("decoder") == choices(DecoderConfig, "kind") == ["plain"]
    config = from_dict(DecoderConfig, {"kind": "plain", "sharpness": 2})
    assert isinstance(config, find("decoder", "plain").Config)


def test_kinds_are_listed_without_torch():
    code = (
        "import sys; from audiobat.config import DecoderConfig, from_dict; from audiobat.config.registry import kinds; "
        "kinds('head'); from_dict(DecoderConfig, {'kind': 'cnn'}); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_only_the_field_of_the_kind_has_choices():
    assert choices(DecoderConfig, "kind") == kinds("decoder")
    assert choices(DecoderConfig, "depth") == choices(Seam, "folder") == []


@pytest.mark.parametrize("seam", SEAMS)
def test_an_unknown_kind_is_a_sentence_that_lists_the_kinds(seam):
    known = kinds(seam)
    with pytest.raises(AudiobatError) as caught:
        find(seam, known[0] + "x")
    assert f"choose one of {', '.join(known)} (did you mean {known[0]}?), or your own as FILE.py:CLASS" in str(
        caught.value
    )


def test_an_unknown_kind_in_a_config_is_named_by_its_field():
    for build in (lambda: DecoderConfig(kind="vitt"), lambda: from_dict(DecoderConfig, {"kind": "vitt"})):
        with pytest.raises(AudiobatError, match=r"^decoder\.kind is 'vitt': choose one of cnn, vit \(did you mean vit"):
            build()


def test_a_users_class_brings_fields_of_its_own(mine):
    config = from_dict(DecoderConfig, {"kind": "mine.py:Mine", "sharpness": 0.25, "depth": 2})
    assert (config.sharpness, config.depth) == (0.25, 2)
    assert from_dict(DecoderConfig, to_dict(config)) == config
    assert dataclasses.replace(config, depth=3).sharpness == 0.25
    assert config_class_of(DecoderConfig, "vit") is DecoderConfig
    with pytest.raises(AudiobatError, match=r"Unknown field sharpnes .did you mean sharpness"):
        from_dict(DecoderConfig, {"kind": "mine.py:Mine", "sharpnes": 1})


OWN_FIELDS = """\
from dataclasses import dataclass, field
from typing import Literal, Optional
from audiobat.config import DecoderConfig

class Mine:
    {decorator}
    class Config(DecoderConfig):
        sharpness: {own}

    @classmethod
    def build(cls, config, model, width): ...

    def forward(self, tokens, masks, grid, valid=None): ...
"""


@pytest.mark.parametrize(
    ("own", "given"),
    [
        ("int = 3", 4),
        ("float = 1", 0.5),  # a whole number is a float, too
        ("Optional[int] = None", 2),
        ("int | None = None", None),
        ("Optional[tuple[int, ...]] = None", [1, 2]),
        ("tuple[float, ...] = (0.5, 1)", [1.0]),
        ("tuple[str, ...] = field(default_factory=tuple)", ["a"]),
        ("Literal['soft', 'hard'] = 'soft'", "hard"),
        ("'bool' = False", True),
    ],
)
def test_a_field_of_a_users_config_survives_yaml(mine, own, given):
    mine.write_text(OWN_FIELDS.format(decorator="@dataclass(frozen=True)", own=own))
    for fields in ({}, {"sharpness": given}):
        config = from_dict(DecoderConfig, {"kind": "mine.py:Mine", **fields})
        again = from_dict(DecoderConfig, yaml.safe_load(yaml.safe_dump(to_dict(config))))
        assert to_dict(again) == to_dict(config)
        assert again.sharpness == (to_dict(config)["sharpness"] if not isinstance(given, list) else again.sharpness)


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        ("int = None", "is int with the default None"),
        ("int = 'many'", "is int with the default 'many'"),
        ("dict = None", "is dict with the default None"),
        ("tuple = (1, 2)", r"is tuple with the default \(1, 2\)"),
        ("list = field(default_factory=list)", r"is list with the default \[\]"),
        ("int | str | None = None", r"is int \| str \| None with the default None"),
        ("float = float('nan')", "is float with the default nan"),
        ("int = field(kw_only=True)", "is int with no default"),
    ],
)
def test_a_field_that_yaml_could_not_keep_is_refused_when_its_class_is_found(mine, own, problem):
    mine.write_text(OWN_FIELDS.format(decorator="@dataclass(frozen=True)", own=own))
    sentence = rf"^mine\.py line 8: Mine\.Config\.sharpness {problem}: use int, float, bool, str, X \| None, tuple"
    with pytest.raises(AudiobatError, match=sentence):
        from_dict(DecoderConfig, {"kind": "mine.py:Mine"})


def test_a_config_without_dataclass_is_refused(mine):
    mine.write_text(OWN_FIELDS.format(decorator="", own="int = 3"))
    with pytest.raises(AudiobatError, match=r"^mine\.py line 7: Mine\.Config is no frozen dataclass.*write @dataclass"):
        from_dict(DecoderConfig, {"kind": "mine.py:Mine"})


def test_a_file_is_run_again_when_its_content_changes_and_not_before(mine):
    first = run_file(mine)
    assert run_file(mine.resolve()) is first
    mine.write_text(DECODER.replace("0.5", "0.7"))  # of the same length, within the same second
    assert find("decoder", "mine.py:Mine").Config().sharpness == 0.7


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("absent.py:Mine", r"There is no file absent.py: give FILE.py:CLASS, its path relative to /"),
        ("mine.py:Mein", r"mine.py defines no Mein .did you mean Mine.*: give mine.py:NAME"),
        ("mine.py:NoForward", r"mine.py line 16: NoForward lacks forward: a decoder defines build, forward"),
        ("mine.py:number", r"mine.py:number is a int: a decoder is a class"),
        (
            "mine.py:WrongConfig",
            r"mine.py line 21: WrongConfig.Config is no frozen dataclass that subclasses DecoderConfig",
        ),
        ("broken.py:Mine", r"broken.py line 2: running it fails .NameError: name 'y' is not defined"),
        ("torn.py:Mine", r"torn.py line 1: running it fails .SyntaxError"),
    ],
)
def test_mistakes_in_a_users_file_are_one_sentence_with_file_and_line(mine, kind, sentence):
    Path("broken.py").write_text("x = 1\ny\n")
    Path("torn.py").write_text("def f(:\n")
    with pytest.raises(AudiobatError, match=sentence) as caught:
        from_dict(DecoderConfig, {"kind": kind})
    assert "\n" not in str(caught.value)


def test_what_a_users_code_raises_later_names_its_line(mine):
    made = find("decoder", "mine.py:Mine").build(None, None, 1)
    with (
        pytest.raises(AudiobatError, match=r"mine.py line 14: Mine.forward fails .ZeroDivisionError"),
        errors_of_user_code(),
    ):
        made.forward(None, None, None)
    sentence = r"mine.py line 4: Mine.forward\(\) missing 3 required positional arguments.*docs/variants.md"
    with pytest.raises(AudiobatError, match=sentence), errors_of_user_code():
        made.forward()
    with pytest.raises(KeyError), errors_of_user_code():  # of the package's own code
        {}["x"]
