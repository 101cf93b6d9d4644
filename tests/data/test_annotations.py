"""Annotations of other programs to events: each form, what is refused, and which recording a table belongs to."""

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from audiobat.data.sources.read import read_annotations, read_clips, read_labelled_clips
from audiobat.errors import AudiobatError
from audiobat.inference.writers import (
    Prediction,
    one_line,
    write_audacity,
    write_csv,
    write_jsonl,
    write_parquet,
    write_raven,
)

WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet, "audacity": write_audacity}

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
    with pytest.warns(
        UserWarning, match=r"1 of 2 recordings have no annotations and are left out, such as b\.wav"
    ) as told:
        assert events_of(read_labelled_clips(folder)) == {"a.wav": [("owl", 1.0, 2.0), ("owl", 2.0, 3.0)]}
    assert len(told) == 1  # and not that rows repeat: Raven means it so


def test_one_raven_table_over_several_files_counts_from_each_files_start(folder):
    rows = "1\tSpectrogram 1\t1\t1\t2\ta.wav\t1\towl\n2\tSpectrogram 1\t1\t5\t6.5\tb.wav\t1\tbat\n"
    write(folder / "all.txt", SEQUENCE + rows)
    assert events_of(read_labelled_clips(folder)) == {"a.wav": [("owl", 1.0, 2.0)], "b.wav": [("bat", 1.0, 2.5)]}
    assert events_of(read_labelled_clips(folder / "all.txt")) == events_of(read_labelled_clips(folder))


def test_audacitys_tracks_with_lines_of_frequencies(folder):
    write(folder / "a.txt", "0.5\t1.25\towl\n\\\t100.0\t400.0\n1\t2\tNone\n")
    write(folder / "b.txt", "")
    assert events_of(read_labelled_clips(folder)) == {"a.wav": [("owl", 0.5, 1.25), ("None", 1.0, 2.0)], "b.wav": []}


def test_predictions_need_no_recordings(tmp_path):
    write(tmp_path / "p/x/a.wav.selections.txt", RAVEN + raven_row(1, 0.5, 1, "owl"))
    write(tmp_path / "p/x/b.wav.selections.txt", RAVEN)
    assert events_of(read_annotations(tmp_path / "p")) == {"x/a.wav": [("owl", 0.5, 1.0)], "x/b.wav": []}


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (raven_row(1, "", "", ""), r"row 2: begin time \(s\) is empty"),
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
    with pytest.raises(
        AudiobatError, match=r"background label 'rane' \(did you mean rain\?\): the labels are bat, gull, owl, rain"
    ):
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


