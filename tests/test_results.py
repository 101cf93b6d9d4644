"""Result records: what is written comes back, foreign files are refused in one sentence, the code names its commit."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch

import audiobat
from audiobat import results
from audiobat.errors import AudiobatError
from audiobat.results import DataInfo, Metric, ModelInfo, ResultRecord, environment, load_record, load_records

RECORD = ResultRecord(
    model=ModelInfo("bat_nano", "ab" * 32, 1_234),
    data=DataInfo("scenes", "cd" * 32, {"train": 12, "test": 4}, 1, 3, 2),
    head={"kind": "cgp", "prototypes": 512, "steps": 10, "betas": [0.9, 0.999], "weight_decay": 0.5},
    preset="paper",
    seed=3,
    metrics={"map": Metric(0.5, 0.4, 0.6, "macro mean"), "f1": Metric(0.1, 0.0, math.nan, "at 0.5", sd=0.05)},
    per_class={"Töne": 0.75, "b": 0.25, "c": None},
    gate_weights=[0.25, 0.75],
    wall_seconds=1.5,
    clips_per_second=320.0,
    device="cpu",
    environment={"torch": "2.13.0"},
    git_commit=None,
    folds={"1": {"map": 0.4, "f1": 0.1}},
)


def test_a_record_comes_back_as_it_was_saved(tmp_path: Path):
    path = tmp_path / "new" / "results" / "a.json"
    RECORD.save(path)
    back = load_record(path)
    assert math.isnan(back.metrics["f1"].high)
    assert repr(back) == repr(RECORD)
    assert back.main_metric == "map"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]  # nothing beside it
    json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert "Töne" in path.read_text(encoding="utf-8")


def test_a_failed_save_leaves_the_old_record(tmp_path: Path):
    path = tmp_path / "a.json"
    RECORD.save(path)
    with pytest.raises(TypeError):
        replace(RECORD, head={"kind": object()}).save(path)
    assert load_record(path).head == RECORD.head


def test_load_records_takes_folders_and_files(tmp_path: Path):
    first, second = tmp_path / "run" / "results" / "a.json", tmp_path / "run" / "more" / "results" / "b.json"
    RECORD.save(first)
    replace(RECORD, seed=4).save(second)
    (tmp_path / "run" / "env.json").write_text("{}")  # beside results/, not in it
    assert sorted(r.seed for r in load_records(tmp_path / "run")) == [3, 4]
    assert [r.seed for r in load_records(second.parent)] == [4]
    assert [r.seed for r in load_records(first)] == [3]
    assert [r.seed for r in load_records([second, first])] == [4, 3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "no result record"),
        ('{"acc": 0.5}', "no result record"),
        ('{"format": "audiobat-result-0"}', "no result record"),
        ('{"format": "audiobat-result-1"}', "damaged"),
        ('{"format": "audiobat-result-1", "model": {"name": 1}}', "damaged"),
    ],
)
def test_a_foreign_or_damaged_file_is_refused_in_one_sentence(tmp_path: Path, text: str, words: str):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(AudiobatError, match=words) as caught:
        load_records(tmp_path)
    assert str(path) in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_a_missing_or_unknown_field_and_an_empty_folder_are_errors(tmp_path: Path):
    RECORD.save(tmp_path / "a.json")
    whole = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    for damaged in ({k: v for k, v in whole.items() if k != "seed"}, {**whole, "sead": 1}):
        (tmp_path / "a.json").write_text(json.dumps(damaged))
        with pytest.raises(AudiobatError, match=r"sea?e?d"):
            load_record(tmp_path / "a.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudiobatError, match="no result record"):
        load_records(tmp_path / "empty")
    with pytest.raises(AudiobatError, match="missing"):
        load_records([tmp_path / "missing.json"])


def test_environment_names_versions_machine_and_time():
    found = environment()
    assert found["audiobat"] == audiobat.__version__
    assert found["torch"] == torch.__version__
    assert type(found["torch"]) is str
    assert found["numpy"] == numpy.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["cpu_threads"] == torch.get_num_threads()
    assert found["created"].endswith("+00:00")
    assert json.loads(json.dumps(found)) == found


def test_the_commit_is_that_of_the_code_and_not_of_a_repository_around_it(tmp_path: Path, monkeypatch):
    def git(*words: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        done = subprocess.run(["git", "-C", tmp_path, *identity, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    code = tmp_path / "site" / "results.py"
    code.parent.mkdir()
    shutil.copy(results.__file__, code)
    monkeypatch.setattr(results, "__file__", str(code))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert results.git_commit() is None  # no repository
    (tmp_path / "other.txt").write_text("theirs")
    git("init", "-q")
    git("add", "other.txt")
    git("commit", "-q", "-m", "theirs")
    assert results.git_commit() is None  # a repository that does not know the code
    git("add", "site/results.py")
    git("commit", "-q", "-m", "ours")
    assert results.git_commit() == git("rev-parse", "HEAD")
    code.write_text("changed")
    assert results.git_commit() == git("rev-parse", "HEAD") + "-dirty"
    monkeypatch.setenv("PATH", "")
    assert results.git_commit() is None  # no git
