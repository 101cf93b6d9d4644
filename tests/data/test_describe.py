"""`audiobat describe`: what a source holds in numbers, against counts made by hand and on a grid of milliseconds."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from audiobat.data.describe import describe, layers, union
from audiobat.errors import AudiobatError

HEADER = "Begin Time (s)\tEnd Time (s)\tSpecies\n"
SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), min_size=1, max_size=8)


def record(folder, name, seconds, rate=1000, channels=1):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / name, np.zeros((int(seconds * rate), channels)), rate, format="WAV")


def test_an_annotated_folder_with_all_that_is_odd(tmp_path, capsys):
    folder = tmp_path / "season"
    for name in ("a.wav", "b.wav", "c.wav"):
        record(folder, name, 10.0)
    record(folder, "d.wav", 5.0, rate=2000, channels=2)
    (folder / "e.wav").write_text("no audio")
    rows = "1\t3\towl\n2\t4.5\tOwl\n2.5\t3.5\towl\n12\t14\tbat\n9\t10.5\towl\n6\t6.1\tbat\n"
    (folder / "a.Table.1.selections.txt").write_text(HEADER + rows)
    (folder / "b.Table.1.selections.txt").write_text(HEADER)
    (folder / "d.selections.txt").write_text(HEADER + "0\t1\tbat\n")
    found = describe(folder)
    assert (found["files"], found["unreadable"], found["sample_rates"]) == (5, 1, {1000: 3, 2000: 1})
    assert found["channels"] == {1: 3, 2: 1}
    assert found["hours"] * 3600 == pytest.approx(35)
    assert (found["labelled"], found["without_label"], found["events"]) == (3, 1, 6)
    assert found["labels"] == {
        "Owl": {"clips": 1, "events": 1, "seconds": pytest.approx(2.5)},
        "bat": {"clips": 2, "events": 2, "seconds": pytest.approx(1.1)},
        "owl": {"clips": 1, "events": 3, "seconds": pytest.approx(4.0)},  # 1 to 3.5 and 9 to 10.5 s
    }
    assert found["overlap"] == pytest.approx(1.5 / (3.5 + 1.5 + 0.1 + 1.0))
    for what in (
        "2 of 5 recordings have no annotations and are left out, such as c.wav",
        "1 of 7 events lie behind the end of their recordings and are left out, such as 12 to 14 s in a.wav of 10 s",
        "1 clips cannot be read, such as",
        "'Owl' and 'owl' differ in case or signs alone",
        "2 labels are in one clip alone, which cannot train and test: Owl, owl.",
        "1 events overlap or touch another one of the same label",
        "1 events end behind the end",
        "1 events last less than 0.16 s",
    ):
        assert [line for line in found["odd"] if what in line], what
    assert len(found["odd"]) == 8
    printed = " ".join(capsys.readouterr().out.split())
    assert "5 files, 35.0 s, 1,000 Hz (3), 2,000 Hz (1); 1 channel (3), 2 channels (1)" in printed
    assert (
        "3 annotated, 1 of them without an event; 6 events over 6.1 s; several labels sound at once in 24.6%" in printed
    )
    assert "owl 1 3 4.0" in printed


def test_class_folders_lists_and_audio_without_labels(tmp_path, capsys):
    for name in ("owl/1.wav", "owl/2.wav", "bat/3.wav", "bat/4.wav"):
        record(tmp_path / "classes", name, 2.0)
    found = describe(tmp_path / "classes")
    assert found["labels"] == {"bat": {"clips": 2}, "owl": {"clips": 2}}
    assert found["odd"] == []
    assert "odd: nothing" in capsys.readouterr().out
    plain = tmp_path / "classes" / "owl"
    assert "labels" not in describe(plain)
    assert "no labels: no annotations beside the recordings" in capsys.readouterr().out
    (tmp_path / "classes" / "stray.wav").write_bytes((plain / "1.wav").read_bytes())
    assert "labels" not in describe(tmp_path / "classes")
    inside = {"bytes": (plain / "1.wav").read_bytes(), "path": "owl/1.wav"}
    pq.write_table(pa.table({"audio": [inside]}), tmp_path / "inside.parquet")
    assert "labels" not in describe(tmp_path / "inside.parquet")
    csv = tmp_path / "classes" / "clips.csv"
    csv.write_text("path,species,split,seconds\nowl/1.wav,owl;rain,train,99\nbat/3.wav,bat,test,99\n")
    assert "labels" not in describe(csv)
    found = describe(csv, label_column="species", background=("rain",))
    assert found["labels"] == {"bat": {"clips": 1}, "owl": {"clips": 1}}
    assert {name: part["hours"] * 3600 for name, part in found["splits"].items()} == pytest.approx(
        {"train": 2.0, "test": 2.0}  # as the files say, not the list
    )
    with pytest.raises(AudiobatError, match="no column 'specis'"):
        describe(csv, label_column="specis")


@given(SPANS)
def test_unions_and_layers_are_those_counted_on_a_grid(spans):
    edges = np.array([(start, start + length) for start, length in spans], float)
    grid = np.zeros(100, int)
    for start, length in spans:
        grid[start : start + length] += 1
    joined = union(edges[:, 0], edges[:, 1])
    assert (joined[:, 1] - joined[:, 0]).sum() == (grid > 0).sum()
    assert (joined[1:, 0] > joined[:-1, 1]).all()
    assert layers(edges) == ((grid > 0).sum(), (grid > 1).sum())