@pytest.mark.filterwarnings("ignore:.*have no annotations")
@pytest.mark.parametrize("text", [TIERS, SHORT], ids=["long", "short"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_praats_textgrids_long_and_short(folder, text, encoding):
    write(folder / "a.TextGrid", text, encoding)
    expected = {"a.wav": [('the "big" owl', 0.123456789, 1.25), ("NA", 1.25, 4.0)]}  # as praatio 6.2.2 reads it
    assert events_of(read_annotations(folder)) == expected
    assert events_of(read_annotations(folder, "calls")) == expected
    shifted = (
        text.replace("0.123456789", "1.5").replace("1.25", "2").replace("= 0\n", "= 1\n").replace("\n0\n", "\n1\n")
    )
    write(folder / "a.TextGrid", shifted, encoding)  # of a sound that begins at 1 s
    assert events_of(read_annotations(folder)) == {"a.wav": [('the "big" owl', 0.5, 1.0), ("NA", 1.0, 3.0)]}
    with pytest.raises(AudiobatError, match=r"no tier 'call' of intervals \(did you mean calls\?\): it has calls"):
        read_annotations(folder, "call")
    write(folder / "a.TextGrid", text[: text.index("NA")], encoding)
    with pytest.raises(AudiobatError, match=r"a\.TextGrid is no whole TextGrid"):
        read_annotations(folder)


TABLES = Path(__file__).parent / "tables"  # by libraries, see make_tables.py there
EVENTS = [("owl", 0.5, 1.25), ("NA", 2.0, 4.75), ("007", 3.0, 6.0)]


@pytest.mark.filterwarnings("ignore:.*have no annotations")
@pytest.mark.parametrize(
    "name",
    [path.relative_to(TABLES).as_posix() for path in sorted(TABLES.glob("*/*")) if not path.name.startswith("b.")],
)
def test_tables_of_other_libraries(tmp_path, name):
    """Each beside its recording, or alone with the recordings in its folder, and a recording of none if it is named."""
    record(tmp_path, "a.wav", "b.wav", seconds=10.0)
    source = TABLES / name
    table_of_a = name.split("/")[0] == "crowsetta" and "generic" not in name
    out = tmp_path / ("a.txt" if table_of_a else source.name)
    out = out.with_suffix(source.suffix)
    shutil.copy(source, out)
    expected = [(f"Strix {label}, {label}" if name.endswith("results.txt") else label, *t) for label, *t in EVENTS]
    b = {"b.wav": []} if "boxes" in name else {}
    for table in (read_labelled_clips(tmp_path), read_labelled_clips(out), read_annotations(out.parent)):
        assert events_of(table) == {"a.wav": expected, **b}
    scores = read_labelled_clips(out).event_scores
    assert (scores.values.tolist() == [0.75] * 3) if "birdnet" in name else scores is None


@pytest.mark.parametrize("name", ["birdnet/b.BirdNET.selection.table.txt", "opensoundscape/b.selections.txt"])
def test_how_other_libraries_say_that_there_is_nothing(tmp_path, name):
    record(tmp_path, "a.wav", "b.wav", seconds=10.0)
    shutil.copy(TABLES / name, tmp_path)
    write(tmp_path / "a.selections.txt", RAVEN + raven_row(1, 0, 1, "owl"))
    assert events_of(read_labelled_clips(tmp_path)) == {"a.wav": [("owl", 0.0, 1.0)], "b.wav": []}


def test_birdnets_older_table_for_r(tmp_path):
    record(tmp_path, "a.wav")
    row = "/field/a.wav,0.5,3.5,Strix aluco,Tawny Owl,0.75,-1,-1,-1,0,1,0.1,list.txt,BirdNET.tflite\n"
    header = "filepath,start,end,scientific_name,common_name,confidence,lat,lon,week,overlap,sensitivity,min_conf,"
    write(tmp_path / "a.BirdNET.results.r.csv", f"{header}species_list,model\n{row}")
    table = read_labelled_clips(tmp_path)
    assert events_of(table) == {"a.wav": [("Tawny Owl", 0.5, 3.5)]}
    assert table.event_scores.values.tolist() == [0.75]


@pytest.mark.parametrize("separator", ["\t", ","])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_empty_lines_above_a_header_change_nothing_but_the_rows_that_are_named(folder, separator, end):
    rows = RAVEN + raven_row(1, 1, 2, "owl")
    path = folder / "a.txt"
    write(path, ("\n\n" + rows).replace("\t", separator).replace("\n", end))
    assert events_of(read_labelled_clips(path)) == {"a.wav": [("owl", 1.0, 2.0)]}
    write(path, ("\n\n" + rows + raven_row(2, 2, 2, "owl")).replace("\t", separator).replace("\n", end))
    with pytest.raises(AudiobatError, match="row 5: the event from 2 s"):
        read_labelled_clips(path)


def test_words_on_how_sure_somebody_was_are_no_scores(folder):
    header = RAVEN.replace("Species", "Species\tConfidence")
    rows = raven_row(1, 1, 2, "owl\t0.5") + raven_row(2, 2, 3, "owl\t")
    write(folder / "a.selections.txt", header + rows)
    assert str(read_annotations(folder / "a.selections.txt").event_scores.values.tolist()) == "[0.5, nan]"
    write(folder / "a.selections.txt", header + rows + raven_row(3, 3, 4, "owl\thigh"))
    table = read_annotations(folder / "a.selections.txt")
    assert (len(table.events.values), table.event_scores) == (3, None)
    write(folder / "p.csv", "file,start,end,label,score\na.wav,0,1,owl,high\n")
    with pytest.raises(AudiobatError, match="row 2: score is 'high': give a number, or leave it empty"):
        read_annotations(folder / "p.csv")


KALEIDOSCOPE = "INDIR,OUTDIR,FOLDER,IN FILE,CHANNEL,OFFSET,DURATION,AUTO ID,PULSES,MANUAL ID*\n"


def test_kaleidoscopes_lists(tmp_path):
    record(tmp_path, "day/x.wav", "night/x.wav")
    rows = "D:\\season,,night,x.wav,0,0.5,1.25,NoID,3,MYOLUC\nD:\\season,,day,x.wav,0,1,2,NoID,3,Noise\n"
    write(tmp_path / "id.csv", KALEIDOSCOPE + rows)
    table = read_labelled_clips(tmp_path, background=["Noise"])
    assert events_of(table) == {"day/x.wav": [], "night/x.wav": [("MYOLUC", 0.5, 1.75)]}
    write(tmp_path / "id.csv", KALEIDOSCOPE + rows.replace("Noise", ""))
    with pytest.raises(AudiobatError, match=r"id\.csv, row 3: the event has no label"):
        read_labelled_clips(tmp_path)
    assert read_labelled_clips(tmp_path, "auto id").classes == ("NoID",)
    write(tmp_path / "id.csv", KALEIDOSCOPE + rows.replace("night", "").replace("day", ""))
    with pytest.raises(AudiobatError, match=r"names D:/season/x\.wav, which may be day/x\.wav or night/x\.wav"):
        read_labelled_clips(tmp_path)


def test_which_recording_a_table_belongs_to(tmp_path):
    record(tmp_path, "a.wav", "a.b.wav", "sub/c.wav", "other/a.wav")
    write(tmp_path / "other/a.txt", "1\t2\tfour\n")
    write(tmp_path / "a.b.Table.1.selections.txt", RAVEN + raven_row(1, 0, 1, "one"))
    write(tmp_path / "tables/c.txt", "0\t1\ttwo\n")
    write(tmp_path / "a.txt", "a caption of the recording")
    write(tmp_path / "notes.csv", "date,weather\nmonday,rain\n")
    with pytest.warns(UserWarning, match="1 of 4 recordings have no annotations"):
        table = read_labelled_clips(tmp_path)
    one, two, four = [("one", 0.0, 1.0)], [("two", 0.0, 1.0)], [("four", 1.0, 2.0)]
    assert events_of(table) == {"a.b.wav": one, "other/a.wav": four, "sub/c.wav": two}
    write(tmp_path / "sub/c.selections.txt", RAVEN + raven_row(1, 0, 1, "three"))
    with pytest.raises(AudiobatError, match=r"sub/c\.wav has annotations of two programs, .*\(Raven\).*\(Audacity\)"):
        read_labelled_clips(tmp_path)
    (tmp_path / "tables/c.txt").unlink()
    record(tmp_path, "sub/c.flac")
    with pytest.raises(AudiobatError, match=r"may belong to sub/c\.flac or sub/c\.wav"):
        read_labelled_clips(tmp_path)


def test_recordings_that_are_not_there_and_rows_that_repeat_are_told(folder):
    rows = "1\tSpectrogram 1\t1\t1\t2\ta.wav\t1\towl\n2\tSpectrogram 1\t2\t1\t2\ta.wav\t1\towl\n"
    lost = "3\tSpectrogram 1\t1\t5\t6\tz.wav\t1\towl\n"
    write(folder / "all.txt", SEQUENCE + rows + lost)
    write(folder / "b.selections.txt", RAVEN)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert events_of(read_labelled_clips(folder)) == {"a.wav": [("owl", 1.0, 2.0)], "b.wav": []}
    told = " ".join(str(warning.message) for warning in told)
    assert "1 recordings that are not there are left out, such as z.wav of all.txt" in told
    assert "1 rows repeat another one, label and times, and count once" in told
    write(folder / "all.txt", SEQUENCE + lost)
    (folder / "b.selections.txt").unlink()
    with pytest.raises(AudiobatError, match=r"has no recording for its annotations, such as z\.wav of all\.txt"):
        read_labelled_clips(folder)


def test_texts_that_are_no_annotations_leave_class_folders_alone(tmp_path):
    record(tmp_path, "owl/a.wav", "bat/b.wav")
    write(tmp_path / "owl/a.txt", "hoo hoo")
    write(tmp_path / "owl/a.svl", "<sv/>")
    write(tmp_path / "labels.csv", "file,start,end,label,score\nowl/a.wav,0,1,bat,0.9\n")  # of `predict`, kept there
    with pytest.warns(UserWarning, match=r"1 layers of Sonic Visualiser, such as owl/a\.svl, are not read"):
        assert read_labelled_clips(tmp_path).classes == ("bat", "owl")
    assert events_of(read_annotations(tmp_path / "labels.csv")) == {"owl/a.wav": [("bat", 0.0, 1.0)]}
    write(tmp_path / "labels.csv", "file,start,end,label,score\n")
    assert len(read_annotations(tmp_path / "labels.csv")) == 0


def test_damaged_and_odd_files_are_refused_or_passed_over(folder):
    write(folder / "a.selections.txt", RAVEN + raven_row(1, 0, 1, "owl"))
    write(folder / "b.selections.txt", RAVEN)
    os.mkfifo(folder / "b.txt")  # would be waited for
    assert events_of(read_labelled_clips(folder)) == {"a.wav": [("owl", 0.0, 1.0)], "b.wav": []}
    for text, sentence in (
        ('{"file": "a.wav", "start": 0, "end": 1, "label": "\\ud800"}\n', "row 1: it holds no JSON object"),
        ('{"file": "a.wav", "start": 0, "end": 1, "label": "owl"}\n[1]\n', "row 2: it holds no JSON object"),
    ):
        with pytest.raises(AudiobatError, match=sentence):
            read_annotations(write(folder / "p.jsonl", text))
    for number in ("1e999", "99999999999", "nan"):
        write(folder / "t.TextGrid", SHORT.replace("\n3\n", f"\n{number}\n"))
        with pytest.raises(AudiobatError, match="is no whole TextGrid"):
            read_annotations(folder / "t.TextGrid")


def test_a_table_in_another_encoding_is_refused_by_name(folder):
    write(folder / "a.selections.txt", RAVEN + raven_row(1, 0, 1, "chouette hulotte à"), "latin-1")
    with pytest.raises(AudiobatError, match=r"a\.selections\.txt, row 2: it is not text in UTF-8"):
        read_labelled_clips(folder)


def test_clips_of_a_list_are_renamed_dropped_and_background(tmp_path):
    record(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav")
    csv = write(
        tmp_path / "clips.csv", "path,species,label\na.wav,owl;rain,x\nb.wav,rain,x\nc.wav,gull,x\nd.wav,no,y\n"
    )
    names = write(tmp_path / "names.csv", "from;to\ngull;\nno;owl\ngul;owl\n")
    with pytest.warns(UserWarning, match=r"1 of the 3 labels to rename .* such as 'gul' \(did you mean gull\?\)"):
        table = read_labelled_clips(csv, "species", ["rain"], names)
    assert table.keys.tolist() == ["a.wav", "b.wav", "d.wav"]  # c.wav had nothing but what is dropped
    assert table.classes == ("owl",)
    assert table.labels.lengths.tolist() == [1, 0, 1]
    assert table.columns["label"].tolist() == ["x", "x", "y"]
    write(tmp_path / "names.csv", "from,to\nowl,a\nowl,b\n")
    with pytest.raises(AudiobatError, match="row 3: 'owl' becomes 'b' here and 'a' before"):
        read_labelled_clips(csv, "species", label_map=names)
    write(tmp_path / "names.csv", "old,new\nowl,a\n")
    with pytest.raises(AudiobatError, match="has no columns `from` and `to`"):
        read_labelled_clips(csv, "species", label_map=names)


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda text: text == one_line(text) and not text[0] == text[-1] == '"'
)
ENDINGS = {"audacity": ".txt", "raven": ".selections.txt"}
TIMES = st.tuples(st.integers(0, 10**9), st.integers(1, 10**9)).map(lambda t: (t[0] / 1e6, (t[0] + t[1]) / 1e6))


@given(st.lists(st.tuples(TEXTS, TIMES, st.integers(0, 1000)), min_size=1, max_size=4, unique_by=lambda e: e[:2]))
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "audacity", "raven"])
def test_whatever_is_written_is_read(tmp_path_factory, form, events):
    out = tmp_path_factory.mktemp("p") / f"a.wav{ENDINGS.get(form, f'.{form}')}"
    rows = [Prediction("a.wav", *span, label, score / 1000) for label, span, score in events]
    if form == "raven":
        write_raven(out, rows, 4000)
    else:
        WRITERS[form](out, rows)
    table = read_annotations(out)
    assert events_of(table) == {"a.wav": [(row.label, row.start, row.end) for row in rows]}
    if form != "audacity":
        assert table.event_scores.values.tolist() == [row.score for row in rows]


@pytest.mark.filterwarnings("ignore:.*have no annotations")
def test_quotes_of_r_pandas_and_excel_and_those_of_a_label(folder):
    header, row = RAVEN.rstrip("\n").split("\t"), raven_row(1, 0, 1, '"owl"').rstrip("\n").split("\t")
    quoted = ["\t".join(f'"{cell}"' for cell in cells) for cells in (header, [*row[:-1], "owl"])]
    for text, label in (
        ("\n".join(quoted), "owl"),
        (RAVEN + raven_row(1, 0, 1, '"the ""big"" owl"'), 'the "big" owl'),
        (RAVEN + raven_row(1, 0, 1, '"owl, big"'), "owl, big"),
        (RAVEN + raven_row(1, 0, 1, '"owl"'), '"owl"'),
        (RAVEN + raven_row(1, 0, 1, '"owl'), '"owl'),
    ):
        write(folder / "a.selections.txt", text)
        assert read_annotations(folder).classes == (label,)
