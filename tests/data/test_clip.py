"""Clips from shards, Parquet files, windows of recordings and object stores: the samples that a loose file gives."""

import io
import json
import tarfile
from dataclasses import replace

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from fsspec.implementations.memory import MemoryFileSystem

from audiobat.audio.read import audio_duration, load_audio, open_audio
from audiobat.data import clip as clip_module
from audiobat.data import remote
from audiobat.data.build import clip_table
from audiobat.data.clip import measure, open_clip, read_clip
from audiobat.data.columns import Strings
from audiobat.data.loader import CropLoader
from audiobat.data.sampler import ClipOrder
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.data.windows import WindowStream
from audiobat.errors import AudiobatError

RATE = 1000
CLIPS = 5


def noise(i, rate=RATE):
    samples = np.random.default_rng(i).uniform(-0.9, 0.9, 700 + 100 * i)
    return np.round(samples * 2**15).astype(np.int16)


def flac(samples, rate=RATE):
    held = io.BytesIO()
    soundfile.write(held, samples, rate, format="FLAC")
    return held.getvalue()


def shard(path, encoding, stem="clip/{}"):
    """A tar of five clips, and the clip table that finds them."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for i in range(CLIPS):
            data = flac(noise(i)) if encoding == "flac" else noise(i).astype("<i2").tobytes()
            for ending, content in ((encoding, data), ("json", json.dumps({"i": i}).encode())):
                entry = tarfile.TarInfo(f"{stem.format(i)}.{ending}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    with tarfile.open(path) as tar:
        members = [member for member in tar if not member.name.endswith("json")]
    table = clip_table(path.parent, [path.name] * CLIPS, keys=[stem.format(i) for i in range(CLIPS)])
    return replace(
        table,
        offsets=np.array([member.offset_data for member in members]),
        sizes=np.array([member.size for member in members]),
        seconds=np.array([len(noise(i)) / RATE for i in range(CLIPS)]),
        sample_rates=np.full(CLIPS, RATE, np.int32),
    )


def length(table, clip_id):
    with open_clip(table, clip_id) as clip:
        return clip.seconds, clip.rate


@pytest.mark.parametrize("stem", ["clip/{}", "d" * 120 + "/{}"])
@pytest.mark.parametrize("encoding", ["flac", "pcm"])
def test_a_shard_gives_every_part_of_every_clip(tmp_path, encoding, stem):
    table = shard(tmp_path / "s.tar", encoding, stem)
    for row in (4, 0, 2):
        whole = noise(row).astype(np.float32) / 2**15
        np.testing.assert_array_equal(read_clip(table, row, RATE), whole)
        np.testing.assert_array_equal(read_clip(table, row, RATE, 0.25, 0.3), whole[250:550])
        np.testing.assert_array_equal(read_clip(table, row, RATE, 0.6, 9.0), whole[600:])
        assert length(table, row) == (len(whole) / RATE, RATE)
        with pytest.raises(AudiobatError, match="no audio from"):
            read_clip(table, row, RATE, 5.0)


@pytest.mark.parametrize("encoding", ["flac", "pcm"])
def test_another_rate_is_resampled_as_a_file_is(tmp_path, encoding):
    table = shard(tmp_path / "s.tar", encoding)
    soundfile.write(tmp_path / "loose.wav", noise(3), RATE)
    np.testing.assert_array_equal(read_clip(table, 3, 1600), load_audio(tmp_path / "loose.wav", 1600))


def test_a_shard_that_is_gone_cut_short_or_another_is_one_sentence(tmp_path):
    path = tmp_path / "s.tar"
    table = shard(path, "flac")
    clip_module._shards.__init__()
    data = path.read_bytes()
    path.write_bytes(data[: int(table.offsets[4]) + 10])
    with pytest.raises(AudiobatError, match=r"s\.tar was cut short"):
        read_clip(table, 4, RATE)
    read_clip(table, 0, RATE)  # what is there can still be read
    wrong = replace(table, offsets=table.offsets + 512)
    with pytest.raises(AudiobatError, match=r"does not hold clip clip/0 at byte .*prepare the data again"):
        read_clip(wrong, 0, RATE)
    swapped = replace(table, offsets=table.offsets[::-1], sizes=table.sizes[::-1])
    with pytest.raises(AudiobatError, match="does not hold clip clip/0"):
        read_clip(swapped, 0, RATE)
    at = int(table.offsets[0]) - 512 + clip_module.SIZE.start
    path.write_bytes(data[:at] + b"9" * 11 + data[at + 11 :])  # no octal number
    with pytest.raises(AudiobatError, match="does not hold clip clip/0"):
        read_clip(table, 0, RATE)
    path.unlink()
    clip_module._shards.__init__()
    with pytest.raises(AudiobatError, match=r"s\.tar cannot be read \(No such file"):
        read_clip(table, 0, RATE)
    assert table.missing().tolist() == [0, 1, 2, 3, 4]


def test_few_shards_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_module, "OPEN_SHARDS", 3)
    kept = clip_module._OpenShards()
    paths = [tmp_path / str(i) for i in range(8)]
    for path in paths:
        path.write_bytes(b"x")
        kept.descriptor(str(path))
        kept.descriptor(str(paths[0]))
    assert len(kept._open) == 3
    assert str(paths[0]) in kept._open


def test_a_window_of_a_recording_ends_where_it_says(tmp_path):
    soundfile.write(tmp_path / "long.wav", noise(9), RATE)
    table = clip_table(tmp_path, ["long.wav"] * 2, keys=["a", "b"], begins=[0.0, 0.5], seconds=[0.5, np.nan])
    whole = noise(9).astype(np.float32) / 2**15
    np.testing.assert_array_equal(read_clip(table, 0, RATE), whole[:500])
    np.testing.assert_array_equal(read_clip(table, 0, RATE, 0.4, 0.4), whole[400:500])
    np.testing.assert_array_equal(read_clip(table, 1, RATE, 0.1), whole[600:])
    assert length(table, 1) == (len(whole) / RATE - 0.5, RATE)


def write_parquet(path, rows=CLIPS, **columns):
    audio = [{"bytes": flac(noise(i)), "path": f"{i}.flac"} for i in range(rows)]
    pq.write_table(pa.table({"audio": audio, **columns}), path, row_group_size=2)


def test_lengths_are_those_of_the_files_and_of_prepared_shards_those_of_the_table(tmp_path):
    """A list's rate and lengths, as data sets have them, are no measurements: one is wrong, one not known."""
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.wav", noise(i), RATE)
    table = clip_table(tmp_path, ["0.wav", "1.wav", "2.wav"], seconds=[90.0, np.nan, 90.0])
    listed = measure(replace(table, sample_rates=np.full(3, 44_100, np.int32)))
    assert [(length.seconds, length.rate, length.channels) for length in listed[:2]] == [(0.7, RATE, 1), (0.8, RATE, 1)]
    assert np.isnan(listed[2].seconds)
    assert "There is no file" in listed[2].error
    packed = shard(tmp_path / "s.tar", "flac")
    (tmp_path / "s.tar").unlink()
    assert [length.seconds for length in measure(packed)] == [0.7, 0.8, 0.9, 1.0, 1.1]


