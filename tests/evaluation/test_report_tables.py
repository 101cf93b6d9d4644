"""Records to rows, verdicts and tables: a table shows the records' own numbers, whatever the names in them are."""

import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_samples import make_record, many, save_all, scored
from scipy.stats import spearmanr

from audiobat.cli import command as cli
from audiobat.config.registry import kinds
from audiobat.errors import AudiobatError
from audiobat.evaluation.head_names import head_label, head_order, head_title
from audiobat.evaluation.record import ResultRecord
from audiobat.evaluation.report.collect import Collection, collect, load_all
from audiobat.evaluation.report.curves import rho_text, rhos
from audiobat.evaluation.report.paper_tables import Grid, Number, everything, table1, table5
from audiobat.evaluation.report.render import csv_lines, csv_table, latex, markdown
from audiobat.evaluation.report.rows import METRIC_NAMES, natural, ranked
from audiobat.evaluation.report.run import report
from audiobat.evaluation.report.verdicts import MIXED, OVERLAP, PAIRED, Verdicts, judge, paired_verdicts
from audiobat.probing.tasks import task_class

HOSTILE = "a|b_c & 50% #1 $x$ [z] \\ {q} ~^ <i>`*\nnext"


def collected(records: list[ResultRecord]) -> Collection:
    return collect([(Path(f"r{i}.json"), record) for i, record in enumerate(records)])


def both(records: list[ResultRecord]) -> tuple[Collection, Verdicts]:
    found = collected(records)
    return found, judge(found.rows, {})


def cells(grid: Grid) -> dict[tuple[str, str], list[float | None]]:
    """(section, first label) to the values of its line."""
    return {
        (section.heading, str(row[0])): [c.summary.value if isinstance(c, Number) else None for c in row[grid.labels :]]
        for section in grid.sections
        for row in section.rows
    }


def test_seeds_are_one_row_of_their_means():
    values = [0.2, 0.5, 0.35]
    found = collected([make_record(value=v, seed=s, half=0.01 * (s + 1)) for s, v in enumerate(values)])
    (row,) = found.rows
    assert row.main.value == pytest.approx(np.mean(values))
    assert row.main.sd_seeds == pytest.approx(np.std(values, ddof=1))
    assert row.main.low == pytest.approx(np.mean([0.19, 0.48, 0.32]))
    assert row.main.high == pytest.approx(np.mean([0.21, 0.52, 0.38]))
    assert row.per_class["bell"] == pytest.approx(1 - np.mean(values))
    assert "absent" not in row.per_class
    assert [record.seed for record in row.records] == [0, 1, 2]


def test_one_seed_has_no_spread_and_folds_have_their_own():
    (row,) = collected([make_record(sd=0.02, single_label=True)]).rows
    assert (row.main.sd_seeds, row.main.sd_folds, row.main_metric) == (None, 0.02, "accuracy")


def test_what_a_seed_chose_does_not_part_it_from_the_others():
    fair = [replace(make_record(seed=s, lr=10.0**-s, choice={"x": s}), preset="fair") for s in (1, 2)]
    assert len(collected(fair).rows) == 1
    assert len(collected([replace(record, preset="custom") for record in fair]).rows) == 2


def test_heads_of_a_kind_are_told_apart_by_what_differs():
    records = [make_record("m", prototypes=n) for n in (1024, 64)] + [make_record("m", "linear", lr=0.1)]
    assert [row.head for row in collected(records).rows] == ["CGP, 64 prototypes", "CGP, 1,024 prototypes", "Linear"]
    ours = [make_record("m", prototypes=64), make_record("n", prototypes=1024)]
    assert {row.head for row in collected(ours).rows} == {"CGP"}  # each model has one: its name says enough
    linear = [make_record("m", "linear", prototypes=n, seed=n) for n in (64, 1024)]
    assert [row.head for row in collected(linear).rows] == ["Linear"]  # it has no prototypes


def test_presets_stand_for_their_settings():
    """Recipes of the paper and of its release differ in seventeen fields, too many for a heading."""
    paper, last, best = (
        replace(make_record("m", "finetune", lr=lr, loss=loss, selection=selection), preset=preset)
        for preset, lr, loss, selection in (("a", 1, "bce", "last"), ("b", 2, "asl", "last"), ("b", 2, "asl", "best"))
    )
    assert [row.head for row in collected([paper, last]).rows] == ["Fine-tuning, a", "Fine-tuning, b"]
    names = {row.head for row in collected([paper, last, best]).rows}
    assert names == {"Fine-tuning, a, last weights", "Fine-tuning, b, last weights", "Fine-tuning, b, best weights"}
    own = replace(paper, preset="custom")
    assert "Fine-tuning, lr 1, loss bce" in {row.head for row in collected([own, last]).rows}


