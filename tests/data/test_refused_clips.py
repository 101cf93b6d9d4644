"""Recordings that the system does not let us read: every way of reading skips and lists them, each with its reason."""

import os
import socket

import numpy as np
import pytest
import soundfile

from audiobat.data.loader import CropLoader, load_clips
from audiobat.data.prepare.pack import Job, UnreadableError, read_pieces
from audiobat.data.prepare.shard_plan import make_plan, shard_keys
from audiobat.data.sampler import ClipOrder
from audiobat.data.shards import PackSettings
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.data.windows import BrokenClip, WindowStream
from audiobat.errors import AudiobatError

RATE = 1000
GOOD = 90  # readable recordings: the refused ones are fewer than 5%, or a run would stop
REASONS = {  # what stands in a folder of recordings, and what is said of it
    "no_right.wav": "cannot be read (Permission denied)",
    "no_right.m4a": "cannot be read (Permission denied)",  # FFmpeg's
    "closed/": "cannot be read (Permission denied)",  # a folder that may not be listed
    "circle.wav": "cannot be read (Too many levels of symbolic links)",
    "nowhere.wav": "There is no file",
    "pipe.wav": "is no plain file",
    "socket.wav": "is no plain file",
    "device.wav": "is no plain file",
    "through.wav": "cannot be read (Permission denied)",  # a link through a folder that may not be entered
}


@pytest.fixture
def corpus(tmp_path, monkeypatch, ordinary_user):
    """Readable recordings, and one of each kind that is refused."""
    for i in range(GOOD):
        soundfile.write(tmp_path / f"{i:03d}.wav", np.full(600, i / 256), RATE, subtype="FLOAT")
    for name in ("no_right.wav", "no_right.m4a"):
        soundfile.write(tmp_path / name, np.zeros(600), RATE, format="WAV")
        (tmp_path / name).chmod(0)
    (tmp_path / "closed").mkdir()
    soundfile.write(tmp_path / "closed" / "inside.wav", np.zeros(600), RATE)
    (tmp_path / "closed").chmod(0)
    for name, target in (("circle.wav", "circle.wav"), ("nowhere.wav", "gone.wav"), ("through.wav", "closed/x.wav")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "circle").symlink_to("circle")  # no recording by its name: none of our business, as a broken link
    os.mkfifo(tmp_path / "pipe.wav")
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.wav")
        (tmp_path / "device.wav").symlink_to("/dev/zero")
        yield tmp_path
    (tmp_path / "closed").chmod(0o700)


def check(skipped):
    assert sorted(skipped) == sorted(REASONS)
    for name, reason in skipped.items():
        assert REASONS[name] in reason, name
        assert name in reason


def crops(table):
    loader = CropLoader(table, RATE, 0.5, ClipOrder(len(table), 5), 11, seed=5, workers=1)
    drawn = set()
    for batch in loader:
        drawn |= set(batch.keys)
        if len(drawn) == GOOD and len(loader.skipped) == len(REASONS):
            return loader.skipped
    raise AssertionError


def whole_clips(table):
    batches = list(load_clips(table, RATE, np.split(np.arange(len(table)), 3)))
    assert sum(len(batch.clip_ids) for batch in batches) == GOOD
    return {key: reason for batch in batches for key, reason in batch.skipped.items()}


def windows(table):
    items = list(WindowStream(table, RATE, 300, 300, 2)())
    broken = [item for item in items if isinstance(item, BrokenClip)]
    assert len(items) - len(broken) == 2 * GOOD
    return {table.keys[item.clip_id]: item.reason for item in broken}


def shards(table):
    settings = PackSettings(RATE, "pcm", None, None)
    job = Job(None, 0, make_plan(table, settings), table, shard_keys(table.keys))
    skipped = {}
    for clip_id, key in enumerate(table.keys):
        try:
            list(read_pieces(job, clip_id, clip_id))
        except UnreadableError as error:
            skipped[key] = str(error)
    return skipped


@pytest.mark.parametrize("reading", [crops, whole_clips, windows, shards])
def test_what_is_refused_is_skipped_with_its_reason(corpus, monkeypatch, reading):
    monkeypatch.setattr("audiobat.data.loader.SKIPPED_LIMIT", 0.5)
    check(reading(read_clips(corpus)))


def test_a_list_names_what_is_in_a_closed_folder(corpus):
    (corpus / "clips.csv").write_text("path,label\n000.wav,a\nclosed/inside.wav,b\n" + "x" * 300 + ".wav,b\n")
    table = read_labelled_clips(corpus / "clips.csv")
    (batch,) = load_clips(table, RATE, [np.arange(3)])
    assert batch.clip_ids.tolist() == [0]
    assert "inside.wav cannot be read (Permission denied)" in batch.skipped["closed/inside.wav"]
    assert "cannot be read (File name too long)" in batch.skipped["x" * 300 + ".wav"]


def test_a_folder_that_cannot_be_listed_at_all_is_named(corpus):
    with pytest.raises(AudiobatError, match=r"closed cannot be listed \(Permission denied\)"):
        read_clips(corpus / "closed")


def test_a_closed_folder_has_the_class_that_it_lies_in_and_is_refused_where_it_may_be_a_class(tmp_path, ordinary_user):
    for name in ("cat", "dog/more"):
        (tmp_path / name).mkdir(parents=True)
        soundfile.write(tmp_path / name / "a.wav", np.zeros(8), RATE)
    (tmp_path / "dog" / "more").chmod(0)
    table = read_labelled_clips(tmp_path)
    assert table.keys.tolist() == ["cat/a.wav", "dog/more/"]
    assert [table.classes[label] for label in table.labels.values] == ["cat", "dog"]
    (tmp_path / "dog").chmod(0)
    with pytest.raises(AudiobatError, match=r"dog cannot be listed, as folders of classes must be"):
        read_labelled_clips(tmp_path)
    (tmp_path / "dog").chmod(0o700)
    (tmp_path / "dog" / "more").chmod(0o700)