def test_parquet_with_the_files_inside(tmp_path):
    labels = [["dog", "cat"], [], ["dog"], ["cat"], ["dog"]]
    write_parquet(tmp_path / "clips.parquet", label=labels, fold=[1, 1, 2, 2, 2], year=[2001, None, 3, 4, 5])
    table = read_labelled_clips(tmp_path / "clips.parquet")
    assert table.keys.tolist()[1] == "clips/000001_1.flac"
    assert table.classes == ("cat", "dog")
    assert table.targets()[0].all()
    assert table.folds.tolist() == [1, 1, 2, 2, 2]
    assert table.columns["year"].tolist() == ["2001", "", "3", "4", "5"]
    for row in (3, 0, 4):
        np.testing.assert_array_equal(read_clip(table, row, RATE), noise(row).astype(np.float32) / 2**15)
    with pytest.raises(AudiobatError, match="has 5 rows and no row 9"):
        read_clip(replace(table, offsets=np.array([9] * 5)), 0, RATE)


def test_parquet_may_hold_nameless_files_and_their_seconds(tmp_path):
    audio = [{"bytes": flac(noise(i))} for i in range(2)]
    pq.write_table(pa.table({"audio": audio, "seconds": [0.5, 1.0]}), tmp_path / "c.parquet")
    table = read_clips(tmp_path / "c.parquet")
    assert table.keys.tolist() == ["c/000000_clip", "c/000001_clip"]
    assert table.seconds.tolist() == [0.5, 1.0]
    assert len(read_clip(table, 1, RATE)) == len(noise(1))


