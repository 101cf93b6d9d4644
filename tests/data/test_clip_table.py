"""The clip table on disk: columns come back as they went in, damage is one sentence, a description lists the clips."""

import json
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest

from audiobat.data.build import clip_table
from audiobat.data.clip_table import ClipTable, open_table
from audiobat.data.columns import Strings
from audiobat.errors import AudiobatError


@pytest.fixture
def table(tmp_path):
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"x" * 100)
    return clip_table(
        tmp_path,
        ["a.wav", "a.wav", "b.wav", "gone.wav"],
        keys=["a0", "a1", "b", "é"],
        events=[[("dog", 0.0, 0.5), ("cat", 0.25, 1.0)], [], [("dog", 0.1, 0.2)], [("dog", 0.0, 1.0)]],
        classes=["dog", "bird", "cat"],
        splits=["train", "train", "test", "valid"],
        folds=[1, 1, 2, 3],
        begins=[0.0, 1.0, 0.0, 0.0],
        seconds=[1.0, 1.0, 2.5, np.nan],
        columns={"group": ["g", "g", "h", ""], "kind/odd": ["1", "2", "3", "4"]},
    )


def same(a, b):
    assert a.keys.tolist() == b.keys.tolist()
    assert [a.location(i) for i in range(len(a))] == [b.location(i) for i in range(len(b))]
    assert a.classes == b.classes
    assert a.targets().tolist() == b.targets().tolist()
    assert [a.events.row(i).tolist() for i in range(len(a))] == [b.events.row(i).tolist() for i in range(len(b))]
    for name in ("splits", "folds"):
        assert getattr(a, name).tolist() == getattr(b, name).tolist()
    assert {n: c.tolist() for n, c in a.columns.items()} == {n: c.tolist() for n, c in b.columns.items()}
    assert a.sha256() == b.sha256()


def test_a_saved_table_is_the_table(table, tmp_path):
    table.save(tmp_path / "clips")
    opened = open_table(tmp_path / "clips", str(tmp_path))
    same(table, opened)
    same(table.select([2, 0]), opened.select([2, 0]))
    same(opened, pickle.loads(pickle.dumps(opened)))
    assert not (tmp_path / "clips.tmp").exists()
    table.select([1]).save(tmp_path / "clips")  # over the old one
    assert open_table(tmp_path / "clips", "").keys.tolist() == ["a1"]


def test_labels_are_those_of_the_events(table):
    assert table.targets().tolist() == [[True, False, True], [False] * 3, [True, False, False], [True, False, False]]
    assert table.label_counts().tolist() == [3, 0, 1]


def test_a_place_says_all_that_reading_needs(table):
    location = table.location(1)
    assert (location.path, location.begin, location.seconds) == (f"{table.root}/a.wav", 1.0, 1.0)
    assert (location.offset, location.size, location.sample_rate) == (None, None, None)
    assert table.location(3).seconds is None


def test_the_digest_depends_on_the_cut_but_not_on_the_folder(table):
    digest = table.sha256()
    elsewhere = ClipTable(**{**vars(table), "root": "/elsewhere"})
    assert elsewhere.sha256() == digest
    moved = ClipTable(**{**vars(table), "begins": table.begins + 0.1})
    assert moved.sha256() != digest
    events = clip_table("", ["a"], events=[[("x", 0, 1)]])
    later = clip_table("", ["a"], events=[[("x", 0, 2)]])
    assert events.sha256() != later.sha256()


def test_missing_clips_and_copies_are_counted(table):
    assert table.missing().tolist() == [3]
    assert table.duplicates() == []
    hashes = np.array([[1, 1], [1, 2], [1, 1], [1, 1]], np.uint64)
    sizes = np.array([50, 50, 101, 10])
    known = ClipTable(**{**vars(table), "hashes": hashes, "offsets": np.array([0, 50, 0, 0]), "sizes": sizes})
    assert [group.tolist() for group in known.duplicates()] == [[0, 2, 3]]
    assert known.missing().tolist() == [2, 3]  # b.wav is a byte too short
    text = known.describe()
    assert "missing: 2 clips, such as" in text
    assert "duplicates: 2 clips have the audio of an earlier one" in text


def test_the_description_says_what_is_there(table):
    text = table.describe()
    assert "4 clips, 0.00 h (of the 3 whose length is known) in 3 files" in text
    assert "2 of 3 classes present, 1.00 labels per clip" in text
    assert "most clips: dog 3, cat 1" in text
    assert "4 events with onset and offset" in text
    assert "splits: test 1, train 2, valid 1" in text
    assert "folds: 1 2, 2 1, 3 1" in text
    assert "duplicates: not known before `audiobat prepare`" in text