def test_last_and_best_weights_of_a_fine_tuning_are_two_rows():
    which = ("last", "best")
    records = [make_record("m", "finetune", selection=w, selected=w == "best", choice={"step": 5}) for w in which]
    assert [row.head for row in collected(records).rows] == ["Fine-tuning, best weights", "Fine-tuning, last weights"]
    assert table5(*both(records)).lower[2:4] == ("FT, best weights", "FT, last weights")
    assert [row.head for row in collected(records[:1]).rows] == ["Fine-tuning"]


def test_models_and_data_of_one_name_are_kept_apart():
    one, other = make_record("bat"), make_record("bat")
    other = replace(other, model=replace(other.model, sha256="ffff" * 16))
    assert [row.model for row in collected([one, other]).rows] == ["bat (bat-we)", "bat (ffffff)"]


def test_rows_are_ranked_with_undefined_ones_last():
    rows = collected([make_record(f"m{i}", value=v) for i, v in enumerate((0.2, math.nan, 0.7))]).rows
    assert [row.model for row in ranked(rows)] == ["m2", "m0", "m1"]


def test_heads_are_named_by_their_class_and_a_users_own_by_its_name():
    """No code of a user's file runs to show a record of its head."""
    own = "no_such_file.py:MyHead"
    assert [head_title(kind) for kind in ("finetune", "knn", own)] == ["Fine-tuning", "k-NN", "MyHead"]
    assert len({head_title(kind) for kind in kinds("head")}) == len(kinds("head"))
    ordered = sorted(["vqt", "a.py:Own", own, "linear", "finetune", "cgp"], key=head_order)
    assert ordered == ["finetune", "cgp", "linear", "vqt", own, "a.py:Own"]
    rows = collected([make_record("m", own, prototypes=n) for n in (64, 16)]).rows
    assert [row.head for row in rows] == ["MyHead, 16 prototypes", "MyHead, 64 prototypes"]
    assert head_label(make_record("m", "cgp", layer=4)) == "CGP"  # it mixes all blocks
    assert head_label(make_record("m", "linear", layer=4)) == "Linear, block 4"
    assert head_label(make_record("m", own)) == "MyHead"


@pytest.mark.parametrize("kind", kinds("task"))
def test_metrics_of_tasks_have_titles(kind: str):
    assert set(task_class(kind).definitions) <= METRIC_NAMES.keys()


def test_names_are_sorted_as_people_count():
    assert sorted(["K = 1,000", "K = 20", "a10", "a9"], key=natural) == ["K = 20", "K = 1,000", "a9", "a10"]


def test_probes_of_blocks_are_a_curve_over_the_gate():
    values, gates = [[0.1, 0.3, 0.2], [0.1, 0.2, 0.3]], [[0.2, 0.5, 0.3], [0.3, 0.3, 0.4]]
    records = [make_record("m", "cgp", 0.4, seed=s, gate=gate) for s, gate in enumerate(gates)]
    for seed, line in enumerate(values):
        records += [make_record("m", "linear", v, seed=seed, layer=b) for b, v in enumerate(line, start=1)]
    found = collected(records)
    (curve,) = found.layers
    assert [row.kind for row in found.rows] == ["cgp"]
    assert curve.values == values
    assert curve.gates == tuple(map(tuple, gates))
    expected = [spearmanr(x, y).statistic for x, y in zip(values, gates, strict=True)]
    assert rhos(curve) == pytest.approx(expected)
    assert rho_text(curve) == f"ρ +{np.mean(expected):.2f} ± {np.std(expected, ddof=1):.2f} (2 seeds)"


def test_a_curve_that_lacks_a_block_is_not_drawn_without_it():
    records = [make_record("m", "cgp", gate=[0.5, 0.25, 0.25])]
    records += [make_record("m", "linear", layer=b) for b in (1, 3)]
    (curve,) = collected(records).layers
    assert curve.probes == ()
    assert rho_text(curve) == "gate weights alone"


