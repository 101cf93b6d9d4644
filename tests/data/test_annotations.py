"""Annotations of other programs to events: each form, what is refused, and which recording a table belongs to."""

import warnings

import numpy as np
import pytest
import soundfile

from audiobat.data.sources.read import read_annotations, read_clips, read_labelled_clips
from audiobat.errors import AudiobatError
from audiobat.inference.writers import Prediction, write_audacity, write_csv, write_jsonl, write_parquet, write_raven

RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies\n"
SEQUENCE = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tSpecies\n"


def record(folder, *names, seconds=4.0):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.zeros(int(seconds * 1000)), 1000, format="WAV")


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def raven_row(number, onset, offset, label, view="Spectrogram 1"):
    return f"{number}\t{view}\t1\t{onset}\t{offset}\t100\t400\t{label}\n"


def events_of(table):
    """{recording: [(label, onset, offset)]}"""
    rows = [table.events.row(i).tolist() for i in range(len(table))]
    return {key: [(table.classes[c], a, b) for c, a, b in own] for key, own in zip(table.keys, rows, strict=True)}


@pytest.fixture
def folder(tmp_path):
    record(tmp_path / "d", "a.wav", "b.wav")
    return tmp_path / "d"


def test_ravens_tables_beside_recordings(folder):
    write(folder / "a.Table.1.selections.txt", RAVEN + raven_row(1, 0.5, 1.25, "owl") + raven_row(2, 1, 2, "NA"))
    write(folder / "b.selections.txt", RAVEN)
    table = read_labelled_clips(folder)
    assert events_of(table) == {"a.wav": [("owl", 0.5, 1.25), ("NA", 1.0, 2.0)], "b.wav": []}
    assert table.classes == ("NA", "owl")
    assert table.labels.lengths.tolist() == [2, 0]
    assert read_clips(folder).events is None


def test_rows_that_ravens_two_views_double_count_once(folder):
    rows = [raven_row(i, i, i + 1, "owl", view) for i in (1, 2) for view in ("Waveform 1", "Spectrogram 1")]
    write(folder / "a.Table.1.selections.txt", RAVEN + "".join(rows))
    with pytest.warns(UserWarning, match=r"1 of 2 recordings have no annotations and are left out, such as b\.wav"):
        assert events_of(read_labelled_clips(folder)) == {"a.wav": [("owl", 1.0, 2.0), ("owl", 2.0, 3.0)]}


def test_one_raven_table_over_several_files_counts_from_each_files_start(folder):
    rows = "1\tSpectrogram 1\t1\t1\t2\ta.wav\t1\towl\n2\tSpectrogram 1\t1\t5\t6.5\tb.wav\t1\tbat\n"
    write(folder / "all.txt", SEQUENCE + rows)
    assert events_of(read_labelled_clips(folder)) == {"a.wav": [("owl", 1.0, 2.0)], "b.wav": [("bat", 1.0, 2.5)]}
    assert events_of(read_labelled_clips(folder / "all.txt")) == events_of(read_labelled_clips(folder))


def test_audacitys_tracks_with_lines_of_frequencies(folder):
    write(folder / "a.txt", "0.5\t1.25\towl\n\\\t100.0\t400.0\n1\t2\tNone\n")
    write(folder / "b.txt", "")
    assert events_of(read_labelled_clips(folder)) == {"a.wav": [("owl", 0.5, 1.25), ("None", 1.0, 2.0)], "b.wav": []}


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl", ".txt", ".selections.txt"])
def test_what_predict_writes_comes_back(folder, ending):
    predictions = [Prediction("a.wav", 0.5, 1.25, "=owl, 007", 0.75), Prediction("a.wav", 2.0, 3.0, "NA", 0.5)]
    out = folder / f"a.wav{ending}"
    if ending == ".selections.txt":
        write_raven(out, predictions, 500)
    else:
        {".csv": write_csv, ".parquet": write_parquet, ".jsonl": write_jsonl, ".txt": write_audacity}[ending](
            out, predictions
        )
    for table in (read_annotations(out), read_labelled_clips(out)):
        assert events_of(table) == {"a.wav": [("=owl, 007", 0.5, 1.25), ("NA", 2.0, 3.0)]}
        if ending != ".txt":
            assert table.event_scores.values.tolist() == [0.75, 0.5]


