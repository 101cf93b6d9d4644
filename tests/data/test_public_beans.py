"""Lists in BEANS's style: columns, label lists, windows, the YAML file, and bad lists."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiobat.data.sources.public import beans
from audiobat.data.sources.public.beans import Task, read_beans
from audiobat.errors import AudiobatError

SPLITS = ("train", "valid", "test")


def write_csvs(folder, rows, header=",path,label", prefix="", end="\n", encoding="utf-8", audio=True):
    """`rows` of each split; the audio of the column `path` beside the lists."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, lines in rows.items():
        (folder / f"{prefix}{split}.csv").write_bytes(end.join([header, *lines, ""]).encode(encoding))
        for line in lines if audio else []:
            name = dict(zip(header.split(","), line.split(","), strict=False)).get("path", "")
            if name and ".." not in name:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).touch()
    return folder


ROWS = {"train": ["0,wav/a.wav,whale", "1,wav/b.wav,bat"], "valid": ["0,wav/c.wav,bat"], "test": ["0,wav/d.wav,whale"]}


def names(table, row):
    return [table.classes[c] for c in table.labels.row(row)]


def test_classification(tmp_path):
    table = read_beans(write_csvs(tmp_path, ROWS))
    assert table.classes == ("bat", "whale")
    assert table.keys.tolist() == ["wav/a.wav", "wav/b.wav", "wav/c.wav", "wav/d.wav"]
    assert table.splits.tolist() == ["train", "train", "valid", "test"]
    assert [names(table, row) for row in range(4)] == [["whale"], ["bat"], ["bat"], ["whale"]]
    assert table.path(0) == str(tmp_path / "wav/a.wav")
    assert np.isnan(table.seconds).all()
    assert len(table.missing()) == 0


@pytest.mark.parametrize(("end", "encoding"), [("\r\n", "utf-8"), ("\n", "utf-8-sig")])
def test_windows_line_ends_and_bom_change_nothing(tmp_path, end, encoding):
    plain = read_beans(write_csvs(tmp_path / "plain", ROWS))
    assert read_beans(write_csvs(tmp_path / "dos", ROWS, end=end, encoding=encoding)).sha256() == plain.sha256()


def test_paths_may_count_from_the_repository(tmp_path):
    rows = {split: [f"0,data/bats/audio/{split}.wav,bat"] for split in SPLITS}
    write_csvs(tmp_path / "data/bats", rows, prefix="annotations.", audio=False)
    (tmp_path / "data/bats/audio").mkdir()
    for split in SPLITS:
        (tmp_path / f"data/bats/audio/{split}.wav").touch()
    table = read_beans(tmp_path / "data/bats")
    assert table.path(2) == str(tmp_path / "data/bats/audio/test.wav")
    assert len(table.missing()) == 0


def test_filename_in_the_audio_folder_and_a_missing_file(tmp_path):
    write_csvs(tmp_path, {split: [f"{split}.wav,bat"] for split in SPLITS}, header="filename,labels")
    (tmp_path / "audio").mkdir()
    for split in ("train", "valid"):
        (tmp_path / f"audio/{split}.wav").touch()
    table = read_beans(tmp_path)
    assert table.path(0) == str(tmp_path / "audio/train.wav")
    assert table.missing().tolist() == [2]


def test_label_lists(tmp_path):
    cells = ["\"['whale', 'bat']\"", '"[""bat""]"', "[]", "", "bat; whale", '"[""Cassin\'s kingbird"", \'bat\']"']
    rows = {"train": [f"0,{i}.wav,{cell}" for i, cell in enumerate(cells)], "test": ["0,t.wav,bat"]}
    table = read_beans(write_csvs(tmp_path, rows))
    assert table.classes == ("Cassin's kingbird", "bat", "whale")
    found = [names(table, row) for row in range(6)]
    assert found == [["bat", "whale"], ["bat"], [], [], ["bat", "whale"], ["Cassin's kingbird", "bat"]]
    assert "valid" not in table.splits  # may be absent


