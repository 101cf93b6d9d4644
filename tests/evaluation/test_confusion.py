"""The confusion matrix: scikit-learn's where each clip has one class; where it may have several, what it promises."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import scored
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from audiobat.evaluation import confusion as module
from audiobat.evaluation.confusion import NONE, confusion
from audiobat.evaluation.record import Scores, load_record
from audiobat.evaluation.report.confusions import class_lines, confusion_figure, confusion_of_row
from audiobat.evaluation.report.rows import Row

NAMES = ("a", "b", "c", "d", "e")


def scores(seed: int, clips: int = 40, exclusive: bool = False) -> Scores:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(clips, len(NAMES))).astype(np.float32)
    targets = np.eye(len(NAMES), dtype=bool)[rng.integers(5, size=clips)] if exclusive else rng.random((clips, 5)) < 0.3
    return Scores(np.array([f"clip {i}" for i in range(clips)]), values, targets)


@given(st.integers(0, 1000), st.integers(1, 40))
def test_with_one_class_a_clip_it_is_scikit_learns(seed: int, clips: int):
    kept = scores(seed, clips, exclusive=True)
    found = confusion(kept, NAMES, exclusive=True)
    true, guess = kept.targets.argmax(1), kept.scores.argmax(1)
    assert found.counts.tolist() == confusion_matrix(true, guess, labels=range(5)).tolist()
    assert found.predicted.tolist() == np.bincount(guess, minlength=5).tolist()


@given(st.integers(0, 1000), st.integers(1, 40))
def test_with_several_classes_a_line_adds_up_to_its_clips(seed: int, clips: int):
    kept = scores(seed, clips)
    found = confusion(kept, NAMES, exclusive=False)
    assert found.counts[:5].sum(1) == pytest.approx(kept.targets.sum(0))
    precision, recall, _, support = precision_recall_fscore_support(kept.targets, kept.scores > 0, zero_division=0)
    assert found.hits / np.maximum(found.clips, 1) == pytest.approx(recall)
    assert found.hits / np.maximum(found.predicted, 1) == pytest.approx(precision)
    assert found.clips.tolist() == support.tolist()


def test_a_missed_class_is_shared_among_the_wrong_ones_of_its_clip():
    targets = np.array([[1, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]], bool)
    found = np.array([[1, 0, 1, 0, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [1, 1, 0, 0, 0]], bool)
    kept = Scores(np.array(list("wxyz")), np.where(found, 2.0, -2.0).astype(np.float32), targets)
    matrix = confusion(kept, NAMES, exclusive=False)
    expected = np.zeros((6, 6))
    expected[0, 0] = 2  # of the first and the last clip
    expected[1, 2] = expected[1, 4] = 0.5  # b is missed, c and e are wrong
    expected[3, 5] = 1  # d is missed, and nothing is predicted
    expected[5, 4] = expected[5, 1] = 1  # wrong where nothing is missed
    assert matrix.counts.tolist() == expected.tolist()
    lines = list(csv.reader(io.StringIO(matrix.csv())))
    assert lines[0] == ["true class", *NAMES, NONE]
    assert lines[2] == ["b", "0", "0", "0.5", "0", "0.5", "0"]


def test_rows_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch):
    kept = scores(3, 40)
    whole = confusion(kept, NAMES, exclusive=False)
    monkeypatch.setattr(module, "ROWS", 7)
    parts = confusion(kept, NAMES, exclusive=False)
    assert parts.counts == pytest.approx(whole.counts)
    assert parts.predicted.tolist() == whole.predicted.tolist()


def test_mistakes_are_named_the_fullest_first(tmp_path: Path):
    counts = np.array([[5, 3, 1], [0, 4, 0], [2, 0, 0]], float)
    matrix = module.Confusion(("x", "y", "z"), counts, np.array([7, 7, 1]), True)
    assert matrix.mistakes() == [(0, 1), (2, 0), (0, 2)]
    assert class_lines(matrix)[0] == ("x", [("y", 3.0), ("z", 1.0)], 9, 7, 5)


def test_of_many_classes_those_in_the_most_mistakes_are_drawn(tmp_path: Path):
    path = tmp_path / "results" / "a.json"
    scored(path, 0.8, classes=60, clips=200)
    found = confusion_of_row(Row("bat", "CGP", "scenes", ((path, load_record(path)),)))
    assert found is not None
    labels = [text.get_text() for text in confusion_figure("scenes", found).axes[0].get_xticklabels()]
    wrong = found.counts.copy()
    np.fill_diagonal(wrong, 0)
    worst = np.argsort(-(wrong.sum(0) + wrong.sum(1))[:60], kind="stable")[:30]
    assert labels == [*(f"class {i}" for i in sorted(worst)), NONE]
