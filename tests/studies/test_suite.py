"""`audiobat suite`: a probe and one encoding for each model and data set; killed, it goes on; a failure stops none."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from tiny_encoder import RATE, write_encoder

from audiobat.cli import command as cli
from audiobat.errors import Stopped
from audiobat.evaluation.record import load_record
from audiobat.probing import encoding
from audiobat.studies import suite as verb
from audiobat.studies.suite import suite

CLIPS = 18
FIELDS = {
    "probe": {"heads": ["linear", "knn"], "workers": 0, "train": {"steps": 4, "warmup_steps": 1, "batch_size": 4}},
    "sets": {"high": {"metric": "f1_top", "probe": {"heads": ["linear"], "seeds": [0, 1]}}, "low": {}},
}


def write_clips(folder: Path, pitch: float, splits=("train", "test")) -> Path:
    """Tones of three classes; returns the table."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines, time = ["path,label,split"], np.arange(RATE // 4) / RATE
    for i in range(CLIPS):
        wave = 0.3 * np.sin(2 * np.pi * pitch * (1 + i % 3) * time) + 0.1 * rng.standard_normal(len(time))
        soundfile.write(folder / f"{i}.wav", wave, RATE)
        lines.append(f"{i}.wav,class{i % 3},{splits[i >= CLIPS // 2]}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder / "clips.csv"


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, list[str]]:
    """Two models and two data sets, as words NAME=PATH."""
    root = tmp_path_factory.mktemp("suite")
    models = [f"{name}={write_encoder(root / name, seed=seed)}" for seed, name in enumerate(("one", "two"))]
    data = [f"{name}={write_clips(root / name, pitch)}" for name, pitch in (("low", 150.0), ("high", 800.0))]
    return {"models": models, "data": data}


@pytest.fixture(scope="module")
def done(places, tmp_path_factory) -> tuple[Path, list[int], list[str]]:
    """A suite that has run: its folder, the clips of each batch that was encoded, and the models that were loaded."""
    out, encoded, loaded = tmp_path_factory.mktemp("done") / "out", [], []
    encode, load = encoding.encode, verb.load_encoder

    def counted(encoder, waveform, lengths, device):
        encoded.append(len(waveform))
        return encode(encoder, waveform, lengths, device)

    def noted(path, **arguments):
        loaded.append(Path(path).name)
        return load(path, **arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "encode", counted)
        patch.setattr(verb, "load_encoder", noted)
        outcomes = suite(FIELDS, out=out, **places)
    assert [str(outcome.pair) for outcome in outcomes] == ["one, high", "one, low", "two, high", "two, low"]
    return out, encoded, loaded


def test_a_model_is_loaded_once_and_hears_a_clip_once_whatever_the_heads_and_seeds(done):
    _, encoded, loaded = done
    assert sum(encoded) == 2 * 2 * CLIPS
    assert loaded == ["one", "two"]


def test_records_call_models_and_data_as_the_suite_does_and_lie_in_a_folder_each(done):
    out, *_ = done
    records = [load_record(path) for path in sorted(out.rglob("results/*.json"))]
    found = [(r.model.id, r.data.name, r.head["kind"], r.seed) for r in records]
    expected = [
        (model, data, kind, seed)
        for model in ("one", "two")
        for data, kind, seed in (("high", "linear", 0), ("high", "linear", 1), ("low", "knn", 0), ("low", "linear", 0))
    ]
    assert found == expected
    assert not list(out.rglob("features")), "nothing that no later run reads is left"


def test_standings_rank_by_the_metric_that_was_asked_for(done):
    out, *_ = done
    header = (out / "tables/standings.csv").read_text().splitlines()[0]
    assert '"high Linear, F1, top class"' in header
    assert '"low Linear, Accuracy"' in header
    assert (out / "figures/ranks.svg").exists()
    lines = [json.loads(line) for line in (out / verb.BOARD).read_text().splitlines()]
    assert {(line["record"]["data"]["name"], line["metric"]) for line in lines} == {
        ("high", "f1_top"),
        ("low", "accuracy"),
    }


