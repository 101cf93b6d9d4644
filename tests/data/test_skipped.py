"""skipped.csv: written whole, read back, and the union over the parts and the ranks of a run."""

import csv

import torch

from audiobat.data.skipped import SkippedList, read_skipped, write_skipped
from audiobat.engine.ranks import Ranks

ALONE = Ranks(torch.device("cpu"))


class Two(Ranks):
    """Rank 0 of two, of which the other has found a clip, too."""

    def gather(self, value):
        return [value, {"theirs.wav": "is torn"}]


def test_it_is_a_csv_written_whole_and_read_back(tmp_path):
    write_skipped(tmp_path / "skipped.csv", {"b.wav": 'says "no", twice', "a.wav": "is empty"})
    found = {"b.wav": 'says "no", twice', "a.wav": "is silent", "=1+1.wav": "-1\nof 2", "'=x": ""}
    write_skipped(tmp_path / "skipped.csv", found)
    with (tmp_path / "skipped.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"path": "a.wav", "reason": "is silent"} in rows
    assert read_skipped(tmp_path / "skipped.csv") == found
    assert [path.name for path in tmp_path.iterdir()] == ["skipped.csv"]


def test_the_parts_and_the_ranks_of_a_run_come_together(tmp_path):
    path = tmp_path / "skipped.csv"
    SkippedList(path, ALONE).add({})
    assert not path.exists()  # no clip was skipped
    first = SkippedList(path, ALONE)
    first.gather({"a.wav": "is empty"})  # before a checkpoint; then it is killed
    second = SkippedList(path, Two(torch.device("cpu")))
    second.gather({"b.wav": "is torn"})
    assert read_skipped(path) == {"a.wav": "is empty", "b.wav": "is torn", "theirs.wav": "is torn"}
    other = SkippedList(path, Ranks(torch.device("cpu"), rank=1, world_size=2))
    other.add({"c.wav": "is torn"})
    assert "c.wav" not in read_skipped(path)  # rank 0 writes


def test_damaged_lines_of_a_list_are_left_out(tmp_path):
    path = tmp_path / "skipped.csv"
    path.write_bytes(b"path,reason\r\na.wav,is empty\r\nhalf\r\n\x00\xff\xfe\r\nb.wav,x,y,z\r\n")
    assert read_skipped(path) == {"a.wav": "is empty"}
