"""The report of training runs: a line and curves for each, beside records or alone, of runs that go on or were cut."""

import csv
import re

import numpy as np
import pytest
from report_samples import make_record, save_all

from audiobat.config import OptimConfig, PretrainConfig, TrainConfig, to_dict
from audiobat.config.recipes import write_yaml
from audiobat.engine.logs import RunLog
from audiobat.errors import AudiobatError
from audiobat.evaluation.report.figures import thinned, training_curves
from audiobat.evaluation.report.run import report
from audiobat.evaluation.run_logs import find_runs, load_logs


def write_run(folder, lr=1e-3, steps=(10, 20, 30), planned=30, seed=0):
    """A run whose loss is lr * step, with online probes at every second row."""
    config = PretrainConfig(
        optim=OptimConfig(lr=lr, warmup_steps=1), train=TrainConfig(steps=planned, seed=seed, log_every=10)
    )
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(write_yaml(to_dict(config)))
    with RunLog(folder) as log:
        for step in steps:
            rates = {"clips_per_second": 8.0, "data_wait": 0.1, "seconds": 3.6 * step}
            log.write({"step": step, "loss": lr * step, "feature_rank": 2.0, "lr": lr, **rates})
            if step % 20 == 0:
                log.write({"step": step, "online_knn": step / 100, "watch_seconds": 1.0, "watch_share": 0.1})
    return folder


def table(out):
    with (out / "tables" / "training.csv").open() as file:
        return list(csv.DictReader(file))


def headings(out):
    return re.findall(r"<h2>(.*?)</h2>", (out / "index.html").read_text())


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path / "grid" / "lr_0.001", 1e-3)
    write_run(tmp_path / "grid" / "lr_0.002", 2e-3, steps=(10, 20))  # it goes on, or was stopped
    return tmp_path / "grid"


def test_runs_without_records_have_a_table_and_curves(runs, tmp_path):
    out = report(runs, tmp_path / "out")
    assert table(out) == [
        {
            **{"run": name, "optim.lr": lr, "steps": steps, "loss": loss, "online knn": "0.200"},
            **{"clips/s": "8", "hours": hours},
        }
        for name, lr, steps, loss, hours in (
            ("lr_0.001", "0.001", "30", "0.03000", "0.03"),
            ("lr_0.002", "0.002", "20 of 30", "0.04000", "0.02"),
        )
    ]
    assert headings(out)[:3] == ["Training runs", "Labelled clips, while the runs train", "Loss"]
    drawn = {path.stem for path in (out / "figures").glob("*.png")}
    assert drawn == {"training_scores", "training_loss", "training_health", "training_speed"}


def test_each_run_is_drawn_as_its_log_has_it(runs):
    figure = training_curves(load_logs(find_runs(runs)), ["loss", "online_knn"], {})
    loss, knn = figure.axes[:2]
    assert [line.get_xydata().tolist() for line in loss.lines] == [
        [[step, lr * step] for step in steps] for lr, steps in ((1e-3, (10, 20, 30)), (2e-3, (10, 20)))
    ]
    assert [line.get_xydata().tolist() for line in knn.lines] == [[[20.0, 0.2]]] * 2
    assert [text.get_text() for text in figure.legends[0].texts] == ["lr_0.001", "lr_0.002"]
    assert len({(line.get_color(), line.get_linestyle()) for line in loss.lines}) == 2


def test_records_and_runs_share_a_page(runs, tmp_path):
    probes = save_all(tmp_path / "probes", [make_record("alpha"), make_record("beta", value=0.5)])
    out = report([probes, runs], tmp_path / "out")
    assert {"Results", "Training runs", "What was run"} <= set(headings(out))
    assert len(table(out)) == 2
    report(runs, out, overwrite=True)  # figures of records that are not in the new report go
    assert {path.stem.split("_")[0] for path in (out / "figures").glob("*.svg")} == {"training"}


def test_a_fine_tuned_run_has_both_by_itself(tmp_path):
    run = write_run(tmp_path / "tagger")
    save_all(run, [make_record("alpha", "finetune")])
    assert {"Results", "Training runs"} <= set(headings(report(run, tmp_path / "out")))


def test_a_run_that_has_logged_nothing_is_told(tmp_path):
    with pytest.raises(AudiobatError, match="has logged no row yet: let it train"):
        report(write_run(tmp_path / "run", steps=()), tmp_path / "out")


def test_numbers_beyond_any_that_a_run_can_log_are_left_out(runs, tmp_path):
    [log, _] = sorted(runs.rglob("metrics.jsonl"))
    rows = ['{"step": 31, "loss": 1e308}', '{"step": 32, "loss": -1e308}', '{"step": 33, "loss": 1' + "0" * 400 + "}"]
    log.write_text(log.read_text() + "\n".join([*rows, '{"step": 34, "loss": Infinity}']) + "\n")
    assert [line["loss"] for line in table(report(runs, tmp_path / "out"))] == ["inf", "0.04000"]


def test_the_hours_of_a_resumed_run_are_those_of_all_its_parts(tmp_path):
    run = write_run(tmp_path / "run", planned=60)
    with RunLog(run, 30) as log:
        log.write({"step": 40, "loss": 1.0, "seconds": 36.0})
    report(run, tmp_path / "out")
    assert table(tmp_path / "out")[0]["hours"] == "0.04"


def test_long_curves_are_means_of_neighbours():
    steps, values = thinned(range(10_000), np.arange(10_000.0) ** 0.5)
    assert len(steps) == len(values) == 500
    np.testing.assert_allclose(values, np.arange(10_000.0).reshape(500, 20).__pow__(0.5).mean(1))
