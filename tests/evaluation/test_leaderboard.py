"""The leaderboard file: lines that only grow, from many processes at once; damage and edits are found; its page."""

import math
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_browser import Browser
from report_samples import make_record, save_all

from audiobat.cli import command as cli
from audiobat.errors import AudiobatError
from audiobat.evaluation.leaderboard.board import add_records, line_of, read_board
from audiobat.evaluation.leaderboard.run import leaderboard
from audiobat.evaluation.record import ResultRecord


def results(models=("alpha", "beta", "gamma"), data=("one", "two"), **fields) -> list[tuple[ResultRecord, str]]:
    values = np.random.default_rng(0).uniform(0.2, 0.9, (len(models), len(data)))
    return [
        (make_record(model, value=float(values[m, d]), data=name, **fields), "map")
        for m, model in enumerate(models)
        for d, name in enumerate(data)
    ]


@pytest.fixture
def board(tmp_path: Path) -> Path:
    path = tmp_path / "board.jsonl"
    assert add_records(path, results()) == 6
    return path


def test_a_line_gives_the_record_back_without_its_classes(tmp_path: Path):
    record = make_record("ünï\u2028\n", value=0.1 + 0.2, seed=3, gate=[0.25, 0.75], sd=0.1)
    undefined = replace(record, seed=4, metrics={"map": replace(record.metrics["map"], low=math.nan)})
    add_records(tmp_path / "b.jsonl", [(record, "f1"), (undefined, "map")])
    first, second = read_board(tmp_path / "b.jsonl").lines
    assert (first.number, first.metric) == (1, "f1")
    assert first.record == replace(record, per_class={}, positives=None)
    assert math.isnan(second.record.metrics["map"].low)


def test_a_result_is_added_once(board: Path):
    before = board.read_bytes()
    assert add_records(board, results()) == 0
    assert board.read_bytes() == before
    assert add_records(board, [*results(), (make_record("delta", data="one"), "map")]) == 1
    assert board.read_bytes().startswith(before), "lines are only added"


@pytest.mark.parametrize("seed", range(5))
def test_a_line_that_was_changed_anywhere_is_named_and_left_out(board: Path, seed):
    """A digit or a letter in the middle of a line stands for another one."""
    lines = board.read_bytes().splitlines(keepends=True)
    places = [place for place, byte in enumerate(lines[2]) if chr(byte).isalnum()]
    place = np.random.default_rng(seed).choice(places)
    other = b"1" if lines[2][place : place + 1] != b"1" else b"2"
    lines[2] = lines[2][:place] + other + lines[2][place + 1 :]
    board.write_bytes(b"".join(lines))
    found = read_board(board)
    assert [line.number for line in found.lines] == [1, 2, 4, 5, 6]
    assert len(found.refused) == 1
    assert f"{board} line 3 " in found.refused[0]
    assert "left out" in found.refused[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda line: line.replace(b'"seed":0', b'"seed":1e999'), "is damaged or half written"),
        (lambda line: b"[]", "is damaged or half written"),
        (lambda line: b"{}", "was changed"),
    ],
    ids=["infinity", "a list", "nothing in it"],
)
def test_no_line_however_changed_hides_the_others(board: Path, change, reason):
    first, *others = board.read_bytes().splitlines()
    board.write_bytes(b"\n".join([change(first), *others]) + b"\n")
    found = read_board(board)
    assert [line.number for line in found.lines] == [2, 3, 4, 5, 6]
    assert f"{board} line 1 {reason}" in found.refused[0]


def test_a_half_written_line_is_named_and_what_follows_is_a_line_of_its_own(board: Path):
    half = line_of(*results(("delta",))[0])[:99]
    with board.open("ab") as file:
        file.write(half)
    assert [line.number for line in read_board(board).lines] == [1, 2, 3, 4, 5, 6]
    add_records(board, results(("epsilon",)))
    found = read_board(board)
    assert [line.number for line in found.lines] == [1, 2, 3, 4, 5, 6, 8, 9]
    assert f"{board} line 7 is damaged or half written" in found.refused[0]


def append(path: Path, number: int) -> None:
    for seed in range(10):
        add_records(path, [(make_record(f"model{number}", seed=seed), "map")])


