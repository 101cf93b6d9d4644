"""BirdSet from Parquet with the audio inside, and from recordings with lists beside them."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from audiobat.data.clip import read_clip
from audiobat.data.sources.catalog import data_sets
from audiobat.errors import AudiobatError

NAMES = ["yebwar3", "amerob", "moublu"]  # the data set's order, which is not sorted
RATE = 8000
TRAIN = {
    "filepath": ["XC1.ogg", "XC2.ogg"],
    "ebird_code": ["amerob", "moublu"],
    "ebird_code_multilabel": [["amerob"], ["moublu"]],
    "start_time": [None, None],
    "end_time": [None, None],
}
TEST = {
    "filepath": ["HSN_001.ogg", "HSN_001.ogg", "HSN_002.ogg"],
    "ebird_code": [None, None, None],
    "ebird_code_multilabel": [[], ["yebwar3", "amerob"], ["moublu"]],
    "start_time": [0.0, 5.0, 0.0],
    "end_time": [5.0, 10.0, 5.0],
}
KEYS = ["XC1", "XC2", "HSN_001_00000000", "HSN_001_00005000", "HSN_002_00000000"]


def read(folder):
    return data_sets()["birdset"].read(folder)


def wav(level, seconds=1.0):
    """Bytes of a recording whose second k has the samples (level + k) / 100."""
    buffer = io.BytesIO()
    samples = np.repeat((level + np.arange(int(np.ceil(seconds)))) / 100, RATE)
    soundfile.write(buffer, samples, RATE, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def numbered(columns):
    """The columns as Hugging Face stores them: numbers for names."""
    return columns | {
        "ebird_code": [None if name is None else NAMES.index(name) for name in columns["ebird_code"]],
        "ebird_code_multilabel": [[NAMES.index(name) for name in names] for names in columns["ebird_code_multilabel"]],
    }


def schema_note(names=NAMES):
    """What `datasets` 2 and 3 write into a Parquet schema."""
    label = {"names": list(names), "_type": "ClassLabel"}
    features = {
        "audio": {"sampling_rate": 32000, "_type": "Audio"},
        "ebird_code": label,
        "ebird_code_multilabel": {"feature": label, "_type": "Sequence"},
    }
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def write_shard(path, columns, sounds, note=True, names=NAMES):
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = [{"bytes": data, "path": name} for data, name in zip(sounds, columns["filepath"], strict=True)]
    table = pa.table({"audio": audio} | numbered(columns))
    pq.write_table(table.replace_schema_metadata(schema_note(names)) if note else table, path, row_group_size=1)


def rows(columns, start, stop):
    return {name: values[start:stop] for name, values in columns.items()}


def write_shards(root):
    write_shard(root / "train-00000-of-00002.parquet", rows(TRAIN, 0, 1), [wav(10)])
    write_shard(root / "train-00001-of-00002.parquet", rows(TRAIN, 1, 2), [wav(20)])
    write_shard(root / "test_5s-00000-of-00001.parquet", TEST, [wav(30, 10), wav(30, 10), wav(50, 5)])
    write_shard(root / "test-00000-of-00001.parquet", TEST, [b""] * 3)  # event by event: not taken


def write_lists(root, kind="parquet", train="HSN_metadata_train", test="HSN_metadata_test_5s"):
    root.mkdir(parents=True, exist_ok=True)
    for name, columns in ((train, TRAIN), (test, TEST)):
        if kind == "parquet":
            pq.write_table(pa.table(columns), root / f"{name}.parquet")
        else:
            lines = [",".join(columns)]
            for values in zip(*columns.values(), strict=True):
                lines.append(",".join("" if v is None else f'"{v}"' if isinstance(v, list) else str(v) for v in values))
            (root / f"{name}.csv").write_text("\n".join(lines) + "\n")


def write_audio(root, *paths):
    for path in paths or (
        "HSN_train_shard_0001/XC1.ogg",
        "HSN_train_shard_0001/XC2.ogg",
        "test/HSN_001.ogg",
        "HSN_002.ogg",
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(wav(int(path[-5]) * 10, 10))


def check(table, classes):
    assert table.keys.tolist() == KEYS
    assert table.classes == tuple(classes)
    found = [[table.classes[c] for c in table.labels.row(i)] for i in range(5)]
    assert [set(names) for names in found] == [{"amerob"}, {"moublu"}, set(), {"yebwar3", "amerob"}, {"moublu"}]
    assert table.splits.tolist() == ["train"] * 2 + ["test"] * 3
    assert table.columns["group"].tolist() == ["XC1", "XC2", "HSN_001", "HSN_001", "HSN_002"]
    assert table.begins.tolist() == [0, 0, 0, 5, 0]
    assert np.array_equal(table.seconds, [np.nan, np.nan, 5, 5, 5], equal_nan=True)


def by_split(table):
    """Train before test, as the lists' names do not sort."""
    return table.select(np.argsort(table.splits == "test", kind="stable"))


