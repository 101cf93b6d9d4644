"""Scenes: determinism, levels, labels, and nothing of a test scene in training."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiobat.audio.read import load_audio
from audiobat.data import scenes
from audiobat.data.scenes import LEVEL_DB, RATE, active_rms, demo_folder, held_out_sources, make_scenes, write_scenes
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.data.split import split_for_probe
from audiobat.errors import AudiobatError


@pytest.fixture(scope="module")
def mixed():
    """Some scenes of both splits."""
    return list(make_scenes(clips_train=150, clips_test=80, seed=3))


def source_columns():
    """Source of each demo recording -> fold (None: unlabelled)."""
    events, rest = read_clips(demo_folder() / "events.csv"), read_clips(demo_folder() / "unlabelled.csv")
    folds = dict(zip(events.columns["source"].tolist(), events.folds.tolist(), strict=True))
    return folds, set(rest.columns["source"].tolist())


def test_demo_folder_carries_recordings_and_their_licence():
    assert "CC BY-SA 3.0" in (demo_folder() / "README.md").read_text()
    assert len(read_labelled_clips(demo_folder() / "events.csv")) == 554
    assert len(read_clips(demo_folder() / "unlabelled.csv")) == 366
    assert len(read_clips(demo_folder())) == 554 + 366  # every file is listed, and every listed file is there


def test_a_scene_depends_only_on_seed_split_and_number(mixed):
    again = list(make_scenes(clips_train=3, clips_test=2, seed=3))
    for scene in again:
        same = next(s for s in mixed if s.name == scene.name)
        assert scene.waveform.tobytes() == same.waveform.tobytes()
        assert scene.events == same.events
    other = list(make_scenes(clips_train=3, clips_test=2, seed=4))
    assert all(a.waveform.tobytes() != b.waveform.tobytes() for a, b in zip(again, other, strict=True))


def test_shape_and_labels(mixed):
    assert [sum(s.split == split for s in mixed) for split in ("train", "test")] == [150, 80]
    for scene in mixed:
        assert scene.waveform.shape == (4 * RATE,)
        assert scene.waveform.dtype == np.float32
        assert np.abs(scene.waveform).max() <= 1
        assert 1 <= len(scene.labels) <= 4
        assert len(set(scene.labels)) == len(scene.events)
    assert set(Counter(len(s.labels) for s in mixed)) == {1, 2, 3, 4}
    assert len({label for s in mixed for label in s.labels}) == 37


def test_test_scenes_share_no_recording_with_training_scenes(mixed):
    folds, _ = source_columns()
    used = {split: {e.source for s in mixed if s.split == split for e in s.events} for split in ("train", "test")}
    assert {folds[source] for source in used["train"]} == {1, 2, 3, 4}
    assert {folds[source] for source in used["test"]} == {5}
    beds = {split: {s.bed for s in mixed if s.split == split} for split in ("train", "test")}
    family = {split: {re.sub(r"[_\d]+\.ogg", "", bed) for bed in beds[split]} for split in beds}
    assert not family["train"] & family["test"]
    assert len(beds["test"]) == 10
    assert len(beds["train"]) == 32


def test_held_out_sources_are_all_that_test_scenes_are_made_of(mixed):
    held = held_out_sources()
    folds, unlabelled = source_columns()
    assert {source for source, fold in folds.items() if fold == 5} == held - unlabelled
    assert {s.bed for s in mixed if s.split == "test"} == held & unlabelled
    trained_on = {s.bed for s in mixed if s.split == "train"} | {
        e.source for s in mixed if s.split == "train" for e in s.events
    }
    assert not trained_on & held


def test_levels_lie_in_the_range_and_are_what_the_mix_holds(monkeypatch):
    """With one event per scene, mix minus bed is the event: its active RMS over the bed's is the level."""
    monkeypatch.setattr(scenes, "MAX_EVENTS", 1)
    mixed = list(make_scenes(40, 0, seed=1))
    levels = [event.level_db for scene in mixed for event in scene.events]
    assert LEVEL_DB[0] <= min(levels) < LEVEL_DB[0] + 3
    assert LEVEL_DB[1] - 3 < max(levels) <= LEVEL_DB[1]
    events = read_clips(demo_folder() / "events.csv")
    paths = {source: Path(events.path(i)) for i, source in enumerate(events.columns["source"])}
    checked = 0
    for scene in mixed:
        if np.abs(scene.waveform).max() == 1:
            continue  # scaled down as a whole
        event = scene.events[0]
        take = load_audio(paths[event.source], RATE)[: 4 * RATE]
        outside = np.ones(4 * RATE, dtype=bool)
        span = slice(event.start, event.start + len(take))
        outside[span] = False
        part = scene.waveform[span].astype(np.float64)
        expected = take * (scenes.BED_RMS * 10 ** (event.level_db / 20) / active_rms(take))
        bed = scene.waveform.astype(np.float64)
        bed[span] = part - expected
        assert np.sqrt(np.square(bed).mean()) == pytest.approx(scenes.BED_RMS, rel=1e-4)
        checked += 1
    assert checked > 20


