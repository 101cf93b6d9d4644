"""`audiobat prepare` from end to end: what shards hold, whatever kills it, divides it or is broken."""

import contextlib
import csv
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiobat.audio.read import load_audio
from audiobat.cli import command as cli
from audiobat.data.build import clip_table
from audiobat.data.clip import open_clip, read_clip
from audiobat.data.clip_table import ClipTable
from audiobat.data.prepare import merge, pack, shard_plan
from audiobat.data.prepare import pool as pack_pool
from audiobat.data.prepare import run as command
from audiobat.data.prepare.merge import remove
from audiobat.data.prepare.run import prepare
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.errors import AudiobatError

RATE = 16_000
FORK = multiprocessing.get_context("fork")
KEY = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Two clips a shard, and workers that fork at once and see what a test patches."""
    monkeypatch.setattr(shard_plan, "LEAST_CLIPS", 2)
    monkeypatch.setattr(pack_pool, "worker_context", lambda: FORK)


def tone(i, seconds=0.2, rate=RATE):
    return np.random.default_rng(i).uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)


@pytest.fixture
def source(tmp_path):
    """Seven clips in a folder: other rates, stereo, two that hold the same, one that is no audio, one cut short."""
    folder = tmp_path / "source"
    (folder / "sub.dir").mkdir(parents=True)
    soundfile.write(folder / "a.wav", np.stack([tone(0, rate=44_100), tone(1, rate=44_100)], 1), 44_100)
    for name in ("b.flac", "b.wav"):
        soundfile.write(folder / name, (tone(2) * 2**15).astype(np.int16), RATE)
    soundfile.write(folder / "sub.dir/größe.1.wav", 1.9 * tone(3, rate=8_000), 8_000, subtype="FLOAT")
    soundfile.write(folder / "sub.dir/long.ogg", tone(4, 1.2), RATE)
    (folder / "broken.wav").write_text("no audio")
    soundfile.write(folder / "cut.flac", tone(5, 2.0), RATE)
    (folder / "cut.flac").write_bytes((folder / "cut.flac").read_bytes()[:9_000])
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def samples_of(folder: Path) -> list[tuple[str, dict[str, bytes]]]:
    """(key, {extension: bytes}) as readers of WebDataset's format group members: neighbours with the same key."""
    found: list[tuple[str, dict[str, bytes]]] = []
    for path in sorted((folder / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, extension = KEY.match(member.name).groups()
                assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
                if not found or found[-1][0] != key:
                    found.append((key, {}))
                assert extension not in found[-1][1]
                found[-1][1][extension] = tar.extractfile(member).read()
    assert len({key for key, _ in found}) == len(found)
    return found


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("encoding", ["flac", "pcm"])
def test_shards_hold_what_load_audio_gives(source, tmp_path, capsys, encoding):
    out = prepare(source, tmp_path / "out", encoding=encoding, workers=2)
    table = read_clips(out)
    assert table.keys.tolist() == ["a", "b", "b_wav", "sub_dir/größe_1", "sub_dir/long"]
    paths = ["a.wav", "b.flac", "b.wav", "sub.dir/größe.1.wav", "sub.dir/long.ogg"]
    assert table.columns["source"].tolist() == paths
    for row, path in enumerate(paths):
        wanted = load_audio(source / path, RATE)
        read = read_clip(table, row, RATE)
        assert len(read) == len(wanted) == round(table.seconds[row] * RATE)
        assert np.abs(read - np.clip(wanted, -1, 1 - 2**-15)).max() <= 2**-15
    grouped = samples_of(out)
    assert [key for key, _ in grouped] == table.keys.tolist()
    assert all(set(parts) == {encoding, "json"} for _, parts in grouped)
    skipped = rows_of(out / "skipped.csv")
    assert [row["path"] for row in skipped] == ["broken.wav", "cut.flac"]
    assert "cannot be read as audio" in skipped[0]["reason"]
    assert "damaged" in skipped[1]["reason"]
    copy = {"path": "b.wav", "first_path": "b.flac", "key": "b_wav", "first_key": "b"}
    assert rows_of(out / "duplicates.csv") == [copy]
    shown = capsys.readouterr().out
    for words in ("5 clips", "duplicates: 1 clips", "missing: 0", "skipped: 2 clips", "loud: 1 clips", " MB"):
        assert words in shown
    assert "sub_dir/größe_1" not in shown


def test_json_says_all_that_is_known(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for i in range(3):
        soundfile.write(source / f"{i}.wav", tone(i), RATE)
    lines = ["path,label,split,fold,site", "0.wav,dog;cat,train,1,north", "1.wav,,test,2,", "2.wav,cat,train,1,süd"]
    (source / "clips.csv").write_text("\n".join(lines), encoding="utf-8")
    out = prepare(source / "clips.csv", tmp_path / "out", workers=1)
    found = dict(samples_of(out))
    assert json.loads(found["0"]["json"]) == {
        "key": "0",
        "source": "0.wav",
        "start": 0.0,
        "seconds": 0.2,
        "sample_rate": RATE,
        "labels": ["cat", "dog"],
        "split": "train",
        "fold": 1,
        "site": "north",
    }
    assert json.loads(found["2"]["json"])["site"] == "süd"
    before, after = read_clips(source / "clips.csv"), read_clips(out)
    assert after.classes == before.classes
    assert (after.targets() == before.targets()).all()
    assert after.splits.tolist() == before.splits.tolist()
    assert after.folds.tolist() == [1, 2, 1]
    assert after.columns["site"].tolist() == ["north", "", "süd"]


def test_class_folders_keep_their_labels(tmp_path):
    source = tmp_path / "source"
    for i, folder in enumerate(["train/owl.v2", "train/dog", "test/dog", "test/owl.v2"]):
        (source / folder).mkdir(parents=True)
        soundfile.write(source / folder / "a.wav", tone(i), RATE)
    wanted = read_labelled_clips(source)
    found = read_labelled_clips(prepare(source, tmp_path / "out", workers=1))
    assert found.classes == wanted.classes == ("dog", "owl.v2")
    assert (found.targets() == wanted.targets()).all()
    assert found.splits.tolist() == wanted.splits.tolist()
    loose = prepare(source / "train/dog", tmp_path / "loose", workers=1)
    with pytest.raises(AudiobatError, match="lies in no class folder"):
        read_labelled_clips(loose)


@pytest.mark.parametrize("row", ["0.05\t0.1\towl\n", "0.1\t0.05\towl\n"])  # the second cannot be used
def test_annotations_that_are_left_behind_are_told(source, tmp_path, row):
    with warnings.catch_warnings(action="error"):
        prepare(source, dry_run=True)
    (source / "a.txt").write_text(row)
    with pytest.warns(UserWarning, match="has annotations beside its recordings, which prepare leaves behind"):
        prepare(source, dry_run=True)
    (source / "a.txt").write_text("A transcript of what is said.\n")
    with warnings.catch_warnings(action="error"):
        prepare(source, dry_run=True)


def test_windows_cover_everything_and_take_their_events_along(tmp_path, monkeypatch):
    folder = tmp_path / "source"
    folder.mkdir()
    soundfile.write(folder / "x.wav", tone(0, 2.3, 44_100), 44_100)
    soundfile.write(folder / "y.wav", tone(1, 0.4), RATE)
    table = clip_table(
        folder,
        ["x.wav", "y.wav"],
        events=[[("dog", 0.2, 1.2), ("cat", 1.9, 2.1)], [("cat", 0.0, 0.1)]],
        classes=["cat", "dog", "owl"],
        labels=[["cat", "dog", "owl"], ["cat"]],
    )
    monkeypatch.setattr(command, "read_clips", lambda source: table)
    out = prepare(folder, tmp_path / "out", window_seconds=1.0, hop_seconds=0.5, workers=1)
    made = read_clips(out)
    assert made.keys.tolist() == ["x_00000", "x_00001", "x_00002", "x_00003", "y_00000"]
    assert made.columns["start"].tolist() == ["0", "0.5", "1", "1.5", "0"]
    whole = load_audio(folder / "x.wav", RATE)
    for row, start in enumerate([0, 8_000, 16_000, 24_000]):
        assert np.abs(read_clip(made, row, RATE) - whole[start : start + RATE]).max() <= 2**-15
    assert 24_000 + len(read_clip(made, 3, RATE)) == len(whole)
    assert [made.events.row(row).tolist() for row in (0, 1, 4)] == [
        [(1, 0.2, 1.0)],
        [(1, 0.0, pytest.approx(0.7))],
        [(0, 0.0, 0.1)],
    ]
    labels = [[made.classes[label] for label in made.labels.row(row)] for row in range(5)]
    assert labels == [["dog", "owl"], ["dog", "owl"], ["cat", "dog", "owl"], ["cat", "owl"], ["cat"]]
    found = json.loads(dict(samples_of(out))["x_00001"]["json"])
    assert found["events"] == [{"label": "dog", "onset": 0.0, "offset": pytest.approx(0.7)}]
    assert (found["labels"], found["start"]) == (["dog", "owl"], 0.5)


# Killed, divided, divided and killed


@pytest.fixture
def clean(source, tmp_path):
    """What an undisturbed run makes of `source`."""
    return tree(prepare(source, tmp_path / "clean", workers=2))


def in_own_group(task, *arguments):
    """Run `task` in a process of its own group, so that it can be killed with all its workers."""

    def run():
        os.setsid()
        task(*arguments)

    process = FORK.Process(target=run)
    process.start()
    return process


def same(found: dict[str, bytes], wanted: dict[str, bytes]) -> bool:
    return list(found) == list(wanted) and found == wanted


@pytest.mark.parametrize("before", [True, False])
def test_a_kill_beside_any_rename_loses_and_doubles_nothing(source, tmp_path, clean, before):
    """Each run dies right before, or right after, a later rename than the last: renames are all that others see."""
    out = tmp_path / "out"
    replace = os.replace

    def deadly(allowed):
        count = FORK.Value("i", 0)

        def killing_replace(a, b):
            with count.get_lock():
                count.value += 1
                if before and count.value > allowed:
                    os.killpg(0, signal.SIGKILL)
                replace(a, b)
                if not before and count.value > allowed:
                    os.killpg(0, signal.SIGKILL)

        os.replace = killing_replace
        prepare(source, out, workers=2)

    codes = []
    for allowed in range(14):  # of a whole run
        process = in_own_group(deadly, allowed)
        process.join()
        codes.append(process.exitcode)
        if not process.exitcode:
            break
    assert codes[:3] == [-signal.SIGKILL] * 3
    assert codes[-1] == 0
    assert same(tree(out), clean)


def slow_open(table: ClipTable, clip_id: int):
    time.sleep(0.02)
    return open_clip(table, clip_id)


def endless_open(*_):
    while True:
        time.sleep(60)


def slow_prepare(source, out, signals=()):
    for number in signals:  # pytest's process may ignore them
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    pack.open_clip = slow_open
    prepare(source, out, workers=2)


def test_kills_at_random_moments_change_nothing(source, tmp_path, clean):
    rng = np.random.default_rng(0)
    killed = 0
    for limit in np.linspace(0.05, 0.6, 12):
        process = in_own_group(slow_prepare, source, tmp_path / "out")
        process.join(rng.uniform(0, limit))
        if process.is_alive():
            with contextlib.suppress(ProcessLookupError):  # it has no group of its own yet
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            killed += 1
        process.join()
    prepare(source, tmp_path / "out", workers=1)
    assert killed > 2
    assert same(tree(tmp_path / "out"), clean)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_run_that_is_stopped_goes_on_later(source, tmp_path, clean, number):
    out = tmp_path / "out"

    def run():
        pack.open_clip = endless_open
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(cli.main(["prepare", str(source), str(out), "--workers", "2"]))

    process = in_own_group(run)
    while len(list(tmp_path.glob("out/shards/.0*"))) < 2:
        assert process.is_alive()
        time.sleep(0.01)
    time.sleep(0.5)  # Python drops what is raised right after a fork; the workers that users get are not forked here
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 75
    assert list((out / "shards").iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # no worker is left
    prepare(source, out, workers=2)
    assert same(tree(out), clean)


def test_parts_are_the_whole(source, tmp_path, clean, capsys):
    out = tmp_path / "out"
    for part in ("3/3", "1/3"):
        prepare(source, out, part=part, workers=1)
    assert "those of --part 2/3 are missing" in capsys.readouterr().out
    with pytest.raises(AudiobatError, match="not finished"):
        read_clips(out)
    prepare(source, out, part="2/3", workers=1)
    assert same(tree(out), clean)
    homes = [prepare(source, tmp_path / f"home{i}", part=f"{i}/2", workers=1) for i in (1, 2)]
    for home in homes:
        shutil.copytree(home, tmp_path / "joined", dirs_exist_ok=True)
    prepare(source, tmp_path / "joined", workers=1)
    assert same(tree(tmp_path / "joined"), clean)


def test_parts_may_begin_at_the_same_moment(source, tmp_path, clean):
    out = tmp_path / "out"
    for _ in range(5):
        shutil.rmtree(out, ignore_errors=True)
        barrier = FORK.Barrier(4)

        def begin(part, together=barrier):
            replace = os.replace

            def slow_replace(a, b):
                time.sleep(0.01)
                replace(a, b)

            os.replace = slow_replace
            together.wait()
            prepare(source, out, part=f"{part}/4", workers=1)

        parts = [in_own_group(begin, part) for part in range(1, 5)]
        for part in parts:
            part.join()
        assert [part.exitcode for part in parts] == [0] * 4
        prepare(source, out, workers=1)
        assert same(tree(out), clean)


def test_what_killed_processes_left_beside_the_shards_goes_in_the_end(source, tmp_path, clean):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".prepared.json.7-abc.part").write_text("x")
    (out / ".clips.7-abc.part.tmp").mkdir()
    prepare(source, out, part="1/2", workers=1)
    prepare(source, out, workers=1)
    assert same(tree(out), clean)
    (out / ".clips.7-abc.part.tmp").mkdir()
    prepare(source, out, workers=1)
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("name", ["table.json", "keys.offsets.npy", "hashes.npy"])
def test_a_damaged_table_is_written_again(source, tmp_path, clean, name):
    out = prepare(source, tmp_path / "out", workers=1)
    (out / "clips" / name).write_bytes(b"")
    with pytest.raises(AudiobatError, match="prepare it again"):
        read_clips(out)
    prepare(source, out, workers=1)
    assert same(tree(out), clean)


def test_another_machine_may_write_the_table_first(source, tmp_path, clean, monkeypatch):
    out = tmp_path / "out"
    save = merge.save_once

    def late(*args):
        save(*args)
        raise FileNotFoundError(2, "gone: another machine tidied up")

    monkeypatch.setattr(merge, "save_once", late)
    prepare(source, out, workers=1)
    assert same(tree(out), clean)


def test_a_source_whose_name_is_not_utf8_is_one_sentence(source, tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    source.rename(odd)
    for _ in range(2):
        with pytest.raises(AudiobatError, match=r"/\\udcff/a\.wav has a name that is not UTF-8: rename the file"):
            prepare(odd, tmp_path / "out", workers=1)
    assert len(rows_of(tmp_path / "out/skipped.csv")) == 7


def test_a_shard_that_was_lost_or_cut_is_made_again(source, tmp_path, clean):
    out = prepare(source, tmp_path / "out", workers=1)
    (out / "shards/00000.tar").unlink()
    os.truncate(out / "shards/00003.tar", 100)
    prepare(source, out, workers=2)
    assert same(tree(out), clean)


# What may not be mixed up, and what is broken


def test_other_settings_another_source_or_a_foreign_folder(source, tmp_path):
    out = prepare(source, tmp_path / "out", workers=1)
    with pytest.raises(AudiobatError, match="begun with --sample-rate 16000, not 8000"):
        prepare(source, out, sample_rate=8_000)
    soundfile.write(source / "new.wav", tone(9), RATE)
    with pytest.raises(AudiobatError, match="begun with another source"):
        prepare(source, out)
    (out / "mine.txt").write_text("kept")
    prepare(source, out, sample_rate=8_000, overwrite=True, workers=1)
    assert read_clips(out).sample_rates.tolist() == [8_000] * 6
    assert (out / "mine.txt").read_text() == "kept"
    (tmp_path / "else").mkdir()
    (tmp_path / "else/thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(AudiobatError, match="something other than prepared data"):
            prepare(source, tmp_path / "else", overwrite=overwrite)
    assert (tmp_path / "else/thesis.txt").read_text() == "precious"
    with pytest.raises(AudiobatError, match="is the source itself"):
        prepare(out, out, overwrite=True)
    with pytest.raises(AudiobatError, match="is a file"):
        prepare(source, source / "a.wav")
    assert len(read_clips(out)) == 6


def test_shards_can_be_prepared_again(source, tmp_path):
    first = prepare(source, tmp_path / "first", encoding="pcm", workers=1)
    again = read_clips(prepare(first, tmp_path / "again", sample_rate=8_000, window_seconds=0.5, workers=1))
    assert again.columns["source"].tolist()[-3:] == ["sub.dir/long.ogg"] * 3
    assert again.keys.tolist()[-1] == "sub_dir/long_00002"
    assert again.seconds.sum() == pytest.approx(read_clips(first).seconds.sum(), abs=1e-3)


@pytest.mark.parametrize("encoding", ["flac", "pcm"])
def test_readers_that_know_short_names_alone_find_clips_of_long_keys(tmp_path, encoding):
    source = tmp_path / "source"
    folders = ["d" * 120, "語" * 60, "e" * 85, "e" * 84]
    for i, folder in enumerate(folders):
        (source / folder[:60] / folder[60:]).mkdir(parents=True)
        soundfile.write(source / folder[:60] / folder[60:] / "same.wav", tone(i, 1.0), RATE)
    out = prepare(source, tmp_path / "out", encoding=encoding, window_seconds=0.5, workers=1)
    table = read_clips(out)
    assert any(len(key.encode()) > 100 for key in table.keys)
    found: list[tuple[str, str]] = []
    lengths = []
    for path in sorted((out / "shards").glob("*.tar")):
        data, at, before = path.read_bytes(), 0, len(found)
        while data[at] != 0:  # what wids and the like know of a tar: the field of the name, the type, the size
            name, kind, size = data[at : at + 100], data[at + 156 : at + 157], int(data[at + 124 : at + 135], 8)
            assert kind == b"0"
            key, extension = KEY.match(name.rstrip(b"\0").decode()).groups()
            if extension == "json":
                found.append((key, json.loads(data[at + 512 : at + 512 + size])["key"]))
            at += 512 + -(-size // 512) * 512
        lengths.append((f"shards/{path.name}", len(found) - before))
    assert [key for _, key in found] == table.keys.tolist()
    assert len({short for short, _ in found}) == len(found) == 8
    assert all(short == key for short, key in found if len(key.encode()) <= 95)
    listed = json.loads((out / "wids.json").read_text())
    assert [(shard["url"], shard["nsamples"]) for shard in listed["shardlist"]] == lengths
    for i, key in enumerate(table.keys):
        wanted = load_audio(source / table.columns["source"][i], RATE)
        first = 8_000 * int(key[-5:])
        assert np.abs(read_clip(table, i, RATE) - wanted[first : first + 8_000]).max() <= 2**-15


def deadly_open(table: ClipTable, clip_id: int):
    if table.keys[clip_id] == "b.wav":
        os.kill(os.getpid(), signal.SIGKILL)
    return open_clip(table, clip_id)


def test_a_clip_that_kills_whoever_reads_it_is_left_out(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pack, "open_clip", deadly_open)
    out = prepare(source, tmp_path / "out", workers=2)
    reasons = {row["path"]: row["reason"] for row in rows_of(out / "skipped.csv")}
    assert list(reasons) == ["b.wav", "broken.wav", "cut.flac"]
    assert "4 processes died reading it (SIGKILL)" in reasons["b.wav"]
    assert read_clips(out).keys.tolist() == ["a", "b", "sub_dir/größe_1", "sub_dir/long"]
    assert "prepare: 7/7 clips, finished" in capsys.readouterr().err
    assert not list((out / "shards").glob(".*"))


def odd_open(table: ClipTable, clip_id: int):
    if clip_id == 0:
        raise {"a.wav": MemoryError(), "b.wav": KeyError("chunk")}.get(table.keys[clip_id], AudiobatError("gone."))
    return open_clip(table, clip_id)


def test_whatever_a_decoder_comes_up_with_is_a_reason(source, tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "open_clip", odd_open)
    out = prepare(source, tmp_path / "out", workers=2)
    reasons = {row["path"]: row["reason"] for row in rows_of(out / "skipped.csv")}
    assert "--window-seconds" in reasons["a.wav"]
    assert reasons["b.wav"] == "KeyError: 'chunk'"


def test_if_no_clip_can_be_read_it_is_an_error(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.wav").write_text("no audio")
    for _ in range(2):
        with pytest.raises(AudiobatError, match=r"None of the 3 clips can be read; one is a\.wav: .* --overwrite"):
            prepare(tmp_path, tmp_path / "out", workers=1)
    assert len(rows_of(tmp_path / "out/skipped.csv")) == 3


def test_a_full_disk_is_one_sentence_and_can_be_mended(source, tmp_path, clean):
    out = tmp_path / "out"

    def run():
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))
        try:
            prepare(source, out, workers=1)
        except AudiobatError as error:
            (tmp_path / "error.txt").write_text(str(error))

    process = in_own_group(run)
    process.join()
    error = (tmp_path / "error.txt").read_text()
    assert "out cannot be written (File too large): make room" in error
    assert not [path for path in tree(out) if ".part" in path]
    prepare(source, out, workers=1)
    assert same(tree(out), clean)


# The command


def test_the_command_with_real_workers(source, tmp_path):
    """As users run it: another process, workers from a fork server."""
    argv = [sys.executable, "-m", "audiobat", "prepare", str(source), str(tmp_path / "out"), "--window-seconds", "0.5"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "7 clips" in done.stdout
    assert "prepare: 7/7 clips, finished" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(samples_of(tmp_path / "out")) == 7


def test_a_dry_run_writes_nothing(source, tmp_path, capsys):
    before = tree(tmp_path)
    assert cli.main(["prepare", str(source), "--dry-run", "--part", "2/2", "--window-seconds", "5"]) == 0
    shown = capsys.readouterr().out
    assert "7 clips in 7 files" in shown
    assert "plan: 4 shards of flac at 16000 Hz, windows of 5 s every 5 s; 2 of them in this part" in shown
    assert tree(tmp_path) == before


def test_a_name_alone_says_where_to_get_the_data_set(capsys):
    assert cli.main(["prepare", "esc50"]) == 0
    assert capsys.readouterr().out.startswith("esc50: ")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["SOURCE"], "needs OUT"),
        (["nosuchset"], "needs OUT"),
        (["esc51"], "did you mean esc50?"),
        (["spc2"], "spc2-35"),
        (["SOURCE", "o", "--part", "0/3"], "--part is '0/3'"),
        (["SOURCE", "o", "--part", "4/3"], "--part is '4/3'"),
        (["SOURCE", "o", "--part", "x"], "--part is 'x'"),
        (["SOURCE", "o", "--sample-rate", "0"], "--sample-rate is 0"),
        (["SOURCE", "o", "--sample-rate", "256001"], "--sample-rate is 256001: FLAC takes multiples of 10 here"),
        (["SOURCE", "o", "--encoding", "mp3"], "mp3"),
        (["SOURCE", "o", "--hop-seconds", "1"], "--window-seconds"),
        (["SOURCE", "o", "--window-seconds", "1", "--hop-seconds", "2"], "--hop-seconds is 2.0"),
        (["SOURCE", "o", "--window-seconds", "0"], "--window-seconds is 0.0"),
        (["SOURCE", "o", "--workers", "0"], "--workers is 0"),
        (["nowhere", "o"], "nowhere"),
    ],
)
def test_mistakes_are_one_sentence(source, tmp_path, capsys, argv, words):
    places = {"SOURCE": str(source), "o": str(tmp_path / "o")}
    assert cli.main(["prepare", *(places.get(word, word) for word in argv)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err
    assert not (tmp_path / "o").exists()


def test_rates_above_those_of_all_flac_files_are_packed(source, tmp_path):
    for rate, encoding in ((256_000, "flac"), (256_001, "pcm")):
        prepare(source, tmp_path / encoding, sample_rate=rate, encoding=encoding, workers=1)
        table = read_clips(tmp_path / encoding)
        assert len(read_clip(table, 0, rate)) == round(table.seconds[0] * rate)


def test_the_seconds_of_a_list_are_a_hint_and_the_difference_is_told(tmp_path, capsys):
    for i, length in enumerate((3, 3, 2, 2)):
        soundfile.write(tmp_path / f"{i}.wav", np.random.default_rng(i).uniform(-0.5, 0.5, length * 8000), 8000)
    (tmp_path / "list.csv").write_text("path,seconds\n0.wav,0.2\n1.wav,0.0\n2.wav,2.01\n3.wav,900\n")
    listed = read_clips(tmp_path / "list.csv")
    assert np.isnan(listed.seconds[1])  # what readers of tags say where there is no length
    for clip_id, length in enumerate((3, 3, 2, 2)):
        with open_clip(listed, clip_id) as clip:
            assert clip.seconds == length
    prepare(tmp_path / "list.csv", tmp_path / "out", sample_rate=8000, window_seconds=1.0, workers=1)
    assert read_clips(tmp_path / "out").seconds.tolist() == [1.0] * 10
    told = "length: 2 clips had another one than the list's `seconds`, and were read to the end"
    assert told in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("faster_at", ["unlink", "rmdir"])
def test_what_another_part_removes_at_this_moment_is_no_error(faster_at, tmp_path, monkeypatch):
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "column.npy").write_bytes(b"")
    own = getattr(os, faster_at)

    def too_late(path, **where):
        own(path, **where)
        own(path, **where)  # FileNotFoundError, as when another process was faster

    monkeypatch.setattr(os, faster_at, too_late)
    remove(tmp_path / "left")
    assert not (tmp_path / "left").exists()


def test_what_another_part_still_writes_to_is_removed(tmp_path, monkeypatch):
    (tmp_path / "left").mkdir()
    own = os.rmdir

    def too_early(path, **where):
        monkeypatch.setattr(os, "rmdir", own)
        (tmp_path / "left" / "column.npy").write_bytes(b"")
        own(path, **where)  # OSError: not empty

    monkeypatch.setattr(os, "rmdir", too_early)
    remove(tmp_path / "left")
    assert not (tmp_path / "left").exists()


def test_what_cannot_be_removed_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "left").mkdir()

    def refuse(path, **where):
        raise PermissionError(13, "no", str(path))

    monkeypatch.setattr(os, "rmdir", refuse)
    with pytest.raises(PermissionError):
        remove(tmp_path / "left")
