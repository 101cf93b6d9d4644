"""The record of a head from its outputs in each fold: facts, folds, choices, scores, files."""

import json

import numpy as np
import pytest
import torch

from audiobat.data.build import clip_table
from audiobat.evaluation import results
from audiobat.evaluation.record import ModelInfo, load_record, load_scores
from audiobat.evaluation.results import FoldResult, RunInfo, build_result, list_skipped, summary
from audiobat.evaluation.scoring import ClipOutputs, scores_of, values

CLASSES = ("ant", "bee", "cicada")
LABELS = ["ant", "bee"] * 9 + ["cicada", "ant"]
TABLE = clip_table("", [f"{i:02d}.wav" for i in range(20)], labels=[[name] for name in LABELS], classes=CLASSES)
RUN = RunInfo(ModelInfo("hub:me/net", "ab", 7), "clips", TABLE, True, "cpu", {"99.wav": "damaged"})


def fold(name: str | None, test: np.ndarray, **fields) -> FoldResult:
    """Outputs for the test clips that lean to the right class; all other clips train."""
    generator = torch.Generator().manual_seed(len(test))
    targets = torch.from_numpy(TABLE.targets()[test])
    logits = 2 * targets + torch.randn(targets.shape, generator=generator)
    train = np.setdiff1d(np.arange(20), test)
    gate = torch.tensor([0.25, 0.75]) if name == "1" else torch.tensor([0.75, 0.25])
    outputs = ClipOutputs(scores_of(logits, "ce"), targets, "ce")
    return FoldResult(name, train, test, outputs, torch.from_numpy(test), gate, **fields)


def result_of(*folds: FoldResult):
    return build_result(
        "cgp", folds, RUN, head={"kind": "cgp"}, preset="paper", seed=3, wall_seconds=2.0, clips_per_second=5.0
    )


def test_one_split_is_a_record_of_train_and_test():
    only = fold(None, np.arange(12, 20), choice={"lr": 0.1})
    result = result_of(only)
    record = result.record
    assert record.data.clips == {"train": 12, "test": 8}
    assert (record.data.unreadable, record.data.classes, record.data.classes_present) == (1, 3, 3)
    assert record.data.untaught == {"cicada": 1}
    assert record.head == {"kind": "cgp", "choice": {"lr": 0.1}}
    assert record.folds is None
    assert {name: metric.value for name, metric in record.metrics.items() if name != "d_prime"} == pytest.approx(
        values(only.outputs, True)
    )
    assert result.scores.folds is None
    assert result.scores.keys.tolist() == [f"{i:02d}.wav" for i in range(12, 20)]


def test_folds_are_a_record_of_their_means():
    folds = [fold("1", np.arange(0, 10), choice={"lr": 0.1}), fold("2", np.arange(10, 20), choice={"lr": 0.2})]
    result = result_of(*folds)
    record = result.record
    assert record.data.clips == {"1": 10, "2": 10}
    assert record.data.untaught == {"cicada": 1}, "of the second fold, whose training clips have none"
    assert record.head["choice"] == {"1": {"lr": 0.1}, "2": {"lr": 0.2}}
    assert record.gate_weights == [0.5, 0.5]
    each = [values(one.outputs, True) for one in folds]
    assert record.folds == {"1": each[0], "2": each[1]}
    for name in ("accuracy", "map"):
        pair = [one[name] for one in each]
        assert record.metrics[name].value == pytest.approx(np.mean(pair))
        assert record.metrics[name].sd == pytest.approx(np.std(pair, ddof=1))
    assert result.scores.folds.tolist() == ["1"] * 10 + ["2"] * 10


def test_a_saved_record_names_its_scores_and_both_read_back(tmp_path):
    result = result_of(fold(None, np.arange(12, 20))).save(tmp_path)
    path = tmp_path / "results" / "hub-me-net_cgp_3.json"
    assert path == result.path(tmp_path)
    assert load_record(path) == result.record
    assert "choice" not in json.loads(path.read_text())["head"]
    np.testing.assert_array_equal(load_scores(path, result.record).scores, result.scores.scores)
    line = summary("cgp", result.record)
    assert line.startswith("hub:me/net, cgp, seed 3: accuracy ")
    assert line.endswith("(test clips have 3 of 3 classes, 3 of them in fewer than 5 clips, 1 of them never trained)")


def test_a_list_of_skipped_clips_is_there_only_if_some_were(tmp_path, capsys):
    list_skipped(tmp_path, {"a.wav": "damaged"})
    assert "a.wav" in (tmp_path / "skipped.csv").read_text()
    assert "skipped: 1 clips" in capsys.readouterr().out
    list_skipped(tmp_path, {})
    assert not (tmp_path / "skipped.csv").exists()


def test_a_list_of_skipped_clips_is_there_at_any_instant(tmp_path, monkeypatch):
    """A run that is killed here goes on from the older list: its training, which found the clips, is done."""
    list_skipped(tmp_path, {"a.wav": "damaged"})

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "write_skipped", killed)
    with pytest.raises(KeyboardInterrupt):
        list_skipped(tmp_path, {"a.wav": "damaged", "b.wav": "damaged"})
    assert "a.wav" in (tmp_path / "skipped.csv").read_text()
