"""DCASE 2016 Task 2 from a tree as in HEAR's tarballs: events in seconds, which sample rate, and bad trees."""

import json

import numpy as np
import pytest

from audiobat.data.frames import frame_targets
from audiobat.data.sources.public.dcase2016 import read_dcase2016
from audiobat.errors import AudiobatError

CLASSES = ("speech", "cough", "alert")  # not by the alphabet
LISTS = {
    "train": {
        "dev_1.wav": [
            {"label": "cough", "start": 1000.0, "end": 1640.0},
            {"label": "alert", "start": 1500.5, "end": 3000.0},
            {"label": "cough", "start": 60_000.0, "end": 61_000.0},
        ],
        "dev_2.wav": [{"label": "speech", "start": 0, "end": 120_000}],
    },
    "valid": {"dev_3.wav": []},
    "test": {"dev_1.wav": [{"label": "speech", "start": 5.0, "end": 6.0}]},  # a name may occur in two splits
}
METADATA = {
    "task_name": "dcase2016_task2",
    "version": "hear2021",
    "embedding_type": "event",
    "prediction_type": "multilabel",
    "split_mode": "trainvaltest",
    "sample_duration": 120.0,
    "evaluation": ["event_onset_200ms_fms", "segment_1s_er"],
}
VOCABULARY = "idx,label\r\n" + "".join(f"{i},{name}\r\n" for i, name in enumerate(CLASSES))


def write(root, lists=LISTS, rates=(16_000,), metadata=METADATA, vocabulary=VOCABULARY):
    root.mkdir(parents=True, exist_ok=True)
    (root / "labelvocabulary.csv").write_bytes(vocabulary.encode())
    (root / "task_metadata.json").write_text(json.dumps(metadata))
    for part, files in lists.items():
        (root / f"{part}.json").write_text(json.dumps(files))
        for rate in rates:
            (root / str(rate) / part).mkdir(parents=True)
            for name in files if isinstance(files, dict) else []:
                if "/" not in name:
                    (root / str(rate) / part / name).touch()
    return root


def test_events_splits_and_classes(tmp_path):
    table = read_dcase2016(write(tmp_path))
    assert table.classes == CLASSES
    assert table.keys.tolist() == ["train/dev_1.wav", "train/dev_2.wav", "valid/dev_3.wav", "test/dev_1.wav"]
    assert table.splits.tolist() == ["train", "train", "valid", "test"]
    assert table.events.row(0).tolist() == [(1, 1.0, 1.64), (2, 1.5005, 3.0), (1, 60.0, 61.0)]
    assert table.events.row(2).tolist() == []
    assert [table.labels.row(i).tolist() for i in range(4)] == [[1, 2], [0], [], [0]]
    assert table.seconds.tolist() == [120.0] * 4
    assert table.path(3) == str(tmp_path / "16000/test/dev_1.wav")
    assert len(table.missing()) == 0
    targets = frame_targets(table.events, [0], np.arange(750) * 0.16, 3)  # patches of BAT
    assert np.flatnonzero(targets[0, :, 1]).tolist() == [7, 8, 9, 10, *range(375, 382)]


@pytest.mark.parametrize(
    ("rates", "taken"), [((48_000, 16_000), 16_000), ((16_000, 8_000), 16_000), ((48_000, 8_000, 32_000), 48_000)]
)
def test_which_sample_rate(tmp_path, rates, taken):
    table = read_dcase2016(write(tmp_path / "many", rates=rates))
    assert set(table.sample_rates.tolist()) == {taken}
    assert f"/{taken}/" in table.path(0)
    assert f"sample rates: {taken} 4" in table.describe()
    assert table.sha256() == read_dcase2016(write(tmp_path / "one")).sha256()


@pytest.mark.parametrize("above", ["", "dcase2016_task2-hear2021-full", "tasks/dcase2016_task2-hear2021-full"])
def test_the_folders_above_do_too(tmp_path, above):
    write(tmp_path / above)
    (tmp_path / "tasks/esc50-v2.0.0-full").mkdir(parents=True)
    (tmp_path / "tasks/esc50-v2.0.0-full/labelvocabulary.csv").touch()  # of another task
    assert read_dcase2016(tmp_path).path(0) == str(tmp_path / above / "16000/train/dev_1.wav")


def test_folds(tmp_path):
    table = read_dcase2016(write(tmp_path, {"fold00": LISTS["train"], "fold01": LISTS["test"]}))
    assert table.folds.tolist() == [0, 0, 1]
    assert table.splits is None
    assert table.path(2) == str(tmp_path / "16000/fold01/dev_1.wav")


def test_missing_files_stay_listed(tmp_path):
    write(tmp_path)
    (tmp_path / "16000/valid/dev_3.wav").unlink()
    assert read_dcase2016(tmp_path).missing().tolist() == [2]


def event(**values):
    return {**LISTS, "train": {"a.wav": [{"label": "cough", "start": 1.0, "end": 2.0} | values]}}


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        (event(label="bark"), "label 'bark' is none of the 3 classes"),
        (event(end=0.5), r"train\.json: an event of a\.wav is .*a later end"),
        (event(start=float("nan")), "an event of a.wav"),
        (event(start="1"), "an event of a.wav"),
        (event(start=-1.0), "an event of a.wav"),
        ({**LISTS, "train": {"a.wav": ["cough"]}}, "an event of a.wav is cough"),
        ({**LISTS, "train": {"a.wav": "cough"}}, "a.wav has is no list of events"),
        ({**LISTS, "train": {"../a.wav": []}}, r"'\.\./a\.wav', which leaves the folder train"),
        ({**LISTS, "test": {}}, r"test\.json is empty"),
        ({**LISTS, "test": []}, "does not list files"),
        ({"train": LISTS["train"], "test": LISTS["test"]}, r"valid\.json cannot be read"),
        ({"fold00": LISTS["train"]}, "fold00.json and no other fold"),
    ],
)
def test_bad_lists(tmp_path, lists, words):
    with pytest.raises(AudiobatError, match=words):
        read_dcase2016(write(tmp_path, lists))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rates": ()}, "has no audio, in a folder such as 16000"),
        ({"metadata": {**METADATA, "task_name": "fsd50k"}}, "is not of dcase2016_task2"),
        ({"metadata": []}, "is not of dcase2016_task2"),
        ({"vocabulary": "idx,label\n0,speech\n2,cough\n"}, "must count from 0"),
        ({"vocabulary": "idx,label\n0,speech\n1,speech\n"}, "name each class once"),
        ({"vocabulary": "label\nspeech\n"}, "no column `idx`"),
    ],
)
def test_bad_trees(tmp_path, changes, words):
    with pytest.raises(AudiobatError, match=words):
        read_dcase2016(write(tmp_path, **changes))


def test_nothing_there_broken_json_and_no_file_at_all(tmp_path):
    with pytest.raises(AudiobatError, match=r"has no labelvocabulary\.csv"):
        read_dcase2016(tmp_path)
    write(tmp_path)
    for path in (tmp_path / "16000").rglob("*.wav"):
        path.unlink()
    with pytest.raises(AudiobatError, match="none of the 4 listed files is there"):
        read_dcase2016(tmp_path)
    (tmp_path / "test.json").write_text('{"a.wav": [')
    with pytest.raises(AudiobatError, match=r"test\.json is not valid JSON .line 1"):
        read_dcase2016(tmp_path)
    (tmp_path / "test.json").write_text("[" * 100_000)
    with pytest.raises(AudiobatError, match=r"test\.json is not valid JSON .lists within lists"):
        read_dcase2016(tmp_path)
