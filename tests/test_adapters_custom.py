"""A user's own encoder: the documented ten lines work, and each mistake in such a file gets one sentence."""

import inspect
from pathlib import Path

import pytest
import torch

from audiobat.adapters import custom
from audiobat.encoder import AudioEncoder
from audiobat.errors import AudiobatError
from audiobat.models import load_encoder


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
    found = encoder.forward_layers(torch.zeros(2, 1000), torch.tensor([1000, 640]))
    assert found.patch_tokens.shape == (1, 2, 3, 64)
    assert found.valid.tolist() == [[True, True, True], [True, True, False]]


def test_an_object_and_a_function_will_do_and_neighbours_are_found(tmp_path: Path):
    (tmp_path / "neighbour.py").write_text("RATE = 8000")
    (tmp_path / "mine.py").write_text(
        "from neighbour import RATE\n"
        "class E:\n"
        "    sample_rate, dim, depth = RATE, 4, 1\n"
        "    def forward_layers(self, waveform, lengths=None): ...\n"
        "def build(): return E()\n"
        "ready = E()\n"
    )
    for name in ("E", "build", "ready"):
        assert load_encoder(f"{tmp_path / 'mine.py'}:{name}").sample_rate == 8000


@pytest.mark.parametrize(
    ("code", "name", "sentence"),
    [
        ("class MyEncoder: pass", "MyEncodr", "defines no MyEncodr .did you mean MyEncoder"),
        ("1 / 0", "MyEncoder", "fails when it is run .ZeroDivisionError"),
        ("class MyEncoder:\n    def __init__(self): open('absent')", "MyEncoder", r"MyEncoder\(\) fails .FileNotFound"),
        ("class MyEncoder: dim = depth = 3", "MyEncoder", "has no sample_rate, forward_layers"),
    ],
)
def test_mistakes_are_named(code: str, name: str, sentence: str, tmp_path: Path):
    (tmp_path / "bad.py").write_text(code)
    with pytest.raises(AudiobatError, match=sentence):
        load_encoder(f"{tmp_path / 'bad.py'}:{name}")


def test_a_file_without_a_class_and_an_absent_file(tmp_path: Path):
    with pytest.raises(AudiobatError, match=r"mine.py:CLASS"):
        load_encoder(tmp_path / "mine.py")
    with pytest.raises(AudiobatError, match=r"There is no file .*mine.py"):
        load_encoder(f"{tmp_path / 'mine.py'}:E")


def test_our_own_models_still_load_by_name():
    assert isinstance(load_encoder("bat_nano"), AudioEncoder)