def test_what_is_done_stays_done(done, places, monkeypatch, capsys):
    out, *_ = done
    before = (out / verb.BOARD).read_bytes()
    for name in ("probe_as", "load_encoder"):
        monkeypatch.setattr(verb, name, lambda *args, **kwargs: pytest.fail("it was done"))
    outcomes = suite(FIELDS, out=out, **places)
    assert [len(outcome.records) for outcome in outcomes] == [2, 2, 2, 2]
    assert (out / verb.BOARD).read_bytes() == before
    assert "0 of 8 results are new" in capsys.readouterr().out


def test_a_suite_that_was_stopped_goes_on(tmp_path, places, monkeypatch):
    probe, calls = verb.probe_as, []

    def stopped(model, data, *args, **kwargs):
        calls.append((model, data))
        if len(calls) == 2:
            raise Stopped
        return probe(model, data, *args, **kwargs)

    fields = {**FIELDS, "probe": {"heads": ["knn"], "workers": 0}, "sets": {}}
    monkeypatch.setattr(verb, "probe_as", stopped)
    with pytest.raises(Stopped):
        suite(fields, out=tmp_path / "out", **places)
    outcomes = suite(fields, out=tmp_path / "out", **places)
    assert calls == [("one", "low"), ("one", "high"), ("one", "high"), ("two", "low"), ("two", "high")]
    assert all(outcome.records for outcome in outcomes)


def test_a_pair_that_fails_is_told_and_stops_none_of_the_others(tmp_path, places, capsys):
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({"probe": {"heads": ["knn"], "workers": 0}}))
    untested = write_clips(tmp_path / "untested", 300.0, ("train", "valid"))
    argv = ["suite", "--config", str(tmp_path / "my.yaml"), "--out", str(tmp_path / "out"), "--models"]
    argv += [places["models"][0], "broken=/nowhere", "--data", places["data"][0], f"untested={untested}"]
    assert cli.main(argv) == 2
    shown = capsys.readouterr()
    assert "failed: one, untested: Split test has no clips" in shown.out
    assert "1 of 4 pairs measured" in shown.out
    assert shown.err.splitlines()[-1].startswith(
        "audiobat: 3 of 4 pairs failed. one, untested: Split test has no clips"
    )
    assert "broken, low; broken, untested: No such folder or name: /nowhere" in shown.err
    assert len((tmp_path / "out" / verb.BOARD).read_text().splitlines()) == 1
    assert not (tmp_path / "out/runs/broken").exists()


def test_a_defect_in_one_pair_leaves_its_traceback_beside_the_runs(tmp_path, places, monkeypatch):
    def broken(model, *args, **kwargs):
        raise ZeroDivisionError("half")

    monkeypatch.setattr(verb, "probe_as", broken)
    with pytest.raises(verb.AudiobatError, match=r"ZeroDivisionError: half \(see .*low\.error\.txt\)"):
        suite({"probe": {"heads": ["knn"]}}, out=tmp_path, **places)
    assert "ZeroDivisionError" in (tmp_path / "runs/one/low.error.txt").read_text()


def test_sets_whose_names_differ_behind_a_dot_have_a_traceback_each(tmp_path, places, monkeypatch):
    monkeypatch.setattr(verb, "probe_as", lambda *_, **__: 1 / 0)
    paths = [word.partition("=")[2] for word in places["data"]]
    data = [f"tones.{number}={path}" for number, path in enumerate(paths)]
    with pytest.raises(verb.AudiobatError, match="2 of 2 pairs failed"):
        suite({"probe": {"heads": ["knn"]}}, out=tmp_path, models=places["models"][:1], data=data)
    logs = sorted(path.name for path in (tmp_path / "runs" / "one").glob("*.error.txt"))
    assert logs == ["tones.0.error.txt", "tones.1.error.txt"]


def test_other_settings_than_those_of_what_is_done_are_refused(done, places):
    out, *_ = done
    fields = {**FIELDS, "probe": {**FIELDS["probe"], "heads": ["knn"]}}
    with pytest.raises(verb.AudiobatError, match=r"holds a run with heads .*not \['knn'\]"):
        suite(fields, out=out, **places)


