"""`evaluate`: any two forms of annotations, the numbers and tables that it writes, clips of errors, refusals."""

import csv
import json
import shutil

import numpy as np
import pytest
import soundfile

import audiobat
from audiobat.cli.command import main
from audiobat.errors import AudiobatError
from audiobat.inference.evaluate import evaluate
from audiobat.inference.writers import Output, Prediction

RATE = 8000
TRUTH = [  # file, label, onset, offset
    ("north/a.wav", "dog", 1.0, 2.0),
    ("north/a.wav", "dog", 4.0, 5.5),
    ("north/a.wav", "owl", 7.0, 8.0),
    ("north/b.wav", "owl", 2.0, 3.0),
    ("south/a.wav", "dog", 5.0, 6.0),
]
FOUND = [
    Prediction("north/a.wav", 1.1, 2.1, "dog", 0.9),
    Prediction("north/a.wav", 4.0, 5.0, "owl", 0.8),  # a dog
    Prediction("north/a.wav", 7.0, 8.1, "owl", 0.7),
    Prediction("south/a.wav", 0.5, 1.5, "dog", 0.6),  # nothing
    Prediction("south/a.wav", 5.05, 6.0, "dog", 0.4),
]


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """Recordings of 10 s that are a ramp, so that every sample tells its place, and the true events."""
    folder = tmp_path_factory.mktemp("field")
    ramp = (np.arange(10 * RATE) % 30_000).astype(np.int16)
    for name in ("north/a.wav", "north/b.wav", "south/a.wav"):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, ramp, RATE)
    with (folder / "events.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "onset", "offset"), *TRUTH])
    return folder


def written(folder, form):
    """The predictions as `predict` writes them."""
    out = folder / {"audacity": "tracks", "raven": "tables"}.get(form, f"found.{form}")
    names = [*dict.fromkeys(row[0] for row in TRUTH)]
    output = Output(out, form, names, RATE / 2, overwrite=False)
    output.write(iter(FOUND), (), dict.fromkeys(names, RATE))
    return out


def result_of(out):
    """evaluation.json, which holds no NaN."""

    def refuse(name):
        raise AssertionError(name)

    return json.loads((out / "evaluation.json").read_text(encoding="utf-8"), parse_constant=refuse)


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_numbers_tables_and_clips(field, tmp_path, capsys):
    found = written(tmp_path, "csv")
    assert main(["evaluate", str(found), str(field / "events.csv"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "3 recordings (0.01 h), 2 labels: 5 true events, 5 detections" in printed
    assert "without predictions, where nothing was detected: 1" in printed
    result = result_of(tmp_path / "out")
    assert result["classes"] == ["dog", "owl"]
    assert result["recordings"] == {"evaluated": 3, "seconds": 30.0, "silent": ["north/b.wav"], "left_out": []}
    values = {name: level["metrics"]["f1_micro"]["value"] for name, level in result["levels"].items()}
    # clip: 3 right of 3, of 4; onset, event and overlap: 3 right of 5, of 5; segments: dogs 1, 4, 5 + owls 7, 2 + dog 5
    assert values["clip"] == pytest.approx(6 / 7)
    assert values["overlap"] == values["onset"] == values["event"] == pytest.approx(0.6)
    dog = result["levels"]["event"]["per_class"]["dog"]
    assert (dog["truth"], dog["predicted"], dog["found"], dog["right"]) == (3, 3, 2, 2)
    assert dog["average_precision"]["value"] == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    assert result["confusion"] == {"labels": ["dog", "owl", "background"], "counts": [[2, 1, 0], [0, 1, 1], [1, 0, 0]]}
    errors = {(e["kind"], e["file"], e["label"]): e for e in result["errors"]}
    assert set(errors) == {
        ("miss", "north/a.wav", "dog"),
        ("miss", "north/b.wav", "owl"),
        ("false alarm", "north/a.wav", "owl"),
        ("false alarm", "south/a.wav", "dog"),
    }
    assert errors["miss", "north/a.wav", "dog"]["confused_with"] == "owl"
    for error in result["errors"]:  # the clip is that part of its recording
        sound, rate = soundfile.read(tmp_path / "out" / error["clip"], dtype="int16")
        whole, _ = soundfile.read(field / error["file"], dtype="int16")
        assert error["clip_start"] == max(0, error["start"] - 0.5)
        start = round(error["clip_start"] * rate)
        assert rate == RATE
        assert start <= error["start"] * rate
        assert start + len(sound) >= error["end"] * rate
        assert abs(sound.astype(int) - whole[start : start + len(sound)]).max() <= 1
    assert [r["audio"] for r in result["per_recording"]] == [str(field / r["file"]) for r in result["per_recording"]]
    tables = {path.stem: rows_of(path) for path in (tmp_path / "out").glob("*.csv")}
    assert {name: len(rows) for name, rows in tables.items()} == {
        "errors": 4,
        "events": 10,
        "per_class": 10,
        "per_recording": 15,
    }
    assert [row["result"] for row in tables["events"][:4]] == ["found", "right", "wrong", "missed"]
    again = evaluate(tmp_path / "out" / "errors.csv", field / "events.csv", tmp_path / "again")  # read as annotations
    assert len(again.pair.found) == 4


@pytest.mark.parametrize("form", ["parquet", "jsonl", "audacity", "raven"])
def test_every_form_that_predict_writes_gives_the_same_numbers(field, tmp_path, form):
    wanted = audiobat.evaluate(written(tmp_path, "csv"), field / "events.csv", tmp_path / "csv", clips=0)
    result = audiobat.evaluate(written(tmp_path, form), field / "events.csv", tmp_path / "out", clips=0)
    for name, level in result.levels.items():
        own = {key: value for key, value in wanted.levels[name].metrics.items() if key != "map"}
        assert {key: value for key, value in level.metrics.items() if key != "map"} == own
        assert ("map" in level.metrics) == (form != "audacity")  # label tracks have no scores
    assert not (tmp_path / "out" / "clips").exists()


def test_truth_of_recordings_with_tables_beside_them_needs_no_list(field, tmp_path):
    copied = tmp_path / "field"
    shutil.copytree(field, copied)
    (copied / "events.csv").unlink()
    for name in {row[0] for row in TRUTH}:
        rows = [(i, "Spectrogram 1", 1, a, b, 0, 4000, c) for i, (f, c, a, b) in enumerate(TRUTH, 1) if f == name]
        header = (
            "Selection",
            "View",
            "Channel",
            "Begin Time (s)",
            "End Time (s)",
            "Low Freq (Hz)",
            "High Freq (Hz)",
            "Species",
        )
        text = "\n".join("\t".join(map(str, row)) for row in [header, *rows])
        (copied / name).with_suffix(".Table.1.selections.txt").write_text(text + "\n")
    found = written(tmp_path, "csv")
    wanted = evaluate(found, field / "events.csv", tmp_path / "list")
    result = evaluate(found, copied, tmp_path / "out", label_column="Species")
    assert {name: level.metrics for name, level in result.levels.items()} == {
        name: level.metrics for name, level in wanted.levels.items()
    }


def test_labels_are_renamed_chosen_and_left_out(field, tmp_path, capsys):
    found = written(tmp_path, "csv")
    names = tmp_path / "names.csv"
    names.write_text("from,to\ndog,animal\nowl,animal\n")
    result = evaluate(found, field / "events.csv", tmp_path / "map", map=names)
    assert result.pair.classes == ["animal"]
    assert result.levels["overlap"].per_class["animal"].found == 4
    few = evaluate(found, field / "events.csv", tmp_path / "few", labels=["owl"])
    assert (len(few.pair.truth), len(few.pair.found)) == (2, 2)
    none = evaluate(found, field / "events.csv", tmp_path / "none", background=("owl",))
    assert none.pair.only_predicted == {"owl": 2}
    argv = ["evaluate", str(found), str(field / "events.csv"), "--out", str(tmp_path / "all")]
    assert main([*argv, "--background", "dog,owl"]) == 2  # a comma between them, as in `describe` and `finetune`
    assert "The truth has no event of any label" in capsys.readouterr().err


def test_a_threshold_leaves_out_what_lies_at_it_or_below(field, tmp_path):
    result = evaluate(written(tmp_path, "csv"), field / "events.csv", tmp_path / "out", threshold=0.6)
    assert sorted(result.pair.found.score.tolist()) == [0.7, 0.8, 0.9]
    with pytest.raises(AudiobatError, match=r"--threshold 0.5 needs scores, and .*tracks has none"):
        evaluate(written(tmp_path, "audacity"), field / "events.csv", tmp_path / "no", threshold=0.5)


def test_thresholds_of_a_model_may_name_labels_that_no_prediction_has(field, tmp_path):
    found = written(tmp_path, "csv")
    result = evaluate(found, field / "events.csv", tmp_path / "out", threshold={"owl": 1, "wren": 0.5})
    plain = evaluate(found, field / "events.csv", tmp_path / "labels", labels=["dog"])
    assert len(result.pair.found) == len(plain.pair.found)
    with pytest.raises(AudiobatError, match=r"names 'owls', which is no label of the predictions.* mean owl"):
        evaluate(found, field / "events.csv", tmp_path / "no", threshold={"owls": 0.5})


def test_labels_of_whole_clips_are_compared_as_clips_alone(field, tmp_path):
    (field / "clips.csv").write_text("path,label\nnorth/a.wav,dog;owl\nnorth/b.wav,owl\nsouth/a.wav,dog\n")
    result = evaluate(written(tmp_path, "csv"), field / "clips.csv", tmp_path / "out")
    assert list(result.levels) == ["clip"]
    assert result.levels["clip"].metrics["f1_micro"].value == pytest.approx(6 / 7)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "evaluation.json",
        "per_class.csv",
        "per_recording.csv",
    ]


def test_events_behind_the_end_are_told_and_sed_eval_counts_them(field, tmp_path):
    found = tmp_path / "late.csv"
    found.write_text("file,start,end,label,score\nnorth/a.wav,1,2,dog,0.9\nnorth/a.wav,10.2,11,dog,0.9\n")
    ours = evaluate(found, field / "events.csv", tmp_path / "ours")
    assert "Detections that begin behind the end of their recording: 1." in ours.notes
    assert ours.levels["segment"].per_class["dog"].predicted == 1
    theirs = evaluate(found, field / "events.csv", tmp_path / "theirs", convention="sed_eval")
    assert theirs.levels["segment"].per_class["dog"].predicted == 2


def test_no_recording_needs_to_be_here(field, tmp_path, capsys):
    lone = tmp_path / "events.csv"
    shutil.copy(field / "events.csv", lone)
    result = evaluate(written(tmp_path, "csv"), lone, tmp_path / "out")
    assert result.audio == [None] * 3
    assert [error.clip for error in result.errors] == [None] * 4
    assert result.seconds.tolist() == [8.1, 3.0, 6.0]
    assert "no sounds, as no recording lies beside truth or predictions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"convention": "sedeval"}, r"--convention sedeval is unknown.*sed_eval"),
        ({"onset_collar": -0.1}, r"--onset-collar is -0\.1: use 0 or more"),
        ({"segment_seconds": 0.0}, r"--segment-seconds is 0\.0: use 0\.001 or more"),
        ({"clips": -1}, r"--clips is -1"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_read(tmp_path, arguments, says):
    with pytest.raises(AudiobatError, match=says):
        evaluate("nothing.csv", "nothing.csv", tmp_path / "out", **arguments)


def test_a_folder_that_is_there_is_replaced_only_on_demand(field, tmp_path):
    found = written(tmp_path, "csv")
    evaluate(found, field / "events.csv", tmp_path / "out")
    with pytest.raises(AudiobatError, match="out exists: choose another --out, or replace it with --overwrite"):
        evaluate(found, field / "events.csv", tmp_path / "out")
    (tmp_path / "out" / "old.txt").write_text("")
    evaluate(found, field / "events.csv", tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "old.txt").exists()
    for place in (tmp_path, found):  # nobody loses what is no evaluation
        with pytest.raises(AudiobatError, match="is there and no folder of an evaluation: name another"):
            evaluate(found, field / "events.csv", place, overwrite=True)
    assert found.is_file()


def test_a_recording_that_cannot_be_read_costs_its_clips_alone(field, tmp_path):
    copied = tmp_path / "field"
    shutil.copytree(field, copied)
    (copied / "north/b.wav").write_text("no sound")
    result = evaluate(written(tmp_path, "csv"), copied / "events.csv", tmp_path / "out")
    assert {error.file for error in result.errors if error.clip is None} == {"north/b.wav"}


def test_scores_that_some_rows_lack_are_left_aside_and_told(field, tmp_path):
    found = tmp_path / "found.csv"
    found.write_text("file,start,end,label,score\nnorth/a.wav,1,2,dog,0.9\nnorth/b.wav,2,3,owl,\n")
    result = evaluate(found, field / "events.csv", tmp_path / "out")
    assert [note for note in result.notes if "1 rows of 2 without a score: none is used" in note]
    assert "map" not in result.levels["overlap"].metrics


def test_recordings_that_may_have_trained_the_model_are_told(field, tmp_path):
    found = written(tmp_path, "csv")
    for splits, told in ((("train", "test"), True), (("test", "test"), False)):
        rows = [f"{file},{label},{a},{b},{splits[file > 'north/a.wav']}" for file, label, a, b in TRUTH]
        truth = field / "split.csv"
        truth.write_text("\n".join(["path,label,onset,offset,split", *rows]) + "\n")
        result = evaluate(found, truth, tmp_path / splits[0])
        assert any("splits test, train: all of them are evaluated" in note for note in result.notes) == told
