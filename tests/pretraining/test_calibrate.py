"""`pretrain --dry-run --calibrate`: what it measures, beside real runs of three sizes, and what it says of a whole run.

Run as a program, with a folder, it calibrates and trains the three sizes, each in a process of its own. No clock
decides a test; how far predicted times are from real ones is what benchmarks/calibrate.py measures.
"""

import io
import itertools
import json
import os
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from rank_processes import run_program, run_ranks

import audiobat
from audiobat.cli import command as cli
from audiobat.config import PretrainConfig, from_dict
from audiobat.config.recipes import load_recipe, merge
from audiobat.data.loader import AHEAD
from audiobat.engine.ranks import Ranks
from audiobat.errors import AudiobatError
from audiobat.pretraining import calibrate, run
from audiobat.pretraining.calibrate import Calibration, batches, calibrate_run, measure, peak_memory
from audiobat.pretraining.plan import needs_of
from audiobat.pretraining.run import pretrain

CPU = torch.device("cpu")
SMALL = {"frontend": {"mel_bins": 32}, "encoder": {"dim": 32, "depth": 2, "heads": 2, "max_frames": 64}}
TINY = {
    **SMALL,
    "decoder": {"depth": 1, "heads": 2},
    "mask": {"clones": 2, "block_size": 2},
    "optim": {"warmup_steps": 0},
    "data": {"clip_seconds": 0.6, "workers": 0},
    "train": {"steps": 7_200, "batch_size": 4, "precision": "fp32", "device": "cpu"},
}
SIZES = {"small": 4, "medium": 100, "large": 2_500}  # clips a step


def config_of(**fields) -> PretrainConfig:
    return from_dict(PretrainConfig, merge(merge(load_recipe("bat_nano"), TINY), fields))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for n in range(6):
        soundfile.write(folder / f"{n}.wav", np.random.default_rng(n).normal(scale=0.1, size=12_800), 16_000)
    return folder


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> Path:
    """The folder in which this file has run as a program."""
    folder = tmp_path_factory.mktemp("answers")
    run_program(__file__, folder)
    return folder


def test_peak_memory_is_that_of_real_runs_of_three_sizes(answers):
    kinds = ("predicted", "real")  # bytes
    peaks = {size: [int((answers / f"{size} {kind}").read_text()) for kind in kinds] for size in SIZES}
    for size, (predicted, real) in peaks.items():
        assert predicted == pytest.approx(real, rel=0.15), size
    assert peaks["large"][0] > 1.5 * peaks["small"][0]  # so the bound is no wider than what sizes make


def test_what_a_step_takes_at_the_least_is_no_more_than_real_runs_of_two_sizes_differ_by(answers):
    real = {size: int((answers / f"{size} real").read_text()) for size in SIZES}
    counted = {
        size: sum(need.bytes for need in needs_of(config_of(train={"batch_size": clips}), 1))
        for size, clips in SIZES.items()
    }
    assert 0 < counted["large"] - counted["small"] < real["large"] - real["small"]


def test_ranks_are_measured_as_they_train_together(answers):
    for rank in range(2):
        found = Calibration(**json.loads((answers / f"rank{rank}").read_text()))
        assert found.where.endswith("fp32, on each of 2 ranks")
        assert found.watts == 2 * calibrate.WATTS or "assumed" not in found.meter
        assert found.steps == 2


def test_steps_are_timed_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = measure(config_of(), seconds=0)
    assert found.steps == 2  # of three: the first warms up
    assert found.seconds > 0
    assert found.data_wait is None
    assert not list(tmp_path.iterdir())


def test_the_whole_time_is_spent(monkeypatch):
    monkeypatch.setattr("audiobat.engine.loop.monotonic", itertools.count(0, 0.5).__next__)  # a clock that is looked at
    assert measure(config_of(), seconds=30).steps > 4


def test_a_step_is_the_median_of_computing_and_the_mean_of_waiting(monkeypatch):
    rows = [  # seconds, and the share of waiting
        (99.0, 0.9),  # warms up
        (1.0, 0.0),
        (4.0, 0.75),  # waits 3 s
        (9.0, 0.0),  # something else kept the machine busy
    ]

    def fit(*args, on_log, until=None, **options):
        for seconds, wait in rows if until else []:
            on_log({"steps_per_second": 1 / seconds, "data_wait": wait})

    monkeypatch.setattr(calibrate, "fit", fit)
    monkeypatch.setattr(calibrate, "batches", lambda config, ranks: iter([]))
    found = measure(config_of(data={"path": "clips"}), seconds=0)
    assert found.seconds == pytest.approx(1 + 3 / 3)
    assert found.data_wait == pytest.approx(0.5)
    assert found.steps == 3


