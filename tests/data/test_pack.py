"""The work of one shard: windows, 16-bit samples, labels of windows, keys, the plan, tar volumes, processes."""

import errno
import io
import multiprocessing
import os
import re
import signal
import tarfile
from collections import deque
from multiprocessing import forkserver

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from plain_windows import windows

from audiobat.audio.read import load_audio
from audiobat.data import clip as clip_module
from audiobat.data.build import clip_table
from audiobat.data.clip import open_clip
from audiobat.data.clip_table import EVENT
from audiobat.data.columns import Ragged, Strings, join_ragged
from audiobat.data.prepare import pack, shard, shard_plan
from audiobat.data.prepare import pool as pack_pool
from audiobat.data.prepare.pack import cut_events, encode, to_int16
from audiobat.data.prepare.shard import ShardWriter
from audiobat.data.prepare.shard_plan import fit, make_plan, shard_keys
from audiobat.data.shards import PackSettings
from audiobat.data.windows import cut_windows
from audiobat.errors import AudiobatError

WEBDATASET = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")  # how its readers take key and extension from a member's name
PASSED_OVER = re.compile(r"__[^/]*__($|/)")  # members that they do not read
FLAC = PackSettings(16_000, "flac", None, None)


def noise(samples, seed=0, level=0.5):
    return np.random.default_rng(seed).uniform(-level, level, samples).astype(np.float32)


# Samples and windows


@given(st.lists(st.integers(0, 40), max_size=6), st.integers(1, 30), st.data())
def test_windows_block_by_block_are_those_of_the_whole(sizes, window, data):
    hop, least = data.draw(st.integers(1, window)), data.draw(st.integers(1, 10))
    whole = np.arange(1, sum(sizes) + 1, dtype=np.float32)
    blocks = np.split(whole, np.cumsum(sizes)[:-1]) if sizes else []
    found = list(cut_windows(blocks, window, hop, least))
    wanted = windows(len(whole), window, hop, least) if len(whole) else []
    assert [(start, start + len(samples)) for start, samples in found] == wanted
    for start, samples in found:
        np.testing.assert_array_equal(samples, whole[start : start + len(samples)])


@pytest.mark.parametrize("rate", [44_100, 16_000, 8_000])
def test_blocks_of_a_long_recording_join_without_a_seam(tmp_path, monkeypatch, rate):
    monkeypatch.setattr(clip_module, "READ_SAMPLES", 5_000)
    soundfile.write(tmp_path / "a.wav", np.stack([noise(23_456), noise(23_456, 1)], 1), rate)
    with open_clip(clip_table(tmp_path, ["a.wav"]), 0) as clip:
        blocks = list(clip.blocks(16_000))
    assert len(blocks) == 5
    np.testing.assert_array_equal(np.concatenate(blocks), load_audio(tmp_path / "a.wav", 16_000))


def test_a_part_of_a_recording_is_read_to_its_own_end(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_module, "READ_SAMPLES", 300)
    soundfile.write(tmp_path / "a.wav", noise(5_000), 1_000, subtype="FLOAT")
    table = clip_table(tmp_path, ["a.wav"], begins=[1.5], seconds=[2.2])
    with open_clip(table, 0) as clip:
        np.testing.assert_array_equal(np.concatenate(list(clip.blocks(1_000))), noise(5_000)[1_500:3_700])


def test_sixteen_bits_round_and_stop_at_full_scale():
    edge = 2**15
    samples = np.array([0, 0.4, 0.6, -0.6, edge - 1, -edge], np.float32) / edge
    values, loud = to_int16(samples)
    assert values.tolist() == [0, 0, 1, -1, edge - 1, -edge]
    assert not loud
    values, loud = to_int16(np.array([1.0, -1.5, 7.0, 3e38, -3e38], np.float32))
    assert values.tolist() == [edge - 1, -edge, edge - 1, edge - 1, -edge]
    assert loud


