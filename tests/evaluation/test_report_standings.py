"""Models on many data sets: ranks and win rates by another way, what is left out of them, tables, page and figure."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_samples import make_record, save_all, scored
from scipy import stats

from audiobat.evaluation.record import ResultRecord
from audiobat.evaluation.report.collect import collect
from audiobat.evaluation.report.run import report
from audiobat.evaluation.report.standings.figure import rank_figure
from audiobat.evaluation.report.standings.places import Standings, standings_of
from audiobat.evaluation.report.standings.tables import sentences
from audiobat.evaluation.report.verdicts import judge

MODELS = ("alpha", "beta", "gamma", "delta")
VALUES = np.random.default_rng(3).uniform(0.1, 0.9, (7, 4)).round(1)  # data sets, models; some are equal


def records(values=VALUES, kind="cgp", **fields) -> list[ResultRecord]:
    return [
        make_record(model, kind, float(value), data=f"set {number}", **fields)
        for number, line in enumerate(values)
        for model, value in zip(MODELS, line, strict=False)
    ]


def standings(found: list[ResultRecord]) -> Standings:
    rows = collect([(Path(f"r{i}.json"), record) for i, record in enumerate(found)]).rows
    made = standings_of(rows, judge(rows, {}))
    assert made is not None
    return made


def test_mean_ranks_and_friedman_are_scipys():
    found = standings(records())
    ranks = stats.rankdata(-VALUES, axis=1).mean(0)
    assert found.mean_ranks == pytest.approx(dict(zip(MODELS, ranks, strict=True)))
    assert found.models == tuple(sorted(MODELS, key=lambda model: found.mean_ranks[model]))
    theirs = stats.friedmanchisquare(*VALUES.T)
    assert (found.test.statistic, found.test.p) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert found.ranked == tuple(f"set {number}" for number in range(7))


def test_errors_are_better_when_they_are_lower():
    found = records()
    turned = []
    for record in found:
        main = replace(record.metrics["map"], lower_is_better=True)
        turned.append(replace(record, metrics={"map": main}))
    ours, theirs = standings(found), standings(turned)
    assert [5 - theirs.mean_ranks[model] for model in MODELS] == pytest.approx([ours.mean_ranks[m] for m in MODELS])
    for pair, duel in theirs.duels.items():
        other = ours.duels[pair]
        assert (duel.won, duel.tied, duel.lost) == (other.lost, other.tied, other.won)
        assert duel.higher == other.columns - other.higher


def test_a_data_set_counts_once_however_many_heads_it_has():
    """Models are ranked on it by the mean of their ranks under its heads."""
    other = VALUES[:1, ::-1]
    found = standings(records() + records(other, "linear"))
    both = (stats.rankdata(-VALUES[0]) + stats.rankdata(-other[0])) / 2
    expected = np.vstack([stats.rankdata(both), stats.rankdata(-VALUES[1:], axis=1)])
    assert [found.mean_ranks[model] for model in MODELS] == pytest.approx(expected.mean(0).tolist())
    assert found.test.statistic == pytest.approx(stats.friedmanchisquare(*expected.T).statistic)
    assert found.duels["alpha", "beta"].columns == 8


def test_a_column_that_a_model_lacks_is_left_out_of_ranks_and_named():
    lacking = [record for record in records() if (record.model.id, record.data.name) != ("beta", "set 2")]
    lacking[0] = replace(lacking[0], metrics={"map": replace(lacking[0].metrics["map"], value=math.nan)})
    found = standings(lacking)
    kept = [1, 3, 4, 5, 6]
    assert found.ranked == tuple(f"set {number}" for number in kept)
    ranks = stats.rankdata(-VALUES[kept], axis=1).mean(0)
    assert found.mean_ranks == pytest.approx(dict(zip(MODELS, ranks, strict=True)))
    assert "Left out of the ranks, as not all models have a value there: set 0, CGP; set 2, CGP." in list(
        sentences(found)
    )
    assert found.duels["alpha", "gamma"].columns == 7, "but pairs are compared wherever both were measured"


def test_without_a_common_column_there_are_no_ranks_but_values():
    split = [r for r in records() if (r.model.id == "alpha") == (r.data.name < "set 3")]
    found = standings(split)
    assert (found.mean_ranks, found.test, found.difference, found.alike) == ({}, None, None, [])
    assert list(sentences(found))[-1].endswith("So there are no ranks.")


def test_duels_count_wins_by_verdicts_and_the_rate_by_values():
    wide, close = np.array([[0.9, 0.1], [0.52, 0.5], [0.5, 0.5], [0.2, 0.8]]), MODELS[:2]
    duel = standings(records(wide)).duels[close]
    assert (duel.won, duel.tied, duel.lost, duel.higher, duel.columns) == (1, 2, 1, 2.5, 4)


def test_one_model_or_one_data_set_has_no_standings():
    for found in (records(VALUES[:1]), records(VALUES[:, :1])):
        rows = collect([(Path(f"r{i}.json"), record) for i, record in enumerate(found)]).rows
        assert standings_of(rows, judge(rows, {})) is None


def test_two_models_have_a_critical_difference_and_no_friedman_test():
    found = standings(records(VALUES[:, :2]))
    assert found.test is None
    assert found.difference == pytest.approx(1.96 * math.sqrt(2 * 3 / (6 * 7)), rel=1e-3)


def test_models_that_were_measured_with_other_settings_are_told():
    alike, other = (
        [make_record(model, data=data, steps=n) for model, data, n in (("a", "x", 9), ("b", "x", steps), ("b", "y", 9))]
        for steps in (9, 5)
    )
    assert not any("settings" in sentence for sentence in sentences(standings(alike)))
    told = [sentence for sentence in sentences(standings(other)) if "settings" in sentence]
    assert [sentence.rpartition(": ")[2] for sentence in told] == ["x, CGP (steps)."]


def test_the_figure_names_every_model_at_its_mean_rank():
    found = standings(records())
    texts = [text.get_text().split() for text in rank_figure(found).axes[0].texts]
    for model, rank in found.mean_ranks.items():
        assert [model, f"{rank:.2f}"] in texts or [f"{rank:.2f}", model] in texts


def test_a_report_over_data_sets_writes_standings(tmp_path: Path):
    """Of records with scores pairs are judged by the paired bootstrap, as its legend says."""
    for data in ("one", "two"):
        for skill, model in ((2.0, "good"), (0.1, "poor|<b>")):
            path = tmp_path / "run" / data / "results" / f"{model[:4]}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            scored(path, skill, model=model, data=data)
    out = report(tmp_path / "run", tmp_path / "report")
    table = (out / "tables/standings.md").read_text()
    lines = [line.split(" | ")[:4] for line in table.splitlines() if line.startswith("| ")]
    assert lines[0] == ["| Model", "Mean rank", "Won/tied/lost", "Win rate"]
    assert [line[:4] for line in lines[2:]] == [
        ["| good", "1.00", "2/0/0", "1.00"],
        [r"| poor\|\<b\>", "2.00", "0/0/2", "0.00"],
    ]
    assert "paired bootstrap" in table
    page = (out / "index.html").read_text()
    assert "<h2>Across data sets</h2>" in page
    assert '<td data-value="1.0">1.00</td>' in page
    assert "<b>" not in page.partition("<h2>Across data sets</h2>")[2].partition("</section>")[0]
    assert (out / "figures/ranks.svg").exists()
    (tmp_path / "run/two/results/poor.json").unlink()
    report(tmp_path / "run", out, overwrite=True)
    assert (out / "tables/standings.md").exists()
    assert not list(out.rglob("ranks.*")), "the order on one data set is no mean"
    report(save_all(tmp_path / "alone", [make_record()]), out, overwrite=True)
    assert not list(out.rglob("ranks.*")) + list(out.rglob("standings.*")), "those of an older report go"
