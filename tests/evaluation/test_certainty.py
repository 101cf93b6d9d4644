"""What tables, pages, figures and lines say of intervals and of rare classes; and records that do not know either."""

import json
from dataclasses import replace
from pathlib import Path

from report_samples import make_record

from audiobat.evaluation.certainty import COVERAGE, FEW, interval_note, rare_classes, rare_note
from audiobat.evaluation.record import ResultRecord, load_record
from audiobat.evaluation.report.collect import collect
from audiobat.evaluation.report.page import write_page
from audiobat.evaluation.report.paper_tables import table1
from audiobat.evaluation.report.record_figures import class_bars
from audiobat.evaluation.report.verdicts import judge
from audiobat.evaluation.results import summary

LABELS = {"goat_bleat": FEW - 1, "bell": FEW, "absent": 0}


def counted(record: ResultRecord, positives: dict[str, int] | None = None) -> ResultRecord:
    """The record as this version writes it: its classes counted, its intervals named."""
    metrics = {
        name: replace(metric, interval="wilson" if name == "accuracy" else "halves")
        for name, metric in record.metrics.items()
    }
    return replace(record, positives=positives or LABELS, metrics=metrics)


def test_a_class_is_rare_below_five_test_clips_but_not_without_any():
    assert rare_classes(counted(make_record())) == ["goat_bleat"]
    assert rare_classes(make_record()) == []  # an older record


def test_the_notes_name_the_kinds_of_intervals_and_the_data_sets_with_rare_classes():
    new, old = counted(make_record(single_label=True)), make_record(data="older")
    assert interval_note([new]) == f"{COVERAGE['wilson']} {COVERAGE['halves']}"
    of_a_task = replace(new, metrics={name: replace(one, interval="units") for name, one in new.metrics.items()})
    assert interval_note([new, of_a_task, old]) == " ".join(COVERAGE.values())
    common = counted(make_record(data="common"), {"goat_bleat": 9, "bell": 9})
    assert rare_note([new, new, common, old]).startswith("scenes: 1 of 2 classes have fewer than 5 positive test clips")
    assert "common" not in rare_note([new, common])
    assert rare_note([common, old]) == ""


def test_every_kind_has_its_coverage():
    assert all("% of simulated test sets" in sentence for sentence in COVERAGE.values())


def test_tables_and_the_page_say_how_sure_their_intervals_are(tmp_path: Path):
    found = collect(
        [(tmp_path / "a.json", counted(make_record("a"))), (tmp_path / "b.json", counted(make_record("b")))]
    )
    verdicts = judge(found.rows, {})
    notes = " ".join(table1(found, verdicts).notes)
    page = write_page(tmp_path / "index.html", found, verdicts, []).read_text()
    for text in (notes, page.replace("&#x27;", "'")):
        assert COVERAGE["halves"] in text
        assert COVERAGE["bootstrap"] not in text
        assert "1 of 2 classes have fewer than 5 positive test clips" in text
    assert "with fewer than 5 positive test clips: goat_bleat" in page


def test_rare_classes_are_marked_and_counted_in_the_figure_and_in_the_line_of_a_probe():
    found = collect([(Path("a.json"), counted(make_record()))])
    figure = class_bars(found.rows)
    assert sorted(label.get_text() for label in figure.axes[0].get_yticklabels()) == ["bell", "† goat bleat"]
    assert "† 1 of 2: fewer than 5 clips" in figure.get_suptitle() + "".join(text.get_text() for text in figure.texts)
    assert "classes, 1 of them in fewer than 5 clips)" in summary("cgp", counted(make_record()))
    assert "fewer" not in summary("cgp", make_record())


def test_a_record_of_an_earlier_version_says_bootstrap(tmp_path: Path):
    make_record().save(tmp_path / "r.json")
    plain = json.loads((tmp_path / "r.json").read_text())
    del plain["positives"]
    for metric in plain["metrics"].values():
        del metric["interval"]
    (tmp_path / "r.json").write_text(json.dumps(plain))
    record = load_record(tmp_path / "r.json")
    assert record.positives is None
    assert interval_note([record]) == COVERAGE["bootstrap"]
