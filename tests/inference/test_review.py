"""`predict --review`: which windows are picked, the clips and tables that are written, and the way back to training."""

import csv
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_encoder import MODEL, RATE
from tone_season import write_season

import audiobat
from audiobat.cli.command import main
from audiobat.config import HeadConfig, TaggerConfig
from audiobat.data.embeddings import EmbeddingTable, read_embeddings
from audiobat.errors import AudiobatError
from audiobat.finetuning.review_list import read_review
from audiobat.inference import review as review_module
from audiobat.inference.library.vectors import open_library
from audiobat.inference.review import apart, most_different, scores_of
from audiobat.models.encoder import AudioEncoder
from audiobat.models.tagger import Tagger
from audiobat.zoo import release as release_io


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The season, and a head that two of its recordings taught: first/."""
    folder = write_season(tmp_path_factory.mktemp("season"))
    lines = (folder / "events.csv").read_text().splitlines()
    (folder / "two.csv").write_text(
        "\n".join([lines[0], *(line for line in lines if line.startswith(("recordings/0", "recordings/1")))])
    )
    audiobat.finetune(folder / "model", folder / "two.csv", folder / "first", features=folder / "index.npz")
    return folder


def review(season: Path, out: Path, count: int = 12, model: str = "first", **arguments) -> Path:
    arguments = {"features": season / "index.npz"} | arguments
    return audiobat.predict(season / model, season / "recordings", out, review=count, **arguments)


def answer(folder: Path, truth: Path) -> None:
    """Put what is true in the place of the questions of selection tables: what a person with good ears would do."""
    with truth.open(newline="") as file:
        events = [
            (Path(r["path"]).name, r["label"], float(r["onset"]), float(r["offset"])) for r in csv.DictReader(file)
        ]
    clips = {clip.clip: clip for clip in read_review(folder)}
    for path in folder.glob("*.selections.txt"):
        head, *rows = path.read_text().splitlines()
        answered = []
        for row in rows:
            cells = row.split("\t")
            if not cells[-1].startswith("?"):
                answered.append(row)
                continue
            clip, base = clips[cells[7]], float(cells[3]) - float(cells[8])
            for name, label, onset, offset in events:
                start, end = max(onset, clip.start) - clip.start, min(offset, clip.end) - clip.start
                if name == clip.path and end - start > 0.05:
                    times = (f"{base + start:.6f}", f"{base + end:.6f}")
                    answered.append("\t".join([*cells[:3], *times, *cells[5:8], f"{start:.6f}", label]))
        path.write_text("\n".join([head, *answered, ""]))


def test_clips_are_the_windows_and_the_table_asks_of_each(season: Path, tmp_path: Path, capsys):
    out = tmp_path / "review"
    argv = ["predict", "--model", str(season / "first"), "--data", str(season / "recordings"), "--out", str(out)]
    assert main([*argv, "--review", "12", "--features", str(season / "index.npz")]) == 0
    said = capsys.readouterr().out
    assert f"{out}: 12 clips to hear; {out}/001-012.selections.txt asks" in said
    command = shlex.split(said.partition("then: audiobat ")[2].partition(" (")[0])
    assert main([*command[:-1], str(tmp_path / "next"), "--dry-run"]) == 2  # as every clip still has its question
    assert "12 clips of the review still have a question mark" in capsys.readouterr().err
    clips = read_review(out)
    assert len(clips) == 12
    index = read_embeddings(season / "index.npz")
    rows = {(str(p), float(s)): row for row, (p, s) in enumerate(zip(index.paths, index.starts, strict=True))}
    scores = scores_of(release_io.load_tagger(season / "first"), index)
    with (out / "001-012.selections.txt").open(newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    begin = 0.0
    for clip, line in zip(clips, table, strict=True):
        row = rows[clip.path, clip.start]
        samples, rate = soundfile.read(out / clip.clip)
        whole, _ = soundfile.read(season / "recordings" / clip.path)
        assert rate == RATE
        np.testing.assert_allclose(samples, whole[round(clip.start * RATE) : round(clip.end * RATE)], atol=1e-4)
        best = int(scores[row].argmax())
        assert line["Label"] == f"? {('low', 'top')[best]} {scores[row, best]:.2f}"
        assert (line["Begin File"], float(line["File Offset (s)"])) == (clip.clip, 0)
        assert float(line["Begin Time (s)"]) == pytest.approx(begin, abs=1e-5)
        assert (line["Low Freq (Hz)"], line["High Freq (Hz)"]) == ("0.0", str(RATE / 2))
        begin += clip.end - clip.start
    assert {clip.path for clip in clips}.isdisjoint({"0.wav", "1.wav"})  # which the head was taught


def test_picks_are_uncertain_and_differ(season: Path, tmp_path: Path):
    index = read_embeddings(season / "index.npz")
    tagger = release_io.load_tagger(season / "first")
    scores, thresholds = scores_of(tagger, index), np.array(tagger.config.thresholds)
    assert thresholds.shape == (2,)
    picked = {(clip.path, clip.start) for clip in read_review(review(season, tmp_path / "review"))}
    mask = np.array([place in picked for place in zip(index.paths.tolist(), index.starts.tolist(), strict=True)])
    sure = np.abs(np.log(scores / (1 - scores)) - np.log(thresholds / (1 - thresholds))).min(1)
    others = ~np.isin(index.paths, ["0.wav", "1.wav"]) & ~mask
    assert np.median(sure[mask]) < np.quantile(sure[others], 0.3)
    vectors = open_library(season / "index.npz").rows
    least = np.argsort(np.where(others | mask, sure, np.inf))[: mask.sum()]

    taught = np.isin(index.paths, ["0.wav", "1.wav"])

    def nearest(rows) -> float:
        """Cosine of each row with the most similar of what is taught or among the others, the mean over rows."""
        cosines = vectors[rows] @ vectors[[*rows, *np.flatnonzero(taught)]].T
        np.fill_diagonal(cosines, -1)
        return float(cosines.max(1).mean())

    assert nearest(np.flatnonzero(mask)) < nearest(least)


def test_answers_teach_and_what_was_heard_is_not_asked_again(season: Path, tmp_path: Path, capsys):
    out = review(season, tmp_path / "review", 10)
    sources = [season / "two.csv", out]
    audiobat.finetune(season / "model", sources, tmp_path / "open", features=season / "index.npz")
    assert "open: 10 clips of reviews still have a question mark" in capsys.readouterr().out
    with pytest.raises(AudiobatError, match="has no answer: 10 clips of the review still have a question mark"):
        audiobat.finetune(season / "model", out, tmp_path / "none", features=season / "index.npz")
    answer(out, season / "all.csv")
    before = (out / "001-010.selections.txt").read_bytes()
    audiobat.finetune(season / "model", sources, tmp_path / "second", features=season / "index.npz")
    assert "windows: 88 of 312 are known, in " in capsys.readouterr().out
    review(season, out, 6, model="model")  # a bare encoder knows of no teaching: the folder itself does
    clips = read_review(out)
    assert len({(clip.path, clip.start) for clip in clips}) == len(clips) == 16
    assert (out / "001-010.selections.txt").read_bytes() == before
    assert sorted(path.name for path in out.glob("*.txt")) == ["001-010.selections.txt", "011-016.selections.txt"]
    assert (out / "011-016.selections.txt").read_text().splitlines()[1].endswith("\t?")


def test_marks_of_an_audacity_track_come_back_and_an_empty_one_says_nothing_is_there(
    season: Path, tmp_path: Path, capsys
):
    out = review(season, tmp_path / "review", 3, format="audacity")
    clips = read_review(out)
    tracks = [(out / clip.clip).with_suffix(".txt") for clip in clips]
    assert all(track.read_text().startswith("0.000000\t0.600000\t? ") for track in tracks)
    tracks[0].write_text("0.1\t0.3\tlow\n")
    tracks[1].write_text("")
    audiobat.finetune(season / "model", [season / "two.csv", out], tmp_path / "run", features=season / "index.npz")
    said = capsys.readouterr().out
    assert "windows: 80 of 312 are known" in said  # 78 of two recordings, and two answers
    assert "open: 1 clips" in said


def test_sounds_are_found_that_are_like_a_given_one(season: Path, tmp_path: Path):
    time = np.arange(round(0.6 * RATE)) / RATE
    soundfile.write(tmp_path / "like.wav", 0.2 * np.sin(2 * np.pi * 2500 * time), RATE)
    out = review(season, tmp_path / "review", 8, model="model", like=tmp_path / "like.wav")
    with (season / "all.csv").open(newline="") as file:
        events = [
            (Path(r["path"]).name, r["label"], float(r["onset"]), float(r["offset"])) for r in csv.DictReader(file)
        ]
    hits = [
        any(
            name == clip.path and label == "top" and onset < clip.end and offset > clip.start
            for name, label, onset, offset in events
        )
        for clip in read_review(out)
    ]
    assert sum(hits) >= 7


def stop(*_):
    raise KeyboardInterrupt


def test_without_a_table_one_is_made_as_the_head_reads_it(season: Path, tmp_path: Path):
    (tmp_path / "review").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(review_module, "embed_for", stop)
        with pytest.raises(KeyboardInterrupt):
            review(season, tmp_path / "review", 4, features=None)
    out = review(season, tmp_path / "review", 4, features=None)  # a review that was stopped goes on
    made, given = read_embeddings(out / "features.npz"), read_embeddings(season / "index.npz")
    np.testing.assert_allclose(made.vectors, given.vectors, atol=1e-5)
    assert made.meta["layer"] == given.meta["layer"]
    review(season, out, 4, features=None)
    assert len(read_review(out)) == 8


def test_windows_stand_apart_and_differ():
    starts = np.array([0.0, 0.5, 1.0, 1.2, 0.0, 5.0])
    paths = np.array(["a", "a", "a", "a", "b", "a"])
    table = EmbeddingTable(Path("x"), paths, starts, starts + 1, np.zeros((6, 2), np.float32), {})
    free = np.array([True, True, True, True, True, True])
    assert apart(table, np.arange(6), free, 9).tolist() == [0, 2, 4, 5]
    assert apart(table, np.arange(6), np.arange(6) != 0, 2).tolist() == [2, 4]  # 1 overlaps what was heard by half

    class Rows:
        rows = np.array([[1, 0], [0.9, 0.1], [0, 1], [-1, 0], [0, -1]], np.float32)

    known = np.array([True, False, False, False, False])
    assert most_different(Rows, np.arange(1, 5), known, 3).tolist() == [3, 2, 4]


def test_what_cannot_be_reviewed_is_said_in_a_sentence(season: Path, tmp_path: Path):
    def fails(words: str, out: Path = tmp_path / "review", **arguments) -> None:
        with pytest.raises(AudiobatError, match=words):
            review(season, out, **arguments)
        assert not (tmp_path / "review").exists()

    fails("review is 0: give how many", count=0)
    fails("format is 'jsonl'", format="jsonl")
    fails("holds other files and no review", out=season)
    torch.manual_seed(1)
    other = audiobat.embed(AudioEncoder(MODEL), season / "recordings", tmp_path / "other.npz")
    fails("was made by other weights", features=other)
    two = audiobat.embed(season / "model", season / "recordings", tmp_path / "two.npz", layer=1)
    fails("has the mean of layer 1, the head reads the mean of layer 2", features=two)
    fails("threshold is 0.3: --review makes no table", threshold=0.3)
    fails("min_duration is 0.1: --review makes no table", min_duration=0.1)
    frames = Tagger(AudioEncoder(MODEL), TaggerConfig(HeadConfig(kind="linear"), ("low", "top"), "frame", True))
    with pytest.raises(AudiobatError, match="reads one vector a window, and this head is linear for each frame"):
        audiobat.predict(frames, season / "recordings", tmp_path / "review", review=3)
    assert not (tmp_path / "review").exists()
    with pytest.raises(AudiobatError, match=r"features is .*: it belongs to --review"):
        audiobat.predict(season / "first", season / "recordings", tmp_path / "out.csv", features=season / "index.npz")


def test_a_box_reaches_no_higher_than_its_recording_and_a_table_of_an_earlier_version_will_do(
    season: Path, tmp_path: Path
):
    (tmp_path / "slow").mkdir()
    for path in sorted((season / "recordings").glob("*.wav"))[:2]:
        soundfile.write(tmp_path / "slow" / path.name, soundfile.read(path)[0][::2], RATE // 2)
    table = audiobat.embed(season / "model", tmp_path / "slow", tmp_path / "table.npz", window_seconds=0.6)
    with np.load(table) as arrays:
        np.savez(tmp_path / "old.npz", **{name: arrays[name] for name in ("path", "start", "end", "embedding")})
    with pytest.warns(UserWarning, match="does not say which layer"):
        out = audiobat.predict(
            season / "model", tmp_path / "slow", tmp_path / "review", review=3, features=tmp_path / "old.npz"
        )
    with (out / "001-003.selections.txt").open(newline="") as file:
        assert {line["High Freq (Hz)"] for line in csv.DictReader(file, delimiter="\t")} == {str(RATE / 4)}
