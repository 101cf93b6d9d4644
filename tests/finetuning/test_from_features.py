"""`finetune --features`: labels of windows, a release that predicts as its head does on stored vectors, its record."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_encoder import write_encoder
from tone_season import write_season

import audiobat
from audiobat.cli.command import main
from audiobat.data.build import clip_table
from audiobat.data.embeddings import EmbeddingTable, read_embeddings
from audiobat.data.sources.read import read_labelled_clips
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import load_record, load_scores
from audiobat.finetuning.review_list import ReviewClip, read_review, read_taught, write_review
from audiobat.finetuning.window_labels import Source, label_windows
from audiobat.zoo import release as release_io


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_season(tmp_path_factory.mktemp("season"))


def test_a_release_predicts_from_audio_as_its_head_does_from_stored_vectors(season: Path, tmp_path: Path, capsys):
    out = tmp_path / "run"
    argv = ["finetune", "--model", str(season / "model"), "--data", str(season / "events.csv"), "--out", str(out)]
    argv += ["--features", str(season / "index.npz")]
    assert main([*argv, "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert not out.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(soundfile, "SoundFile", None)  # no audio is opened
        assert main(argv) == 0
    said = capsys.readouterr().out
    assert said.startswith(plan)
    assert "windows: 234 of 312 are known, in 6 recordings; " in plan
    index = read_embeddings(season / "index.npz")
    tagger = release_io.load_tagger(out)
    assert (tagger.classes, tagger.multi_label, tagger.task) == (("low", "top"), True, "clip")
    with torch.no_grad():
        logits = tagger.head.classify(torch.from_numpy(index.vectors))
    wanted = tagger.scores(logits).numpy()
    table = audiobat.predict(out, season / "recordings", tmp_path / "found.csv", threshold=0, top=2)
    with table.open(newline="") as file:
        found = {
            (r["file"], float(r["start"]), float(r["end"]), r["label"]): float(r["score"]) for r in csv.DictReader(file)
        }
    assert len(found) == 2 * len(index)
    for row in range(len(index)):
        place = (str(index.paths[row]), *(round(float(t[row]), 6) for t in (index.starts, index.ends)))
        for label, name in enumerate(tagger.classes):
            assert found[*place, name] == pytest.approx(wanted[row, label], abs=1e-4)
    assert read_taught(out / "release") == [
        (str(p), s) for p, s in zip(index.paths, index.starts, strict=True) if p[0] in "012345"
    ]
    assert main(argv) == 2
    assert "is finished: choose another --out, or replace it with --overwrite" in capsys.readouterr().err
    assert main([*argv, "--overwrite"]) == 0


@pytest.mark.parametrize(("labels", "exclusive"), [(("low", "top"), True), (("low", ""), False)])
def test_a_head_that_always_names_a_class_is_told(season: Path, tmp_path: Path, capsys, labels, exclusive: bool):
    rows = [f"{season}/recordings/{i}.wav,{labels[i % 2]}\n" for i in range(4)]
    (tmp_path / "clips.csv").write_text("path,label\n" + "".join(rows))
    argv = ["finetune", "--model", str(season / "model"), "--data", str(tmp_path / "clips.csv"), "--out", "none"]
    assert main([*argv, "--features", str(season / "index.npz"), "--dry-run"]) == 0
    assert ("head: one class for every window, silence too" in capsys.readouterr().out) == exclusive


def test_the_record_is_of_heads_that_have_not_heard_the_recordings(season: Path, tmp_path: Path):
    [record] = audiobat.finetune(
        season / "model", season / "events.csv", tmp_path / "run", features=season / "index.npz"
    )
    assert record.metrics["map"].value > 0.9
    assert record.head["folds"] == 5
    page = audiobat.report(tmp_path / "run", tmp_path / "page") / "index.html"
    assert "1 model, 1 head, 1 data set" in page.read_text(encoding="utf-8")
    scores = load_scores(
        next((tmp_path / "run" / "results").glob("*.json")),
        load_record(next((tmp_path / "run" / "results").glob("*.json"))),
    )
    assert len(scores.keys) == 234
    tagger, index = release_io.load_tagger(tmp_path / "run"), read_embeddings(season / "index.npz")
    with torch.no_grad():
        own = tagger.scores(tagger.head.classify(torch.from_numpy(index.vectors[:234]))).numpy()
    assert np.abs(own - scores.scores).max() > 1e-3  # those of the release have


def test_a_split_of_the_data_is_kept_and_thresholds_come_from_what_trains(season: Path, tmp_path: Path):
    head, *rows = (season / "events.csv").read_text().splitlines()
    marked = [f"{row},{'test' if row[11] in '45' else 'train'}" for row in rows]
    text = "\n".join([f"{head},split", *marked]).replace("recordings/", f"{season}/recordings/")
    (tmp_path / "split.csv").write_text(text)
    [record] = audiobat.finetune(
        season / "model", tmp_path / "split.csv", tmp_path / "a", features=season / "index.npz"
    )
    assert record.data.clips == {"train": 156, "test": 78}
    first = release_io.load_tagger(tmp_path / "a")
    assert {path[0] for path, _ in read_taught(tmp_path / "a" / "release")} == set("0123")
    (tmp_path / "split.csv").write_text("\n".join(line for line in text.splitlines() if "/5.wav" not in line))
    audiobat.finetune(season / "model", tmp_path / "split.csv", tmp_path / "b", features=season / "index.npz")
    second = release_io.load_tagger(tmp_path / "b")  # of fewer test clips: nothing of the release may change
    assert first.config.thresholds == second.config.thresholds
    assert len(first.config.thresholds) == 2
    assert torch.equal(first.head.classifier.weight, second.head.classifier.weight)
    with pytest.raises(AudiobatError, match="have their own splits: leave out --folds"):
        audiobat.finetune(
            season / "model", tmp_path / "split.csv", tmp_path / "c", features=season / "index.npz", folds=3
        )


def test_one_of_the_folds_that_are_drawn_tests_alone(season: Path, tmp_path: Path):
    drawn = {"features": season / "index.npz", "folds": 3, "test_fold": 2}
    [record] = audiobat.finetune(season / "model", season / "events.csv", tmp_path / "run", **drawn)
    assert record.data.clips == {"train": 156, "test": 78}
    assert len({path for path, _ in read_taught(tmp_path / "run" / "release")}) == 4


def test_thresholds_of_the_release_find_the_calls_of_other_recordings(season: Path, tmp_path: Path):
    audiobat.finetune(season / "model", season / "events.csv", tmp_path / "run", features=season / "index.npz")
    tagger, index = release_io.load_tagger(tmp_path / "run"), read_embeddings(season / "index.npz")
    known = label_windows(index, [Source("all", read_labelled_clips(season / "all.csv"))])
    others = np.isin(index.paths[known.rows], ["6.wav", "7.wav"])
    with torch.no_grad():
        scores = tagger.scores(tagger.head.classify(torch.from_numpy(index.vectors[known.rows[others]]))).numpy()
    found, true = scores > np.array(tagger.config.thresholds), known.table.targets()[others]
    assert (2 * (found & true).sum(0) / (found.sum(0) + true.sum(0)) > 0.85).all()


def truth(start: float, end: float, events) -> set[str]:
    """The rule once more, sample by sample."""
    time = np.arange(round(start * 1000), round(end * 1000)) / 1000 + 0.0005
    found = set()
    for label, onset, offset in events:
        inside = float(((time >= onset) & (time < offset)).sum()) / 1000
        if inside >= 0.5 * min(end - start, offset - onset):
            found.add(label)
    return found


def index_of(paths, starts, length: float, root: str = "/r") -> EmbeddingTable:
    starts = np.array(starts, float)
    vectors = np.zeros((len(starts), 2), np.float32)
    return EmbeddingTable(Path("index.npz"), np.array(paths), starts, starts + length, vectors, {"root": root})


def test_a_window_has_the_labels_of_events_that_it_half_holds_or_that_half_hold_it():
    rng = np.random.default_rng(3)
    events = [
        [
            (str(rng.choice(list("ab"))), s, s + e)
            for s, e in zip(rng.uniform(0, 19, 9).round(2), rng.choice([0.2, 1.0, 7.0], 9), strict=True)
        ]
        for _ in range(3)
    ]
    starts = [n * 0.5 for n in range(40)]
    index = index_of([f"{n}.wav" for n in range(4) for _ in starts], starts * 4, 1.3)
    found = label_windows(index, [Source("x", clip_table("/r", ["0.wav", "1.wav", "2.wav"], events=events))])
    assert found.rows.tolist() == list(range(120))  # the fourth recording is not annotated
    for clip_id, row in enumerate(found.rows.tolist()):
        wanted = truth(starts[row % 40], starts[row % 40] + 1.3, events[row // 40])
        names = {found.table.classes[label] for label in found.table.labels.row(clip_id).tolist()}
        assert names == wanted, row
    assert found.table.columns["group"][0] == "0.wav"


def test_clips_that_are_parts_of_a_recording_label_the_windows_inside_them():
    index = index_of(["a.wav"] * 10, range(10), 1.0)
    clips = clip_table(
        *("/r", ["a.wav", "a.wav"]),
        keys=["one", "two"],
        begins=[2.0, 6.0],
        seconds=[3.0, 2.0],
        events=[[("x", 0.0, 1.0)], [("y", 1.0, 2.0)]],
    )
    found = label_windows(index, [Source("x", clips)])
    names = [[found.table.classes[c] for c in found.table.labels.row(i).tolist()] for i in range(len(found.table))]
    assert (found.rows.tolist(), names) == ([2, 3, 4, 6, 7], [["x"], [], [], [], ["y"]])


def test_an_index_that_was_moved_is_known_by_names_and_what_it_lacks_is_told():
    index = index_of(["a.wav", "b.wav"], [0, 0], 1.0, root="/elsewhere")
    table = clip_table("/r", ["a.wav", "c.wav"], labels=[["x"], ["y"]])
    found = label_windows(index, [Source("x", table)])
    assert (found.rows.tolist(), found.unknown, found.table.classes) == ([0], ["/r/c.wav"], ("x",))
    several = index_of(["1/a.wav", "2/a.wav", "b.wav", "3/c.wav"], [0] * 4, 1.0, root="/elsewhere")
    files = ["site/2/a.wav", "a.wav", "x/b.wav", "c.wav", "4/c.wav"]  # of the second nobody knows which it is
    found = label_windows(several, [Source("x", clip_table("/r", files, labels=[[name] for name in files]))])
    assert found.rows.tolist() == [1, 2, 3]
    assert found.unknown == ["/r/a.wav", "/r/4/c.wav"]
    with pytest.raises(AudiobatError, match=r"has no embedding of the recordings of other, such as /r/c\.wav"):
        label_windows(index, [Source("other", clip_table("/r", ["c.wav"], labels=[["x"]]))])
    empty = clip_table("/r", ["a.wav"], labels=[[]], classes=["x"])
    with pytest.raises(AudiobatError, match=r"labels no window of index\.npz"):
        label_windows(index, [Source("x", empty)])


def test_marks_of_a_review_join_other_labels_and_open_or_removed_clips_say_nothing(tmp_path: Path):
    index = index_of(["a.wav"] * 4 + ["b.wav"] * 4, [0, 1, 2, 3] * 2, 1.0)
    clips = [ReviewClip(f"{n}.wav", "ab"[n // 3] + ".wav", float(n % 3), n % 3 + 1.0) for n in range(6)]
    write_review(tmp_path, clips)
    assert read_review(tmp_path) == clips
    assert read_review(tmp_path / "nowhere") == []
    for clip in clips[:5]:  # the last was removed
        (tmp_path / clip.clip).touch()
    marks = {
        "0.wav": [("x", 0.2, 0.3)],
        "1.wav": [("? x", 0.0, 1.0)],
        "2.wav": [("y", 0, 1.0), ("x", 0.5, 0.9)],
        "3.wav": [],
    }
    table = clip_table(tmp_path, list(marks), events=list(marks.values()))
    found = label_windows(index, [Source(str(tmp_path), table, clips)])
    names = [{found.table.classes[c] for c in found.table.labels.row(i).tolist()} for i in range(len(found.table))]
    assert (found.rows.tolist(), names) == ([0, 2, 4, 5], [{"x"}, {"x", "y"}, set(), set()])
    assert (found.open, found.table.classes) == (1, ("x", "y"))
    annotated = Source("x", clip_table("/r", ["a.wav"], events=[[("z", 0.0, 1.2)]]))
    found = label_windows(index, [annotated, Source(str(tmp_path), table, clips)])
    names = [{found.table.classes[c] for c in found.table.labels.row(i).tolist()} for i in range(len(found.table))]
    assert (found.rows.tolist(), names) == ([0, 1, 2, 3, 4, 5], [{"x", "z"}, set(), {"x", "y"}, set(), set(), set()])


def test_what_cannot_be_used_is_said_in_a_sentence(season: Path, tmp_path: Path):
    def fails(words: str, model: Path = season / "model", index: Path = season / "index.npz", **arguments) -> None:
        with pytest.raises(AudiobatError, match=words):
            audiobat.finetune(model, season / "events.csv", tmp_path / "run", features=index, **arguments)
        assert not (tmp_path / "run").exists()

    write_encoder(tmp_path / "other", seed=1)
    fails("has the embeddings of another model, .*/model: give --model that one", model=tmp_path / "other")
    old = tmp_path / "old.npz"
    with np.load(season / "index.npz") as arrays:
        np.savez(old, **{name: arrays[name] for name in arrays.files if name != "meta"})
    fails(r"old\.npz does not say its weights: make it anew", index=old)
    fails(
        "optim.warmup_steps is 1, and has no say with --features",
        config={"train": {"steps": 7}, "optim": {"warmup_steps": 1}},
    )
    fails("train.loss is 'asl'", config={"train": {"loss": "asl"}})
    fails("--folds is 7: use 2 to 6", folds=7)
    for sources, index in ([season / "events.csv"] * 2, None), ([], season / "index.npz"):
        with pytest.raises(AudiobatError, match=f"--data has {len(sources)} sources: give one"):
            audiobat.finetune(season / "model", sources, tmp_path / "run", features=index)