def test_table_1_has_heads_as_sections_and_metrics_under_data():
    records = [
        make_record("b", "cgp", 0.4),
        make_record("a", "cgp", 0.5),
        make_record("a", "linear", 0.3),
        make_record("a", "finetune", 0.45),
        make_record("a", "cgp", 0.9, data="words", single_label=True),
    ]
    grid = table1(*both(records))
    assert grid.upper == (("", 1), ("scenes", 2), ("words", 2))
    assert grid.lower == ("Model", "mAP", "F1", "Accuracy", "F1, top class")
    assert [section.heading for section in grid.sections] == ["Fine-tuning", "CGP", "Linear"]
    assert cells(grid) == {
        ("Fine-tuning", "a"): [0.45, 0.225, None, None],
        ("CGP", "a"): [0.5, 0.25, 0.9, 0.9],
        ("CGP", "b"): [0.4, 0.2, None, None],
        ("Linear", "a"): [0.3, 0.15, None, None],
    }
    best = [cell.summary.value for s in grid.sections for row in s.rows for cell in row[1:] if cell and cell.best]
    assert best == [0.5, 0.25]  # where one row alone has a number there is nothing to be best of


def test_table_5_has_fine_tuning_cgp_and_linear_probing_under_data():
    records = [
        make_record("a", "cgp", 0.5),
        make_record("a", "linear", 0.3),
        make_record("a", "attentive", 0.6),
        make_record("b", "finetune", 0.8),
        make_record("a", "cgp", 0.9, data="words", single_label=True, prototypes=64),
        make_record("a", "cgp", 0.7, data="words", single_label=True, prototypes=16),
    ]
    grid = table5(*both(records))
    assert grid.upper == (("", 2), ("scenes (mAP)", 3), ("words (Accuracy)", 4))
    assert grid.lower == (
        *("Model", "# Params", "FT", "CGP", "LP"),
        *("FT", "CGP, 16 prototypes", "CGP, 64 prototypes", "LP"),
    )
    assert cells(grid) == {
        ("", "a"): [None, 0.5, 0.3, None, 0.7, 0.9, None],
        ("", "b"): [0.8, None, None, None, None, None, None],
    }
    assert grid.sections[0].rows[0][1] == "91M"


def test_markdown_latex_and_csv_hold_the_same_numbers():
    found, verdicts = both([make_record("a", value=0.41237, sd=0.01, seed=s) for s in (0, 1)] + [make_record("b")])
    grid = table1(found, verdicts)
    line = next(line for line in markdown(grid).splitlines() if line.startswith("| a |"))
    assert line.split(" | ")[1] == "**41.24** ±0.00ˢ ±1.00ᶠ [38.2, 44.2] 0/1/0"
    assert r"\textbf{41.24} {\scriptsize $\pm$0.00\textsuperscript{s} $\pm$1.00\textsuperscript{f} [38.2, 44.2]" in (
        latex(grid)
    )
    rows = list(csv.DictReader(io.StringIO(csv_table(grid))))
    assert [(row["section"], row["Model"], *list(row.values())[2:5]) for row in rows] == [
        ("CGP", "a", "41.2370", "38.2370", "44.2370"),
        ("CGP", "b", "40.0000", "37.0000", "43.0000"),
    ]
    lines = list(csv.DictReader(io.StringIO(csv_lines(everything(found, verdicts)))))
    assert len(lines) == 4  # two rows, two metrics
    assert float(lines[0]["value"]) == pytest.approx(0.41237, abs=1e-15)
    assert (lines[0]["won"], lines[0]["tied"], lines[1]["won"]) == ("0", "1", "")


