"""Sinks of a log: after kills and resumes they hold the rows of metrics.jsonl, each once; a broken one is told."""

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from time import time_ns
from types import ModuleType
from typing import ClassVar

import pytest
from tensorboard.backend.event_processing import event_accumulator as accumulator

from audiobat.config import TrainConfig
from audiobat.engine.logs import RunLog, check_sinks
from audiobat.errors import AudiobatError


class EventFiles:
    """TensorBoard's writer: a file of its own for each, all of which are shown."""

    def __init__(self, place):
        Path(place).mkdir(exist_ok=True)
        self.file = Path(place) / f"events.out.tfevents.{time_ns()}"

    def add_scalar(self, name, value, step):
        with self.file.open("a") as file:
            file.write(json.dumps([step, name, value]) + "\n")

    def flush(self):
        pass

    close = flush


class Cloud:
    """What W&B has of each run: rows in the order in which they came; a run that resumes counts on."""

    runs: ClassVar[dict[str, list[dict]]] = {}
    offline = False

    @classmethod
    def init(cls, id, resume, **_):
        assert resume == "allow"
        cls.runs[id] = [] if cls.offline else cls.runs.get(id, [])
        return CloudRun(cls.runs[id])


class CloudRun:
    def __init__(self, rows):
        self.rows, self.step = rows, len(rows)

    def define_metric(self, *_, **__):
        pass

    def log(self, row):
        self.rows.append(row)

    def finish(self, exit_code):
        self.code = exit_code


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Both programs as modules; `programs[name](folder)` is what the program shows of a run, as rows."""
    for name in ("tensorboard", "torch.utils.tensorboard", "torch.utils.tensorboard.writer", "wandb"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None, origin="test")
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["torch.utils.tensorboard.writer"].SummaryWriter = EventFiles
    sys.modules["wandb"].init, sys.modules["wandb"].Settings = Cloud.init, dict
    monkeypatch.setattr(Cloud, "runs", {})
    monkeypatch.setattr(Cloud, "offline", False)

    def of_tensorboard(folder):
        rows = {}
        for file in sorted((folder / "tensorboard").iterdir()):
            for step, name, value in map(json.loads, file.read_text().splitlines()):
                row = rows.setdefault(step, {"step": step})
                assert name not in row
                row[name] = value
        return [rows[step] for step in sorted(rows)]

    def of_wandb(folder):
        return Cloud.runs[(folder / "wandb" / "run_id.txt").read_text()]

    return {"tensorboard": of_tensorboard, "wandb": of_wandb}


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write(log, *steps):
    for step in steps:
        log.write({"step": step, "loss": 1 / step})


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
@pytest.mark.parametrize("offline", [False, True])
def test_a_run_that_is_killed_and_goes_on_shows_each_row_once(tmp_path, programs, monkeypatch, name, offline):
    monkeypatch.setattr(Cloud, "offline", offline)
    with RunLog(tmp_path, sinks=[name]) as log:
        write(log, 10, 20, 30)
        log.write({"step": 35, "loss": 9.0, "partial": True})  # the time was up; the last checkpoint is of step 20
    for end in (50, 60):
        with RunLog(tmp_path, 20, sinks=[name]) as log:
            write(log, *range(30, end, 10))
    assert [row["step"] for row in rows(tmp_path)] == [10, 20, 30, 40, 50]
    assert programs[name](tmp_path) == rows(tmp_path)


def test_what_wandb_has_not_got_before_a_kill_is_sent_again(tmp_path, programs):
    with RunLog(tmp_path, sinks=["wandb"]) as log:
        write(log, 10, 20, 30)
    del programs["wandb"](tmp_path)[1:]  # the kill came before these rows were sent
    with RunLog(tmp_path, 20, sinks=["wandb"]) as log:
        write(log, 30, 40)
    assert programs["wandb"](tmp_path) == rows(tmp_path)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_sink_that_comes_later_gets_the_rows_before(tmp_path, programs, name):
    with RunLog(tmp_path) as log:
        write(log, 10, 20, 30)
    with RunLog(tmp_path, 20, sinks=[name]) as log:
        write(log, 30)
    assert programs[name](tmp_path) == rows(tmp_path)


def test_words_flags_and_what_is_no_number_are_left_out(tmp_path, programs):
    with RunLog(tmp_path, sinks=["tensorboard", "wandb"]) as log:
        log.write({"step": 1, "loss": 1.0, "rank": float("nan"), "phase": "warm", "first": True})
    assert programs["tensorboard"](tmp_path) == programs["wandb"](tmp_path) == [{"step": 1, "loss": 1.0}]


def test_only_the_main_rank_writes(tmp_path, programs):
    with RunLog(tmp_path, main=False, sinks=["tensorboard", "wandb"]) as log:
        write(log, 10)
    assert list(tmp_path.iterdir()) == []
    assert not Cloud.runs


@pytest.mark.parametrize("part", ["init", "log", "finish"])
def test_a_sink_that_fails_is_told_once_and_the_run_goes_on(tmp_path, programs, monkeypatch, capsys, part):
    def fail(*_, **__):
        raise OSError("the network is down.\nsecond line")

    owner = sys.modules["wandb"] if part == "init" else CloudRun
    monkeypatch.setattr(owner, part, fail)
    with RunLog(tmp_path, sinks=["wandb", "tensorboard"]) as log:
        write(log, 10, 20)
    assert capsys.readouterr().err.count("Warning: wandb fails (the network is down)") == 1
    assert (
        programs["tensorboard"](tmp_path) == rows(tmp_path) == [{"step": 10, "loss": 0.1}, {"step": 20, "loss": 0.05}]
    )


def test_a_package_that_is_not_there_is_named_before_a_run_begins(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()  # W&B leaves such folders where it ran, and Python takes them for packages
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(AudiobatError, match=r"log_to wandb needs the package wandb: `pip install 'audiobat\[wandb\]'`"):
        check_sinks(["wandb"])
    with pytest.raises(AudiobatError, match="choose of tensorboard, wandb"):
        TrainConfig(log_to=("mlflow",))


def test_tensorboard_itself_reads_the_events_of_a_run_in_parts(tmp_path):
    with RunLog(tmp_path, sinks=["tensorboard"]) as log:
        write(log, 10, 20, 30, 40)
    with RunLog(tmp_path, 20, sinks=["tensorboard"]) as log:
        write(log, 30, 40, 50)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = [(event.step, pytest.approx(event.value)) for event in events.Scalars("loss")]
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == found
