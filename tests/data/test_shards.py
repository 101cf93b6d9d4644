"""The prepared folder: its plan, the indexes of its shards, what counts as done, what killed processes leave."""

import json
import re

import numpy as np
import pytest

from audiobat.data import shards
from audiobat.data.clip_table import EVENT
from audiobat.data.columns import Ragged, Strings
from audiobat.data.prepare.shard import ShardIndex, load_index
from audiobat.data.shards import (
    PackSettings,
    ShardPlan,
    index_path,
    is_prepared,
    is_unfinished,
    load_plan,
    open_prepared,
    remove_unfinished,
    volume_path,
    write_shared,
)
from audiobat.errors import AudiobatError

SETTINGS = PackSettings(16_000, "flac", 2.5, 1.0)
PLAN = ShardPlan("ab" * 32, 10, SETTINGS, (0, 4, 8))


def index(plan=PLAN, number=1, size=5, **columns):
    """An index of two clips in one volume, one clip skipped."""
    counts = {name: np.arange(2) for name in ("clip_ids", "starts", "volume_ids", "offsets", "sizes", "lengths")}
    fields = {
        "plan": plan.digest,
        "number": number,
        "volumes": Strings.of_texts([f"{number:05d}.tar"]),
        "volume_sizes": np.array([size]),
        "keys": Strings.of_texts(["é", "b"]),
        "labels": Ragged.of([[0, 2], []], np.int32),
        "events": Ragged.of([[(0, 0.5, 1.5)], []], EVENT),
        "hashes": np.arange(4, dtype=np.uint64).reshape(2, 2),
        "loud": np.array([True, False]),
        "skipped": np.array([6]),
        "reasons": Strings.of_texts(["broken"]),
    }
    return ShardIndex(**(counts | fields | columns))


@pytest.fixture
def folder(tmp_path):
    """A folder in which shard 1 of PLAN is done."""
    (tmp_path / "shards").mkdir()
    PLAN.save(tmp_path, "the source")
    volume_path(tmp_path, 1, 0).write_bytes(bytes(5))
    index().save(tmp_path)
    return tmp_path


def test_a_plan_is_read_as_it_was_written(folder):
    assert load_plan(folder) == PLAN
    assert [list(PLAN.clip_ids(number)) for number in range(len(PLAN))] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert (SETTINGS.window, SETTINGS.hop) == (40_000, 16_000)
    PLAN.check_begun(folder)
    assert is_prepared(folder)
    assert not is_prepared(folder / "shards")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (ShardPlan("ab" * 32, 10, PackSettings(8_000, "flac", 2.5, 1.0), (0, 4, 8)), "--sample-rate 16000, not 8000"),
        (ShardPlan("ab" * 32, 10, PackSettings(16_000, "pcm", 2.5, 1.0), (0, 4, 8)), "--encoding flac, not pcm"),
        (
            ShardPlan("ab" * 32, 10, PackSettings(16_000, "flac", None, 1.0), (0, 4, 8)),
            "--window-seconds 2.5, not None",
        ),
        (ShardPlan("cd" * 32, 10, SETTINGS, (0, 4, 8)), "another source"),
        (ShardPlan("ab" * 32, 10, SETTINGS, (0, 4, 9)), "another source"),
    ],
)
def test_another_plan_is_refused_by_its_flag(folder, plan, words):
    with pytest.raises(AudiobatError, match=words):
        plan.check_begun(folder)
    assert plan.digest != PLAN.digest


@pytest.mark.parametrize(
    "change", [{"format": "audiobat-shards-9"}, {"settings": {}}, {"first_rows": None}, {"clips": "many"}]
)
def test_a_plan_that_cannot_be_read_is_one_sentence(folder, change):
    fields = json.loads((folder / "prepared.json").read_text()) | change
    (folder / "prepared.json").write_text(json.dumps(fields))
    with pytest.raises(AudiobatError, match=r"prepared\.json is no readable plan .* --overwrite"):
        load_plan(folder)


def test_an_index_is_read_as_it_was_written(folder):
    found = load_index(folder, 1, PLAN)
    assert found.keys.tolist() == ["é", "b"]
    assert found.labels.row(0).tolist() == [0, 2]
    assert found.events.row(0).tolist() == [(0, 0.5, 1.5)]
    assert found.hashes.tolist() == [[0, 1], [2, 3]]
    assert list(zip(found.skipped, found.reasons, strict=True)) == [(6, "broken")]
    before = index_path(folder, 1).read_bytes()
    found.save(folder)
    assert index_path(folder, 1).read_bytes() == before
    index(labels=None, events=None).save(folder)
    assert load_index(folder, 1, PLAN).events is None


def test_only_a_whole_shard_of_this_plan_is_done(folder):
    assert load_index(folder, 0, PLAN) is None
    assert load_index(folder, 1, ShardPlan("cd" * 32, 10, SETTINGS, (0, 4, 8))) is None
    index_path(folder, 1).rename(index_path(folder, 2))
    assert load_index(folder, 2, PLAN) is None  # another shard's
    index(size=6).save(folder)
    assert load_index(folder, 1, PLAN) is None  # the volume is cut short
    index().save(folder)
    whole = index_path(folder, 1).read_bytes()
    for cut in (b"", whole[:40], whole[: len(whole) // 2], whole[:-9]):
        index_path(folder, 1).write_bytes(cut)
        assert load_index(folder, 1, PLAN) is None
    index().save(folder)
    volume_path(folder, 1, 0).unlink()
    assert load_index(folder, 1, PLAN) is None


def test_an_unfinished_folder_says_what_to_do(folder):
    with pytest.raises(AudiobatError, match="not finished: run the same `audiobat prepare` command again"):
        open_prepared(folder)


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_shared(tmp_path / "a", b"1")

    def broken(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards.os, "fsync", broken)
    with pytest.raises(OSError, match="No space"):
        write_shared(tmp_path / "a", b"2")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"1")]


def test_what_killed_processes_left_of_these_shards_goes(folder):
    ours = [
        shards.beside(path) for path in (index_path(folder, 1), volume_path(folder, 1, 0), volume_path(folder, 1, 2))
    ]
    theirs = [shards.beside(volume_path(folder, 11, 1)), shards.beside(index_path(folder, 0))]
    for path in ours + theirs:
        path.write_bytes(b"x")
        assert is_unfinished(path)
        assert re.fullmatch(r"\.\d{5}.*\.part", path.name)
    remove_unfinished(folder, [1, 2])
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in theirs)
    assert load_index(folder, 1, PLAN) is not None


def test_names_in_an_index_file_stay_those_of_earlier_versions(folder):
    with np.load(index_path(folder, 1)) as arrays:
        assert {"rows", "starts", "volume_ids", "keys.values", "labels.offsets", "skipped"} <= set(arrays)
        assert "clip_ids" not in arrays