def seal(folder: Path) -> None:
    """Give a table the checksums of the files that it has, as one who makes a hostile table would."""
    header = json.loads((folder / "table.json").read_text())
    header["crc32"] = {path.name: zlib.crc32(path.read_bytes()) for path in folder.glob("*.npy")}
    (folder / "table.json").write_text(json.dumps(header))


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("table.json", lambda f: f.unlink(), "no readable clip table"),
        ("table.json", lambda f: f.write_bytes(f.read_bytes()[:50]), "no readable clip table"),
        ("table.json", lambda f: f.write_text("[]"), "no readable clip table"),
        ("table.json", lambda f: f.write_text('{"format": "audiobat-clips-9"}'), "of format audiobat-clips-9, not"),
        ("folds.npy", lambda f: f.unlink(), "no readable clip table"),
        ("folds.npy", lambda f: f.write_bytes(f.read_bytes()[:-8]), "no readable clip table"),
        ("folds.npy", lambda f: f.write_bytes(b""), "no readable clip table"),
        ("folds.npy", lambda f: f.write_bytes(f.read_bytes().replace(b"}", b" ")), "no readable clip table"),
        ("folds.npy", lambda f: np.save(f, np.array([1, 2])), "folds has 2 entries for 4 clips"),
        ("labels.values.npy", lambda f: np.save(f, np.array([0, 2, 0, 7], np.int32)), "labels run from 0 to 7"),
        ("labels.values.npy", lambda f: np.save(f, np.array([0, 2], np.int32)), "list column was cut short"),
        ("file_ids.npy", lambda f: np.save(f, np.array([0, 1, 2, 9], np.int32)), "file that is not listed"),
        ("folds.npy", lambda f: np.save(f, np.array([object()] * 4), allow_pickle=True), "no readable clip table"),
    ],
)
def test_damage_is_one_sentence(table, tmp_path, name, damage, words):
    table.save(tmp_path / "clips")
    damage(tmp_path / "clips" / name)
    if (tmp_path / "clips" / name).exists() and name.endswith(".npy"):
        with pytest.raises(AudiobatError, match=f"{name} does not match its checksum"):
            open_table(tmp_path / "clips", str(tmp_path))
        seal(tmp_path / "clips")
    with pytest.raises(AudiobatError, match=words):
        open_table(tmp_path / "clips", str(tmp_path))


@pytest.mark.parametrize("stranger", ["/etc/passwd", "../x.tar", "shards/../../x", "s3://bucket/x"])
def test_a_table_cannot_lead_out_of_its_folder(table, tmp_path, stranger):
    table.save(tmp_path / "clips")
    files = Strings.of_texts([stranger, "b.wav", "gone.wav"])
    np.save(tmp_path / "clips" / "files.values.npy", files.values)
    np.save(tmp_path / "clips" / "files.offsets.npy", files.offsets)
    seal(tmp_path / "clips")
    with pytest.raises(AudiobatError, match="lies outside the folder"):
        open_table(tmp_path / "clips", str(tmp_path))


def test_an_unknown_column_of_a_later_version_is_refused(table, tmp_path):
    table.save(tmp_path / "clips")
    header = tmp_path / "clips" / "table.json"
    plain = json.loads(header.read_text())
    np.save(tmp_path / "clips" / "novel.npy", np.zeros(4))
    header.write_text(json.dumps({**plain, "fields": [*plain["fields"], "novel"]}))
    with pytest.raises(AudiobatError, match="unknown column novel"):
        open_table(tmp_path / "clips", str(tmp_path))


def test_bad_lists_are_refused():
    with pytest.raises(AudiobatError, match=r"two clips have the key a\.wav"):
        clip_table("", ["a.wav", "a.wav"])
    with pytest.raises(AudiobatError, match=r"^/data: label 'ant' is none of the 1 classes"):
        clip_table("/data", ["a.wav"], labels=[["ant"]], classes=["bee"])
    for broken in ({"paths": ["\ud800.wav"]}, {"paths": ["a.wav"], "columns": {"site": ["\ud800"]}}):
        with pytest.raises(AudiobatError, match=r"^/data: '\\ud800.*' is no text that UTF-8 can hold"):
            clip_table("/data", **broken)


def test_a_table_that_cannot_be_written_leaves_the_old_one_and_nothing_else(table, tmp_path, monkeypatch):
    table.save(tmp_path / "new" / "clips")
    before = open_table(tmp_path / "new" / "clips", "").sha256()
    write = Path.write_bytes

    def full(path, data):
        if "hashes" in path.name or "labels" in path.name:
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        table.select([0]).save(tmp_path / "new" / "clips")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["clips"]
    assert open_table(tmp_path / "new" / "clips", "").sha256() == before
