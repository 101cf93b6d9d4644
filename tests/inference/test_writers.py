"""The files that `predict` writes, parsed back as their readers do; its sources, flags, and what it refuses."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
import torch

from audiobat.cli import command as cli
from audiobat.config import EncoderConfig, FrontendConfig, HeadConfig, ModelConfig, TaggerConfig
from audiobat.data.prepare.run import prepare
from audiobat.errors import AudiobatError
from audiobat.inference import writers as predict_tables
from audiobat.inference.predict import predict
from audiobat.inference.writers import (
    RAVEN_COLUMNS,
    Prediction,
    pick_format,
    write_audacity,
    write_csv,
    write_jsonl,
    write_parquet,
    write_raven,
)
from audiobat.models.encoder import AudioEncoder
from audiobat.models.tagger import Tagger
from audiobat.zoo import release as release_io

RATE = 8000
FRONTEND = FrontendConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=80, mel_bins=16)
MODEL = ModelConfig(FRONTEND, EncoderConfig(dim=8, depth=1, heads=2, patch_size=(16, 8), max_frames=96))
ODD = [
    Prediction("a/one.wav", 0.0, 0.95, "dog", 0.75),
    Prediction("a/one.wav", 0.95, 1.234567, 'cat, "black"; wild', 0.000001),
    Prediction("b/zwölf, ü.wav", 3599.05, 3600.0, "線路\tand\nnoise", 1.0),
    Prediction("b/zwölf, ü.wav", 86400.123456, 86401.0, "dog", 0.333333),
]
FLAT = [row._replace(label=" ".join(row.label.split())) for row in ODD]  # as tables without quotes have to have it


def make_tagger(task: str = "clip", classes: tuple[str, ...] = ("dog", "cat"), multi_label: bool = True) -> Tagger:
    torch.manual_seed(0)
    config = TaggerConfig(HeadConfig(kind="linear", pool="mean"), classes, task, multi_label)
    return Tagger(AudioEncoder(MODEL), config).eval()


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Three recordings of 2.1, 0.5 and 1.2 s, one of them deeper."""
    rng = np.random.default_rng(0)
    for name, seconds in {"one.wav": 2.1, "two.wav": 0.5, "deep/one.wav": 1.2}.items():
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "clips" / name, rng.normal(size=int(seconds * RATE)) * 0.1, RATE)
    return tmp_path / "clips"


# Formats, each read back


def test_csv_gives_every_row_back(tmp_path):
    write_csv(tmp_path / "x", ODD)
    with (tmp_path / "x").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = [Prediction(r["file"], float(r["start"]), float(r["end"]), r["label"], float(r["score"])) for r in rows]
    assert found == ODD


def test_json_lines_give_every_row_back(tmp_path):
    write_jsonl(tmp_path / "x", ODD)
    lines = (tmp_path / "x").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert [Prediction(**json.loads(line)) for line in lines] == ODD