@pytest.mark.parametrize("rate", [100, 16_000, 44_100, 655_350])
@pytest.mark.parametrize("length", [1, 17, 5_000])
def test_both_encodings_give_the_samples_back(rate, length):
    samples, _ = to_int16(noise(length))
    data = encode(samples, PackSettings(rate, "flac", None, None))
    back, found = soundfile.read(io.BytesIO(data), dtype="int16")
    assert found == rate
    np.testing.assert_array_equal(back, samples)
    data = encode(samples, PackSettings(rate, "pcm", None, None))
    np.testing.assert_array_equal(np.frombuffer(data, "<i2"), samples)


def test_events_are_shifted_into_the_window():
    events = np.array([(0, 0.0, 1.0), (1, 0.5, 2.5), (2, 2.0, 3.0), (3, 1.5, 1.5), (4, 3.0, 4.0)], EVENT)
    assert cut_events(events, 1.0, 1.0).tolist() == [(1, 0.0, 1.0), (3, 0.5, 0.5)]
    assert cut_events(events, 2.0, 0.75).tolist() == [(1, 0.0, 0.5), (2, 0.0, 0.75)]
    assert cut_events(events, 0.0, 9.0).tolist() == events.tolist()


# Keys and the plan


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        (["a.wav", "b/c.flac"], ["a", "b/c"]),
        (["v1.2/x.y.wav", "no_audio.name"], ["v1_2/x_y", "no_audio_name"]),
        (["../../a.wav", "/etc/b.wav", "./c//d.wav"], ["a", "etc/b", "c/d"]),
        (["a.flac", "a.wav", "a_wav.wav"], ["a", "a_wav", "a_wav_wav"]),
        (["a.b.wav", "a_b.wav", "a.b.wav/"], ["a_b", "a_b_wav", "a_b_wav_2"]),
        (["x.wav", "/x.wav", "../x.wav", "x_wav_2.wav"], ["x", "x_wav", "x_wav_2", "x_wav_2_wav"]),
        (["größe/日本 語.wav", "tab\there\n.wav"], ["größe/日本 語", "tab_here_"]),
        (["..", "."], ["clip", "clip_2"]),
        (["__a__/x.wav", "a__/x.wav", "__a__.wav", "__a/x.wav"], ["a__/x", "a__/x_wav", "__a__", "__a/x"]),
    ],
)
def test_keys_fit_the_names_of_members(keys, wanted):
    assert shard_keys(keys) == wanted


@given(st.lists(st.text(alphabet="ab./\\_ \n\x00é.wv2", max_size=9), unique=True))
def test_keys_stay_unique_and_whole_in_every_reader(keys):
    found = shard_keys(keys)
    assert len(set(found)) == len(keys)
    for key in found:
        assert WEBDATASET.match(f"{key}.flac").groups() == (key, "flac")
        assert not PASSED_OVER.match(f"{key}.flac")
        assert not key.startswith("/")
        assert ".." not in key.split("/")
        assert fit(key) == key


def test_many_keys_of_one_name_take_no_longer():
    assert len(set(shard_keys(["../" * i + "a" for i in range(3_000)]))) == 3_000


def sized_table(folder, sizes, **columns):
    for i, size in enumerate(sizes):
        (folder / f"{i:04d}.wav").write_bytes(bytes(size))
    return clip_table(folder, [f"{i:04d}.wav" for i in range(len(sizes))], **columns)


def test_shards_are_cut_by_clips_and_by_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_plan, "LEAST_CLIPS", 3)
    monkeypatch.setattr(shard_plan, "LEAST_BYTES", 100)
    table = sized_table(tmp_path, [10, 10, 10, 10, 60, 50, 500, 1])
    plan = make_plan(table, FLAC)
    assert [list(plan.clip_ids(number)) for number in range(len(plan))] == [[0, 1, 2], [3, 4], [5], [6], [7]]
    windows_of_one = clip_table(tmp_path, ["0006.wav"] * 5, keys=list("abcde"), begins=[0, 1, 2, 3, 4])
    assert len(make_plan(windows_of_one, FLAC)) == 5  # each has its share of the file's bytes