def test_processes_that_append_at_once_lose_nothing(tmp_path: Path):
    path, context = tmp_path / "b.jsonl", multiprocessing.get_context("fork")
    workers = [context.Process(target=append, args=(path, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = read_board(path)
    assert found.refused == ()
    assert sorted((line.record.model.id, line.record.seed) for line in found.lines) == [
        (f"model{number}", seed) for number in range(4) for seed in range(10)
    ]


def test_boards_may_be_joined_and_the_later_of_two_results_counts(board: Path, capsys):
    newer = [
        (replace(record, metrics={"map": replace(record.metrics["map"], value=0.99)}), "map") for record, _ in results()
    ]
    add_records(board.with_name("other.jsonl"), newer[:2])
    board.write_bytes(board.read_bytes() + board.with_name("other.jsonl").read_bytes())
    found = leaderboard(board)
    assert found is not None
    assert found.models[0] == "alpha"
    assert {cell.value for (model, _), cell in found.cells.items() if model == "alpha"} == {0.99}
    assert "2 older results of the same model, data, head and seed hidden" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"format": "audiobat-board-9", "record": {}}\n', "is no leaderboard of format audiobat-board-1 .*board-9"),
        ("path,label\n1.wav,a\n", "is no leaderboard: none of its lines is a result"),
        ("[1, 2]\n", "is no leaderboard: none of its lines is a result"),
        ("", "holds no result: add the records of runs with --add"),
        (
            '{"format":"audiobat-board-1","metric":"map","record":{},"sha256":"0"}\n',
            "holds no result.*line 1 was changed",
        ),
    ],
)
def test_a_file_that_is_no_board_is_refused(text, sentence, tmp_path: Path):
    path = tmp_path / "b.jsonl"
    path.write_text(text)
    with pytest.raises(AudiobatError, match=sentence):
        leaderboard(path)
    if text.strip() and "board-1" not in text:
        with pytest.raises(AudiobatError, match="is no leaderboard"):
            add_records(path, results())
        assert path.read_text() == text


def test_folders_of_runs_are_added_from_the_command_line(tmp_path: Path, capsys):
    blocks = [make_record("alpha", "linear", data="one", layer=block, name=f"linear_block_{block}") for block in (1, 2)]
    run = save_all(tmp_path / "run", [record for record, _ in results()] + blocks)
    argv = ["leaderboard", str(tmp_path / "b.jsonl"), "--add", str(run)]
    assert cli.main(argv) == 0
    shown = capsys.readouterr().out
    assert "6 of 6 results are new" in shown
    assert "Across data sets" in shown
    assert cli.main([*argv, "--only", "alpha,beta"]) == 0
    shown = capsys.readouterr().out
    assert "0 of 6 results are new" in shown
    assert "gamma" not in shown
    assert cli.main([*argv, "--only", "alfa"]) == 2
    assert "--only has 'alfa' (did you mean alpha?): choose from alpha, beta, cgp" in capsys.readouterr().err


def test_a_board_is_ranked_by_the_metric_that_its_lines_name(tmp_path: Path):
    """By F1 the order is another than by average precision."""
    found = results(("alpha", "beta"))
    turned = []
    for record, _ in found:
        metrics = record.metrics | {"f1": replace(record.metrics["f1"], value=1 - record.metrics["map"].value)}
        turned.append((replace(record, metrics=metrics), "f1"))
    add_records(tmp_path / "map.jsonl", found)
    add_records(tmp_path / "f1.jsonl", turned)
    by_map, by_f1 = leaderboard(tmp_path / "map.jsonl"), leaderboard(tmp_path / "f1.jsonl")
    assert by_map is not None
    assert by_f1 is not None
    assert [column.metric for column in by_f1.columns] == ["f1", "f1"]
    assert by_f1.mean_ranks == {model: 3 - rank for model, rank in by_map.mean_ranks.items()}


def test_the_page_fits_and_sorts(board: Path, tmp_path: Path, browser: Browser):
    leaderboard(board, out=tmp_path / "page")
    for width in (1280, 390):
        browser.resize(width)
        browser.open(tmp_path / "page/index.html")
        assert browser.complaints == []
        assert browser.run("document.documentElement.scrollWidth") == width
    table = 'document.querySelector("table.sortable")'
    ranks = f"[...{table}.tBodies[0].rows].map(row => Number(row.cells[1].dataset.value))"
    assert browser.run(ranks) == sorted(browser.run(ranks))
    browser.run(f"{table}.tHead.rows[0].cells[1].querySelector('button').click()")
    assert browser.run(ranks) == sorted(browser.run(ranks), reverse=True)
    with pytest.raises(AudiobatError, match=r"index\.html exists: choose another --out"):
        leaderboard(board, out=tmp_path / "page")
