"""Result records and scores: what is written comes back, foreign files are refused, the code names its commit."""

import hashlib
import io
import json
import math
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiobat.errors import AudiobatError
from audiobat.evaluation.record import (
    DataInfo,
    Metric,
    ModelInfo,
    ResultRecord,
    Scores,
    ScoresFile,
    find_records,
    load_record,
    load_scores,
    save_scores,
)

RECORD = ResultRecord(
    model=ModelInfo("bat_nano", "ab" * 32, 1_234),
    data=DataInfo("scenes", "cd" * 32, {"train": 12, "test": 4}, 1, 3, 2),
    head={"kind": "cgp", "prototypes": 512, "steps": 10, "betas": [0.9, 0.999], "weight_decay": 0.5},
    preset="paper",
    seed=3,
    metrics={"map": Metric(0.5, 0.4, 0.6, "macro mean"), "f1": Metric(0.1, 0.0, math.nan, "at 0.5", sd=0.05)},
    per_class={"Töne": 0.75, "b": 0.25, "c": None},
    gate_weights=[0.25, 0.75],
    wall_seconds=1.5,
    clips_per_second=320.0,
    device="cpu",
    environment={"torch": "2.13.0"},
    git_commit=None,
    folds={"1": {"map": 0.4, "f1": 0.1}},
)

SCORES = Scores(
    keys=numpy.array(["a.wav", "Töne/b.wav", "c.wav"]),
    scores=numpy.array([[0.5, -1e30], [1e-30, 2.0], [0.1, -0.0]], dtype=numpy.float32),
    targets=numpy.array([[True, False], [True, True], [False, False]]),
    folds=numpy.array(["1", "2", "2"]),
)


def save_both(folder: Path, scores: Scores = SCORES) -> tuple[Path, ResultRecord]:
    path = folder / "results" / "v1.5_cgp_0.json"
    record = replace(RECORD, scores=save_scores(path, scores))
    record.save(path)
    return path, load_record(path)


def test_a_record_comes_back_as_it_was_saved(tmp_path: Path):
    path = tmp_path / "new" / "results" / "a.json"
    RECORD.save(path)
    back = load_record(path)
    assert math.isnan(back.metrics["f1"].high)
    assert repr(back) == repr(RECORD)
    assert back.main_metric == "map"
    assert replace(back, metrics={**back.metrics, "accuracy": back.metrics["map"]}).main_metric == "accuracy"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]  # nothing beside it
    json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert "Töne" in path.read_text(encoding="utf-8")


def test_a_failed_save_leaves_the_old_record(tmp_path: Path):
    path = tmp_path / "a.json"
    RECORD.save(path)
    with pytest.raises(TypeError):
        replace(RECORD, head={"kind": object()}).save(path)
    assert load_record(path).head == RECORD.head


