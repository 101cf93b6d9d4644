"""Clip tables from folders and CSVs, and every way to get one wrong."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from audiobat.config import SelectConfig
from audiobat.data.build import clip_table
from audiobat.data.clip import read_clip
from audiobat.data.sources.lists import split_labels
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.data.split import Split, split_for_probe, with_valid
from audiobat.errors import AudiobatError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.zeros(400), 100, format="WAV")


def write_csv(folder, text, name="clips.csv", encoding="utf-8"):
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def table_of(labels, **fields):
    """A labelled table from one string per clip, such as 'cat;dog'."""
    return clip_table("", [f"{i}.wav" for i in range(len(labels))], labels=[split_labels(t) for t in labels], **fields)


def paths(table):
    return [Path(table.path(i)) for i in range(len(table))]


def test_folder_at_any_depth_sorted_without_hidden_files(tmp_path):
    touch(tmp_path, "b.wav", "a/deep/c.FLAC", "a/._c.wav", "a/notes.txt")
    table = read_clips(tmp_path)
    assert table.keys.tolist() == ["a/deep/c.FLAC", "b.wav"]
    assert paths(table) == [tmp_path / "a/deep/c.FLAC", tmp_path / "b.wav"]
    assert table.labels is None
    assert table.single_label is False


def test_csv_with_every_column(tmp_path):
    touch(tmp_path, "x/a.wav", "b.wav", "c.wav")
    csv = write_csv(
        tmp_path,
        "path,label,split,fold,seconds,category\n"
        './x/a.wav,dog; cat,train,1,0.5,sfx\nb.wav,,test,2,1,music\nc.wav,cat,valid,3,2.25,"a, b"\n',
    )
    table = read_clips(csv)
    assert table.keys.tolist() == ["x/a.wav", "b.wav", "c.wav"]
    assert paths(table)[0] == tmp_path / "x/a.wav"
    assert table.classes == ("cat", "dog")
    assert table.targets().tolist() == [[True, True], [False, False], [True, False]]
    assert table.splits.tolist() == ["train", "test", "valid"]
    assert table.folds.tolist() == [1, 2, 3]
    assert table.seconds.tolist() == [0.5, 1.0, 2.25]
    assert {name: values.tolist() for name, values in table.columns.items()} == {"category": ["sfx", "music", "a, b"]}
    assert not table.single_label
    text = table.describe()
    assert "3 clips" in text
    assert "most clips: cat 2, dog 1" in text
    assert "splits: test 1, train 1, valid 1" in text


def test_csv_of_excel_with_byte_order_mark_and_absolute_paths(tmp_path):
    touch(tmp_path, "data/a.wav")
    csv = write_csv(tmp_path, f"path,labels\r\n{tmp_path / 'data/a.wav'},café\r\n", encoding="utf-8-sig")
    table = read_labelled_clips(csv)
    assert paths(table) == [tmp_path / "data/a.wav"]
    assert table.classes == ("café",)


def test_a_space_after_a_comma_of_the_header_is_no_part_of_a_name(tmp_path):
    touch(tmp_path, "a.wav")
    assert read_labelled_clips(write_csv(tmp_path, "path, label\na.wav, dog\n")).classes == ("dog",)


def test_a_csv_may_list_urls(tmp_path):
    touch(tmp_path, "a.wav")
    table = read_clips(write_csv(tmp_path, f"path,label\nfile://{tmp_path}/a.wav,dog\ns3://bucket/x.wav,cat\n"))
    assert [table.path(row) for row in (0, 1)] == [f"file://{tmp_path}/a.wav", "s3://bucket/x.wav"]
    assert len(read_clip(table, 0, 100)) == 400


def test_some_missing_files_stay_in_the_table(tmp_path):
    touch(tmp_path, "a.wav")
    assert len(read_clips(write_csv(tmp_path, "path\ngone.wav\na.wav\n"))) == 2


def test_relative_source_gives_absolute_paths(tmp_path, monkeypatch):
    touch(tmp_path, "a.wav")
    monkeypatch.chdir(tmp_path)
    assert paths(read_clips(".")) == [tmp_path / "a.wav"]


def test_class_folders(tmp_path):
    touch(tmp_path, "dog/a.wav", "cat/deep/b.wav", "cat/c.wav")
    table = read_labelled_clips(tmp_path)
    assert table.keys.tolist() == ["cat/c.wav", "cat/deep/b.wav", "dog/a.wav"]
    assert table.targets().argmax(1).tolist() == [0, 0, 1]
    assert table.classes == ("cat", "dog")
    assert table.splits is None
    assert table.single_label


def test_class_folders_inside_split_folders(tmp_path):
    touch(tmp_path, "train/dog/a.wav", "train/cat/b.wav", "test/dog/c.wav", "test/cat/d.wav", "valid/cat/e.wav")
    table = read_labelled_clips(tmp_path)
    assert table.classes == ("cat", "dog")
    train, test = split_for_probe(table)
    assert [table.keys[i] for i in train] == ["train/cat/b.wav", "train/dog/a.wav"]
    assert [table.keys[i] for i in test] == ["test/cat/d.wav", "test/dog/c.wav"]


def test_select_by_mask_and_by_indices(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "c.wav")
    table = read_clips(write_csv(tmp_path, "path,label,fold,kind\na.wav,x,1,p\nb.wav,y,2,q\nc.wav,x,3,r\n"))
    for chosen in (table.select(np.array([True, False, True])), table.select([0, 2])):
        assert chosen.keys.tolist() == ["a.wav", "c.wav"]
        assert chosen.folds.tolist() == [1, 3]
        assert chosen.columns["kind"].tolist() == ["p", "r"]
        assert chosen.targets().tolist() == [[True, False], [True, False]]
        assert chosen.classes == ("x", "y")
    assert len(table.select([])) == 0


def test_sha256_changes_with_what_a_result_depends_on(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    texts = [
        "path,label,fold\na.wav,x,1\nb.wav,y,2\n",
        "path,label,fold\na.wav,x,1\nb.wav,x,2\n",
        "path,label,fold\na.wav,x,1\nb.wav,y,1\n",
        "path,label,fold\nb.wav,x,1\na.wav,y,2\n",
        "path,label,split\na.wav,x,train\nb.wav,y,test\n",
    ]
    digests = [read_clips(write_csv(tmp_path, text)).sha256() for text in texts]
    assert len(set(digests)) == len(texts)
    assert read_clips(write_csv(tmp_path, texts[0])).sha256() == digests[0]


CSV_ERRORS = [
    ("", r"clips\.csv has no `path` column \(it has nothing\)"),
    ("Paths,label\na.wav,x\n", r"no `path` column \(it has Paths, label\).*did you mean Paths"),
    ("path;label\na.wav;x\n", "separated by commas"),
    ("path,label\n", "lists no clips"),
    ("path,label\n,x\n", "row 2: column `path` is empty"),
    ("path,label\na.wav\n", "row 2, does not have 2 values"),
    ("path,label\na.wav,x,y\n", "row 2, does not have 2 values"),
    ('path,label\na.wav,"x\n', "not valid CSV after line 2"),
    ("path,label\ngone.wav,x\n", r"none of the 1 listed files exists, such as .*gone\.wav"),
    ("path,split\na.wav,train\nb.wav,tets\n", r"row 3: split is 'tets'.*did you mean test"),
    ("path,fold\na.wav,one\n", "row 2: fold is 'one': use a whole number"),
    (f"path,fold\na.wav,{10**20}\n", f"row 2: fold is '{10**20}': use a whole number"),
    ("path,seconds\na.wav,\n", "row 2: seconds is ''"),
    ("path,seconds\na.wav,inf\n", "row 2: seconds is 'inf': use a number of seconds"),
    ("path,seconds\na.wav,-1\n", "row 2: seconds is '-1'"),
    ("path, path\na.wav,b.wav\n", "2 columns `path`"),
    ("path\n" + 300 * "x" + ".wav\n", "none of the 1 listed files exists"),
    (
        "path,split\na.wav,train\nb.wav,test\n./a.wav,test\n",
        r"a\.wav in split train \(row 2\) and in split test \(row 4\)",
    ),
    ("path,fold\na.wav,1\na.wav,2\n", r"a\.wav in fold 1 \(row 2\) and in fold 2 \(row 3\)"),
    ("path,label\na.wav,x\na.wav,y\n", r"a\.wav twice \(rows 2 and 3\).*joined by ';'"),
]


EVENTS = """path,onset,offset,label,split,site,confidence
a.wav,0.5,1.25,dog,train,pond,0.9
b.wav,,,,test,,
a.wav,1,2,rain; dog,train,pond,0.7
"""


def test_rows_of_events_are_one_clip_for_each_file(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    table = read_labelled_clips(write_csv(tmp_path, EVENTS))
    assert table.keys.tolist() == ["a.wav", "b.wav"]
    assert table.classes == ("dog", "rain")
    assert table.events.row(0).tolist() == [(0, 0.5, 1.25), (1, 1.0, 2.0), (0, 1.0, 2.0)]
    assert len(table.events.row(1)) == 0
    assert sorted(table.labels.row(0).tolist()) == [0, 1]
    assert table.splits.tolist() == ["train", "test"]
    assert table.columns["site"].tolist() == ["pond", ""]
    assert sorted(table.columns) == ["site"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,onset,offset\na.wav,0,1\n", "has events and no column `label`"),
        ("path,onset,offset,label\na.wav,1,0.5,x\n", "row 2: an event from 1 to 0.5: give a label and seconds"),
        ("path,onset,offset,label\na.wav,0,1,x\na.wav,,1,x\n", "row 3: an event from nothing to 1"),
        ("path,onset,offset,label\na.wav,0,one,x\n", "an event from 0 to one"),
        ("path,onset,offset,label\na.wav,0,inf,x\n", "an event from 0 to inf"),
        ("path,onset,offset,label\na.wav,nan,1,x\n", "an event from nan to 1"),
        ("path,onset,offset,label\na.wav,-1,1,x\n", "an event from -1 to 1"),
        ("path,onset,offset,label\na.wav,0,1,\n", "an event from 0 to 1 without a label"),
        ("path,onset,offset,label\na.wav,,,x\n", "an event from nothing to nothing"),
        (
            "path,onset,offset,label,split\na.wav,0,1,x,train\na.wav,1,2,x,test\n",
            r"split 'train' \(row 2\) and 'test' \(row 3\): give all its events the same",
        ),
        ("path,onset,offset,label,fold\na.wav,0,1,x,1\na.wav,1,2,x,one\n", "row 3: fold is 'one'"),
    ],
)
def test_event_errors(tmp_path, text, words):
    touch(tmp_path, "a.wav")
    with pytest.raises(AudiobatError, match=words) as caught:
        read_clips(write_csv(tmp_path, text))
    assert "clips.csv" in str(caught.value)


@pytest.mark.parametrize(("text", "words"), CSV_ERRORS)
def test_csv_errors(tmp_path, text, words):
    touch(tmp_path, "a.wav", "b.wav")
    with pytest.raises(AudiobatError, match=words) as caught:
        read_clips(write_csv(tmp_path, text))
    assert "clips.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,kind\na.wav,x\n", r"no `label` column \(it has path, kind\)"),
        ("path,label\na.wav,\nb.wav, ; \n", "`label` is empty in every row"),
    ],
)
def test_labels_missing(tmp_path, text, words):
    touch(tmp_path, "a.wav", "b.wav")
    csv = write_csv(tmp_path, text)
    assert len(read_clips(csv)) >= 1
    with pytest.raises(AudiobatError, match=words):
        read_labelled_clips(csv)


def test_unreadable_encoding(tmp_path):
    with pytest.raises(AudiobatError, match=r"clips\.csv is not UTF-8 text \(byte 8\)"):
        read_clips(write_csv(tmp_path, "path\ncaf\xe9.wav\n", encoding="latin-1"))


def test_wrong_paths(tmp_path):
    with pytest.raises(AudiobatError, match=r"no folder, CSV, Parquet or tar file .*nowhere"):
        read_clips(tmp_path / "nowhere")
    touch(tmp_path, "a.wav")
    with pytest.raises(AudiobatError, match=r"a\.wav is no list of clips"):
        read_clips(tmp_path / "a.wav")


def test_empty_folder_names_the_extensions_searched(tmp_path):
    (tmp_path / "notes.txt").write_text("no audio")
    with pytest.raises(AudiobatError, match=r"no audio files.*\.flac.*\.wav") as caught:
        read_clips(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_audio_outside_the_class_folders(tmp_path):
    touch(tmp_path, "dog/a.wav", "stray.wav")
    with pytest.raises(AudiobatError, match=r"stray\.wav lies in no class folder, and no annotations"):
        read_labelled_clips(tmp_path)


@given(st.lists(st.sampled_from("abcde"), min_size=12, max_size=80), st.randoms())
def test_split_without_splits_is_stratified_and_independent_of_order(labels, random):
    labels = ["a", "a", "b", "b", *labels]  # two classes can be tested
    table = table_of(labels)
    train, test = split_for_probe(table)
    assert sorted([*train, *test]) == list(range(len(labels)))
    for name in set(labels):
        clips = [i for i, label in enumerate(labels) if label == name]
        tested = len(set(clips) & set(test.tolist()))
        assert tested == max(round(0.2 * len(clips)), int(len(clips) > 1))
    order = list(range(len(labels)))
    random.shuffle(order)
    shuffled = table.select(order)
    again = {shuffled.keys[i] for i in split_for_probe(shuffled)[1]}
    assert again == {table.keys[i] for i in test}


def test_windows_of_a_recording_stay_on_one_side():
    """Rows of one file, and what `prepare` has made of them: 12 recordings of two classes, five windows each."""
    names = [f"rec{i}.wav" for i in range(12) for _ in range(5)]
    begins = [float(w) for _ in range(12) for w in range(5)]
    labels = [["ab"[i % 2]] for i in range(12) for _ in range(5)]
    keys = [f"{name}@{begin}" for name, begin in zip(names, begins, strict=True)]
    cut = clip_table("", names, keys=keys, labels=labels, begins=begins, seconds=[1.0] * 60)
    packed = clip_table("", keys, labels=labels, columns={"source": names, "start": [str(begin) for begin in begins]})
    for table in (cut, packed):
        train, test = split_for_probe(table)
        assert sorted([*train, *test]) == list(range(60))
        assert not {names[i] for i in train} & {names[i] for i in test}
        assert len({names[i] for i in test}) == 2
        select = SelectConfig(held_out=0.2)
        split = with_valid(table, Split(train, test), select)
        assert len(split.valid)
        assert not {names[i] for i in split.train} & {names[i] for i in split.valid}


def test_recordings_with_events_that_test_have_classes_that_others_have(tmp_path):
    """Recording 0 alone has class z; by its first class, any recording may come first."""
    for seed in range(20):
        events = [[("a", 0.0, 1.0), ("b", 2.0, 3.0)] for _ in range(10)]
        events[seed % 10].append(("z", 5.0, 6.0))
        table = clip_table("", [f"{seed}_{i}.wav" for i in range(10)], events=events)
        train, test = split_for_probe(table)
        assert len(test) == 2
        assert seed % 10 in train


def test_one_recording_for_each_class_cannot_be_split():
    table = clip_table(
        "",
        ["a.wav"] * 3 + ["b.wav"] * 3,
        keys=list("uvwxyz"),
        labels=[["a"]] * 3 + [["b"]] * 3,
        begins=[0.0, 1.0, 2.0] * 2,
        seconds=[1.0] * 6,
    )
    with pytest.raises(AudiobatError, match="Split test has no clips as each class is in one recording alone"):
        split_for_probe(table)
    with pytest.raises(AudiobatError, match=r"in one recording alone: annotate a second recording\."):
        split_for_probe(clip_table("", ["a.wav"], events=[[("a", 0.0, 1.0), ("b", 2.0, 3.0)]]))
    with pytest.raises(AudiobatError, match=r"Split test has no clips: mark some of the 6 clips as test\."):
        split_for_probe(replace(table, splits=np.array(["train"] * 6)))  # nothing was drawn


def test_split_by_fold():
    table = table_of(["a", "b", "a", "b"], folds=np.array([1, 1, 2, 2]))
    train, test = split_for_probe(table, test_fold=2)
    assert (train.tolist(), test.tolist()) == ([0, 1], [2, 3])
    with pytest.raises(AudiobatError, match="no test fold 7: the folds are 1, 2"):
        split_for_probe(table, test_fold=7)
    with pytest.raises(AudiobatError, match="choose a test fold, 1, 2"):
        split_for_probe(table)


def test_a_presence_class_with_negatives_is_two_classes():
    table = table_of(["bird", "", "bird", ""], splits=np.array(["train", "train", "test", "test"]))
    assert [part.tolist() for part in split_for_probe(table)] == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("labels", "splits", "words"),
    [
        (["a", "a", "a", "b"], ["train", "train", "test", "test"], r"All 2 clips of split train .*\(a\)"),
        (["a", "b", "b"], ["train", "train", "test"], r"All 1 clips of split test .*\(b\)"),
        (["a", "b"], ["train", "train"], "Split test has no clips"),
        (["a", "b"], ["test", "test"], "Split train has no clips"),
    ],
)
def test_split_errors(labels, splits, words):
    with pytest.raises(AudiobatError, match=words):
        split_for_probe(table_of(labels, splits=np.array(splits)))


def test_split_of_a_table_without_what_it_needs():
    with pytest.raises(AudiobatError, match="no labels"):
        split_for_probe(clip_table("", ["a"]))
    with pytest.raises(AudiobatError, match="no `fold` column"):
        split_for_probe(table_of(["a", "b"]), test_fold=1)


def test_a_name_that_is_not_utf8_is_one_sentence(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    (tmp_path / "a.wav").rename(tmp_path / os.fsdecode(b"caf\xe9.wav"))
    with pytest.raises(AudiobatError, match=r"caf\\xe9\.wav is not UTF-8: rename it"):
        read_clips(tmp_path)


def test_a_column_that_comes_twice_is_named(tmp_path):
    touch(tmp_path, "a.wav")
    with pytest.raises(AudiobatError, match="has 2 columns `label`: keep one"):
        read_clips(write_csv(tmp_path, "path,label,label\na.wav,dog,cat\n"))


def test_an_absolute_and_a_relative_path_may_name_one_clip(tmp_path):
    touch(tmp_path, "a.wav")
    csv = write_csv(tmp_path, f"path,split\na.wav,train\n{tmp_path / 'a.wav'},test\n")
    with pytest.raises(AudiobatError, match=r"in split train \(row 2\) and in split test \(row 3\)"):
        read_clips(csv)