def test_large_sources_get_large_shards(tmp_path):
    table = clip_table(tmp_path, [f"{i}.wav" for i in range(66_000)])
    assert len(make_plan(table, FLAC)) == 66
    assert len(make_plan(table.select(range(6_400)), FLAC)) == 64
    assert len(make_plan(table.select(range(100)), FLAC)) == 2


def test_the_digest_sees_what_matters_and_not_where_the_source_lies(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    column = {"group": ["a", "b"]}
    plans = [make_plan(sized_table(tmp_path / name, [10, 20], columns=column), FLAC) for name in "xy"]
    assert plans[0] == plans[1]
    other = make_plan(sized_table(tmp_path / "x", [10, 20], columns={"group": ["a", "c"]}), FLAC)
    assert other.sha256 != plans[0].sha256
    assert make_plan(sized_table(tmp_path / "x", [10, 21], columns=column), FLAC).sha256 != plans[0].sha256


# Tar volumes


def members(path):
    with tarfile.open(path) as tar:
        return {member.name: (tar.extractfile(member).read(), member.offset_data) for member in tar}


@pytest.mark.parametrize("stem", ["a/b", "d" * 120, "dé/" + "語" * 60])
def test_members_are_where_the_writer_says(tmp_path, stem):
    (tmp_path / "shards").mkdir()
    wanted = {f"{stem}{i}.flac": bytes([i]) * size for i, size in enumerate([0, 1, 511, 512, 5_000])}
    with ShardWriter(tmp_path, 3) as writer:
        writer.begin()
        places = {name: writer.add(name, data) for name, data in wanted.items()}
        assert writer.finish() == ["00003.tar"]
    path = tmp_path / "shards" / "00003.tar"
    assert members(path) == {name: (data, places[name][1]) for name, data in wanted.items()}
    raw = path.read_bytes()
    assert writer.sizes == [len(raw)]
    for name, data in wanted.items():
        header = raw[places[name][1] - 512 : places[name][1]]  # the header proper stands right before the payload
        assert header[257:262] == b"ustar"
        assert int(header[124:135], 8) == len(data)
        assert name.encode().startswith(header[:100].rstrip(b"\0"))
    assert [p.name for p in (tmp_path / "shards").iterdir()] == ["00003.tar"]


def test_what_is_taken_back_leaves_no_trace_and_long_shards_go_on_in_another_volume(tmp_path, monkeypatch):
    monkeypatch.setattr(shard, "VOLUME_BYTES", 3_000)
    (tmp_path / "shards").mkdir()
    with ShardWriter(tmp_path, 0) as writer:
        for name, broken in (("a", False), ("b", True), ("c", False), ("d", False), ("e", True)):
            place = writer.begin()
            writer.add(f"{name}.pcm", name.encode() * 2_000)
            if broken:
                writer.undo(place)
        assert writer.finish() == ["00000.tar", "00000-1.tar"]
    found = [sorted(members(tmp_path / "shards" / name)) for name in ("00000.tar", "00000-1.tar")]
    assert found == [["a.pcm", "c.pcm"], ["d.pcm"]]


def test_a_shard_without_members_has_no_volume(tmp_path):
    (tmp_path / "shards").mkdir()
    with ShardWriter(tmp_path, 0) as writer:
        writer.undo(writer.begin())
        assert writer.finish() == []
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_writer_that_fails_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "shards").mkdir()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    def fill():
        with ShardWriter(tmp_path, 0) as writer:
            writer.begin()
            writer.add("a.flac", bytes(10))
            writer.finish()

    with pytest.raises(OSError, match="No space"):
        fill()
    assert list((tmp_path / "shards").iterdir()) == []


def test_columns_join(tmp_path):
    a, b = Ragged.of([[1], []], np.int32), Ragged.of([[2, 3]], np.int32)
    joined = join_ragged([a, b, Ragged.of([], np.int32)])
    assert [joined.row(i).tolist() for i in range(3)] == [[1], [], [2, 3]]
    texts = join_ragged([Strings.of_texts(["é", ""]), Strings.of_texts(["x"])])
    assert texts.tolist() == ["é", "", "x"]


