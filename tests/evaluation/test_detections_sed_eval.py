"""The convention `sed_eval` against what sed_eval 0.2.1 measured on the same events, golden/detections.json."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audiobat.evaluation.detections.conventions import find_convention
from audiobat.evaluation.detections.event_list import EventList
from audiobat.evaluation.detections.levels import matched_level, segment_level
from audiobat.evaluation.detections.measures import measure
from audiobat.evaluation.detections.units import units_of
from audiobat.inference.evaluate import evaluate

CASES = json.loads((Path(__file__).parents[1] / "golden" / "detections.json").read_text(encoding="utf-8"))
LABELS, FILES = ["bell", "dog", "rain"], ["a.wav", "b.wav"]
PARTS = ("f1", "precision", "recall")
MEASURED = CASES[0]["sed_eval"]


def events(rows) -> EventList:
    file, label, onset, offset = zip(*rows, strict=True) if rows else ((), (), (), ())
    whole = (np.array([names.index(n) for n in given], np.int64) for names, given in ((FILES, file), (LABELS, label)))
    return EventList(*whole, np.array(onset, float), np.array(offset, float))


def level_of(name, truth, found):
    """The level that sed_eval measured under this name, and its convention."""
    kind, *numbers = name.split("_")
    first, last = float(numbers[0]), float(numbers[-1])
    collars = {
        "segment": {"segment_seconds": first},
        "onset": {"onset_collar": first},
        "event": {"onset_collar": first, "offset_collar": first, "offset_share": last},
    }[kind]
    convention = find_convention("sed_eval", **collars)
    lengths = np.zeros(2)
    for side in (truth, found):
        np.maximum.at(lengths, side.recording, side.offset)
    units = units_of(lengths)
    if kind == "segment":
        return segment_level(truth, found, lengths, units, 3, convention), convention
    return matched_level(kind, truth, found, units, 2, 3, convention), convention


def numbers(values) -> list[float]:
    return [float(values[name]) for name in ("f_measure", "precision", "recall")]


@pytest.mark.parametrize("name", MEASURED)
def test_every_number_is_sed_evals(name):
    silent = 0
    for case in CASES:
        wanted = case["sed_eval"][name]
        level, convention = level_of(name, events(case["truth"]), events(case["found"]))
        metrics, classes = measure(level, convention, seed=0)
        for kind in ("micro", "macro"):
            ours = [metrics[f"{part}_{kind}"].value for part in PARTS]
            np.testing.assert_allclose(ours, numbers(wanted[kind]), rtol=1e-12, equal_nan=True)
        np.testing.assert_allclose(metrics["error_rate"].value, wanted["error_rate"], rtol=1e-12)
        scored = replace(events(case["found"]), score=np.random.default_rng(0).random(len(case["found"])))
        with_scores = measure(level_of(name, events(case["truth"]), scored)[0], convention, seed=0)[0]
        np.testing.assert_equal([v.value for v in with_scores.values()], [v.value for v in metrics.values()])
        for label, own in zip(LABELS, classes, strict=True):
            ours = [value.value for value in own]
            np.testing.assert_allclose(ours, numbers(wanted["classes"][label]), rtol=1e-12, equal_nan=True)
        silent += np.isnan(metrics["f1_micro"].value)
    assert silent  # a system that detects nothing is among the cases


def test_ours_and_sed_evals_differ_where_the_docs_say():
    one = events([["a.wav", "dog", 2.0, 3.0]])
    late = events([["a.wav", "dog", 2.2, 3.2]])
    nothing = events([])
    f1 = {}
    for name in ("ours", "sed_eval"):
        convention = find_convention(name)
        for what, found in (("late", late), ("nothing", nothing)):
            level = matched_level("event", one, found, units_of(np.array([5.0])), 1, 3, convention)
            f1[name, what] = measure(level, convention, seed=0)[0]["f1_micro"].value
    assert f1["ours", "late"] == 1  # 0.2 s late is within the collar of 0.2 s ...
    assert f1["sed_eval", "late"] == 0  # ... of which binary fractions make 0.2000000000000002
    assert f1["ours", "nothing"] == 0
    assert np.isnan(f1["sed_eval", "nothing"])


def test_the_command_gives_sed_evals_numbers(tmp_path):
    for number, case in enumerate(CASES[1:4]):
        for name, rows in (("truth", case["truth"]), ("found", case["found"])):
            lines = ["file,label,start,end", *(f"{file},{label},{a},{b}" for file, label, a, b in rows)]
            (tmp_path / f"{name}{number}.csv").write_text("\n".join(lines) + "\n")
        truth, found = tmp_path / f"truth{number}.csv", tmp_path / f"found{number}.csv"
        levels = evaluate(found, truth, tmp_path / f"out{number}", convention="sed_eval", labels=LABELS).levels
        for ours, theirs in (("segment", "segment_1"), ("onset", "onset_0.2"), ("event", "event_0.2_0.5")):
            metrics, wanted = levels[ours].metrics, case["sed_eval"][theirs]
            assert metrics["error_rate"].value == pytest.approx(wanted["error_rate"], rel=1e-12)
            for kind in ("micro", "macro"):
                values = [metrics[f"{part}_{kind}"].value for part in PARTS]
                np.testing.assert_allclose(values, numbers(wanted[kind]), rtol=1e-12, equal_nan=True)