def test_parquet_that_lists_paths_is_what_the_csv_is(tmp_path):
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", noise(i), RATE)
    pq.write_table(pa.table({"path": ["0.wav", "1.wav", "2.wav"], "label": ["a", "b;a", ""]}), tmp_path / "c.parquet")
    (tmp_path / "c.csv").write_text("path,label\n0.wav,a\n1.wav,b;a\n2.wav,\n")
    assert read_clips(tmp_path / "c.parquet").sha256() == read_clips(tmp_path / "c.csv").sha256()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"file": ["a"]}, "has no `path` column"),
        ({"path": ["a.wav"], "label": [3]}, "row 0: its label is 3"),
        ({"path": pa.array([], pa.string())}, "lists no clips: write a row"),
        ({"audio": pa.array([], pa.struct({"bytes": pa.binary()}))}, "lists no clips: write a row"),
        ({"audio": [b"fLaC"]}, "column `audio` has no `bytes` of files"),
        ({"audio": [{"path": "a.wav"}]}, "column `audio` has no `bytes` of files"),
        ({"audio": [{"bytes": b"a"}], "fold": [None]}, "row 0: fold is '': use a whole number"),
        ({"audio": [{"bytes": b"a"}], "split": ["Test"]}, "row 0: split is 'Test': use train, .* test"),
        ({"audio": [{"bytes": b"a"}], "seconds": [-1.0]}, "row 0: seconds is '-1.0'"),
        ({"audio": [{"bytes": None, "path": "a.wav"}]}, "has no bytes in column `audio`"),
    ],
)
def test_parquet_mistakes(tmp_path, columns, words):
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(AudiobatError, match=words):
        read_clip(read_clips(tmp_path / "x.parquet"), 0, RATE)
    (tmp_path / "y.parquet").write_bytes(b"no parquet")
    with pytest.raises(AudiobatError, match="no readable Parquet file"):
        read_clips(tmp_path / "y.parquet")


@pytest.mark.parametrize("encoding", ["flac", "pcm"])
def test_clips_in_an_object_store(tmp_path, encoding):
    local = shard(tmp_path / "s.tar", encoding)
    memory = fsspec.filesystem("memory")
    memory.pipe(f"/{tmp_path.name}/s.tar", (tmp_path / "s.tar").read_bytes())
    remote = replace(local, root=f"memory://{tmp_path.name}")
    for start, seconds in ((0.0, None), (0.2, 0.3)):
        np.testing.assert_array_equal(
            read_clip(remote, 2, RATE, start, seconds), read_clip(local, 2, RATE, start, seconds)
        )
    write_parquet(tmp_path / "p.parquet")
    memory.pipe(f"/{tmp_path.name}/p.parquet", (tmp_path / "p.parquet").read_bytes())
    inside = replace(read_clips(tmp_path / "p.parquet"), root=f"memory://{tmp_path.name}")
    np.testing.assert_array_equal(read_clip(inside, 1, RATE), noise(1).astype(np.float32) / 2**15)
    memory.pipe(f"/{tmp_path.name}/loose.flac", flac(noise(1)))
    loose = clip_table(f"memory://{tmp_path.name}", ["loose.flac", "gone.flac"])
    np.testing.assert_array_equal(read_clip(loose, 0, RATE), noise(1).astype(np.float32) / 2**15)
    with pytest.raises(AudiobatError, match=r"There is no file memory://.*gone\.flac"):
        read_clip(loose, 1, RATE)


