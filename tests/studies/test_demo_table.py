"""The demo's table: its cells are the records', the highest of a column is marked, and names cannot break it."""

import io
import math
from dataclasses import replace

from report_samples import make_record
from rich.console import Console

from audiobat.evaluation.record import Metric, ResultRecord
from audiobat.studies.demo_report import interval, is_best, markdown_table, terminal_table


def record(model: str, kind: str, value: float, **head: object) -> ResultRecord:
    metrics = {
        "map": Metric(value, value - 0.031, value + 0.03, "mean AP of <present> classes"),
        "map_all": Metric(value / 2, 0, 1, "over all classes"),
        "f1": Metric(1 - value, 0.1, math.nan, "F1 at 0.5"),
    }
    return replace(make_record(model, kind, value, seed=3, **head), metrics=metrics)


RECORDS = [record("bat", "cgp", 0.412), record("bat", "linear", 0.3), record("log[mel]", "linear", 0.25, layer=2)]


def test_an_interval_reads_as_agreed():
    assert interval(Metric(0.41249, 0.38, 0.4409, "")) == "0.412 [0.380, 0.441]"
    assert interval(Metric(math.nan, math.nan, math.nan, "")) == "n/a [n/a, n/a]"


def test_the_highest_of_each_column_is_best_and_an_undefined_value_never():
    for name, best in (("map", [True, False, False]), ("f1", [False, False, True])):
        assert [is_best(one, name, RECORDS) for one in RECORDS] == best
    broken = replace(RECORDS[0], metrics={"map": Metric(math.nan, math.nan, math.nan, "")})
    assert [is_best(one, "map", [broken, RECORDS[1]]) for one in (broken, RECORDS[1])] == [False, True]


def test_markdown_and_terminal_hold_the_same_cells():
    text = markdown_table(RECORDS)
    console = Console(width=140, file=io.StringIO(), color_system=None)
    console.print(terminal_table(RECORDS))
    shown = console.file.getvalue()
    for one in RECORDS:
        for cell in (one.model.id, interval(one.metrics["map"]), interval(one.metrics["f1"])):
            assert cell in text
            assert cell in shown  # rich took no [..] for its markup
    assert "| bat | CGP | **0.412 [0.381, 0.442]** ★ | 0.588 [0.100, n/a] | 2,500 | 3 |" in text
    assert "Linear, block 2" in text
    assert "2,500 probe steps, seed 3" in " ".join(shown.split())
    assert shown.count("★") == text.count("★") == 3  # two columns and the legend
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + len(RECORDS)
    assert "- mAP: mean AP of <present> classes" in text
    assert "over all classes" not in text