@pytest.mark.parametrize("root", [".", "HSN"])
def test_parquet_with_the_audio_inside(tmp_path, root):
    write_shards(tmp_path / root)
    table = by_split(read(tmp_path))
    check(table, NAMES)
    assert [table.location(i).offset for i in range(5)] == [0, 0, 0, 1, 2]
    assert table.path(1) == str(tmp_path / root / "train-00001-of-00002.parquet")
    firsts = [read_clip(table, i, RATE)[0] for i in range(5)]
    assert firsts == pytest.approx([0.10, 0.20, 0.30, 0.35, 0.50])  # the window at 5 s begins there
    assert len(read_clip(table, 3, RATE)) == 5 * RATE


def test_parquet_as_hugging_face_converts_it(tmp_path):
    write_shards(tmp_path / "old")
    for split in ("train", "test_5s", "test"):
        (tmp_path / "HSN" / split).mkdir(parents=True)
        for i, path in enumerate(sorted((tmp_path / "old").glob(f"{split}-*.parquet"))):
            path.rename(tmp_path / "HSN" / split / f"{i:04d}.parquet")
    check(by_split(read(tmp_path)), NAMES)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_recordings_with_lists(tmp_path, kind):
    write_lists(tmp_path, kind)
    write_audio(tmp_path)
    table = by_split(read(tmp_path))
    check(table, sorted(NAMES))
    assert table.offsets is None
    assert not len(table.missing())
    assert table.path(3) == str(tmp_path / "test/HSN_001.ogg")
    assert read_clip(table, 3, RATE)[0] == pytest.approx(0.15)


@pytest.mark.parametrize("text", ["['yebwar3', 'amerob']", "['yebwar3' 'amerob']", "yebwar3;amerob", "yebwar3 amerob"])
def test_lists_of_codes_as_text(tmp_path, text):
    header = "filepath,start_time,end_time,ebird_code,ebird_code_multilabel"
    (tmp_path / "test_5s.csv").write_text(f'{header}\nHSN_001.ogg,5,10,nan,"{text}"\n')
    write_audio(tmp_path)
    table = read(tmp_path)
    assert table.classes == ("amerob", "yebwar3")
    assert table.labels.row(0).tolist() == [0, 1]


def test_the_one_code_counts_where_there_is_no_list(tmp_path):
    (tmp_path / "train.csv").write_text("filepath,ebird_code\nXC1.ogg,moublu\nXC2.ogg,\n")
    write_audio(tmp_path)
    table = read(tmp_path)
    assert table.classes == ("moublu",)
    assert table.labels.lengths.tolist() == [1, 0]


@pytest.mark.parametrize(
    "name", ["/root/cache/extracted/abc/XC1.ogg", "C:\\birds\\XC1.ogg", "./XC1.ogg", "../x/XC1.ogg"]
)
def test_paths_of_another_machine(tmp_path, name):
    (tmp_path / "train.csv").write_text(f"filepath,ebird_code\n{name},moublu\n")
    write_audio(tmp_path)
    table = read(tmp_path)
    assert table.keys.tolist() == ["XC1"]
    assert table.files.tolist() == ["HSN_train_shard_0001/XC1.ogg"]


def test_the_listed_path_goes_before_the_name_alone(tmp_path):
    (tmp_path / "train.csv").write_text("filepath,ebird_code\na/XC1.ogg,moublu\n")
    write_audio(tmp_path, "a/XC1.ogg", "b/XC1.ogg")
    assert read(tmp_path).files.tolist() == ["a/XC1.ogg"]
    (tmp_path / "train.csv").write_text("filepath,ebird_code\nXC1.ogg,moublu\n")
    with pytest.raises(AudiobatError, match=r"XC1\.ogg may be a/XC1\.ogg or b/XC1\.ogg: keep one"):
        read(tmp_path)