def test_records_are_found_in_folders_and_files(tmp_path: Path):
    first, second = tmp_path / "run" / "results" / "a.json", tmp_path / "run" / "more" / "results" / "b.json"
    RECORD.save(first)
    replace(RECORD, seed=4).save(second)
    (tmp_path / "run" / "env.json").write_text("{}")  # beside results/, not in it
    assert find_records(tmp_path / "run") == [second, first]
    assert find_records(second.parent) == [second]
    assert find_records(first) == [first]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "no JSON object"),
        ('{"acc": 0.5}', "no result record"),
        ('{"format": "audiobat-result-0"}', "no result record"),
        ('{"format": "audiobat-result-1"}', "damaged"),
        ('{"format": "audiobat-result-1", "model": {"name": 1}}', "damaged"),
    ],
)
def test_a_foreign_or_damaged_file_is_refused_in_one_sentence(tmp_path: Path, text: str, words: str):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(AudiobatError, match=words) as caught:
        load_record(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_a_missing_or_unknown_field_and_an_empty_folder_are_errors(tmp_path: Path):
    RECORD.save(tmp_path / "a.json")
    whole = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    for damaged in ({k: v for k, v in whole.items() if k != "seed"}, {**whole, "sead": 1}):
        (tmp_path / "a.json").write_text(json.dumps(damaged))
        with pytest.raises(AudiobatError, match=r"sea?e?d"):
            load_record(tmp_path / "a.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudiobatError, match="no result record"):
        find_records(tmp_path / "empty")
    (tmp_path / "empty" / "config.yaml").touch()
    (tmp_path / "empty" / "env.json").touch()
    with pytest.raises(AudiobatError, match="is a run that has no result record yet"):
        find_records(tmp_path / "empty")
    with pytest.raises(AudiobatError, match="missing"):
        load_record(tmp_path / "missing.json")


def test_records_are_found_where_they_are_loaded_from(tmp_path: Path):
    path, _ = save_both(tmp_path)
    assert find_records(tmp_path) == find_records(path) == find_records(path.parent) == [path]
    with pytest.raises(AudiobatError, match="no result record"):
        find_records(tmp_path / "none")


def test_a_record_of_before_there_were_scores_loads(tmp_path: Path):
    path = tmp_path / "a.json"
    RECORD.save(path)
    old = json.loads(path.read_text(encoding="utf-8"))
    assert old.pop("scores") is None
    path.write_text(json.dumps(old))
    assert repr(load_record(path)) == repr(RECORD)
    with pytest.raises(AudiobatError, match="probe again"):
        load_scores(path, load_record(path))


@pytest.mark.parametrize("folds", [SCORES.folds, None])
def test_scores_come_back_bit_by_bit_from_beside_their_record(tmp_path: Path, folds):
    path, record = save_both(tmp_path, replace(SCORES, folds=folds))
    beside = path.parent / "v1.5_cgp_0.scores.npz"
    assert sorted(path.parent.iterdir()) == [path, beside]  # and nothing beside them
    assert record.scores == ScoresFile(beside.name, hashlib.sha256(beside.read_bytes()).hexdigest())
    back = load_scores(path, record)
    for name, array in vars(SCORES).items():
        array = folds if name == "folds" else array
        found = getattr(back, name)
        if array is None:
            assert found is None
        else:
            assert found.dtype == array.dtype
            assert found.tobytes() == array.tobytes()
    path.parent.rename(tmp_path / "moved")
    assert load_scores(tmp_path / "moved" / path.name, record).keys.tolist() == SCORES.keys.tolist()


def test_scores_of_unequal_length_or_wrong_kind_are_refused():
    for wrong in (
        {"keys": SCORES.keys[:2]},
        {"targets": SCORES.targets[:, :1]},
        {"scores": SCORES.targets},
        {"scores": SCORES.scores[0]},
        {"folds": numpy.arange(3)},
        {"scores": SCORES.scores[:0], "targets": SCORES.targets[:0], "keys": SCORES.keys[:0], "folds": None},
    ):
        with pytest.raises(AudiobatError, match=next(iter(wrong))):
            replace(SCORES, **wrong)


def test_scores_that_are_not_the_records_are_refused(tmp_path: Path):
    path, record = save_both(tmp_path)
    beside = path.with_suffix(".scores.npz")
    beside.write_bytes(beside.read_bytes()[:-1])
    with pytest.raises(AudiobatError, match="sha256 differs"):
        load_scores(path, record)
    beside.unlink()
    with pytest.raises(AudiobatError, match="cannot be read"):
        load_scores(path, record)
    for name in ("../elsewhere.npz", "/etc/hostname", 5):
        with pytest.raises(AudiobatError, match="own folder"):
            load_scores(path, replace(record, scores=ScoresFile(name, "")))


def refuse(folder: Path, content: bytes) -> None:
    """A file that its record vouches for and that holds no scores."""
    path = folder / "a.json"
    path.with_name("x.npz").write_bytes(content)
    record = replace(RECORD, scores=ScoresFile("x.npz", hashlib.sha256(content).hexdigest()))
    with pytest.raises(AudiobatError, match="no file of scores") as caught:
        load_scores(path, record)
    assert "x.npz" in str(caught.value)


def packed(write=numpy.savez, **arrays) -> bytes:
    file = io.BytesIO()
    write(file, **arrays)
    return file.getvalue()


def vast(whole) -> bytes:
    """Scores whose header promises 700 TB."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in whole.items():
            member = io.BytesIO()
            numpy.lib.format.write_array(member, array)
            archive.writestr(
                f"{name}.npy", member.getvalue().replace(b"(3, 2), }" + b" " * 13, b"(87654321, 2000000), }")
            )
    return file.getvalue()


def test_hostile_files_of_scores_are_refused(tmp_path: Path):
    whole = {name: array for name, array in vars(SCORES).items() if array is not None}
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (Path.touch, (ran,))

    refuse(tmp_path, packed(**{**whole, "keys": numpy.array([Payload()] * 3, dtype=object)}))
    assert not ran.exists()
    refuse(tmp_path, packed(numpy.savez_compressed, **whole))
    refuse(tmp_path, packed(**whole, more=numpy.zeros(1)))
    refuse(tmp_path, packed(keys=whole["keys"]))
    refuse(tmp_path, packed(**{**whole, "keys": whole["keys"][:2]}))
    refuse(tmp_path, packed(numpy.save, arr=whole["scores"]))
    refuse(tmp_path, vast(whole))
    refuse(tmp_path, b"")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_cut_or_scribbled_file_of_scores_gives_scores_or_one_sentence(tmp_path: Path, data):
    content = bytearray(packed(**{name: array for name, array in vars(SCORES).items() if array is not None}))
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    (tmp_path / "x.npz").write_bytes(content)
    try:
        info = ScoresFile("x.npz", hashlib.sha256(content).hexdigest())
        found = load_scores(tmp_path / "a.json", replace(RECORD, scores=info))
    except AudiobatError:
        return
    assert found.scores.shape == found.targets.shape
