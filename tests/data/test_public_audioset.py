"""AudioSet's lists as they are published, and every way in which people name the clips."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from audiobat.data.prepare.run import prepare
from audiobat.data.sources.catalog import data_sets
from audiobat.data.sources.public.audioset import DATA_SETS, NAME, coverage, read_audioset, read_ontology
from audiobat.errors import AudiobatError

FIRST_CLASSES = [
    ("/m/09x0r", "Speech"),
    ("/m/05zppz", "Male speech, man speaking"),
    ("/m/0ytgt", "Child speech, kid speaking"),
    ("/m/0jbk", "Animal"),
    ("/t/dd00088", "Gargling"),
]
CLASSES = FIRST_CLASSES + [(f"/m/x{i:03d}", f"Sound {(i * 7) % 522}") for i in range(522)]
HEAD = (
    "# Segment csv created Sun Mar  5 10:54:{seconds} 2017\n"
    "# num_ytids={n}, num_segs={n}, num_unique_labels=527, num_positive_labels=52882\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
)
BALANCED = [  # IDs with every awkward letter in front
    ("--PJHxphWEs", 30, "/m/09x0r,/t/dd00088"),
    ("-0p7hKXZ1ww", 0, "/m/0jbk"),
    ("YdGkKlZwDR8", 20, "/m/05zppz"),
    ("_DHMdtRRJzE", 510, "/m/0ytgt,/m/09x0r"),
]
UNBALANCED = [("---1_cCGK4M", 0, "/m/0jbk"), ("--aaILOrkII", 200, "/m/09x0r"), ("Y_dGkKlZwD_", 7.5, "/m/0jbk")]
EVAL = [("-22tna7KHzI", 28, "/m/0jbk,/m/09x0r"), ("2YdGkKlZwDR", 10, "/m/09x0r")]


def ontology_text():
    return "index,mid,display_name\n" + "".join(f'{i},{mid},"{name}"\n' for i, (mid, name) in enumerate(CLASSES))


def list_text(clips, seconds=31):
    rows = "".join(f'{video}, {start:.3f}, {start + 10:.3f}, "{mids}"\n' for video, start, mids in clips)
    return HEAD.format(seconds=seconds, n=len(clips)) + rows


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """The lists, and no clip."""
    write(tmp_path / "class_labels_indices.csv", ontology_text())
    write(tmp_path / "balanced_train_segments.csv", list_text(BALANCED))
    write(tmp_path / "unbalanced_train_segments.csv", list_text(UNBALANCED, 25))
    write(tmp_path / "eval_segments.csv", list_text(EVAL, 52))
    return tmp_path


def read(name, folder):
    return data_sets()[name].read(folder)


def labels(table, row):
    return [table.classes[c] for c in table.labels.row(row)]


def test_classes_are_in_the_official_order_with_their_mids(folder):
    mids, names = read_ontology(folder)
    assert (len(mids), len(names)) == (527, 527)
    assert mids[:5] == tuple(mid for mid, _ in FIRST_CLASSES)
    assert names[:5] == ("Speech", "Male speech, man speaking", "Child speech, kid speaking", "Animal", "Gargling")


def test_one_flat_folder(folder):
    for video, *_ in BALANCED + UNBALANCED + EVAL:
        write(folder / "audio" / f"{video}.wav")
    table = read("audioset", folder)
    assert table.keys.tolist() == [video for video, *_ in BALANCED + UNBALANCED + EVAL]
    assert table.columns["group"].tolist() == table.keys.tolist()
    assert table.columns["subset"].tolist() == ["balanced"] * 4 + ["unbalanced"] * 3 + ["eval"] * 2
    assert table.splits.tolist() == ["train"] * 7 + ["test"] * 2
    assert table.path(0) == str(folder / "audio/--PJHxphWEs.wav")
    assert not len(table.missing())
    assert labels(table, 0) == ["Speech", "Gargling"]
    assert labels(table, 3) == ["Speech", "Child speech, kid speaking"]
    assert table.classes == read_ontology(folder)[1]


@pytest.mark.parametrize(
    ("task", "subsets"),
    [("audioset-20k", {"balanced", "eval"}), ("audioset-2m", {"balanced", "unbalanced", "eval"})],
)
def test_tasks_take_their_subsets(folder, task, subsets):
    for video, *_ in BALANCED + UNBALANCED + EVAL:
        write(folder / f"{video}.flac")
    assert set(read(task, folder).columns["subset"]) == subsets


def test_20k_needs_no_list_of_the_unbalanced_clips_and_2m_does(folder):
    (folder / "unbalanced_train_segments.csv").unlink()
    write(folder / "eval" / "Y-22tna7KHzI.wav")
    assert read("audioset-20k", folder).keys.tolist() == ["-22tna7KHzI"]
    with pytest.raises(AudiobatError, match=r"no unbalanced_train_segments\.csv.*audioset-20k"):
        read("audioset-2m", folder)


def test_both_sizes_of_the_training_set_are_said():
    (about,) = [data_set.about() for data_set in DATA_SETS if data_set.name == "audioset-2m"]
    assert "2,041,789 unbalanced" in about
    assert "2,063,949" in about


STYLES = [
    "{id}",
    "Y{id}",
    "{id}_30.000",
    "Y{id}_30.000_40.000",
    "{id}_30",
    "{id}_30000",
    "Y{id}_30000_40000",
    "{id}_30-40",
]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("extension", ["wav", "flac", "m4a", "OPUS", "mp3"])
def test_names_of_clips(folder, style, extension):
    path = f"balanced_train/{style.format(id='--PJHxphWEs')}.{extension}"
    write(folder / path)
    table = read("audioset-20k", folder)
    assert table.keys.tolist() == ["--PJHxphWEs"]
    assert table.files.tolist() == [path]


@given(
    st.text("Y-_059aZ", min_size=11, max_size=11),
    st.sampled_from(["", "Y"]),
    st.sampled_from(["", "_0", "_30.000", "_30000", "_30_40", "-0-10", "_0.000_10.000"]),
)
def test_no_name_reads_as_another_clip(video, prefix, suffix):
    assert NAME.fullmatch(prefix + video + suffix)[1] == video


def test_a_y_belongs_to_an_id_of_eleven_and_not_to_a_name_of_twelve(folder):
    write(folder / "YdGkKlZwDR8.wav")  # ID
    write(folder / "YY_dGkKlZwD_.wav")  # Y and an ID that begins with Y
    write(folder / "Y2YdGkKlZwDR.wav")  # Y and an ID that does not
    assert read("audioset", folder).keys.tolist() == ["YdGkKlZwDR8", "Y_dGkKlZwD_", "2YdGkKlZwDR"]


def test_files_that_are_no_listed_clip_are_left_out_and_counted(folder):
    for name in (
        "--PJHxphWEs.wav",
        "Y--PJHxphWEs.flac",
        "aaaaaaaaaaa.wav",
        "YdGkKlZwDR8_30.wav",
        "intro.mp3",
        ".a.wav",
    ):
        write(folder / name)
    assert read("audioset", folder).files.tolist() == ["--PJHxphWEs.wav"]  # the first of two copies
    assert "others: 4 that are" in coverage(folder)


def test_two_segments_of_one_video_are_told_apart_by_their_start(folder):
    write(folder / "balanced_train_segments.csv", list_text([*BALANCED, ("--PJHxphWEs", 120, "/m/0jbk")]))
    write(folder / "Y--PJHxphWEs_120.000.wav")
    table = read("audioset-20k", folder)
    assert table.keys.tolist() == ["--PJHxphWEs_120000"]
    assert labels(table, 0) == ["Animal"]
    write(folder / "--PJHxphWEs_30000.wav")
    table = read("audioset-20k", folder)
    assert table.keys.tolist() == ["--PJHxphWEs_30000", "--PJHxphWEs_120000"]
    assert table.columns["group"].tolist() == ["--PJHxphWEs"] * 2
    write(folder / "--PJHxphWEs.wav")
    with pytest.raises(AudiobatError, match=r"--PJHxphWEs\.wav may be any of 2 .*\(YTID_START\)"):
        read("audioset-20k", folder)


def test_lists_of_windows_with_a_mark_and_a_header_of_pandas(folder):
    rows = "".join(f'{video},{start},{start + 10},"{mids}"\r\n' for video, start, mids in BALANCED)
    path = folder / "metadata" / "balanced_train_segments.csv"
    (folder / "balanced_train_segments.csv").unlink()
    path.parent.mkdir()
    path.write_bytes(("\ufeffYTID,start_seconds,end_seconds,positive_labels\r\n" + rows).encode())
    write(folder / "train" / "_DHMdtRRJzE_510.000.wav")
    table = read("audioset-20k", folder)
    assert table.keys.tolist() == ["_DHMdtRRJzE"]
    assert labels(table, 0) == ["Speech", "Child speech, kid speaking"]


def test_linked_folders_count_and_circles_end(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk")
    write(elsewhere / "part00" / "Y--PJHxphWEs.wav")
    os.symlink(elsewhere, folder / "balanced")
    os.symlink(folder, elsewhere / "back")
    assert read("audioset", folder).files.tolist() == ["balanced/part00/Y--PJHxphWEs.wav"]


# ---- Parquet


def write_parquet(path, clips, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "video_id": [video for video, *_ in clips],
        "audio": [{"bytes": b"fLaC", "path": f"{video}.flac"} for video, *_ in clips],
        "labels": [mids.split(",") for *_, mids in clips],
        "human_labels": [["?"] for _ in clips],
    }
    pq.write_table(pa.table(columns | more), path)


def test_parquet_needs_no_lists(tmp_path):
    write(tmp_path / "class_labels_indices.csv", ontology_text())
    write_parquet(tmp_path / "data/bal_train/00.parquet", BALANCED[:2])
    write_parquet(tmp_path / "data/bal_train01.parquet", BALANCED[2:])
    write_parquet(tmp_path / "data/unbal_train/000.parquet", UNBALANCED)
    write_parquet(tmp_path / "data/eval/00.parquet", EVAL)
    table = read("audioset", tmp_path)
    named = dict(zip(table.keys, table.columns["subset"], strict=True))
    assert named == {
        v: s for s, c in (("balanced", BALANCED), ("unbalanced", UNBALANCED), ("eval", EVAL)) for v, *_ in c
    }
    for row, key in enumerate(table.keys):
        location = table.location(row)
        assert pq.read_table(location.path).column("video_id")[location.offset].as_py() == key
        assert location.size is None
    assert set(read("audioset-20k", tmp_path).keys) == {video for video, *_ in BALANCED + EVAL}
    assert table.select([key == "_DHMdtRRJzE" for key in table.keys]).label_counts()[:3].tolist() == [1, 0, 1]
    assert table.splits.tolist() == ["test" if named[key] == "eval" else "train" for key in table.keys]


def test_parquet_subset_is_of_the_name_next_to_the_rows(tmp_path):
    write(tmp_path / "class_labels_indices.csv", ontology_text())
    write_parquet(tmp_path / "test_of_disk/balanced/train-00000-of-00001.parquet", BALANCED)
    write_parquet(tmp_path / "test_of_disk/balanced/test-00000-of-00001.parquet", EVAL)
    assert read("audioset", tmp_path).columns["subset"].tolist() == ["eval"] * 2 + ["balanced"] * 4


def test_parquet_without_a_subset_in_its_name_asks_the_lists(folder):
    write_parquet(folder / "0000.parquet", [EVAL[0], ("aaaaaaaaaaa", 0, "/m/0jbk"), BALANCED[0], EVAL[0]])
    table = read("audioset", folder)
    assert table.keys.tolist() == ["-22tna7KHzI", "--PJHxphWEs"]
    assert table.columns["subset"].tolist() == ["eval", "balanced"]
    assert table.offsets.tolist() == [0, 2]
    assert "others: 2 that are" in coverage(folder)
    (folder / "eval_segments.csv").unlink()
    with pytest.raises(AudiobatError, match=r"no eval_segments\.csv"):
        read("audioset", folder)


def test_parquet_of_something_else(folder):
    pq.write_table(pa.table({"path": ["a.wav"], "label": ["cat"]}), folder / "eval.parquet")
    with pytest.raises(AudiobatError, match=r"eval\.parquet has the columns path, label.*video_id"):
        read("audioset", folder)


def test_parquet_with_an_unknown_label(folder):
    write_parquet(folder / "eval.parquet", [EVAL[0], (*EVAL[1][:2], "/m/09x0r,/m/nope")])
    with pytest.raises(AudiobatError, match=r"eval\.parquet, row 1 \(2YdGkKlZwDR\): label '/m/nope' .* 527"):
        read("audioset", folder)


# ---- coverage


def test_coverage_per_subset_and_class(folder):
    for name in ("--PJHxphWEs", "YdGkKlZwDR8", "---1_cCGK4M"):
        write(folder / f"{name}.wav")
    text = coverage(folder).splitlines()
    assert text[0] == "balanced: 2 of 4 listed clips are here (50.0%); classes without a clip: 2"
    assert text[1].startswith("unbalanced: 1 of 3 listed")
    assert text[2] == "eval: 0 of 2 listed clips are here (0.0%); classes without a clip: 2"
    assert text[3] == "to train on AS-2M: 1 unbalanced, 3 with the balanced"
    least = "least covered classes: Child speech, kid speaking 0 of 1; Speech 1 of 5; Animal 1 of 4"
    assert text[4] == least
    assert "eval" not in set(read("audioset", folder).columns["subset"])  # an empty split is no error


def test_coverage_is_of_the_lists_that_are_here(folder):
    (folder / "unbalanced_train_segments.csv").unlink()
    for video, *_ in BALANCED + EVAL:
        write(folder / f"{video}.wav")
    assert coverage(folder).splitlines() == [
        "balanced: 4 of 4 listed clips are here (100.0%); classes without a clip: 0",
        "eval: 2 of 2 listed clips are here (100.0%); classes without a clip: 0",
    ]
    for name in ("balanced_train_segments.csv", "eval_segments.csv"):
        (folder / name).unlink()
    assert "not known without balanced_train_segments.csv" in coverage(folder)


def test_coverage_of_parquet(folder):
    write_parquet(folder / "bal_train.parquet", BALANCED[1:])
    assert "balanced: 3 of 4 listed" in coverage(folder)


# ---- what is wrong


def test_no_ontology(folder):
    (folder / "class_labels_indices.csv").unlink()
    write(folder / "--PJHxphWEs.wav")
    with pytest.raises(AudiobatError, match=r"no class_labels_indices\.csv.*research\.google\.com/audioset"):
        read("audioset", folder)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda t: t.replace("0,/m/09x0r", "1,/m/09x0r"), "row 2, is not class 0"),
        (lambda t: t.replace("display_name", "name"), "no column `display_name`"),
        (lambda t: t.replace("/m/0jbk", "/m/09x0r"), "lists a class twice"),
        (lambda t: t.replace("Animal", "Speech"), "lists a class twice"),
    ],
)
def test_a_damaged_ontology(folder, broken, words):
    write(folder / "class_labels_indices.csv", broken(ontology_text()))
    with pytest.raises(AudiobatError, match=words):
        read_ontology(folder)


def test_a_label_that_a_partial_ontology_lacks_names_row_and_mid(folder):
    write(folder / "class_labels_indices.csv", "".join(ontology_text().splitlines(True)[:5]))
    write(folder / "--PJHxphWEs.wav")
    with pytest.raises(AudiobatError, match=r"segments\.csv, line 4 \(--PJHxphWEs\): label '/t/dd00088' .* the 4 in"):
        read("audioset", folder)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'--PJHxphWEs, 30.000, "/m/09x0r"\n', "line 1, is not `YTID"),
        (b'--PJHxphWEs, soon, 40.000, "/m/09x0r"\n', "line 1, is not `YTID"),
        (b'--PJHxphWEs, 30.000, 40.000, "/m/09x0r\n', "line 1, is not `YTID"),
        (b"# \xff\n", "not UTF-8"),
        (b"", r"balanced_train_segments\.csv lists no clips"),
        (b"# YTID, start_seconds, end_seconds, positive_labels\n", "lists no clips: get it from"),
    ],
)
def test_a_damaged_list(folder, data, words):
    (folder / "balanced_train_segments.csv").write_bytes(data)
    write(folder / "--PJHxphWEs.wav")
    with pytest.raises(AudiobatError, match=words):
        read("audioset-20k", folder)


def test_no_audio_and_no_clip(folder):
    with pytest.raises(AudiobatError, match="no audio files and no Parquet"):
        read("audioset", folder)
    write(folder / "clip1.wav")
    with pytest.raises(AudiobatError, match=r"none of its 1 audio files, such as clip1\.wav, .*YTID\.wav"):
        read("audioset", folder)


def test_a_file_for_a_folder_and_a_name_that_is_not_utf8(folder):
    with pytest.raises(AudiobatError, match="name a folder"):
        read_audioset(folder / "eval_segments.csv")
    (folder / os.fsdecode(b"\xff.wav")).touch()
    with pytest.raises(AudiobatError, match=r"\\xff\.wav is not UTF-8"):
        read_audioset(folder)


def test_a_dry_run_reports_what_is_here(folder, capsys):
    soundfile.write(folder / "--PJHxphWEs.wav", np.zeros(1_600), 16_000)
    soundfile.write(folder / "Y---1_cCGK4M.wav", np.zeros(1_600), 16_000)
    prepare(f"audioset:{folder}", dry_run=True)
    printed = capsys.readouterr().out
    assert "balanced: 1 of 4 listed clips are here (25.0%)" in printed
    assert "to train on AS-2M: 1 unbalanced, 2 with the balanced" in printed
    for name in ("balanced_train", "unbalanced_train", "eval"):
        (folder / f"{name}_segments.csv").unlink()
    assert "not known without balanced_train_segments.csv" in data_sets()["audioset"].report(folder)