def test_a_metric_that_records_lack_fails_its_set_alone(done, places):
    out, *_ = done
    fields = {**FIELDS, "sets": {**FIELDS["sets"], "high": {**FIELDS["sets"]["high"], "metric": "f1_topp"}}}
    with pytest.raises(verb.AudiobatError, match=r"2 of 4 pairs failed.*'f1_topp' \(did you mean f1_top\?\): choose"):
        suite(fields, out=out, **places)


def test_a_metric_that_records_lack_is_told_with_the_first_of_them(tmp_path, places, capsys):
    fields = {"probe": {"heads": ["knn"], "workers": 0}, "sets": {"low": {"metric": "mapp"}}}
    only = {"models": places["models"], "data": places["data"][:1]}
    with pytest.raises(verb.AudiobatError, match="2 of 2 pairs failed"):
        suite(fields, out=tmp_path / "out", **only)
    lines = [line for line in capsys.readouterr().out.splitlines() if "one, low" in line or "two, low" in line]
    assert [line.partition(": ")[2].partition(" is ")[0] for line in lines] == [
        *("probe", "one, low: sets.low.metric"),
        *("probe", "two, low: sets.low.metric"),
    ]


def test_a_dry_run_lists_pairs_clips_and_what_is_missing(done, places, tmp_path, capsys):
    out, *_ = done
    tasks = {**FIELDS["probe"], "tasks": ["labels", "retrieval"]}
    fields = {**FIELDS, "probe": tasks, "models": {"later": None, "broken": "/nowhere"}}
    assert suite(fields, out=out, **places, dry_run=True) == []
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "│ linear, knn, retrieval │",
        "low: 9 clips train, 9 test, by the column split",
        "! broken: No such folder or name: /nowhere",
        "weights unreadable",
        "no weights",
        "0 of 8 pairs can run, 4 are done.",
    ):
        assert words in shown


@pytest.mark.parametrize(("trusted", "state"), [(False, "0 of 2 pairs can run"), (True, "2 of 2 pairs can run")])
def test_a_dry_run_trusts_the_programs_that_a_run_would(places, tmp_path, capsys, trusted, state):
    program = tmp_path / "means.pt"
    torch.jit.script(torch.nn.AdaptiveAvgPool1d(4)).save(str(program))
    models = [f"means={program}@{RATE}"]
    suite(
        {"probe": {"workers": 0}},
        out=tmp_path,
        models=models,
        data=places["data"],
        dry_run=True,
        trust_remote_code=trusted,
    )
    assert state in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("", "The suite has no models: name them by --models NAME=PATH, --data"),
        ("--models a=x", "The suite has no data sets: name them by"),
        ("--models a=x --data b", "--data has 'b': give NAME=PATH"),
        ("--models a=x --data b=y b=z", "--data names b twice: give it one place"),
        ("--models a=x --data b=y --only c", "--only has 'c': choose from a, b"),
        ("--models a=x --data ..=y", "sets is '..': use letters or digits in a name"),
        ("--models a=x --data b:1=y b/1=y", "sets is 'b:1': another one has the same folder, b-1"),
    ],
)
def test_a_mistake_is_one_sentence(argv, sentence, tmp_path, capsys):
    assert cli.main(["suite", "--out", str(tmp_path / "out"), *argv.split()]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sets: {a: {path: x}, a: {path: y}}", "a comes twice"),
        ("sets: {a: {pth: x}}\nmodels: {m: x}", "Unknown field sets.a.pth (did you mean path?)"),
        ("sets: {a: {path: x, probe: {heads: [cpg]}}}\nmodels: {m: x}", "The probe of set a: heads is 'cpg'"),
        (
            "sets: {a: {metric: map}}\nmodels: {m: x}",
            "None of the 1 pairs can run: name weights with --models and data",
        ),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(text, sentence, tmp_path, capsys):
    (tmp_path / "my.yaml").write_text(text)
    assert cli.main(["suite", "--config", str(tmp_path / "my.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert sentence in capsys.readouterr().err
