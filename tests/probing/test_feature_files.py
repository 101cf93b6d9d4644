"""Features on disk: what is read back is what was computed, whatever was killed, cut, flipped or replaced before."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.sources.read import read_clips
from audiobat.errors import AudiobatError
from audiobat.models.encoder import AudioEncoder
from audiobat.models.features import LayerFeatures
from audiobat.probing import feature_files
from audiobat.probing.cache import FeatureSource, cache_features
from audiobat.probing.feature_files import VALUES, cache_key

RATE = 8000
FRONTEND = FrontendConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=80, mel_bins=16)
SHAPE = EncoderConfig(dim=8, depth=2, heads=2, patch_size=(16, 8), max_frames=96)
SECONDS = (0.3, 0.5, 0.16, 1.5, 0.3, 0.7, 0.2)
SCRIPT = """
import os, signal, sys, torch
from audiobat.probing import feature_files
from audiobat.probing.cache import cache_features
from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.data.sources.read import read_clips
from audiobat.models.encoder import AudioEncoder
torch.manual_seed(0)
frontend = FrontendConfig(sample_rate=8000, n_fft=256, win_length=256, hop_length=80, mel_bins=16)
shape = EncoderConfig(dim=8, depth=2, heads=2, patch_size=(16, 8), max_frames=96)
encoder, table = AudioEncoder(ModelConfig(frontend, shape)), read_clips(sys.argv[1])
calls = [0]
def killed_at(name, real):
    def call(*arguments):
        calls[0] += 1
        if calls[0] == int(sys.argv[3]):
            if name == "pwrite":  # half of what it was to write
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2], arguments[2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)
    return call
for name in ("pwrite", "fsync", "replace", "rename"):
    setattr(os, name, killed_at(name, getattr(os, name)))
cache_features(encoder, table, batch_size=2, cache_dir=sys.argv[2], progress=False)
print(calls[0])
"""


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(ModelConfig(FRONTEND, SHAPE))


@pytest.fixture
def table(tmp_path: Path) -> ClipTable:
    return clips(tmp_path / "clips")


def clips(folder: Path) -> ClipTable:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i, duration in enumerate(SECONDS):
        soundfile.write(folder / f"{i:03d}.wav", rng.normal(scale=0.1, size=int(duration * RATE)), RATE)
    return read_clips(folder)


class Counted:
    """Counts the clips that pass through an encoder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clips = 0
        forward = AudioEncoder.forward_intermediates

        def counting(encoder: AudioEncoder, waveform: torch.Tensor, lengths: torch.Tensor | None = None):
            self.clips += len(waveform)
            return forward(encoder, waveform, lengths)

        monkeypatch.setattr(AudioEncoder, "forward_intermediates", counting)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def on_disk(encoder: AudioEncoder, table: ClipTable, folder: Path) -> FeatureSource:
    return cache_features(encoder, table, batch_size=2, cache_dir=folder, progress=False)


def assert_same(one: LayerFeatures, two: LayerFeatures) -> None:
    assert torch.equal(one.patch_tokens, two.patch_tokens)
    assert torch.equal(one.cls_token, two.cls_token)
    assert torch.equal(one.valid, two.valid)
    assert torch.equal(one.frame_times, two.frame_times)
    assert one.grid == two.grid


def assert_whole(source: FeatureSource, encoder: AudioEncoder, table: ClipTable) -> None:
    """Every clip, alone and among others, is what it is in memory."""
    memory = cache_features(encoder, table, batch_size=2, progress=False)
    for rows in ([3], [6, 0, 2, 2], list(range(len(table)))):
        assert_same(source.batch(rows), memory.batch(rows))