def test_active_rms_leaves_out_silence_and_the_tail():
    tone = np.sin(np.arange(3200) * 2 * np.pi / 32).astype(np.float32)
    assert active_rms(tone) == pytest.approx(np.sqrt(0.5), rel=1e-5)
    padded = np.concatenate([np.zeros(6400, np.float32), tone, 0.001 * tone, np.zeros(500, np.float32)])
    assert active_rms(padded) == pytest.approx(np.sqrt(0.5), rel=1e-5)


def test_files_hold_the_scenes(tmp_path):
    table = read_labelled_clips(write_scenes(tmp_path, clips_train=4, clips_test=3, seed=2, seconds=2.0))
    expected = list(make_scenes(4, 3, seed=2, seconds=2.0))
    assert table.splits.tolist() == [scene.split for scene in expected]
    train, test = split_for_probe(table)
    assert (len(train), len(test)) == (4, 3)
    for i, scene in enumerate(expected):
        assert np.array(table.classes)[table.labels.row(i)].tolist() == list(scene.labels)
        samples, rate = soundfile.read(table.path(i), dtype="float32")
        assert rate == RATE
        np.testing.assert_allclose(samples, scene.waveform, atol=1.01 / 2**15)


def test_a_finished_folder_is_used_again_an_unfinished_one_is_written_anew(tmp_path):
    arguments = {"clips_train": 2, "clips_test": 1, "seconds": 1.0}
    table = write_scenes(tmp_path, **arguments)
    first = tmp_path / "audio/train_00000.wav"
    content, changed = first.read_bytes(), b"changed by hand"
    first.write_bytes(changed)
    assert write_scenes(tmp_path, **arguments) == table
    assert first.read_bytes() == changed  # finished: not touched
    (tmp_path / "scenes.json").unlink()  # as if killed before the end
    write_scenes(tmp_path, **arguments)
    assert first.read_bytes() == content
    write_scenes(tmp_path, **arguments, seed=1)
    assert first.read_bytes() != content


def test_a_silent_take_is_an_error(monkeypatch):
    monkeypatch.setattr(scenes, "load_audio", lambda path, rate: np.zeros(9000, np.float32))
    with pytest.raises(AudiobatError, match=r"\.ogg is silent"):
        list(make_scenes(1, 0))


@pytest.mark.parametrize("arguments", [{"clips_train": -1}, {"seconds": 0.0}, {"seconds": 11.0}])
def test_arguments_are_checked(arguments):
    with pytest.raises(AudiobatError, match="counts of 0 or more and a length of up to 10 s"):
        list(make_scenes(**{"clips_train": 1, "clips_test": 1, **arguments}))
