"""A user's own encoder: the documented ten lines work, and each mistake in such a file gets one sentence."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiobat.cli.command import main
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.zoo.adapters import custom
from audiobat.zoo.doctor.encoder import examine
from audiobat.zoo.load import load_encoder


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The file that the docstring shows, as a user would paste it."""
    lines = inspect.cleandoc(custom.__doc__).splitlines()
    code = [line[4:] for line in lines if line.startswith("    ") or not line]
    file = tmp_path / "my_file.py"
    file.write_text("\n".join(code))
    return file


def test_the_example_in_the_docs_is_an_encoder(example: Path):
    encoder = load_encoder(f"{example}:MyEncoder")
    assert not encoder.training
    found = encoder.forward_intermediates(torch.zeros(2, 1000), torch.tensor([1000, 640]))
    assert found.patch_tokens.shape == (1, 2, 3, 64)
    assert found.valid.tolist() == [[True, True, True], [True, True, False]]


def test_an_object_and_a_function_will_do_and_neighbours_are_found(tmp_path: Path):
    (tmp_path / "neighbour.py").write_text("RATE = 8000")
    (tmp_path / "mine.py").write_text(
        "from neighbour import RATE\n"
        "class E:\n"
        "    sample_rate, dim, depth = RATE, 4, 1\n"
        "    def forward_intermediates(self, waveform, lengths=None): ...\n"
        "def build(): return E()\n"
        "ready = E()\n"
    )
    for name in ("E", "build", "ready"):
        assert load_encoder(f"{tmp_path / 'mine.py'}:{name}").sample_rate == 8000


def test_a_file_with_the_methods_old_name_still_works(example: Path):
    waveform = torch.randn(2, 1000)
    expected = load_encoder(f"{example}:MyEncoder")
    example.write_text(example.read_text().replace("def forward_intermediates", "def forward_layers"))
    old = load_encoder(f"{example}:MyEncoder")
    old.load_state_dict(expected.state_dict())
    found = old.forward_intermediates(waveform, torch.tensor([1000, 640]))
    assert torch.equal(found.patch_tokens, expected.forward_intermediates(waveform).patch_tokens)
    with pytest.raises(AudiobatError, match="line 14: forward_layers fails"):
        old.forward_intermediates(waveform[0])


@pytest.mark.parametrize(
    ("code", "name", "sentence"),
    [
        ("class MyEncoder: pass", "MyEncodr", "defines no MyEncodr .did you mean MyEncoder"),
        ("1 / 0", "MyEncoder", r"bad\.py line 1: running it fails .ZeroDivisionError"),
        ("class MyEncoder:\n    def __init__(self): open('absent')", "MyEncoder", r"MyEncoder\(\) fails .FileNotFound"),
        ("class MyEncoder: dim = depth = 3", "MyEncoder", "has no sample_rate, forward_intermediates"),
        (
            "class MyEncoder:\n    sample_rate, dim, depth = 8000, 4, 2.0\n    def forward_intermediates(self): ...",
            "MyEncoder",
            "MyEncoder.depth is 2.0: set it to a whole number",
        ),
    ],
)
def test_mistakes_are_named(code: str, name: str, sentence: str, tmp_path: Path):
    (tmp_path / "bad.py").write_text(code)
    with pytest.raises(AudiobatError, match=sentence):
        load_encoder(f"{tmp_path / 'bad.py'}:{name}")


BROKEN = {
    "one layer too few": (
        "None],",
        "None][:0],",
        r"patch_tokens has shape [0, 8, 12, 64]; [L, B, N, D] is [1, 8, 12, 64]",
    ),
    "another grid": ("(T, 1)", "(1, T - 1)", "[L, B, N, D] is [1, 8, 11, 64] with depth 1, 8 clips, grid (1, 11)"),
    "a list for a grid": ("(T, 1)", "[T, 1]", "grid is [12, 1]; give two whole numbers (T, F)"),
    "valid as numbers": (
        "None, (T, 1), valid",
        "None, (T, 1), valid.float()",
        "valid has type torch.float32; make it bool",
    ),
    "whole numbers": ("(frames)[None]", "(frames)[None].int()", "patch_tokens has type torch.int32; make it float"),
    "nothing valid": ("valid, steps", "valid & False, steps", "a clip has no valid token"),
    "another type": ("return LayerFeatures(", "return (", "forward_intermediates gives a tuple; return LayerFeatures"),
    "an exception": ("lengths // 320", "lengths // 320 / 0 + [1]", ": forward_intermediates fails (TypeError: "),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Eight clips of 0.25 s, of two classes."""
    folder = tmp_path_factory.mktemp("clips")
    rows = ["path,label,split"]
    for i in range(8):
        soundfile.write(folder / f"{i}.wav", np.random.default_rng(i).normal(scale=0.1, size=4000), 16_000)
        rows.append(f"{i}.wav,{'ab'[i % 2]},{'train' if i < 4 else 'test'}")
    (folder / "clips.csv").write_text("\n".join(rows))
    return folder / "clips.csv"


@pytest.mark.parametrize("name", BROKEN)
def test_a_probe_of_a_broken_encoder_says_what_it_gave_and_what_was_expected(name, example, clips, tmp_path, capsys):
    old, new, words = BROKEN[name]
    assert example.read_text().count(old) == 1
    example.write_text(example.read_text().replace(old, new))
    model = f"{example}:MyEncoder"
    argv = ["probe", "--model", model, "--data", str(clips), "--out", str(tmp_path / "run"), "--head.kind", "linear"]
    assert main([*argv, "--workers", "0"]) == 2
    printed = capsys.readouterr().err.splitlines()[-1]
    assert words in printed
    assert "Traceback" not in printed
    if name == "an exception":
        line = next(n for n, code in enumerate(example.read_text().splitlines(), start=1) if new in code)
        assert printed.startswith(f"audiobat: {example} line {line}: ")
        (fault,) = [fault for name, fault in examine(load_encoder(model), torch.device("cpu")) if name == "shapes"]
        assert f"line {line}: forward_intermediates fails (TypeError" in fault
    else:
        assert "`audiobat doctor --model`" in printed


def test_an_encoder_without_attributes_of_its_own_is_taken_as_it_is(tmp_path: Path):
    (tmp_path / "slots.py").write_text(
        "class E:\n    __slots__ = ()\n    sample_rate = dim = depth = 3\n"
        "    def forward_intermediates(self, waveform, lengths=None): return 1 / 0\n"
    )
    with pytest.raises(ZeroDivisionError):
        load_encoder(f"{tmp_path / 'slots.py'}:E").forward_intermediates(None)


def test_a_file_without_a_class_and_an_absent_file(tmp_path: Path):
    with pytest.raises(AudiobatError, match=r"mine.py:CLASS"):
        load_encoder(tmp_path / "mine.py")
    with pytest.raises(AudiobatError, match=r"There is no file .*mine.py"):
        load_encoder(f"{tmp_path / 'mine.py'}:E")


def test_our_own_models_still_load_by_name():
    assert isinstance(load_encoder("bat_nano"), AudioEncoder)