def test_an_address_that_nothing_can_reach_is_one_sentence():
    with pytest.raises(AudiobatError, match=r"nosuch://bucket/a\.wav cannot be reached"):
        read_clip(clip_table("nosuch://bucket", ["a.wav"]), 0, RATE)


def test_a_prepared_folder_in_an_object_store(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    local = replace(
        shard(tmp_path / "s.tar", "flac"), columns={"kind/odd": Strings.of_texts(["a", "b", "c", "d", "é"])}
    )
    (tmp_path / "out").mkdir()
    local.save(tmp_path / "out" / "clips")
    (tmp_path / "s.tar").rename(tmp_path / "out" / "s.tar")
    memory, url = fsspec.filesystem("memory"), f"memory://{tmp_path.name}-prepared"
    memory.pipe(f"{url}/prepared.json", b"{}")
    with pytest.raises(AudiobatError, match="prepared is not finished"):
        read_clips(url)
    for path in [tmp_path / "out" / "s.tar", *(tmp_path / "out" / "clips").iterdir()]:
        memory.pipe(f"{url}/{path.relative_to(tmp_path / 'out')}", path.read_bytes())
    remote = read_clips(url)
    assert remote.sha256() == local.sha256()
    assert remote.columns["kind/odd"].tolist() == local.columns["kind/odd"].tolist()
    np.testing.assert_array_equal(read_clip(remote, 3, RATE), noise(3).astype(np.float32) / 2**15)
    memory.rm(f"{url}/clips/keys.values.npy")
    assert read_clips(url).keys.tolist() == remote.keys.tolist()  # the copy serves
    memory.pipe(f"{url}/clips/table.json", b'{"fields": ["../../x"], "columns": []}')
    with pytest.raises(AudiobatError, match="no readable table"):
        read_clips(url)


# How often a file is opened, and how many of its bytes are read


@pytest.fixture
def opened(monkeypatch):
    """Names of the recordings that a decoder opens, in order."""
    names = []

    def counted(source, name=None, is_right=False):
        names.append(name)
        return open_audio(source, name, is_right)

    monkeypatch.setattr(clip_module, "open_audio", counted)
    return names


@pytest.fixture
def requests(monkeypatch):
    """(path, start, end) of the ranges that are fetched from the memory store."""
    ranges = []
    cat_file = MemoryFileSystem.cat_file

    def counted(self, path, start=None, end=None, **kwargs):
        ranges.append((path, start, end))
        return cat_file(self, path, start=start, end=end, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    return ranges


FORMATS = [("a.wav", "WAV", RATE), ("a.flac", "FLAC", 1500), ("a.ogg", "OGG", 8000), ("a.mp3", "MP3", 16_000)]


def recording(name, format, rate, folder, seconds=30):
    path = folder / name
    soundfile.write(path, np.random.default_rng(3).uniform(-0.5, 0.5, seconds * rate), rate, format=format)
    return path


@pytest.mark.parametrize(("name", "format", "rate"), FORMATS)
def test_one_handle_gives_any_spans_and_blocks_of_a_file(tmp_path, monkeypatch, opened, name, format, rate):
    path = recording(name, format, rate, tmp_path)
    monkeypatch.setattr(clip_module, "READ_SAMPLES", 7_000)
    whole = load_audio(path, 1000)
    with open_clip(clip_table(tmp_path, [name]), 0) as clip:
        assert clip.seconds == audio_duration(path)[0]
        blocks = np.concatenate(list(clip.blocks(1000)))
        for start, seconds in ((20.0, 2.0), (3.0, 1.0), (4.0, 1.0), (29.5, None), (0.0, None), (12.0, 3.0)):
            wanted = load_audio(path, 1000, start, seconds)
            atol = 1e-6 if format == "MP3" else 0.0  # its decoder keeps rounding errors of what came before a seek
            np.testing.assert_allclose(clip.read(1000, start, seconds), wanted, rtol=0, atol=atol)
    np.testing.assert_array_equal(blocks, whole)
    assert len(opened) == 1


def test_flac_without_a_length_is_read_forwards_and_from_the_start_again(tmp_path):
    data = bytearray(recording("a.flac", "FLAC", RATE, tmp_path).read_bytes())
    data[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    data[22:26] = bytes(4)
    whole = load_audio(tmp_path / "a.flac", RATE)
    (tmp_path / "a.flac").write_bytes(bytes(data))
    with open_clip(clip_table(tmp_path, ["a.flac"]), 0) as clip:
        for first, count in ((20_000, 900), (21_000, 9_000), (500, 400), (0, 30_000), (29_999, 1)):
            found = clip.read(RATE, first / RATE, count / RATE)
            np.testing.assert_array_equal(found, whole[first : first + count])
        assert clip.seconds == 30
        np.testing.assert_array_equal(clip.read(RATE, 29.0), whole[29_000:])
        with pytest.raises(AudiobatError, match=r"lasts 30 s: it has no audio from 31 s on"):
            clip.read(RATE, 31.0)


def test_a_crop_opens_its_clip_once(tmp_path, opened):
    for i in range(6):
        recording(f"{i}.wav", "WAV", RATE, tmp_path, seconds=2 + i)
    batches = iter(CropLoader(read_clips(tmp_path), RATE, 1.0, ClipOrder(6, 0), 6, seed=0, workers=0))
    next(batches)
    assert sorted(opened) == [str(tmp_path / f"{i}.wav") for i in range(6)]


@pytest.mark.parametrize("limit", [64 << 20, 10_000])
def test_every_byte_of_a_remote_recording_is_fetched_once(tmp_path, monkeypatch, requests, opened, limit):
    monkeypatch.setattr(remote, "IN_MEMORY", limit)
    monkeypatch.setattr(clip_module, "READ_SAMPLES", 3_000)
    data = recording("a.flac", "FLAC", 1500, tmp_path).read_bytes()
    fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/a.flac", data)
    table, local = (clip_table(root, ["a.flac"]) for root in (f"memory://{tmp_path.name}", tmp_path))
    wanted = list(WindowStream(local, RATE, 1_000, 700, threads=0)())
    opened.clear()
    found = list(WindowStream(table, RATE, 1_000, 700, threads=2)())
    assert [(w.start, w.samples.tobytes(), w.last) for w in found] == [
        (w.start, w.samples.tobytes(), w.last) for w in wanted
    ]
    assert opened == [f"memory://{tmp_path.name}/a.flac"]
    assert fetched_bytes(requests, len(data)) == len(data)
    requests.clear()
    next(iter(CropLoader(table, RATE, 1.0, ClipOrder(1, 0), 1, seed=0, workers=0)))
    assert fetched_bytes(requests, len(data)) == len(data)
    assert len(opened) == 2


def fetched_bytes(requests, size):
    return sum((size if end is None else min(end, size)) - (start or 0) for _, start, end in requests)


def test_a_crop_of_pcm_in_an_object_store_fetches_its_span_alone(tmp_path, requests):
    local = shard(tmp_path / "s.tar", "pcm")
    fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/s.tar", (tmp_path / "s.tar").read_bytes())
    table = replace(local, root=f"memory://{tmp_path.name}").select([4])
    next(iter(CropLoader(table, RATE, 0.25, ClipOrder(1, 0), 1, seed=0, workers=0)))
    assert fetched_bytes(requests, 1 << 30) == 512 + 2 * 250


def test_a_remote_file_that_ends_early_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda self, path, start=None, end=None: b"RIFF")
    fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/a.wav", bytes(100))
    with pytest.raises(AudiobatError, match=r"a\.wav ended after 4 of its 100 bytes"):
        read_clip(clip_table(f"memory://{tmp_path.name}", ["a.wav"]), 0, RATE)