def test_predictions_need_no_recordings(tmp_path):
    write(tmp_path / "p/x/a.wav.selections.txt", RAVEN + raven_row(1, 0.5, 1, "owl"))
    write(tmp_path / "p/x/b.wav.selections.txt", RAVEN)
    assert events_of(read_annotations(tmp_path / "p")) == {"x/a.wav": [("owl", 0.5, 1.0)], "x/b.wav": []}


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (raven_row(1, "", 1, "owl"), r"row 2: begin time \(s\) is empty"),
        (raven_row(1, "0,5", "1,5", "owl"), r"'0,5': write decimals with a point"),
        (raven_row(1, 2, 1, "owl"), "from 2 s to 1 s ends before it begins"),
        (raven_row(1, 2, 2, "owl"), "from 2 s to 2 s has no length"),
        (raven_row(1, -1, 2, "owl"), "begins 1 s before its recording"),
        (raven_row(1, 1, 2, "x") + raven_row(1, 1, 2, ""), "row 3: the event has no label"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(folder, row, sentence):
    write(folder / "a.Table.1.selections.txt", RAVEN + row)
    with pytest.raises(AudiobatError, match=sentence) as error:
        read_labelled_clips(folder)
    assert "a.Table.1.selections.txt, row" in str(error.value)


def test_events_behind_the_end_are_counted_and_refused_where_none_lies_inside(folder):
    write(folder / "a.Table.1.selections.txt", RAVEN + raven_row(1, 1, 2, "owl") + raven_row(2, 5, 6, "bat"))
    write(folder / "b.Table.1.selections.txt", RAVEN + raven_row(1, 4, 5, "bat"))
    with pytest.warns(UserWarning, match=r"2 of 3 events lie behind .* and 1 recordings with them, such as 5 to"):
        table = read_labelled_clips(folder)
    assert events_of(table) == {"a.wav": [("owl", 1.0, 2.0)]}
    assert table.classes == ("owl",)
    (folder / "a.Table.1.selections.txt").unlink()
    with (
        warnings.catch_warnings(action="ignore"),
        pytest.raises(AudiobatError, match=r"all 1 events lie behind the end of their recordings, 4 to 5 s in b\.wav"),
    ):
        read_labelled_clips(folder)


def test_labels_from_a_column_renamed_dropped_and_background(folder):
    header = RAVEN.replace("Species", "Annotation\tSpecies")
    rows = [raven_row(i, i, i + 0.5, label) for i, label in enumerate(["x\towl", "y\tbat", "x\train", "x\tgull"])]
    write(folder / "a.Table.1.selections.txt", header + "".join(rows))
    write(folder / "b.Table.1.selections.txt", RAVEN)
    with pytest.raises(AudiobatError, match="labels in annotation and in species: choose one with --label-column"):
        read_labelled_clips(folder)
    write(folder / "labels.csv", "from,to\nowl,bird\ngull,bird\nbat,\n")
    table = read_labelled_clips(folder, "Species", ["rain"], folder / "labels.csv")
    assert events_of(table) == {"a.wav": [("bird", 0.0, 0.5), ("bird", 3.0, 3.5)], "b.wav": []}
    with pytest.raises(AudiobatError, match=r"background label 'rane' \(did you mean rain\?\)"):
        read_labelled_clips(folder, "Species", ["rane"])
    with pytest.raises(AudiobatError, match=r"no column 'Specis' \(did you mean Species\?\)"):
        read_labelled_clips(folder, "Specis")


TIERS = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 4
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "calls"
        xmin = 0
        xmax = 4
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.123456789
            text = ""
        intervals [2]:
            xmin = 0.123456789
            xmax = 1.25
            text = "the ""big"" owl"
        intervals [3]:
            xmin = 1.25
            xmax = 4
            text = "NA"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 4
        points: size = 1
        points [1]:
            number = 3.5
            mark = "click"
"""
WORDS = [line.rpartition(" = ")[2].strip().removeprefix("tiers? ") for line in TIERS.split("\n")]
SHORT = "\n".join(word for word in WORDS if word and "[" not in word)


@pytest.mark.parametrize(
    ("text", "encoding"), [(TIERS, "utf-8"), (SHORT, "utf-8"), (TIERS, "utf-16"), (SHORT, "utf-16")]
)
def test_praats_textgrids_long_and_short(folder, text, encoding):
    write(folder / "a.TextGrid", text, encoding)
    expected = {"a.wav": [('the "big" owl', 0.123456789, 1.25), ("NA", 1.25, 4.0)]}  # as praatio 6.2.2 reads it
    assert events_of(read_annotations(folder)) == expected
    assert events_of(read_annotations(folder, "calls")) == expected
    with pytest.raises(AudiobatError, match=r"no tier 'call' of intervals \(did you mean calls\?\): it has calls"):
        read_annotations(folder, "call")
    write(folder / "a.TextGrid", text[: text.index("NA")], encoding)
    with pytest.raises(AudiobatError, match=r"a\.TextGrid is no whole TextGrid"):
        read_annotations(folder)
