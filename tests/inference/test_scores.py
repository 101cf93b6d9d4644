"""The file of scores: rows made of it are those of the pass, byte for byte; kills change no byte of it."""

import itertools
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from plain_windows import windows
from small_tagger import CLASSES, LEAST, RATE, make_tagger, read_csv, same, sound

from audiobat.audio.read import load_audio
from audiobat.cli.command import main
from audiobat.errors import AudiobatError
from audiobat.evaluation import score_file
from audiobat.evaluation.score_file import read_scores
from audiobat.inference import journal, window_pass
from audiobat.inference.predict import predict
from audiobat.inference.scores import write_scores
from audiobat.zoo.release import save_release

CUT = {"window_seconds": 0.5, "hop_seconds": 0.3}
FRAMES = [
    {"threshold": 0.45},
    {"threshold": 1.0, "median": 1},
    {"median": 7, "merge_gap": 0.4},
    {"threshold": 0.6, "min_duration": 0.3},
    {"threshold": 0.6, "min_duration": 0.3, "merge_gap": 0.2},
]
WINDOWS = [{"threshold": 0.45}, {"top": 1}, {"top": 2, "threshold": 0.4, "merge_gap": 0.0}, {"merge_gap": 0.7}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    rng = np.random.default_rng(1)
    clips = tmp_path_factory.mktemp("scores") / "clips"
    clips.mkdir()
    for i, (seconds, rate) in enumerate([(0.3, RATE), (3.1, 4000), (1.7, 16_000), (2.6, RATE)]):
        soundfile.write(clips / f"{i}.wav", sound(rng, seconds, rate), rate)
    return clips


@pytest.fixture(scope="module", params=["clip", "frame"])
def kept(request, folder, tmp_path_factory):
    """A tagger, and the scores that it gave."""
    tagger, place = make_tagger(request.param), tmp_path_factory.mktemp("kept")
    out = predict(tagger, folder, place / "out.csv", scores=place / "kept.npz", batch_size=3, **CUT)
    assert sorted(path.name for path in place.iterdir()) == ["kept.npz", "out.csv"]
    assert out.read_bytes() == predict(tagger, folder, place / "plain.csv", batch_size=3, **CUT).read_bytes()
    return tagger, place / "kept.npz"


def test_rows_made_of_scores_are_those_of_a_pass(kept, folder, tmp_path, monkeypatch):
    tagger, file = kept
    monkeypatch.setattr("audiobat.inference.predict.CHUNK_ROWS", 5)
    made = set()
    for number, chosen in enumerate(FRAMES if tagger.task == "frame" else WINDOWS):
        name = f"{number}.csv" if number else f"{number}.jsonl"
        passed = predict(tagger, folder, tmp_path / "pass" / name, batch_size=3, **CUT, **chosen).read_bytes()
        again = predict(None, file, tmp_path / "again" / name, **chosen).read_bytes()
        assert again == passed, chosen
        made.add(again)
    assert len(made) >= 4
    assert sorted(path.suffix for path in (tmp_path / "again").iterdir()) == sorted(
        path.suffix for path in (tmp_path / "pass").iterdir()
    ), "nothing is left beside them"
    for format in ("raven", "audacity"):
        passed = predict(tagger, folder, tmp_path / "pass" / format, format=format, batch_size=3, **CUT)
        again = predict(None, [file], tmp_path / "again" / format, format=format)
        for track in passed.iterdir():
            assert (again / track.name).read_bytes() == track.read_bytes()
        assert len(list(again.iterdir())) == 4


def test_the_file_holds_what_the_model_gives_each_window(kept, folder):
    tagger, file = kept
    stored = np.load(file)
    assert stored["keys"].tolist() == ["0.wav", "1.wav", "2.wav", "3.wav"]
    assert stored["rates"].tolist() == [RATE, 4000, 16_000, RATE]
    assert stored["classes"].tolist() == list(CLASSES)
    assert stored["kind"] == ("frames" if tagger.task == "frame" else "windows")
    assert stored["nyquist"] == RATE / 2
    spans, wanted, counts = [], [], []
    for path in sorted(folder.iterdir()):
        samples, own = load_audio(path, RATE), 0
        cuts = windows(len(samples), 4000, 2400, LEAST)
        for number, (start, end) in enumerate(cuts):
            with torch.inference_mode():
                waveform, length = torch.from_numpy(samples[start:end])[None], torch.tensor([end - start])
                if tagger.task == "clip":
                    rows = [(start / RATE, end / RATE, tagger.scores(tagger(waveform, length))[0])]
                else:
                    logits, times = tagger.frames(waveform, length)
                    first = start + (800 if number else 0)
                    behind = end if number == len(cuts) - 1 else start + 3200
                    columns = zip(times.tolist(), tagger.scores(logits)[0], strict=True)
                    rows = [
                        (start / RATE + at, min(start / RATE + at + 0.16, end / RATE), row)
                        for at, row in columns
                        if first - 1e-3 <= start + at * RATE < behind - 1e-3
                    ]
            spans += [row[:2] for row in rows]
            wanted += [row[2].numpy() for row in rows]
            own += len(rows)
        counts.append(own)
    assert stored["counts"].tolist() == counts
    np.testing.assert_allclose(np.stack([stored["starts"], stored["ends"]], 1), spans, atol=1e-6)
    np.testing.assert_allclose(stored["scores"], wanted, atol=3e-6)
    assert stored["scores"].dtype == np.float32

    found = list(read_scores(file).stretches(None))
    assert [(stretch.recording, len(stretch.scores)) for stretch in found] == list(enumerate(counts))
    for most in (1, 3, 4096):
        pieces = list(read_scores(file).stretches(most))
        assert max(len(piece.scores) for piece in pieces) <= most
        for recording, whole in enumerate(found):
            own = [piece for piece in pieces if piece.recording == recording]
            assert [piece.first for piece in own] == [True] + [False] * (len(own) - 1)
            assert [piece.last for piece in own] == [False] * (len(own) - 1) + [True]
            np.testing.assert_array_equal(np.concatenate([piece.scores for piece in own]), whole.scores)
            np.testing.assert_array_equal(np.concatenate([piece.spans for piece in own]), whole.spans)


def test_a_run_killed_at_any_place_keeps_the_same_scores(folder, tmp_path, monkeypatch):
    class Killed(BaseException):
        """The end of a process, as far as code can feel it."""

    tagger = make_tagger("frame")
    monkeypatch.setattr(window_pass, "PART_SECONDS", 0.0)
    monkeypatch.setattr(window_pass, "POOL_BATCHES", 1)
    arguments = {"batch_size": 3, **CUT}

    def run(name: str, **settings) -> tuple[bytes, bytes]:
        out, file = tmp_path / f"{name}.csv", tmp_path / f"{name}.npz"
        predict(tagger, folder, out, scores=file, **arguments, **settings)
        assert not list(tmp_path.glob(f"{name}.*.*"))
        return out.read_bytes(), file.read_bytes()

    whole, kills = run("whole"), 0
    for owner, method, step in [
        (journal, "write_atomic", 4),
        (journal.Journal, "read", 3),
        (journal.Journal, "close", 1),
    ]:
        plain = vars(owner)[method]
        for place in itertools.count(0, step):
            left, name = [place], f"{method}{place}"

            def dying(*args, left=left, plain=plain):
                left[0] -= 1
                if left[0] == -1:
                    raise Killed
                return plain(*args)

            with monkeypatch.context() as patch:
                patch.setattr(owner, method, dying)
                try:
                    run(name)
                    break
                except Killed:
                    kills += 1
            assert run(name) == whole
    assert kills > 3


def test_a_run_that_keeps_scores_goes_on_with_another_threshold(folder, tmp_path, monkeypatch):
    tagger = make_tagger("frame")
    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict(tagger, folder, tmp_path / "out.csv", scores=tmp_path / "kept.npz")
    with pytest.raises(AudiobatError, match=r"out\.csv\.parts was begun with another scores"):
        predict(tagger, folder, tmp_path / "out.csv")
    with monkeypatch.context() as patch:
        patch.setattr(window_pass, "compute", None)  # nothing is computed again
        out = predict(tagger, folder, tmp_path / "out.csv", scores=tmp_path / "kept.npz", threshold=0.6)
    same(read_csv(out), read_csv(predict(tagger, folder, tmp_path / "other.csv", threshold=0.6)))


def test_files_that_cannot_be_read_are_no_recordings_of_the_scores(folder, tmp_path, monkeypatch):
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(21):
        soundfile.write(clips / f"{number:02}.wav", sound(np.random.default_rng(number), 0.4, RATE), RATE)
    (clips / "05.wav").write_text("no audio")
    out = predict(make_tagger(), clips, tmp_path / "raven", scores=tmp_path / "kept.npz", format="raven")
    keys = read_scores(tmp_path / "kept.npz").keys
    assert keys == tuple(f"{number:02}.wav" for number in range(21) if number != 5)
    again = predict(None, tmp_path / "kept.npz", tmp_path / "again", format="raven")
    names = sorted(path.name for path in out.iterdir())
    assert names == sorted(path.name for path in again.iterdir()) == [f"{key}.selections.txt" for key in keys]


def test_scores_of_a_long_recording_are_written_and_read_in_constant_memory(tmp_path):
    """What Python and NumPy hold at once, for 1 h and 6 h of frames of 40 classes: 3.6 MB and 22 MB of scores."""
    rng = np.random.default_rng(0)
    about = score_file.About(tuple(map(str, range(40))), "frames", True, (), 0, RATE / 2, "0")
    peaks = []
    for count in (22_500, 135_000):
        file = tmp_path / f"{count}.npz"

        def read(columns, count=count):
            for at in range(0, count, 4096):
                rows = min(4096, count - at)
                values = {"start": np.arange(at, at + rows) * 0.16, "end": np.arange(at, at + rows) * 0.16 + 0.16}
                values |= {"scores": rng.random((rows, 40), np.float32), "rate": np.full(rows, RATE)}
                yield {"row": np.zeros(rows, np.int64)} | {name: values[name] for name in columns}

        tracemalloc.start()
        write_scores(file, read, ["night.wav"], about)
        out = predict(None, file, tmp_path / f"{count}.csv", median=1, threshold=0.999)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(read_csv(out)) > 100
    assert peaks[1] < peaks[0] + 3_000_000


def test_the_command_line_makes_rows_of_scores_without_a_model(folder, tmp_path, capsys):
    save_release(tmp_path / "model", make_tagger("frame"))
    name = [str(tmp_path / part) for part in ("model", "a.csv", "kept.npz", "b.csv", "c.csv")]
    base = ["predict", "--data", str(folder), "--model", name[0], "--device", "cpu"]
    assert main([*base, "--out", name[1], "--scores", name[2]]) == 0
    assert main(["predict", "--data", name[2], "--out", name[3], "--threshold", "0.6", "--min-duration", "0.2"]) == 0
    assert main([*base, "--out", name[4], "--threshold", "0.6", "--min-duration", "0.2"]) == 0
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "c.csv").read_bytes()
    assert 0 < len(read_csv(tmp_path / "b.csv")) < len(read_csv(tmp_path / "a.csv"))
    said = capsys.readouterr().out.splitlines()
    for out in name[1], name[3], name[4]:  # what the table has, not what was scored
        rows = read_csv(Path(out))
        assert f"{out}: {len(rows)} rows of {len({row[0] for row in rows})} files" in said
    for flags, sentence in [
        (["--data", str(folder)], "needs a model"),
        (["--data", name[2], "--model", name[0]], "kept.npz holds what was scored already: leave it out"),
        (["--data", name[2], "--hop-seconds", "0.2"], "hop_seconds is 0.2: .*leave it out"),
        (["--data", name[2], name[2]], "is a file of scores: give it alone"),
        (["--data", str(tmp_path / "none.npz")], "No such file of scores"),
        (["--data", name[2], "--top", "1"], "this head labels frames"),
        (["--data", str(folder), "--model", name[0], "--scores", str(tmp_path / "x.csv")], "ends in .npz"),
        (["--data", str(folder), "--model", name[0], "--scores", name[2]], "kept.npz exists: .* --overwrite"),
        (["--data", name[2], "--merge-gap", "-1"], "merge_gap is -1"),
        (["--data", name[2], "--min-duration", ".inf"], "min_duration is inf"),
    ]:
        assert main(["predict", "--out", str(tmp_path / "d.csv"), *flags]) == 2, flags
        error = capsys.readouterr().err
        assert re.search(sentence, error), error
    assert not (tmp_path / "d.csv").exists()