def test_batches_are_the_runs_own_once_those_loaded_at_its_start_are_used_up(clips):
    for workers, first in ((0, 0), (1, AHEAD)):
        source = batches(config_of(data={"path": str(clips), "workers": workers}), Ranks(CPU))
        assert [next(source).step for _ in range(2)] == [first, first + 1]


def test_without_data_each_rank_has_its_share_of_noise():
    batch = next(batches(config_of(), Ranks(CPU, rank=1, world_size=2)))
    assert batch.waveform.shape == (2, 9_600)
    assert batch.waveform.std() > 0


def test_hours_and_energy_of_a_run_follow_from_a_step():
    found = Calibration("the CPU in fp32", 8, 0.5, 0.25, 3 * 2**29, 200.0, "some meter")
    assert [line.strip() for line in found.describe(72_000).splitlines()] == [
        "measured  0.5 s a step (25% of it waiting for data), over 8 steps on the CPU in fp32",
        "peak memory  1.50 GiB a rank; processes that load data are not in it",
        "time  10 hours for 72,000 steps",
        "energy  2 kWh at 200 W (some meter)",
    ]
    unknown = Calibration("mps", 8, 0.5, None, None, None, "no meter").describe(72_000)
    for words in ("loading is not in it: give --data", "not known on this device", "not known: no meter"):
        assert words in unknown


def test_a_file_in_the_current_folder_stands_for_no_module(tmp_path, monkeypatch):
    (tmp_path / "random.py").write_text("raise SystemExit('mine')")
    monkeypatch.chdir(tmp_path)
    assert calibrate_run(config_of(), seconds=0).steps == 2


def test_the_command_prints_the_measured_plan(tmp_path, clips, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "calibrate_run", partial(calibrate_run, seconds=0))
    audiobat.pretrain(config_of(data={"path": str(clips)}), "run", dry_run=True, calibrate=True)
    told = capsys.readouterr().out
    for words in ("parameters", "of it waiting for data), over 2 steps on the CPU", "hours for 7,200 steps", "kWh at"):
        assert words in told
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_a_sentence(monkeypatch, capsys):
    config = config_of(train={"batch_size": 10**10})  # 400 TB of noise, more than there are addresses

    def child(command, input, **options):
        monkeypatch.setattr(sys, "stdin", io.StringIO(input))
        calibrate.main()
        return subprocess.CompletedProcess(command, 0, capsys.readouterr().out)

    monkeypatch.setattr(subprocess, "run", child)
    with pytest.raises(AudiobatError, match="Not even 3 steps fit into the memory of the device: use a smaller train"):
        calibrate_run(config)
    with pytest.raises(AudiobatError, match="nowhere"):
        calibrate_run(config_of(data={"path": "nowhere"}))
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: subprocess.CompletedProcess([], -9, ""))
    with pytest.raises(AudiobatError, match="fit into the memory of this machine"):
        calibrate_run(config)


def test_without_a_dry_run_it_is_refused(tmp_path, capsys):
    assert cli.main(["pretrain", "--config", "bat_nano", "--calibrate", "--out", str(tmp_path / "run")]) == 2
    assert (
        capsys.readouterr().err
        == "audiobat: calibrate goes with dry_run only: add --dry-run, or leave --calibrate out.\n"
    )


def make_peaks(folder: Path, size: str, kind: str, world: int) -> None:
    """Write the peak memory of a process that calibrates, or trains, a size."""
    fields = {"train": {"batch_size": SIZES[size], "steps": 3}, "mask": {"clones": 8}}
    if kind == "predicted":
        memory = measure(config_of(**fields), seconds=0).memory_bytes
    else:
        pretrain(config_of(**fields, data={"path": str(folder / "clips")}), folder / size)
        memory = peak_memory(CPU)
    (folder / f"{size} {kind}").write_text(str(memory))


def measure_ranks(folder: Path, world: int) -> None:
    """Write the calibration of this rank."""
    (folder / f"rank{os.environ['RANK']}").write_text(json.dumps(asdict(measure(config_of(), seconds=0))))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "clips").mkdir()
    for n in range(4):
        soundfile.write(folder / "clips" / f"{n}.wav", np.random.default_rng(n).normal(size=9_600) / 10, 16_000)
    for size in SIZES:  # each in a fork of this process, which has imported torch once
        for kind in ("predicted", "real"):
            run_ranks([partial(make_peaks, folder, size, kind)], worlds=(1,))
    run_ranks([partial(measure_ranks, folder)], worlds=(2,))
