"""`predict`: rows that equal the model's own on each window, plain loops as oracles, runs that break or are killed."""

import csv
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from plain_windows import windows
from small_tagger import CLASSES, LEAST, MODEL, RATE, WINDOW, make_tagger, read_csv, same, sound

import audiobat
from audiobat.audio.read import load_audio
from audiobat.cli.command import main
from audiobat.config import HeadConfig, TaggerConfig
from audiobat.data import clip
from audiobat.data import windows as window_module
from audiobat.engine.run_folder import sole_use
from audiobat.errors import AudiobatError
from audiobat.evaluation.metrics import frames_to_events
from audiobat.inference import journal, window_pass
from audiobat.inference import writers as predict_tables
from audiobat.inference.predict import predict
from audiobat.models.encoder import AudioEncoder
from audiobat.models.tagger import Tagger
from audiobat.zoo import release as release_io

SECONDS = (0.3, 3.1, 1.0, 1.7, 1.15, 2.1, 0.5, 1.2)


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return make_tagger()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight recordings, two of them at other rates, one in stereo, in two folders."""
    rng = np.random.default_rng(0)
    clips = tmp_path_factory.mktemp("data") / "clips"
    for i, seconds in enumerate(SECONDS):
        rate = {2: 16_000, 5: 11_025}.get(i, RATE)
        samples = np.stack([sound(rng, seconds, rate)] * (2 if i == 3 else 1), 1)
        path = clips / ("b" if i % 2 else "a") / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, "FLOAT" if i == 4 else None)
    return clips


def plain_rows(tagger: Tagger, folder: Path, window: float, hop: float, top: int, threshold: float) -> list:
    """The documented rule, in loops: each window alone, cut from the whole recording at the model's rate."""
    rows = []
    for path in sorted(folder.rglob("*.wav"), key=lambda path: path.relative_to(folder).as_posix()):
        samples = load_audio(path, RATE)
        for start, end in windows(len(samples), round(window * RATE), round(hop * RATE), LEAST):
            with torch.inference_mode():
                waveform = torch.from_numpy(samples[start:end])[None]
                scores = tagger.scores(tagger(waveform, torch.tensor([end - start])))[0].tolist()
            ranked = sorted(range(len(scores)), key=lambda c: (-scores[c], c))
            for c in [c for c in ranked if scores[c] > threshold][:top]:
                name = path.relative_to(folder).as_posix()
                rows.append((name, round(start / RATE, 6), round(end / RATE, 6), CLASSES[c], scores[c]))
    return rows