def test_parts_of_files(tmp_path):
    rows = {"train": ["a.wav,bat,0,2.5", "a.wav,,2.5,4"], "test": ["b.wav,bat,1.5,"]}
    write_csvs(tmp_path, rows, header="path,label,begin,end")
    table = read_beans(tmp_path)
    assert table.keys.tolist() == ["a.wav@0.0", "a.wav@2.5", "b.wav@1.5"]
    assert table.begins.tolist() == [0, 2.5, 1.5]
    assert table.seconds[:2].tolist() == [2.5, 1.5]
    assert np.isnan(table.seconds[2])
    assert len(table.files) == 2
    (tmp_path / "info.yaml").write_text("- {name: any, type: detection, window_width: 4}")
    assert read_beans(tmp_path).seconds.tolist() == [2.5, 1.5, 4.0]  # the window where no end is given


def write_jsonl(folder, recordings, yaml="- {name: sea, type: detection, window_width: 2, window_shift: 1}"):
    folder.mkdir(parents=True, exist_ok=True)
    for split, listed in recordings.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\r\n" for r in listed), newline="")
        for r in listed:
            (folder / r["path"]).touch()
    if yaml:
        (folder / "datasets.yml").write_text(yaml)
    return folder


def recording(path, length, *events):
    return {"path": path, "length": length, "annotations": [{"st": a, "ed": b, "label": x} for x, a, b in events]}


def test_windows_of_recordings(tmp_path):
    train = recording("a.wav", 4.5, ("whale", 0.0, 1.1), ("bat", 1.9, 9.0), ("cod", 2.5, 2.5))
    table = read_beans(write_jsonl(tmp_path, {"train": [train], "test": [recording("b.wav", 0.5, ("cod", 0.1, 0.2))]}))
    assert table.keys.tolist() == ["a.wav@0.0", "a.wav@1.0", "a.wav@2.0", "b.wav@0.0"]
    assert table.begins.tolist() == [0, 1, 2, 0]
    assert table.seconds.tolist() == [2, 2, 2, 0.5]  # a short recording is one short window
    # a.wav@0: 0.1 s of bat is too little; @1: 0.1 of 1.1 s of whale is too; an event without length is in none
    assert [names(table, row) for row in range(4)] == [["whale"], ["bat"], ["bat"], ["cod"]]


@given(st.integers(1, 400), st.integers(1, 80), st.integers(1, 40))
def test_windows_are_all_that_fit(length, width, shift):
    """In tenths of a second, which are not exact in binary."""
    window = Task(window_width=width / 10, window_shift=shift / 10)
    line = json.dumps(recording("a.wav", length / 10))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beans, "read_lines", lambda path: [line])
        found = [round(clip.begin * 10) for clip in beans._windows(None, "train", window)]
    assert found == ([start for start in range(0, length, shift) if start + width <= length] or [0])


def test_the_yaml_file(tmp_path):
    folder = write_csvs(tmp_path / "data/sea", ROWS)
    other = "- {name: other, type: detection, num_labels: 9}\n"
    listed = f"{other}- {{name: sea, type: classification, num_labels: 2, labels: [whale, bat], sample_rate: 44100}}\n"
    (tmp_path / "datasets.yml").write_text(listed)
    assert read_beans(folder).classes == ("whale", "bat")
    (tmp_path / "datasets.yml").write_text(other)  # nothing about this one
    assert read_beans(folder).classes == ("bat", "whale")


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("name: sea", "is no list of data sets"),
        ("- {name: x, name", "not valid YAML"),
        ("- {name: a}\n- {name: b}", "several data sets"),
        ("- {name: a, type: regression}", "type is 'regression'"),
        ("- {name: a, labels: bat}", "labels is 'bat'"),
        ("- {name: a, labels: [whale]}", "label 'bat' is none of the 1 classes"),
        ("- {name: a, num_labels: 3}", "has 2 labels, its YAML file says num_labels 3"),
        ("- {name: a, num_labels: many}", "num_labels is 'many'"),
        ("- {name: a, window_width: 0}", "window_width is 0"),
    ],
)
def test_bad_yaml(tmp_path, yaml, words):
    write_csvs(tmp_path, ROWS)
    (tmp_path / "any.yml").write_text(yaml)
    with pytest.raises(AudiobatError, match=words):
        read_beans(tmp_path)


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ("file,label", "a.wav,bat", "needs one column `path` or `filename`"),
        ("path,filename,label", "a.wav,a.wav,bat", "needs one column `path` or `filename`"),
        ("path,species", "a.wav,bat", "needs one column `label` or `labels`"),
        ("path,label", "../a.wav,bat", r"row 2: the path '\.\./a\.wav' leaves"),
        ("path,label", "/etc/a.wav,bat", "row 2: the path '/etc/a.wav' leaves"),
        ("path,label", ",bat", "the path '' leaves"),
        ("path,label", "a.wav,['bat' 'whale']", "row 2: the labels .* are no list"),
        ("path,label", "a.wav,[bat", "are no list"),
        ("path,label", "a.wav,bat,more", "row 2, has 3 values for 2 columns"),
        ("path,label,begin", "a.wav,bat,soon", "row 2: begin is 'soon'"),
        ("path,label,begin", "a.wav,bat,-1", "begin is '-1'"),
        ("path,label,begin,end", "a.wav,bat,2,2", "ends at 2.0 s, before it begins"),
        ("path,label", "t.wav,bat", "two clips have the key t.wav"),  # also in test
    ],
)
def test_bad_rows(tmp_path, header, row, words):
    write_csvs(tmp_path, {"test": ["t.wav,bat"]}, header="path,label")
    write_csvs(tmp_path, {"train": [row]}, header=header)
    with pytest.raises(AudiobatError, match=words):
        read_beans(tmp_path)


