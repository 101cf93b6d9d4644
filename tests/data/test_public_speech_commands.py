"""Speech Commands v2 from a tree as its archives unpack: three tasks, their splits, pieces of noise, and bad trees."""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiobat.data.sources.catalog import ambiguous_names
from audiobat.data.sources.public import speech_commands as sc
from audiobat.errors import AudiobatError

pytestmark = pytest.mark.filterwarnings("ignore:spc2-")  # that a fixture is smaller than the real one
NOISES = {"doing_the_dishes.wav": 5.2, "pink_noise.wav": 3.0, "running_tap.wav": 10.1}
# Lengths of the six recordings of the real archive, in samples at 16 kHz.
REAL_NOISES = {
    "doing_the_dishes.wav": 1_522_930,
    "dude_miaowing.wav": 988_891,
    "exercise_bike.wav": 980_062,
    "pink_noise.wav": 960_000,
    "running_tap.wav": 978_488,
    "white_noise.wav": 960_000,
}


def put(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def write_lists(root, valid, test, end="\n", encoding="utf-8"):
    (root / "validation_list.txt").write_bytes(end.join([*valid, ""]).encode(encoding))
    (root / "testing_list.txt").write_bytes(end.join([*test, ""]).encode(encoding))


def write_words(root, **lists):
    """Four recordings of each word: speaker aaaa trains (two), bbbb validates, cccc tests."""
    for word in sc.WORDS:
        put(root / word, "aaaa_nohash_0.wav", "aaaa_nohash_1.wav", "bbbb_nohash_0.wav", "cccc_nohash_0.wav")
    put(root / "yes", "._aaaa_nohash_0.wav", "notes.txt")  # no recordings
    (root / sc.NOISE).mkdir()
    (root / sc.NOISE / "README.md").touch()
    for name, seconds in NOISES.items():
        soundfile.write(root / sc.NOISE / name, np.zeros(round(seconds * 16_000)), 16_000)
    valid, test = ([f"{word}/{name}_nohash_0.wav" for word in sc.WORDS] for name in ("bbbb", "cccc"))
    write_lists(root, valid, test, **lists)
    return root


def write_test_set(root):
    for word in sc.KEYWORDS:
        put(root / word, "cccc_nohash_0.wav")
    put(root / "_unknown_", "bed_cccc_nohash_0.wav", "cat_dddd_nohash_1.wav")
    put(root / "_silence_", "0.wav", "1.wav", "2.wav")
    return root


def counts(table):
    return tuple(int((table.splits == split).sum()) for split in ("train", "valid", "test"))


def label_of(table, key):
    row = table.keys.tolist().index(key)
    return [table.classes[c] for c in table.labels.row(row)], str(table.splits[row])


def test_35_words_by_the_official_lists(tmp_path):
    root = write_words(tmp_path / "speech_commands_v0.02")
    table = sc.read_35(root)
    assert table.classes == sc.WORDS
    assert len(sc.WORDS) == 35
    assert counts(table) == (70, 35, 35)
    assert table.single_label
    assert label_of(table, "zero/aaaa_nohash_1.wav") == (["zero"], "train")
    assert label_of(table, "bed/bbbb_nohash_0.wav") == (["bed"], "valid")
    assert label_of(table, "yes/cccc_nohash_0.wav") == (["yes"], "test")
    assert set(table.columns["group"]) == {"aaaa", "bbbb", "cccc"}
    assert np.isnan(table.seconds).all()
    assert len(table.missing()) == 0
    assert sc.read_35(tmp_path).sha256() == table.sha256()  # the folder above


@pytest.mark.parametrize(("end", "encoding"), [("\r\n", "utf-8"), ("\n", "utf-8-sig")])
def test_windows_line_ends_and_bom_change_nothing(tmp_path, end, encoding):
    plain = sc.read_35(write_words(tmp_path / "plain"))
    assert sc.read_35(write_words(tmp_path / "windows", end=end, encoding=encoding)).sha256() == plain.sha256()


@pytest.mark.parametrize(
    ("place", "given"),
    [
        ("{top}/speech_commands_test_set_v0.02", "{top}/words"),  # beside
        ("{top}/speech_commands_test_set_v0.02", "{top}"),
        ("{top}/words/speech_commands_test_set_v0.02", "{top}/words"),  # inside
        ("{top}/held_out", "{top}/words"),  # by its folders, whatever its name
    ],
)
def test_12_classes_as_tfds(tmp_path, place, given):
    write_words(tmp_path / "words")
    write_test_set(Path(place.format(top=tmp_path)))
    table = sc.read_12_tfds(Path(given.format(top=tmp_path)))
    assert table.classes == (*sc.KEYWORDS, "_silence_", "_unknown_")
    # noise of 5.2 s: pieces from 0, 0.5, ... 4.0; of 3.0 s: 0 to 1.5; of 10.1 s: 0 to 9.0
    assert counts(table) == (70 + 9 + 4, 35 + 19, 10 + 2 + 3)
    assert label_of(table, "zero/aaaa_nohash_0.wav") == (["_unknown_"], "train")
    assert label_of(table, "go/bbbb_nohash_0.wav") == (["go"], "valid")
    test = "speech_commands_test_set_v0.02"
    assert label_of(table, f"{test}/_unknown_/cat_dddd_nohash_1.wav") == (["_unknown_"], "test")
    assert label_of(table, f"{test}/_silence_/2.wav") == (["_silence_"], "test")
    assert label_of(table, f"{test}/up/cccc_nohash_0.wav") == (["up"], "test")
    assert len(table.missing()) == 0
    assert "dddd" in table.columns["group"].tolist()  # the speaker, not the word before it
    tap = [i for i, key in enumerate(table.keys) if "running_tap" in key]
    assert set(table.splits[tap]) == {"valid"}
    assert table.begins[tap].tolist() == [0.5 * i for i in range(19)]
    assert set(table.seconds[tap]) == {1.0}
    assert table.keys[tap[3]] == "_background_noise_/running_tap.wav@1.5"
    assert table.location(tap[3]).path == str(tmp_path / "words/_background_noise_/running_tap.wav")


def test_the_test_set_does_not_depend_on_the_names_of_folders(tmp_path):
    hashes = set()
    for top, words, test in [("a", "words", sc.TEST_SET), ("b", "speech_commands_v0.02", "other")]:
        write_words(tmp_path / top / words)
        write_test_set(tmp_path / top / test)
        hashes.add(sc.read_12_tfds(tmp_path / top).sha256())
    assert len(hashes) == 1


def test_12_classes_as_the_released_loader(tmp_path):
    table = sc.read_12_folder(write_words(tmp_path))
    assert table.classes == (*sc.KEYWORDS, "_silence_", "_unknown_")
    silence = table.targets()[:, table.classes.index("_silence_")]
    # whole seconds: 5 pieces (4 / 0 / 1), 3 (2 / 1 / 0), 10 (8 / 1 / 1)
    assert Counter(table.splits[silence].tolist()) == {"train": 14, "valid": 2, "test": 2}
    assert counts(table) == (70 + 14, 35 + 2, 35 + 2)
    tap = {key: str(split) for key, split in zip(table.keys, table.splits, strict=True) if "running_tap" in key}
    assert list(tap.values()) == ["train"] * 8 + ["valid", "test"]
    assert list(tap)[-1].endswith("running_tap.wav@9.0")
    assert label_of(table, "zero/cccc_nohash_0.wav") == (["_unknown_"], "test")


def test_the_real_noise_gives_the_published_counts():
    def cut(begins):
        pieces = (piece for name, samples in REAL_NOISES.items() for piece in begins(name, samples / 16_000))
        found = Counter(split for split, _ in pieces)
        return np.array([found["train"], found["valid"], found["test"]])

    words = np.array(sc.COUNTS_35)
    assert tuple((words + cut(sc._tfds_begins))[:2]) == sc.COUNTS_TFDS[:2]
    assert tuple(words + cut(sc._folder_begins)) == sc.COUNTS_FOLDER


def test_other_counts_than_the_official_ones_are_mentioned(tmp_path, monkeypatch):
    root = write_words(tmp_path)
    with pytest.warns(
        UserWarning, match="spc2-35 in .* has 70 / 35 / 35 clips .* the original 84,843 / 9,981 / 11,005"
    ):
        sc.read_35(root)
    monkeypatch.setattr(sc, "COUNTS_35", (70, 35, 35))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sc.read_35(root)


def test_listed_recordings_that_are_gone_stay_listed(tmp_path):
    root = write_words(tmp_path)
    (root / "bed/bbbb_nohash_0.wav").unlink()
    table = sc.read_35(root)
    assert [table.keys[i] for i in table.missing()] == ["bed/bbbb_nohash_0.wav"]
    assert counts(table) == (70, 35, 35)


@pytest.mark.parametrize(
    ("valid", "test", "words"),
    [
        ([], ["yes/cccc_nohash_0.wav"], r"validation_list\.txt is empty"),
        (["yes/b_nohash_0.wav"], ["../secret/c_nohash_0.wav"], r"testing_list\.txt names \.\./secret"),
        (["yes/../../x_nohash_0.wav"], ["yes/cccc_nohash_0.wav"], "no recording of one of the 35 words"),
        (["yes/cccc_nohash_0.wav"], ["yes/cccc_nohash_0.wav"], "in validation_list.txt and in testing_list.txt"),
    ],
)
def test_bad_lists(tmp_path, valid, test, words):
    root = write_words(tmp_path)
    write_lists(root, valid, test)
    with pytest.raises(AudiobatError, match=words):
        sc.read_35(root)


def test_trees_that_lack_something(tmp_path):
    with pytest.raises(AudiobatError, match=r"has no validation_list\.txt"):
        sc.read_35(tmp_path)
    root = write_words(tmp_path / "words")
    with pytest.raises(AudiobatError, match=r"no test set .* unpack speech_commands_test_set_v0\.02\.tar\.gz into"):
        sc.read_12_tfds(root)
    write_test_set(root)  # both archives in one folder: what trains would test
    with pytest.raises(AudiobatError, match="no test set"):
        sc.read_12_tfds(root)
    (root / sc.NOISE / "running_tap.wav").write_bytes(b"no audio")
    with pytest.raises(AudiobatError, match="running_tap"):
        sc.read_12_folder(root)
    (root / sc.NOISE / "running_tap.wav").unlink()
    with pytest.raises(AudiobatError, match=r"has no running_tap\.wav"):
        sc.read_12_folder(root)
    (root / "testing_list.txt").unlink()
    with pytest.raises(AudiobatError, match=r"testing_list\.txt cannot be read"):
        sc.read_35(root)
    (root / "visual").rename(root / "visuals")
    with pytest.raises(AudiobatError, match="lacks 1 of the 35 word folders, such as visual"):
        sc.read_35(root)


def test_an_empty_split(tmp_path):
    root = write_words(tmp_path)
    for word in sc.WORDS:
        for name in ("aaaa_nohash_0.wav", "aaaa_nohash_1.wav"):
            (root / word / name).unlink()
    with pytest.raises(AudiobatError, match=r"split train of .* has no clips"):
        sc.read_35(root)


def test_bare_names_are_explained():
    sentences = ambiguous_names()
    names = {"spc2", "spc-2", "speech_commands", "speechcommands", "sc2", "sc-2"}
    assert names <= sentences.keys()
    assert not sentences.keys() & {data_set.name for data_set in sc.DATA_SETS}
    for task, triple in [
        ("spc2-35", sc.COUNTS_35),
        ("spc2-12-tfds", sc.COUNTS_TFDS),
        ("spc2-12-folder", sc.COUNTS_FOLDER),
    ]:
        assert task in sentences["sc2"]
        assert " / ".join(f"{count:,}" for count in triple) in sentences["sc2"]