@pytest.mark.parametrize("rows", [0, 4, 10])
def test_parquet_gives_every_row_back(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(predict_tables, "CHUNK_ROWS", 3)
    wanted = (ODD * 3)[:rows]
    write_parquet(tmp_path / "x", iter(wanted))
    table = pyarrow.parquet.read_table(tmp_path / "x")
    assert table.schema.names == list(Prediction._fields)
    assert [str(kind) for kind in table.schema.types] == ["string", "double", "double", "string", "double"]
    assert [Prediction(**row) for row in table.to_pylist()] == wanted


def read_audacity(path: Path) -> list[tuple[float, float, str]]:
    """As Audacity's label track reads a line: two numbers and a title, tabs between them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(line.count("\t") == 2 for line in lines)
    return [(float(start), float(end), label) for start, end, label in (line.split("\t") for line in lines)]


def read_raven(path: Path) -> list[dict[str, str]]:
    """As Raven reads a selection table: a header, tabs, as many cells in each row."""
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    names = header.split("\t")
    assert names == list(RAVEN_COLUMNS)
    assert names[:7] == [
        *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)")
    ]
    return [dict(zip(names, line.split("\t"), strict=True)) for line in lines]


def test_audacity_gives_times_and_labels_back(tmp_path):
    write_audacity(tmp_path / "x", ODD)
    assert read_audacity(tmp_path / "x") == [row[1:4] for row in FLAT]


def test_raven_gives_times_labels_and_scores_back_in_boxes_of_the_models_band(tmp_path):
    write_raven(tmp_path / "x", ODD, 4000.0)
    rows = read_raven(tmp_path / "x")
    assert [int(row["Selection"]) for row in rows] == [1, 2, 3, 4]
    assert {(row["View"], row["Channel"]) for row in rows} == {("Spectrogram 1", "1")}
    assert {(float(row["Low Freq (Hz)"]), float(row["High Freq (Hz)"])) for row in rows} == {(0.0, 4000.0)}
    names = ("Begin File", "Begin Time (s)", "End Time (s)", "Label", "Score")
    found = [tuple(row[name] for name in names) for row in rows]
    wanted = [row._replace(file=row.file.split("/")[1]) for row in FLAT]
    assert [Prediction(f, float(s), float(e), label, float(p)) for f, s, e, label, p in found] == wanted


def test_ravens_boxes_end_at_the_lower_nyquist_frequency_of_model_and_recording(tmp_path):
    tagger, rng = make_tagger("clip"), np.random.default_rng(0)
    (tmp_path / "clips").mkdir()
    rates = {"a": 4000, "b": 5025, "c": 8000, "d": 48_000}  # the model's is 8000
    for name, rate in rates.items():
        soundfile.write(tmp_path / "clips" / f"{name}.wav", rng.normal(size=rate) * 0.1, rate)
    predict(tagger, tmp_path / "clips", tmp_path / "out", format="raven", threshold=0.0)
    for name, rate in rates.items():
        path = tmp_path / "out" / f"{name}.wav.selections.txt"
        alone = predict(tagger, tmp_path / "clips" / f"{name}.wav", tmp_path / path.name, threshold=0.0)
        assert alone.read_text() == path.read_text()
        found = {row["High Freq (Hz)"] for row in read_raven(path)}
        assert found == {str(min(rate, 8000) / 2)}, "a decimal, as readers infer the type of the column"


def test_every_format_holds_the_same_rows(clips, tmp_path):
    tagger = make_tagger()
    rows = {}
    for name in ("out.csv", "out.jsonl", "out.parquet"):
        out = predict(tagger, clips, tmp_path / name, top=2)
        if name == "out.csv":
            with out.open(newline="") as file:
                found = [Prediction(n, float(s), float(e), c, float(p)) for n, s, e, c, p in list(csv.reader(file))[1:]]
        elif name == "out.jsonl":
            found = [Prediction(**json.loads(line)) for line in out.read_text().splitlines()]
        else:
            found = [Prediction(**row) for row in pyarrow.parquet.read_table(out).to_pylist()]
        rows[name] = found
    assert rows["out.csv"] == rows["out.jsonl"] == rows["out.parquet"]
    assert len(rows["out.csv"]) == 2 * (3 + 1 + 2)
    tracks = predict(tagger, clips, tmp_path / "tracks", top=2, format="audacity")
    selections = predict(tagger, clips, tmp_path / "selections", top=2, format="raven")
    for name in ("one.wav", "two.wav", "deep/one.wav"):
        own = [row for row in rows["out.csv"] if row.file == name]
        assert read_audacity(tracks / f"{name}.txt") == [row[1:4] for row in own]
        found = read_raven(selections / f"{name}.selections.txt")
        assert [float(row["Score"]) for row in found] == [row.score for row in own]
    assert sum(path.is_file() for path in tracks.rglob("*")) == 3


def test_one_recording_is_one_track_and_silence_is_an_empty_one(clips, tmp_path):
    out = predict(make_tagger(), clips / "one.wav", tmp_path / "one.txt", top=1)
    assert len(read_audacity(out)) == 3
    tracks = predict(make_tagger(), clips, tmp_path / "none", threshold=1.0, format="raven")
    assert [read_raven(path) for path in tracks.rglob("*.txt")] == [[], [], []]
    out = predict(make_tagger(), clips, tmp_path / "none.csv", threshold=1.0)
    assert out.read_text() == "file,start,end,label,score\n"
    assert (
        pyarrow.parquet.read_table(predict(make_tagger(), clips, tmp_path / "n.parquet", threshold=1.0)).num_rows == 0
    )


def test_the_ending_names_the_format():
    endings = {"x.csv": "csv", "x.PARQUET": "parquet", "x.jsonl": "jsonl", "x.txt": "audacity"}
    assert {name: pick_format(Path(name), "auto") for name in endings} == endings
    assert pick_format(Path("x.selections.txt"), "auto") == "raven"
    assert pick_format(Path("x.csv"), "raven") == "raven"
    with pytest.raises(
        AudiobatError, match=r"x\.xlsx ends in \.xlsx: use one of \.csv, .*\.selections\.txt, or --format"
    ):
        pick_format(Path("x.xlsx"), "auto")
    with pytest.raises(AudiobatError, match=r"x ends in nothing"):
        pick_format(Path("x"), "auto")
    with pytest.raises(AudiobatError, match=r"audicity is unknown \(did you mean audacity\?\)"):
        pick_format(Path("x"), "audicity")


# Sources


def files_of(out: Path) -> list[str]:
    return list(dict.fromkeys(json.loads(line)["file"] for line in out.read_text().splitlines()))


def test_folders_files_lists_tables_and_shards_are_all_heard(clips, tmp_path):
    tagger = make_tagger()

    def labelled(data, name):
        return files_of(predict(tagger, data, tmp_path / f"{name}.jsonl", top=1))

    relative = ["deep/one.wav", "one.wav", "two.wav"]
    assert labelled(clips, "folder") == relative
    (tmp_path / "some.csv").write_text("path,label\nclips/two.wav,x\nclips/deep/one.wav,y\n")
    assert labelled(tmp_path / "some.csv", "csv") == ["clips/two.wav", "clips/deep/one.wav"]
    (tmp_path / "some.txt").write_text("clips/two.wav\n")
    assert labelled(tmp_path / "some.txt", "txt") == ["clips/two.wav"]
    several = [clips / "two.wav", clips, tmp_path / "some.txt"]
    paths = [str(clips / name) for name in ("two.wav", "deep/one.wav", "one.wav")]
    assert labelled(several, "several") == paths  # each once
    prepare(clips, tmp_path / "shards", sample_rate=RATE, workers=1)
    assert len(labelled(tmp_path / "shards", "shards")) == 3
    with pytest.raises(AudiobatError, match=r"shards has its clips inside other files: give it alone"):
        labelled([clips, tmp_path / "shards"], "mixed")
    with pytest.raises(AudiobatError, match="--data names nothing"):
        labelled([], "nothing")


def test_the_command_takes_several_paths_and_finds_the_runs_release(clips, tmp_path, capsys):
    release_io.save_release(tmp_path / "run" / "release", make_tagger("frame"))
    argv = ["predict", "--model", str(tmp_path / "run"), "--data", str(clips / "one.wav"), str(clips / "two.wav")]
    assert cli.main([*argv, "--threshold", "0", "--out", str(tmp_path / "out.jsonl"), "--device", "cpu"]) == 0
    assert files_of(tmp_path / "out.jsonl") == [str(clips / "one.wav"), str(clips / "two.wav")]
    assert cli.main([*argv, "--out", str(tmp_path / "out.jsonl")]) == 2
    assert "out.jsonl exists: choose another --out, or replace it with --overwrite" in capsys.readouterr().err
    assert cli.main(["predict", "--model", "bat_nano", "--data", str(clips), "--out", str(tmp_path / "x.csv")]) == 2
    error = capsys.readouterr().err
    assert "holds an encoder and no head: make one with `audiobat finetune`" in error
    assert error.count("\n") == 1


# Mistakes


def test_bad_arguments_say_what_to_change_and_leave_nothing(clips, tmp_path, monkeypatch):
    before = sorted(tmp_path.rglob("*"))

    def fails(words: str, name: str = "o.csv", task: str = "clip", **arguments) -> None:
        with pytest.raises(AudiobatError, match=words):
            predict(make_tagger(task), clips, tmp_path / name, **arguments)
        assert sorted(tmp_path.rglob("*")) == before

    fails("top is 0: use 1 to 2", top=0)
    fails("top is 3: use 1 to 2", top=3)
    fails("threshold is 1.5: use 0 to 1", threshold=1.5)
    fails("median is 3: it filters frames, and this head labels clips", median=3)
    fails("top is 1: this head labels frames, use --threshold", task="frame", top=1)
    fails("median is 4: use an odd number", task="frame", median=4)
    fails("window_seconds is 0", window_seconds=0)
    fails(r"hop_seconds is 0\.96", hop_seconds=0.96)
    fails("batch_size is 0", batch_size=0)
    fails("workers is -1", workers=-1)
    fails(r"o\.doc ends in \.doc", name="o.doc")
    monkeypatch.setattr(predict_tables.importlib.util, "find_spec", lambda name: None)
    fails(r"needs pyarrow: pip install 'audiobat\[parquet\]'", name="o.parquet")


def test_nothing_is_replaced_but_what_was_asked_for_and_is_of_the_kind(clips, tmp_path):
    tagger = make_tagger()
    (tmp_path / "out.csv").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.doc").write_text("precious")
    with pytest.raises(AudiobatError, match=r"out\.csv exists: .*--overwrite"):
        predict(tagger, clips, tmp_path / "out.csv")
    with pytest.raises(AudiobatError, match=r"folder holds thesis\.doc, which is no raven file"):
        predict(tagger, clips, tmp_path / "folder", format="raven", overwrite=True)
    with pytest.raises(AudiobatError, match="is a folder: name a file"):
        predict(tagger, clips, tmp_path / "folder", format="csv", overwrite=True)
    with pytest.raises(AudiobatError, match="is a file: name a folder for its recordings"):
        predict(tagger, clips, tmp_path / "out.csv", format="raven", overwrite=True)
    assert (tmp_path / "out.csv").read_text() == (tmp_path / "folder" / "thesis.doc").read_text() == "precious"
    predict(tagger, clips, tmp_path / "out.csv", overwrite=True)
    assert (tmp_path / "out.csv").read_text().startswith("file,start")
    first = predict(tagger, clips, tmp_path / "tracks", format="raven", threshold=1.0)
    (clips / "two.wav").unlink()
    predict(tagger, clips, first, format="raven", top=1, overwrite=True)
    assert {path.name for path in first.rglob("*.txt")} == {"one.wav.selections.txt"}
    assert all(read_raven(path) for path in first.rglob("*.txt"))
    assert {path.name for path in tmp_path.iterdir()} == {"clips", "folder", "out.csv", "tracks"}


def test_recordings_outside_the_folder_stay_inside_the_folder_of_tracks(clips, tmp_path):
    (clips / "list.txt").write_text("../clips/one.wav\n" + str(clips / "two.wav") + "\n")
    out = predict(make_tagger(), clips / "list.txt", tmp_path / "out", format="audacity")
    found = [path.relative_to(out).as_posix() for path in sorted(out.rglob("*.txt"))]
    assert sorted(found) == sorted(["clips/one.wav.txt", f"{str(clips / 'two.wav').lstrip('/')}.txt"])
    (clips / "list.txt").write_text("one.wav\n../one.wav\n")
    with pytest.raises(AudiobatError, match=r"\.\./one\.wav and one\.wav would share a file"):
        predict(make_tagger(), clips / "list.txt", tmp_path / "other", format="audacity")