def test_classification_wants_one_label(tmp_path):
    write_csvs(tmp_path, {"train": ["0,a.wav,bat;whale"], "test": ["0,b.wav,bat"]})
    (tmp_path / "any.yml").write_text("- {name: a, type: classification}")
    with pytest.raises(AudiobatError, match="row 2, has 2 labels: give one"):
        read_beans(tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"path": "a.wav", "length": 3}', "line 1, is no recording"),
        ("[1]", "is no recording"),
        ('{"path": ', "is no recording"),
        ("[" * 100_000, "is no recording"),
        ('{"path": "a.wav", "length": 0, "annotations": []}', "length is 0.0"),
        (json.dumps(recording("a.wav", 3, ("bat", 2, 1))), "bat from 2.0 to 1.0 s"),
        (json.dumps(recording("../a.wav", 3)), "leaves the data set's folder"),
    ],
)
def test_bad_json_lines(tmp_path, line, words):
    write_jsonl(tmp_path, {"train": [], "test": [recording("b.wav", 3)]})
    (tmp_path / "train.jsonl").write_text(line)
    with pytest.raises(AudiobatError, match=words):
        read_beans(tmp_path)


def test_recordings_need_windows(tmp_path):
    write_jsonl(tmp_path, {split: [recording(f"{split}.wav", 3)] for split in SPLITS}, yaml=None)
    with pytest.raises(AudiobatError, match=r"train\.jsonl needs windows: write window_width"):
        read_beans(tmp_path)


def test_which_lists(tmp_path):
    with pytest.raises(AudiobatError, match=r"there is no train\.csv"):
        read_beans(tmp_path)
    write_csvs(tmp_path, ROWS)
    alone = read_beans(tmp_path)
    write_csvs(tmp_path, {split: [f"0,{split}.wav,cod"] for split in SPLITS}, prefix="fish.")
    with pytest.raises(AudiobatError, match=r"several data sets \(fish.*test\.csv.*name one list"):
        read_beans(tmp_path)
    assert read_beans(tmp_path / "fish.valid.csv").classes == ("cod",)
    assert read_beans(tmp_path / "test.csv").sha256() == alone.sha256()
    (tmp_path / "notes.csv").touch()
    with pytest.raises(AudiobatError, match=r"notes\.csv: there is no train\.csv"):
        read_beans(tmp_path / "notes.csv")
    (tmp_path / "fish.test.csv").unlink()
    with pytest.raises(AudiobatError, match=r"has no fish\.test\.csv beside"):
        read_beans(tmp_path / "fish.train.csv")


def test_empty_split_and_no_files(tmp_path):
    write_csvs(tmp_path, {"train": ["0,a.wav,bat"], "test": []})
    with pytest.raises(AudiobatError, match=r"test\.csv lists nothing below its header"):
        read_beans(tmp_path)
    write_csvs(tmp_path / "far/away/from/here", ROWS, audio=False)
    with pytest.raises(AudiobatError, match="none of the 4 listed files is there"):
        read_beans(tmp_path / "far/away/from/here")


def test_a_name_that_no_disk_holds_is_a_missing_file(tmp_path):
    rows = {"train": [f"0,{'a' * 300}.wav,bat", "1,a.wav,bat"], "test": ["0,b.wav,bat"]}
    write_csvs(tmp_path, rows, audio=False)
    (tmp_path / "b.wav").touch()
    assert read_beans(tmp_path).missing().tolist() == [0, 1]