def test_names_cannot_break_a_table():
    grid = table1(*both([make_record(name, data=HOSTILE, value=v) for name, v in ((HOSTILE, 0.4), ("b", math.nan))]))
    lines = [line for line in markdown(grid).splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "<i>" not in markdown(grid).replace(r"\<i\>", "")
    text = latex(grid)
    bare = re.sub(r"\\[\\{}&%#$_]", "", text.replace(r"\\" + "\n", "\n"))
    assert bare.count("{") == bare.count("}")
    body = [line for line in text.splitlines() if line.endswith(r" \\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {2}
    assert "%" not in re.sub(r"\\%", "", text)
    rows = list(csv.reader(io.StringIO(csv_table(grid))))
    assert {len(row) for row in rows} == {8}
    assert HOSTILE in [row[1] for row in rows]
    assert "n/a" in markdown(grid)


def test_without_scores_rows_win_where_intervals_part():
    records = [make_record(f"m{i}", value=v) for i, v in enumerate((0.2, 0.25, 0.5, math.nan))]
    verdicts = both(records)[1]
    assert [verdicts.tally(i) for i in range(4)] == [(0, 2, 1), (0, 2, 1), (2, 1, 0), (0, 3, 0)]
    assert verdicts.of_pairs[2, 0] == "win"
    assert verdicts.of_pairs[0, 2] == "loss"
    assert OVERLAP in verdicts.legend
    assert MIXED not in verdicts.legend


def test_with_scores_of_the_same_clips_rows_are_compared_pair_by_pair(tmp_path: Path):
    for name, skill, seed in (("strong", 1.2, 0), ("weak", 0.3, 0), ("weaker", 0.3, 1)):
        scored(tmp_path / "results" / f"{name}.json", skill, seed=seed, model=name)
    rows = collect(load_all([tmp_path])).rows
    assert [row.model for row in rows] == ["strong", "weak", "weaker"]
    found = paired_verdicts(rows)
    assert found == {(0, 1): "win", (0, 2): "win", (1, 2): "tie"}
    verdicts = judge(rows, found)
    assert [verdicts.tally(i) for i in range(3)] == [(2, 0, 0), (0, 1, 1), (0, 1, 1)]
    assert PAIRED in verdicts.legend
    mixed = judge(rows, {(0, 1): "tie"})
    assert mixed.of_pairs[1, 0] == "tie"  # what the clips say counts, not the intervals
    assert MIXED in mixed.legend


def test_a_row_that_wins_by_a_hair_on_every_clip_wins_paired_though_intervals_overlap(tmp_path: Path):
    for name, skill in (("a", 0.9), ("b", 0.6)):
        scored(tmp_path / "results" / f"{name}.json", skill, model=name, clips=200, half=0.3)
    rows = collect(load_all([tmp_path])).rows
    assert rows[0].main.low < rows[1].main.high, "the intervals must overlap for this to tell anything"
    assert judge(rows, {}).tally(0) == (0, 1, 0)
    assert judge(rows, paired_verdicts(rows)).tally(0) == (1, 0, 0)


def test_scores_of_other_clips_are_refused(tmp_path: Path):
    scored(tmp_path / "results" / "a.json", 0.9, model="a")
    scored(tmp_path / "results" / "b.json", 0.9, model="b", clips=81)
    with pytest.raises(AudiobatError):
        report([tmp_path], tmp_path / "report")


def test_the_command_writes_all_tables_and_keeps_a_report_that_is_there(tmp_path: Path, capsys):
    save_all(tmp_path / "runs" / "one", many(1, classes=3, seeds=1, depth=2)[:6])
    argv = ["report", str(tmp_path / "runs"), "--out", str(tmp_path / "report")]
    assert cli.main(argv) == 0
    names = {path.name for path in (tmp_path / "report" / "tables").iterdir()}
    assert names == {"results.csv", *(f"table{n}.{suffix}" for n in (1, 5) for suffix in ("md", "tex", "csv"))}
    before = (tmp_path / "report" / "index.html").read_bytes()
    assert cli.main(argv) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main([*argv, "--overwrite"]) == 0
    assert (tmp_path / "report" / "index.html").read_bytes() == before  # nothing in it depends on when it was made


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ({"metrics": {}}, "no metrics"),
        ({"head": {}}, "no head.kind"),
        ({"per_class": None}, "per_class is None"),
        ({"metrics": {"map": {"value": "x", "low": 0, "high": 1, "definition": ""}}}, "value is 'x'"),
    ],
)
def test_damaged_records_are_named(tmp_path: Path, spoil: dict, words: str):
    save_all(tmp_path, [make_record()])
    path = tmp_path / "results" / "r000.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **spoil}))
    with pytest.raises(AudiobatError, match=f"r000.json.*{words}"):
        load_all([tmp_path])


def test_nothing_twice_and_blocks_alone_are_refused(tmp_path: Path):
    with pytest.raises(AudiobatError, match="is not there"):
        load_all([tmp_path / "nowhere"])
    with pytest.raises(AudiobatError, match="RUNS is empty"):
        load_all([])
    save_all(tmp_path, [make_record()])
    assert len(load_all([tmp_path, tmp_path / "results" / "r000.json"])) == 1  # one file, named twice
    save_all(tmp_path / "again", [make_record()])
    with pytest.raises(AudiobatError, match="twice"):
        load_all([tmp_path])
    with pytest.raises(AudiobatError, match="single blocks"):
        collected([make_record("m", "linear", layer=1)])