def test_missing_recordings(tmp_path):
    write_lists(tmp_path)
    with pytest.raises(AudiobatError, match="none of the 5 listed files is there"):
        read(tmp_path)
    write_audio(tmp_path, "XC1.ogg")
    table = by_split(read(tmp_path))
    assert table.keys.tolist() == KEYS
    assert table.missing().tolist() == [1, 2, 3, 4]


def test_numbers_without_names(tmp_path):
    write_shard(tmp_path / "train-0.parquet", TRAIN, [wav(10), wav(20)], note=False)
    with pytest.raises(AudiobatError, match=r"train-0\.parquet, row 0: the class is the number 1, and no list"):
        read(tmp_path)


def test_a_number_beyond_the_names(tmp_path):
    write_shard(tmp_path / "train-0.parquet", TRAIN, [wav(10), wav(20)], names=NAMES[:2])
    with pytest.raises(AudiobatError, match=r"train-0\.parquet, row 1: '2' is none of the 2 classes"):
        read(tmp_path)


@pytest.mark.parametrize("place", ["NBP/train-0.parquet", "HSN_xc/train/0000.parquet"])
def test_several_configurations(tmp_path, place):
    write_shards(tmp_path / "HSN")
    write_shard(tmp_path / place, TRAIN, [wav(10), wav(20)])
    with pytest.raises(AudiobatError, match=r"several lists of the split train .*folder of one configuration"):
        read(tmp_path)


def test_two_lists_of_one_split(tmp_path):
    write_lists(tmp_path)
    write_lists(tmp_path, "csv")
    write_audio(tmp_path)
    with pytest.raises(AudiobatError, match="several lists of the split"):
        read(tmp_path)


def test_audio_inside_of_one_list_alone(tmp_path):
    write_shard(tmp_path / "train-0.parquet", TRAIN, [wav(10), wav(20)])
    pq.write_table(pa.table(TEST), tmp_path / "HSN_metadata_test_5s.parquet")
    with pytest.raises(AudiobatError, match=r"some lists hold the recordings \(train-0\.parquet\)"):
        read(tmp_path)


def test_lists_with_different_classes(tmp_path):
    write_shard(tmp_path / "train-0.parquet", TRAIN, [wav(10), wav(20)])
    write_shard(tmp_path / "test_5s-0.parquet", TEST, [wav(10)] * 3, names=NAMES[::-1])
    with pytest.raises(AudiobatError, match="have different classes"):
        read(tmp_path)


def test_no_list(tmp_path):
    write_audio(tmp_path)
    (tmp_path / "train.csv").write_text("path,label\nXC1.ogg,cat\n")
    (tmp_path / "test_5s_notes.txt").touch()
    with pytest.raises(AudiobatError, match="no list of train or test_5s"):
        read(tmp_path)


@pytest.mark.parametrize(("start", "end"), [("5", "5"), ("-1", "4"), ("soon", "5"), ("0", "inf")])
def test_windows_that_cannot_be(tmp_path, start, end):
    (tmp_path / "test_5s.csv").write_text(f"filepath,ebird_code,start_time,end_time\nHSN_001.ogg,x,{start},{end}\n")
    write_audio(tmp_path)
    with pytest.raises(AudiobatError, match=rf"test_5s\.csv, row 2: a window from {start} to {end}"):
        read(tmp_path)


def test_a_row_without_a_recording_and_a_window_listed_twice(tmp_path):
    path = tmp_path / "test_5s.csv"
    write_audio(tmp_path)
    path.write_text("filepath,ebird_code,start_time,end_time\n,x,0,5\n")
    with pytest.raises(AudiobatError, match=r"row 2: no filepath"):
        read(tmp_path)
    path.write_text("filepath,ebird_code,start_time,end_time\nHSN_001.ogg,x,0,5\nHSN_001.ogg,y,0,5\n")
    with pytest.raises(AudiobatError, match="two clips have the key HSN_001_00000000"):
        read(tmp_path)
