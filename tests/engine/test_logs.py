"""The run's log: no step twice after a resume, no torn line, means equal to plain ones; atomic writes."""

import json

import pytest
import torch

from audiobat.engine.logs import Means, RunLog
from audiobat.engine.ranks import Ranks

ALONE = Ranks(torch.device("cpu"))


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_rows_beyond_the_resumed_step_and_a_torn_line_are_dropped(tmp_path):
    with RunLog(tmp_path) as log:
        for step in (10, 20, 30):
            log.write({"step": step, "loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4')
    with RunLog(tmp_path, 20) as log:
        log.write({"step": 30, "loss": 2.0})
    assert rows(tmp_path) == [
        {"step": 10, "loss": 1.0},
        {"step": 20, "loss": 1.0},
        {"step": 30, "loss": 2.0},
    ]


@pytest.mark.parametrize(
    "line",
    [
        *(b'{"step": 1', b"[1, 2]", b"3", b'{"loss": 1.0}', b'{"step": "10"}', b'{"step": 1e400}', b'{"step": NaN}'),
        *(b"\x00\xff\xfe", b"[" * 100_000, b'{"step": ' + b"1" * 5000 + b"}", b""),
    ],
    ids=lambda line: line[:12],
)
def test_damaged_lines_are_taken_out_with_a_sentence(tmp_path, capsys, line):
    whole = [b'{"step": 10, "loss": 1.0}', b'{"step": 20, "loss": 1.0}']
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([whole[0], line, whole[1], b""]))
    with RunLog(tmp_path, 20):
        pass
    assert "had 1 lines that are no rows" in capsys.readouterr().err
    assert [row["step"] for row in rows(tmp_path)] == [10, 20]


def test_rows_are_valid_json_even_for_nan(tmp_path):
    with RunLog(tmp_path) as log:
        log.write({"step": 1, "rank": float("nan"), "loss": float("inf")})
    assert rows(tmp_path) == [{"step": 1, "rank": None, "loss": None}]


def test_sentences_go_to_the_file_and_the_terminal(tmp_path, capsys):
    with RunLog(tmp_path) as log:
        log.say("The target collapsed.")
    assert capsys.readouterr().err == "The target collapsed.\n"
    assert (tmp_path / "log.txt").read_text().endswith("The target collapsed.\n")


def test_other_ranks_write_nothing(tmp_path, capsys):
    with RunLog(tmp_path / "run", main=False) as log:
        log.say("hello")
        log.write({"step": 1})
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().err == ""


def test_means_of_values_that_do_not_come_every_step():
    means = Means()
    for step in range(4):
        means.add({"loss": torch.tensor(float(step))} | ({"rank": torch.tensor(8.0)} if step == 3 else {}))
    assert means.pop(ALONE) == {"loss": 1.5, "rank": 8.0}
    assert means.pop(ALONE) == {}


def test_means_continue_exactly_from_their_state():
    values = torch.randn(20, generator=torch.Generator().manual_seed(0))
    whole, first = Means(), Means()
    for value in values:
        whole.add({"loss": value})
    for value in values[:7]:
        first.add({"loss": value})
    second = Means(json.loads(json.dumps(first.state(ALONE))))
    for value in values[7:]:
        second.add({"loss": value})
    assert second.pop(ALONE) == whole.pop(ALONE)
