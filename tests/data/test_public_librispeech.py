"""LibriSpeech from a tree as its archives unpack, and ways to get it wrong."""

import numpy as np
import pytest
import soundfile

from audiobat.data.prepare.run import prepare
from audiobat.data.sources.catalog import data_sets
from audiobat.data.sources.read import read_clips
from audiobat.errors import AudiobatError

LINES = {
    "train-clean-100/19/198": ["NORTHANGER ABBEY", "THIS LITTLE WORK WAS FINISHED IN THE YEAR EIGHTEEN O THREE"],
    "dev-clean/84/121123": ["GO DO YOU HEAR"],
    "dev-other/116/288045": ["AS I APPROACHED THE CITY"],
    "test-clean/61/70968": ["HE BEGAN A CONFUSED COMPLAINT", "GIVE NOT SO EARNEST A MIND"],
    "test-other/367/130732": ["LOBSTERS AND LOBSTERS", "BUT WE HAVEN'T"],
}


def write(root, lines=LINES):
    for place, texts in lines.items():
        _, speaker, chapter = place.split("/")
        folder = root / place
        folder.mkdir(parents=True)
        names = [f"{speaker}-{chapter}-{i:04d}" for i in range(len(texts))]
        listed = "".join(f"{name} {text}\n" for name, text in zip(names, texts, strict=True))
        (folder / f"{speaker}-{chapter}.trans.txt").write_text(listed)
        for name in names:
            soundfile.write(folder / f"{name}.flac", np.random.default_rng(0).normal(0, 0.1, 1600), 16_000)
    (root / "SPEAKERS.TXT").write_text("; nothing\n")
    return root


def test_words_speakers_and_splits(tmp_path):
    table = read_clips(f"librispeech:{write(tmp_path)}")
    pairs = zip(table.columns["text"].tolist(), table.columns["group"].tolist(), strict=True)
    rows = dict(zip(table.keys.tolist(), pairs, strict=True))
    assert len(table) == 8
    assert rows["test-other/367/130732/367-130732-0001.flac"] == ("BUT WE HAVEN'T", "367")
    assert rows["train-clean-100/19/198/19-198-0000.flac"] == ("NORTHANGER ABBEY", "19")
    assert table.splits.tolist().count("test") == 4
    assert set(table.select(table.splits == "valid").keys.tolist()) == {
        "dev-clean/84/121123/84-121123-0000.flac",
        "dev-other/116/288045/116-288045-0000.flac",
    }
    assert len(table.missing()) == 0


@pytest.mark.parametrize(
    ("name", "subsets"),
    [
        ("librispeech-clean", {"train-clean-100", "dev-clean", "test-clean"}),
        ("librispeech-other", {"train-clean-100", "dev-other", "test-other"}),
        ("librispeech-100", {"train-clean-100", "dev-clean", "test-clean"}),
    ],
)
def test_a_name_takes_its_own_subsets_alone(tmp_path, name, subsets):
    table = data_sets()[name].read(write(tmp_path / "LibriSpeech").parent)  # the folder above does as well
    assert set(table.columns["subset"].tolist()) == subsets


def test_words_live_through_prepare(tmp_path):
    prepare(f"librispeech:{write(tmp_path / 'LibriSpeech')}", tmp_path / "prepared")
    there = read_clips(tmp_path / "prepared")
    assert sorted(there.columns["text"].tolist()) == sorted(text for texts in LINES.values() for text in texts)
    assert set(there.columns["group"].tolist()) == {"19", "84", "116", "61", "367"}


def broken(root, fault):
    write(root)
    words = root / "test-clean/61/70968/61-70968.trans.txt"
    if fault == "words":
        words.write_text("61-70968-0000\n")
    elif fault == "name":
        words.write_text("62-70968-0000 HE BEGAN\n")
    elif fault == "list":
        words.unlink()
    elif fault == "line":
        words.write_text(words.read_text().splitlines(keepends=True)[0])
    elif fault == "chapter":
        (root / "test-clean/62/1").mkdir(parents=True)
        soundfile.write(root / "test-clean/62/1/62-1-0000.flac", np.zeros(1600), 16_000)
    elif fault == "audio":
        for path in root.rglob("*.flac"):
            path.unlink()
    else:
        for subset in root.glob("*-*"):
            subset.rename(root / subset.name.upper())
    return root


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("words", "61-70968.trans.txt: '61-70968-0000' is no utterance of this chapter and its words"),
        ("name", "'62-70968-0000 HE BEGAN' is no utterance of this chapter"),
        ("list", "test-clean has no SPEAKER/CHAPTER"),
        (
            "line",
            r"test-clean has 1 recording without words, such as 61-70968-0001\.flac \(a \*\.trans\.txt is missing",
        ),
        ("chapter", r"test-clean has 1 recording without words, such as 62-1-0000\.flac"),
        ("audio", "none of the 8 listed files is there"),
        ("subsets", "has none of the folders train-clean-100"),
    ],
)
def test_a_broken_copy_is_named(tmp_path, fault, told):
    with pytest.raises(AudiobatError, match=told):
        read_clips(f"librispeech:{broken(tmp_path, fault)}")