def indices(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.json"))


def test_a_second_run_reads_what_the_first_one_wrote(encoder, table, tmp_path, counted):
    assert_whole(on_disk(encoder, table, tmp_path / "cache"), encoder, table)
    counted.clips = 0
    source = on_disk(encoder, table, tmp_path / "cache")
    assert counted.clips == 2  # the first chunk, to see that the encoder says the same
    assert_whole(source, encoder, table)
    assert source.cached


def test_values_are_mapped_and_take_no_more_room_than_the_clips_need(encoder, table, tmp_path):
    source = on_disk(encoder, table, tmp_path / "cache")
    columns = [2, 4, 2, 9, 2, 5, 2]
    floats = sum(2 * (1 + 2 * count) * 8 for count in columns)  # blocks, cls and patches, width
    assert (tmp_path / "cache" / cache_key(encoder, table) / VALUES).stat().st_size == 4 * floats
    bases = {id(chunk.values.base) for chunk in source._store._chunks}
    assert all(isinstance(chunk.values, np.memmap) for chunk in source._store._chunks)
    assert len(bases) == 1  # one map, one open file, however many chunks


@pytest.mark.parametrize("call", [1, 2, 4, 5, 12])
def test_a_run_killed_at_any_call_is_resumed(encoder, table, tmp_path, counted, call: int):
    folder = tmp_path / "cache"
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "clips"), str(folder), str(call)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    finished = len(indices(folder))
    assert finished == (call - 1) // 4  # write, sync, sync of the list, rename of the list
    source = on_disk(encoder, table, folder)
    assert counted.clips == len(table) - 2 * finished + (2 if finished else 0)
    assert_whole(source, encoder, table)


@pytest.mark.parametrize("keep", [0, 3, 500, 1300, 2500])
def test_a_truncated_file_costs_the_chunks_that_were_cut(encoder, table, tmp_path, counted, capsys, keep: int):
    on_disk(encoder, table, tmp_path / "cache")
    path = next(tmp_path.glob(f"cache/*/{VALUES}"))
    ends = np.cumsum([4 * 2 * 8 * sum(1 + 2 * c for c in pair) for pair in ((2, 4), (2, 9), (2, 5), (2,))])
    whole = int((ends <= keep).sum())
    os.truncate(path, keep)
    counted.clips = 0
    source = on_disk(encoder, table, tmp_path / "cache")
    assert capsys.readouterr().err.count("computed again") == 4 - whole
    assert counted.clips == len(table) - 2 * whole + (2 if whole else 0)
    assert_whole(source, encoder, table)


@pytest.mark.parametrize("chunk", range(4))
def test_a_flipped_bit_is_found_and_that_chunk_computed_again(encoder, table, tmp_path, counted, capsys, chunk: int):
    on_disk(encoder, table, tmp_path / "cache")
    path = next(tmp_path.glob(f"cache/*/{VALUES}"))
    data = bytearray(path.read_bytes())
    starts = np.cumsum([0] + [4 * 2 * 8 * sum(1 + 2 * c for c in pair) for pair in ((2, 4), (2, 9), (2, 5))])
    data[starts[chunk] + 33] ^= 4
    path.write_bytes(data)
    counted.clips = 0
    source = on_disk(encoder, table, tmp_path / "cache")
    said = capsys.readouterr().err
    assert f"{2 * chunk:08d}.json: its values are damaged; computed again" in said
    assert said.count("computed again") == 1
    assert counted.clips == 2 + (1 if chunk == 3 else 2)
    assert_whole(source, encoder, table)
    assert_whole(on_disk(encoder, table, tmp_path / "cache"), encoder, table)


@pytest.mark.parametrize("place", [0, 40, 64, 65, 200, -2])
def test_a_flipped_bit_in_a_list_is_found(encoder, table, tmp_path, capsys, place: int):
    on_disk(encoder, table, tmp_path / "cache")
    path = indices(tmp_path / "cache")[1]
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    source = on_disk(encoder, table, tmp_path / "cache")
    assert f"{path.name}: " in capsys.readouterr().err
    assert_whole(source, encoder, table)


