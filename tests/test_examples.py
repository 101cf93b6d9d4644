"""The examples run as they are, at small sizes, and find what their docstrings promise."""

import ast
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from audiobat.data.scenes import demo_folder
from audiobat.finetuning.review_list import read_review, read_taught
from audiobat.zoo.release import load_tagger

EXAMPLES = Path(__file__).parents[1] / "examples"


def main_of(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_embed_puts_like_sounds_next_to_each_other(capsys):
    share = main_of("embed")()
    assert share > 0.7  # 83% here; 4% by chance
    assert len(capsys.readouterr().out.splitlines()) == 16


def test_embed_takes_a_folder_of_ones_own(tmp_path):
    for number in range(3):
        (tmp_path / f"goat_{number}.ogg").write_bytes((demo_folder() / f"events/goat_0{number}.ogg").read_bytes())
    assert main_of("embed")(str(tmp_path)) == 1.0


def test_probe_tells_what_its_records_hold(tmp_path, capsys):
    cgp, linear = main_of("probe_your_data")(tmp_path, steps=4, scenes=40)
    assert (cgp.head["kind"], linear.head["kind"]) == ("cgp", "linear")
    said = capsys.readouterr().out
    assert all(f"block {block}: {weight:.2f}" in said for block, weight in enumerate(cgp.gate_weights, start=1))
    best = max((value, label) for label, value in cgp.per_class.items() if value is not None)
    assert f"{best[1]} {best[0]:.2f}" in said.split("best:")[1].split("worst:")[0]


def test_pretrain_leaves_a_run_that_embeds(tmp_path, capsys):
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for path in sorted(demo_folder().glob("events/saw_*.ogg")):
        (sounds / path.name).write_bytes(path.read_bytes())
    run = main_of("pretrain_tiny")(tmp_path / "run", str(sounds), steps=2)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    said = capsys.readouterr().out
    assert steps == [1, 2]
    assert "a recording is (128,) numbers" in said


def test_finetune_leaves_a_tagger_that_scores_every_label(tmp_path, capsys):
    scores = main_of("finetune")(tmp_path, steps=2, scenes=160)
    assert tuple(scores) == load_tagger(tmp_path / "run").classes
    best = max(scores, key=scores.__getitem__)
    assert capsys.readouterr().out.split("it sounds like")[1].split()[0] == best


def test_long_recordings_finds_the_hidden_calls(capsys):
    found = main_of("long_recordings")("60")
    assert np.allclose(sorted(found), [0.21 * 60, 0.55 * 60, 0.83 * 60], atol=1.0)
    assert "hidden at 12.6 s, 33.0 s, 49.8 s" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_says_how_to_run_it_and_does_nothing_on_import(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert f"python examples/{path.name}" in ast.get_docstring(tree)
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.Assign, ast.If)  # data loaders import it anew
    assert all(isinstance(node, allowed) for node in tree.body[1:])
    assert ast.unparse(tree.body[-1]).startswith("if __name__ == '__main__':")


def test_a_field_season_compares_two_choices_of_clips(tmp_path, capsys):
    main = main_of("field_season")
    main.__globals__["SECONDS"] = 12
    found = main(tmp_path, recordings=4, rounds=1, clips=5)
    assert {name: len(scores) for name, scores in found.items()} == {"review": 2, "random": 2}
    assert found["review"][0] == found["random"][0]  # both begin with the same two recordings
    for name in found:
        assert len(read_review(tmp_path / name)) == 5
        assert {clip.path for clip in read_review(tmp_path / name)} <= {"002.wav", "003.wav"}
        assert not any("?" in track.read_text() for track in (tmp_path / name).glob("*.txt"))
        assert len(read_taught(tmp_path / "runs" / f"{name}_1" / "release")) == 2 * 23 + 5
    assert f"review: 5 clips heard, F1 {found['review'][1]:.3f}" in capsys.readouterr().out