# Processes


class Job:
    """Stands for a shard."""

    def __init__(self, number):
        self.number, self.skip = number, {}


def test_deaths_are_blamed_on_a_clip_only_when_they_repeat(monkeypatch):
    monkeypatch.setattr(pack_pool, "replace", lambda job, skip: (job.number, skip))
    blame = pack_pool.Blame()
    job = Job(5)

    def died(row, code=-signal.SIGKILL):
        worker = pack_pool.Worker(job, type("P", (), {"exitcode": code}), row)
        return blame.job_again(worker)

    for row in (7, 8, 7, 7, 8, 7, 7, 7, None, 7):  # who got to 8, or to the end, got past 7
        assert died(row) is job
    assert died(7) is job
    assert died(7) is job
    number, skip = died(7)
    assert number == 5
    assert list(skip) == [7]
    assert "4 processes died reading it (SIGKILL)" in skip[7]
    assert died(8, -signal.SIGSEGV) is job
    assert "2 processes died reading it (SIGSEGV)" in died(8, -signal.SIGSEGV)[1][8]
    for _ in range(3):
        assert died(None) is job
    with pytest.raises(AudiobatError, match="outside any clip"):
        died(None, 1)


def test_reports_reach_the_bar_and_errors_come_out():
    reports = deque([4, 5, None, "done"])

    class Connection:
        def recv(self):
            if not reports:
                raise EOFError
            return reports.popleft()

    worker = pack_pool.Worker(Job(0), None)
    counted = []
    while pack_pool.receive(Connection(), worker, counted.append):
        pass
    assert counted == [1, 1]
    assert (worker.clip_id, worker.begun, worker.done) == (None, 2, True)
    reports.append(OSError(errno.ENOSPC, "full"))
    with pytest.raises(OSError, match="full"):
        pack_pool.receive(Connection(), worker, counted.append)


@pytest.mark.parametrize("kills", [1, pack_pool.STARTS])
def test_the_server_that_forks_processes_may_be_killed(monkeypatch, kills):
    connect, killed = forkserver.connect_to_new_process, []

    def killing(descriptors):
        if len(killed) == kills:
            return connect(descriptors)
        forkserver.ensure_running()
        server = forkserver._forkserver._forkserver_pid
        os.kill(server, signal.SIGSTOP)  # so that it cannot fork before it is killed
        made = connect(descriptors)
        os.kill(server, signal.SIGKILL)
        os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
        killed.append(server)
        return made

    monkeypatch.setattr(forkserver, "connect_to_new_process", killing)
    process = multiprocessing.get_context("forkserver").Process(target=os.getpid)
    if kills == pack_pool.STARTS:
        with pytest.raises(AudiobatError, match=r"cannot be started.*what forks them was killed"):
            pack_pool.start(process)
        return
    pack_pool.start(process)
    process.join(300)
    assert process.exitcode == 0
    assert len(killed) == kills


@pytest.mark.parametrize("window", [None, 0.5])
def test_less_than_a_sample_is_one_and_numbers_too_large_are_a_reason(tmp_path, window):
    soundfile.write(tmp_path / "short.wav", noise(1), 384_000)
    soundfile.write(tmp_path / "huge.wav", np.full(100, 3e38, np.float32) * (-1) ** np.arange(100), 44_100, "FLOAT")
    settings = PackSettings(16_000, "flac", window, window)
    table = clip_table(tmp_path, ["short.wav", "huge.wav"])
    job = pack.Job(tmp_path, 0, make_plan(table, settings), table, ["short", "huge"])
    assert [len(clip.samples) for clip in pack.read_pieces(job, 0, 0)] == [1]
    with pytest.raises(pack.UnreadableError, match=r"huge\.wav holds samples of 3e\+38, beyond 1e\+10 .*repair it"):
        list(pack.read_pieces(job, 1, 1))