def test_a_file_replaced_by_one_of_its_size_costs_its_chunk(encoder, table, tmp_path, counted, capsys):
    on_disk(encoder, table, tmp_path / "cache")
    samples, rate = soundfile.read(table.path(4), dtype="int16")
    size = os.path.getsize(table.path(4))
    soundfile.write(table.path(4), np.roll(samples, len(samples) // 3)[::-1], rate, "PCM_16")
    assert os.path.getsize(table.path(4)) == size
    counted.clips = 0
    source = on_disk(encoder, table, tmp_path / "cache")
    assert "00000004.json: its audio files have changed; computed again" in capsys.readouterr().err
    assert counted.clips == 4
    assert_whole(source, encoder, table)


def test_a_replaced_file_costs_its_chunk(encoder, table, tmp_path, counted, capsys):
    on_disk(encoder, table, tmp_path / "cache")
    soundfile.write(table.path(4), np.random.default_rng(9).normal(scale=0.1, size=RATE), RATE)
    counted.clips = 0
    source = on_disk(encoder, table, tmp_path / "cache")
    assert "00000004.json: its audio files have changed; computed again" in capsys.readouterr().err
    assert counted.clips == 4
    assert_whole(source, encoder, table)


def test_another_encoder_or_table_has_another_folder(encoder, table, tmp_path):
    torch.manual_seed(1)
    weights = AudioEncoder(encoder.config)
    settings = AudioEncoder(ModelConfig(FrontendConfig(**{**vars(FRONTEND), "top_db": 60.0}), SHAPE))
    settings.load_state_dict(encoder.state_dict())
    keys = [cache_key(e, t) for e in (encoder, weights, settings) for t in (table, table.select([0, 1]))]
    assert len(set(keys)) == 6
    assert cache_key(encoder, table) == cache_key(encoder, read_clips(tmp_path / "clips"))


def test_features_of_other_code_are_not_believed(encoder, table, tmp_path, monkeypatch, capsys):
    on_disk(encoder, table, tmp_path / "cache")
    forward = AudioEncoder.forward_intermediates

    def changed(self: AudioEncoder, waveform: torch.Tensor, lengths: torch.Tensor | None = None) -> LayerFeatures:
        return forward(self, waveform.flip(1).roll(7, 1), lengths)

    monkeypatch.setattr(AudioEncoder, "forward_intermediates", changed)
    source = on_disk(encoder, table, tmp_path / "cache")
    assert "another version of the encoder" in capsys.readouterr().err
    assert_whole(source, encoder, table)


def test_an_encoder_without_weights_cannot_be_told_from_others(table, tmp_path):
    class Levels:
        sample_rate, dim, depth = RATE, 3, 1

        def forward_intermediates(self, waveform: torch.Tensor, lengths: torch.Tensor | None = None) -> LayerFeatures:
            raise NotImplementedError

    with pytest.raises(AudiobatError, match="Levels is no torch module"):
        cache_features(Levels(), table, cache_dir=tmp_path / "cache", progress=False)


def test_unreadable_clips_are_remembered(encoder, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(40):
        soundfile.write(folder / f"{i:03d}.wav", np.random.default_rng(i).normal(scale=0.1, size=1600), RATE)
    (folder / "013.wav").write_bytes(b"no audio")
    table = read_clips(folder)
    first = on_disk(encoder, table, tmp_path / "cache")
    again = on_disk(encoder, table, tmp_path / "cache")
    assert list(first.skipped) == list(again.skipped) == ["013.wav"]
    assert again.skipped == first.skipped
    assert again.indices.tolist() == [row for row in range(40) if row != 13]
    soundfile.write(folder / "013.wav", np.zeros(1600) + 0.1, RATE)
    assert on_disk(encoder, table, tmp_path / "cache").indices.tolist() == list(range(40))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_from_there(
    encoder, table, tmp_path, monkeypatch, counted, code: int
):
    real, left = os.pwrite, [2]

    def pwrite(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(code, os.strerror(code))
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(AudiobatError, match="is full: make room and start again, which goes on from here"):
            on_disk(encoder, table, tmp_path / "cache")
    counted.clips = 0
    source = on_disk(encoder, table, tmp_path / "cache")
    assert counted.clips == 2 + 3
    assert_whole(source, encoder, table)


def test_a_disk_that_cannot_hold_what_is_to_come_is_refused_at_once(encoder, table, tmp_path, monkeypatch, counted):
    usage = feature_files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(feature_files.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(AudiobatError, match="has 1e-06 GB left, and the features take"):
        on_disk(encoder, table, tmp_path / "cache")
    assert counted.clips == 2


def test_a_folder_that_cannot_be_written_is_named(encoder, table, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(AudiobatError, match="give another --cache"):
        on_disk(encoder, table, tmp_path / "file")


def test_two_runs_at_once_share_one_folder(encoder, table, tmp_path, monkeypatch, counted, capsys):
    """The second one waits for the first, then finds everything."""
    keep = feature_files.FeatureFiles.keep

    def slow(*arguments):
        time.sleep(0.05)
        keep(*arguments)

    monkeypatch.setattr(feature_files.FeatureFiles, "keep", slow)
    sources: list[FeatureSource] = []
    threads = [
        threading.Thread(target=lambda: sources.append(on_disk(encoder, table, tmp_path / "cache"))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "waiting for it" in capsys.readouterr().err
    assert counted.clips == len(table) + 2
    for source in sources:
        assert_whole(source, encoder, table)