@pytest.mark.parametrize(
    ("flags", "top", "threshold"),
    [
        ({}, 4, 0.5),
        ({"top": 2}, 2, -1),
        ({"threshold": 0.3}, 4, 0.3),
        ({"top": 1, "threshold": 0.7}, 1, 0.7),
        ({"top": 4}, 4, -1),
        ({"threshold": 1}, 4, 1),
    ],
)
@pytest.mark.parametrize(("window", "hop"), [(WINDOW, WINDOW), (0.5, 0.3)])
def test_rows_are_the_models_own_on_each_window(tagger, folder, tmp_path, flags, top, threshold, window, hop):
    out = predict(tagger, folder, tmp_path / "out.csv", window_seconds=window, hop_seconds=hop, **flags)
    wanted = plain_rows(tagger, folder, window, hop, top, threshold)
    same(read_csv(out), wanted)
    assert len(wanted) > 8 or flags == {"threshold": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv"]


def test_classes_that_exclude_each_other_give_the_best_one_and_sum_to_one(folder, tmp_path):
    single = make_tagger(multi_label=False)
    same(read_csv(predict(single, folder, tmp_path / "best.csv")), plain_rows(single, folder, WINDOW, WINDOW, 1, -1))
    rows = read_csv(predict(single, folder, tmp_path / "all.csv", top=4))
    sums = np.array([row[4] for row in rows]).reshape(-1, 4).sum(1)
    np.testing.assert_allclose(sums, 1, atol=3e-6)


@pytest.mark.parametrize("task", ["clip", "frame"])
def test_batch_size_threads_and_blocks_change_no_row(folder, tmp_path, monkeypatch, task):
    tagger = make_tagger(task)
    arguments = {"window_seconds": 0.5, "hop_seconds": 0.2}
    wanted = read_csv(predict(tagger, folder, tmp_path / "wanted.csv", workers=0, batch_size=1, **arguments))
    assert len({row[0] for row in wanted}) == 8
    for number, (batch_size, workers, chunk, block) in enumerate(
        [(1, 3, 1, 1 << 21), (3, 1, 2, 999), (16, 2, 16, 5000), (999, 4, 3, 1 << 21)]
    ):
        monkeypatch.setattr(window_module, "CHUNK_WINDOWS", chunk)
        monkeypatch.setattr(clip, "READ_SAMPLES", block)
        out = tmp_path / f"{number}.csv"
        same(read_csv(predict(tagger, folder, out, batch_size=batch_size, workers=workers, **arguments)), wanted)


def plain_events(tagger: Tagger, samples: np.ndarray, window: int, hop: int, threshold: float, median: int) -> list:
    """Events of a whole recording from all its frames at once: `frames_to_events`, as evaluation has it."""
    spans = windows(len(samples), window, hop, LEAST)
    margin = (window - hop) // 2
    on_grid = hop < window and hop % round(0.16 * RATE) == 0  # frames of windows lie above one another: their mean
    views: dict[int, list] = {}
    scores, times = [], []
    for i, (start, end) in enumerate(spans):
        with torch.inference_mode():
            logits, at = tagger.frames(torch.from_numpy(samples[start:end])[None], torch.tensor([end - start]))
        first = 0 if i == 0 else start + margin
        behind = len(samples) if i == len(spans) - 1 else start + margin + hop
        for after, frame in zip(at.double().round(decimals=6).tolist(), tagger.scores(logits)[0], strict=True):
            if on_grid and after * RATE < end - start:
                views.setdefault(round((start / RATE + after) / 0.16), []).append(frame)
            if first <= start + after * RATE < behind and after * RATE < end - start:
                times.append(start / RATE + after)
                scores.append(frame)
    if on_grid:
        times = [0.16 * number for number in sorted(views)]
        scores = [torch.stack(views[number]).mean(0) for number in sorted(views)]
    events = frames_to_events(torch.stack(scores), torch.tensor(times), 0.16, threshold, median)
    found = zip(events.onset.tolist(), events.offset.tolist(), events.label.tolist(), strict=True)
    return [(on, off, CLASSES[c]) for on, off, c in sorted(found)]


@pytest.mark.parametrize("median", [1, 3, 7])
@pytest.mark.parametrize(("window", "hop"), [(WINDOW, WINDOW), (0.64, 0.32), (0.16, 0.16), (0.9, 0.5)])
def test_events_are_those_of_all_frames_of_the_recording_at_once(folder, tmp_path, monkeypatch, median, window, hop):
    monkeypatch.setattr(window_pass, "POOL_BATCHES", 1)
    tagger = make_tagger("frame")
    arguments = {"window_seconds": window, "hop_seconds": hop, "median": median, "threshold": 0.6}
    rows = read_csv(predict(tagger, folder, tmp_path / "out.csv", batch_size=2, **arguments))
    longest = 0.0
    for path in folder.rglob("*.wav"):
        samples = load_audio(path, RATE)
        wanted = plain_events(tagger, samples, round(window * RATE), round(hop * RATE), 0.6, median)
        found = [row[1:] for row in rows if row[0] == path.relative_to(folder).as_posix()]
        assert [row[2] for row in found] == [event[2] for event in wanted]
        np.testing.assert_allclose([row[0] for row in found], [event[0] for event in wanted], atol=1e-6)
        ends = np.array([event[1] for event in wanted])
        assert all(-1e-6 <= late < 0.16 for late in ends - [row[1] for row in found])  # a frame ends with its window
        assert all(row[1] <= len(samples) / RATE + 1e-6 and 0.6 < row[3] <= 1 for row in found)
        longest = max([longest, *(row[1] - row[0] for row in found)])
    if median == 1:
        assert longest > window  # events do go on over windows


# Runs that are killed, broken or repeated


def save(tagger: Tagger, folder: Path) -> Path:
    release_io.save_release(folder, tagger)
    return folder


@pytest.mark.parametrize("task", ["clip", "frame"])
def test_a_run_killed_at_every_place_goes_on_to_the_same_bytes(folder, tmp_path, monkeypatch, task):
    class Killed(BaseException):
        """The end of a process, as far as code can feel it."""

    tagger = make_tagger(task)
    monkeypatch.setattr(window_pass, "PART_SECONDS", 0.0)
    monkeypatch.setattr(window_pass, "POOL_BATCHES", 2)
    arguments = {"batch_size": 3, "window_seconds": 0.48, "hop_seconds": 0.4, "threshold": 0.4}
    whole = predict(tagger, folder, tmp_path / "whole.csv", **arguments).read_bytes()
    assert len(whole.splitlines()) > 20
    kept = set()
    for call in range(40):
        out = tmp_path / f"{call}.csv"
        left = [call]

        def dying(path, content, write=journal.write_atomic, left=left):
            left[0] -= 1
            if left[0] == -1:
                raise Killed
            write(path, content)

        with monkeypatch.context() as patch:
            patch.setattr(journal, "write_atomic", dying)
            try:
                predict(tagger, folder, out, **arguments)
                break
            except Killed:
                pass
        assert not out.exists()
        kept.add(len(list((tmp_path / f"{call}.csv.parts").glob("*.npz"))))
        (tmp_path / f"{call}.csv.tmp").write_bytes(b"half")
        before = sorted((tmp_path / f"{call}.csv.parts").glob("*.npz"))
        bytes_before = [path.read_bytes() for path in before]
        with monkeypatch.context() as patch:  # what is done is not done again
            patch.setattr(journal.Journal, "close", lambda self: None)
            assert predict(tagger, folder, out, **arguments).read_bytes() == whole
        assert [path.read_bytes() for path in before] == bytes_before
    assert len(kept) >= 5


def test_a_process_killed_at_random_moments_goes_on_to_the_same_bytes(folder, tmp_path, monkeypatch):
    release = save(make_tagger("frame"), tmp_path / "model")
    code = """if True:
        import os, signal, sys, threading, time
        from audiobat.inference import window_pass
        window_pass.PART_SECONDS, window_pass.POOL_BATCHES, compute = 0.0, 1, window_pass.compute
        count = 0
        def slow(*args):
            global count
            count += 1
            if count == int(sys.argv[1]):
                threading.Timer(float(sys.argv[2]), os.kill, (os.getpid(), signal.SIGKILL)).start()
            time.sleep(0.02)
            return compute(*args)
        window_pass.compute = slow
        from audiobat.cli.command import main
        sys.exit(main(sys.argv[3:]))
    """
    command = ["predict", "--model", str(release), "--data", str(folder), "--batch-size", "2"]
    command += ["--window-seconds", "0.32", "--threshold", "0.4", "--device", "cpu", "--out"]
    monkeypatch.setattr(window_pass, "POOL_BATCHES", 1)  # as there: other batches round otherwise
    assert main([*command, str(tmp_path / "whole.jsonl")]) == 0
    out, parts = tmp_path / "out.jsonl", tmp_path / "out.jsonl.parts"
    rng, kills = random.Random(0), 0
    while not out.exists():
        moment = [str(rng.randint(4, 9)), str(rng.uniform(0, 0.03))]  # so many batches, and then so many seconds
        done = subprocess.run([sys.executable, "-c", code, *moment, *command, str(out)], capture_output=True, text=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        kills += done.returncode != 0
    assert kills >= 2
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not parts.exists()


def stop_after(monkeypatch, parts: int) -> None:
    """End a run like a kill once so many parts are written."""
    monkeypatch.setattr(window_pass, "PART_SECONDS", 0.0)
    monkeypatch.setattr(window_pass, "POOL_BATCHES", 1)
    add = journal.Share.add

    def dying(self, *part):
        add(self, *part)
        if len(self.parts) == parts:
            raise KeyboardInterrupt

    monkeypatch.setattr(journal.Share, "add", dying)


def begin(tagger, folder, out, monkeypatch, parts=3, **arguments) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, parts)
        with pytest.raises(KeyboardInterrupt):
            predict(tagger, folder, out, batch_size=2, **arguments)


def test_parts_of_other_settings_are_refused_or_replaced(tagger, folder, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    begin(tagger, folder, out, monkeypatch)
    with pytest.raises(AudiobatError, match=r"out\.csv\.parts was begun with another top and threshold: .*--overwrite"):
        predict(tagger, folder, out, top=1)
    with pytest.raises(AudiobatError, match="another window_seconds and hop_seconds"):
        predict(tagger, folder, out, window_seconds=0.5)
    with pytest.raises(AudiobatError, match="another model"):
        predict(make_tagger(seed=1), folder, out)
    other = make_tagger()
    other.config = TaggerConfig(other.config.head, ("a", "b", "c", "d"))
    with pytest.raises(AudiobatError, match="another classes"):
        predict(other, folder, out)
    rows = predict(tagger, folder, out, top=1, overwrite=True).read_bytes()
    assert rows == predict(tagger, folder, tmp_path / "new.csv", top=1).read_bytes()


def test_a_folder_of_something_else_in_the_parts_place_is_left_alone(tagger, folder, tmp_path):
    (tmp_path / "out.csv.parts").mkdir()
    (tmp_path / "out.csv.parts" / "thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(AudiobatError, match=r"out\.csv\.parts holds other files"):
            predict(tagger, folder, tmp_path / "out.csv", overwrite=overwrite)
    assert (tmp_path / "out.csv.parts" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("change", ["another sound", "gone", "one more", "damaged part"])
def test_what_changed_between_two_runs_is_done_again(tagger, folder, tmp_path, monkeypatch, change):
    clips = tmp_path / "clips"
    shutil.copytree(folder, clips)
    out = tmp_path / "out.csv"
    begin(tagger, clips, out, monkeypatch, parts=4, top=2)
    if change == "another sound":
        soundfile.write(clips / "a" / "2.wav", sound(np.random.default_rng(9), 0.95, 16_000), 16_000)
    elif change == "gone":
        (clips / "a" / "2.wav").unlink()
    elif change == "one more":
        soundfile.write(clips / "a" / "1.wav", sound(np.random.default_rng(9), 2, RATE), RATE)
    else:
        part = tmp_path / "out.csv.parts" / "00000002.npz"
        part.write_bytes(part.read_bytes()[:-200])
    same(read_csv(predict(tagger, clips, out, batch_size=2, top=2)), plain_rows(tagger, clips, WINDOW, WINDOW, 2, -1))


def test_a_file_that_changes_while_it_is_read_is_skipped_with_the_reason(tagger, folder, tmp_path, monkeypatch):
    clips = tmp_path / "clips"
    shutil.copytree(folder, clips)
    for i in range(30):
        soundfile.write(clips / f"more_{i}.wav", sound(np.random.default_rng(i), 0.3, RATE), RATE)

    def growing(table, clip_id):
        if table.keys[clip_id] == "b/1.wav":
            os.utime(table.path(clip_id), ns=(1, time.time_ns()))
        return clip.open_clip(table, clip_id)

    with monkeypatch.context() as patch:
        patch.setattr(window_module, "open_clip", growing)
        rows = read_csv(predict(tagger, clips, tmp_path / "out.csv", top=1))
    (clips / "b" / "1.wav").unlink()
    same(rows, plain_rows(tagger, clips, WINDOW, WINDOW, 1, -1))
    with (tmp_path / "out.csv.skipped.csv").open(newline="") as file:
        ((name, reason),) = list(csv.reader(file))[1:]
    assert name == "b/1.wav"
    assert "changed while it was read" in reason


@pytest.mark.parametrize("format", ["csv", "raven"])
def test_broken_files_leave_no_rows_whenever_they_break(tagger, folder, tmp_path, monkeypatch, format):
    clips = tmp_path / "clips"
    shutil.copytree(folder, clips)
    for i in range(50):
        soundfile.write(clips / f"more_{i:02}.wav", sound(np.random.default_rng(i), 0.3, RATE), RATE)
    name = "out.csv" if format == "csv" else "out"
    before = predict(tagger, clips, tmp_path / "before" / name, batch_size=1, format=format)
    (clips / "a" / "text.wav").write_text("no audio")
    samples = np.zeros(4 * RATE, dtype=np.float32)
    samples[3 * RATE] = np.nan
    soundfile.write(clips / "b" / "nan.wav", samples, RATE, subtype="FLOAT")
    monkeypatch.setattr(window_pass, "PART_SECONDS", 0.0)  # its first windows are in a part already
    monkeypatch.setattr(window_pass, "POOL_BATCHES", 1)
    monkeypatch.setattr(clip, "READ_SAMPLES", RATE)
    begin(tagger, clips, tmp_path / "after" / name, monkeypatch, parts=30, format=format)
    after = predict(tagger, clips, tmp_path / "after" / name, batch_size=1, format=format)

    def contents(path):
        files = [path] if path.is_file() else [p for p in sorted(path.rglob("*")) if p.is_file()]
        return {file.relative_to(path.parent).as_posix(): file.read_bytes() for file in files}

    found, wanted = contents(after), contents(before)
    if format == "csv":
        same(read_csv(after), read_csv(before))
    else:
        assert found.keys() == wanted.keys()
        assert len(found) == 58
    with (tmp_path / "after" / f"{name}.skipped.csv").open(newline="") as file:
        listed = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert listed.keys() == {"a/text.wav", "b/nan.wav"}
    assert "cannot be read as audio" in listed["a/text.wav"]
    assert "NaN" in listed["b/nan.wav"]


def test_one_broken_file_of_nine_is_listed_and_a_mended_one_is_heard(tagger, folder, tmp_path, capsys):
    clips = tmp_path / "clips"
    shutil.copytree(folder, clips)
    whole = read_csv(predict(tagger, clips, tmp_path / "whole.csv", top=4))
    (clips / "a" / "00.wav").write_text("no audio")
    assert read_csv(predict(tagger, clips, tmp_path / "out.csv", top=4)) == whole
    assert f"skipped: 1 of 9 files cannot be read, as {tmp_path}/out.csv.skipped.csv tells" in capsys.readouterr().out
    assert (tmp_path / "out.csv.skipped.csv").read_text().splitlines()[1].startswith("a/00.wav,")
    shutil.copy(clips / "a" / "0.wav", clips / "a" / "00.wav")
    rows = read_csv(predict(tagger, clips, tmp_path / "out.csv", top=4, overwrite=True))
    same(rows, plain_rows(tagger, clips, WINDOW, WINDOW, 4, -1))
    assert not (tmp_path / "out.csv.skipped.csv").exists()


def test_broken_files_stay_listed_when_only_the_table_was_left_to_write(tagger, folder, tmp_path, monkeypatch):
    clips = tmp_path / "clips"
    shutil.copytree(folder, clips)
    for i in range(20):
        soundfile.write(clips / f"more_{i:02}.wav", sound(np.random.default_rng(i), 0.3, RATE), RATE)
    (clips / "a" / "text.wav").write_text("no audio")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(predict_tables, "write_csv", killed)
        with pytest.raises(KeyboardInterrupt):
            predict(tagger, clips, tmp_path / "out.csv")
    predict(tagger, clips, tmp_path / "out.csv")
    assert (tmp_path / "out.csv.skipped.csv").read_text().splitlines()[1].startswith("a/text.wav,")


@pytest.mark.parametrize("removed", [0, 2])
def test_a_run_killed_while_it_removed_its_parts_goes_on_to_the_same_table(
    tagger, folder, tmp_path, monkeypatch, removed
):
    wanted = predict(tagger, folder, tmp_path / "wanted.csv", batch_size=2).read_bytes()
    out, left = tmp_path / "out.csv", [removed]
    unlink = Path.unlink

    def dying(self, *arguments, **named):
        if self.suffix == ".npz":
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
        unlink(self, *arguments, **named)

    monkeypatch.setattr(window_pass, "PART_SECONDS", 0.0)
    monkeypatch.setattr(window_pass, "POOL_BATCHES", 1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dying)
        with pytest.raises(KeyboardInterrupt):
            predict(tagger, folder, out, batch_size=2)
    assert out.exists()
    assert "00000000.npz" in os.listdir(tmp_path / "out.csv.parts"), "those that are left follow no gap"
    assert predict(tagger, folder, out, batch_size=2).read_bytes() == wanted
    assert not (tmp_path / "out.csv.parts").exists()
    with pytest.raises(AudiobatError, match="exists"):
        predict(tagger, folder, out, batch_size=2)


@pytest.mark.parametrize("where", ["part", "table"])
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(tagger, folder, tmp_path, monkeypatch, where):
    wanted = predict(tagger, folder, tmp_path / "wanted.csv").read_bytes()
    out = tmp_path / "out.csv"

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((journal, "write_atomic", full) if where == "part" else (predict_tables, "write_csv", full)))
        with pytest.raises(AudiobatError, match=r"out\.csv cannot be written \(No space left on device\): .* goes on"):
            predict(tagger, folder, out)
    assert not out.exists()
    assert predict(tagger, folder, out).read_bytes() == wanted


def test_two_runs_do_not_write_one_table(tagger, folder, tmp_path):
    with (
        sole_use(tmp_path / "out.csv.parts"),
        pytest.raises(AudiobatError, match=r"at work in .*out\.csv\.parts: wait"),
    ):
        predict(tagger, folder, tmp_path / "out.csv")
    predict(tagger, folder, tmp_path / "out.csv")


@pytest.mark.parametrize("call", range(3))
def test_a_run_killed_while_it_clears_parts_of_other_settings_leaves_none_of_them(
    tagger, folder, tmp_path, monkeypatch, call
):
    out = tmp_path / "out.csv"
    begin(tagger, folder, out, monkeypatch, parts=3, top=2)
    calls, unlink = iter(range(call)), Path.unlink

    def dying(path, *rest, **more):
        if path.parent.name.endswith(".parts") and next(calls, None) is None:
            raise KeyboardInterrupt
        unlink(path, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dying)
        with pytest.raises(KeyboardInterrupt):
            predict(tagger, folder, out, top=1, overwrite=True)
    same(
        read_csv(predict(tagger, folder, out, top=1, overwrite=True)), plain_rows(tagger, folder, WINDOW, WINDOW, 1, -1)
    )


def test_a_recording_of_any_length_is_read_in_blocks_that_stay_small(tagger, tmp_path, monkeypatch):
    """Peak of what Python and NumPy hold at once, for 100 s and for 400 s, which are 12.8 MB of samples."""
    monkeypatch.setattr(clip, "READ_SAMPLES", 8 * RATE)
    peaks = []
    for seconds in (100, 400):
        path = tmp_path / f"{seconds}.wav"
        soundfile.write(path, np.random.default_rng(0).normal(size=seconds * RATE) * 0.1, RATE)
        tracemalloc.start()
        predict(tagger, path, tmp_path / f"{seconds}.csv", batch_size=4, threshold=1.0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 300_000


OWN_HEAD = """
from torch import nn
from audiobat.models.heads.linear import LinearProbe

class Mine(LinearProbe):
    kind = "mine"
"""


def test_a_head_of_the_users_own_comes_with_its_release_and_runs_only_if_trusted(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine.py").write_text(OWN_HEAD)
    monkeypatch.chdir(tmp_path / "made")
    config = TaggerConfig(HeadConfig(kind="mine.py:Mine", pool="mean"), CLASSES, "clip", True)
    Tagger(AudioEncoder(MODEL), config).save_pretrained(tmp_path / "release")
    shutil.rmtree(tmp_path / "made")
    monkeypatch.chdir(tmp_path)
    argv = ["predict", "--model", "release", "--data", str(folder), "--out", "labels.csv", "--threshold", "0"]
    assert main(argv) == 2
    assert "--trust-remote-code" in capsys.readouterr().err
    assert main([*argv, "--trust-remote-code"]) == 0
    assert read_csv(tmp_path / "labels.csv")
    with pytest.raises(AudiobatError, match=r"read .*mine\.py, and if you trust it"):
        audiobat.export("release", "release", "again")
    audiobat.export("release", "release", "again", trust_remote_code=True)
    wanted = read_csv(tmp_path / "labels.csv")
    same(read_csv(predict("again", folder, "again.csv", threshold=0.0, trust_remote_code=True)), wanted)
