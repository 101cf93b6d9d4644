"""Batches of crops and of whole clips: the same for any workers, ranks and start, and robust to broken files."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from audiobat.data.loader import CropLoader, check_skipped, load_clips
from audiobat.data.sampler import ClipOrder
from audiobat.data.sources.read import read_clips
from audiobat.errors import AudiobatError

RATE = 1000


@pytest.fixture
def corpus(tmp_path):
    """Thirty ramps of 0.5 to 3.4 s: every sample tells its clip (whole part / 64) and its time."""
    for i in range(30):
        soundfile.write(tmp_path / f"{i:02d}.wav", ramp(i), RATE, subtype="FLOAT")
    return tmp_path


def ramp(i):
    samples = 500 + 100 * i
    return (i / 64 + np.arange(samples) / 2**19).astype(np.float32)


def loader(folder, clip_seconds=0.5, batch_size=6, **settings):
    table = read_clips(folder)
    settings = {"seed": 5, "workers": 0, **settings}
    return CropLoader(table, RATE, clip_seconds, ClipOrder(len(table), 5), batch_size, **settings)


def take(batches, count):
    return [batch for batch, _ in zip(batches, range(count), strict=False)]


def same(a, b):
    return a.step == b.step and a.keys == b.keys and a.waveform.equal(b.waveform) and a.skipped == b.skipped


def test_crops_are_pieces_of_their_clips_at_varied_starts(corpus):
    starts = []
    for batch in take(loader(corpus), 10):
        assert batch.lengths is None
        assert batch.waveform.shape == (6, 500)
        for key, crop, second in zip(batch.keys, batch.waveform.numpy(), batch.starts.tolist(), strict=True):
            clip = ramp(int(key[:2]))
            start = round((crop[0] - clip[0]) * 2**19)
            assert abs(second * RATE - start) <= 1
            np.testing.assert_array_equal(crop, clip[start : start + 500])
            starts.append(start / max(1, len(clip) - 500))
    assert min(starts) < 0.15
    assert max(starts) > 0.85


@pytest.mark.parametrize("workers", [0, 2])
def test_whole_clips_in_the_order_asked_for_without_the_broken_one(corpus, workers):
    (corpus / "07.wav").write_bytes(b"broken")
    asked = [np.array([3, 7, 29]), np.array([7]), np.array([0]), np.array([3, 2])]
    batches = list(load_clips(read_clips(corpus), RATE, asked, workers))
    assert [batch.clip_ids.tolist() for batch in batches] == [[3, 29], [], [0], [3, 2]]
    assert [list(batch.skipped) for batch in batches] == [["07.wav"], ["07.wav"], [], []]
    for batch in batches:
        for row, length, i in zip(batch.waveform.numpy(), batch.lengths.tolist(), batch.clip_ids, strict=True):
            np.testing.assert_array_equal(row[:length], ramp(i))
            assert not row[length:].any()


def test_no_shared_memory_is_one_sentence(corpus):
    code = (
        f"import resource\nfrom data.test_loader import loader\nbatches = iter(loader({str(corpus)!r}, workers=2))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))\nnext(batches)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["tests", *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "AudiobatError: There is no shared memory for data.workers 2 (unable to resize file" in done.stderr


def test_no_shared_memory_for_a_worker_is_one_sentence(corpus):
    code = f"""if True:
        import numpy, resource
        from data.test_loader import load_clips, read_clips
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        next(load_clips(read_clips({str(corpus)!r}), 1000, [numpy.arange(6)], workers=1))
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["tests", *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert "AudiobatError: There is no shared memory for workers 1 (unable to resize file" in done.stderr


@pytest.mark.parametrize("shape", ["crops", "clips"])
def test_a_worker_that_the_system_kills_is_one_sentence(corpus, shape):
    code = """if True:
        import itertools, multiprocessing, os, signal, sys, threading
        import numpy as np
        from audiobat.data.loader import CropLoader, load_clips
        from audiobat.data.sampler import ClipOrder
        from audiobat.data.sources.read import read_clips
        from audiobat.errors import AudiobatError
        table = read_clips(sys.argv[1])
        crops = CropLoader(table, 1000, 0.5, ClipOrder(len(table), 5), 6, seed=5, workers=1)
        clips = load_clips(table, 1000, itertools.repeat(np.arange(6)), workers=1)
        batches = iter(crops if sys.argv[2] == "crops" else clips)
        next(batches)
        worker = multiprocessing.active_children()[0].pid
        threading.Timer(0.2, os.kill, (worker, signal.SIGKILL)).start()
        try:
            while True:
                next(batches)
        except AudiobatError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code, str(corpus), shape], capture_output=True, text=True, timeout=600)
    assert re.search(r"process that loads data was killed.*fewer data\.workers", done.stdout), done


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_stream(corpus, workers):
    (corpus / "07.wav").write_bytes(b"broken")
    alone = take(loader(corpus, roll=True), 8)
    together = take(loader(corpus, roll=True, workers=workers), 8)
    assert all(map(same, alone, together))


def test_workers_leave_ctrl_c_to_the_main_process(corpus):
    batches = iter(loader(corpus, workers=1))
    first = next(batches)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGINT)
    assert all(map(same, take(loader(corpus), 8), [first, *take(batches, 7)]))


@pytest.mark.parametrize("start", [1, 4, 7])
def test_resuming_continues_the_same_stream(corpus, start):
    (corpus / "07.wav").write_bytes(b"broken")
    whole = take(loader(corpus, roll=True), 10)
    assert all(map(same, whole[start:], take(loader(corpus, roll=True, start_step=start), 10 - start)))


def test_ranks_together_are_one_process(corpus):
    whole = take(loader(corpus, roll=True), 4)
    parts = [take(loader(corpus, roll=True, rank=rank, world_size=3), 4) for rank in range(3)]
    for step, batch in enumerate(whole):
        assert batch.keys == [key for part in parts for key in part[step].keys]
        assert batch.waveform.numpy().tolist() == [
            row for part in parts for row in part[step].waveform.numpy().tolist()
        ]


def test_short_clips_are_padded_with_zeros_and_lengths_tell(corpus):
    for batch in take(loader(corpus, clip_seconds=2.0), 5):
        expected = [min(2000, len(ramp(int(key[:2])))) for key in batch.keys]
        if min(expected) == 2000:
            assert batch.lengths is None
            continue
        assert batch.lengths.tolist() == expected
        for row, key, length in zip(batch.waveform.numpy(), batch.keys, expected, strict=True):
            assert not row[length:].any()
            if length < 2000:
                np.testing.assert_array_equal(row[:length], ramp(int(key[:2])))


def test_lengths_stay_where_a_look_at_them_waits_for_nothing(corpus):
    batch = next(b for b in loader(corpus, clip_seconds=2.0) if b.lengths is not None)
    moved = batch.to(torch.device("meta"))
    assert moved.waveform.is_meta
    assert moved.lengths.device.type == "cpu"


def test_roll_turns_the_clip_within_its_own_samples(corpus):
    turned = 0
    for plain, rolled in zip(take(loader(corpus, 2.0), 5), take(loader(corpus, 2.0, roll=True), 5), strict=True):
        lengths = [2000] * 6 if plain.lengths is None else plain.lengths.tolist()
        for a, b, n in zip(plain.waveform.numpy(), rolled.waveform.numpy(), lengths, strict=True):
            assert not b[n:].any()
            shift = int(np.flatnonzero(b[:n] == a[0])[0])
            np.testing.assert_array_equal(np.roll(a[:n], shift), b[:n])
            turned += shift > 0
    assert turned >= 25


def test_a_full_crop_after_resampling_counts_as_full(tmp_path):
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", np.ones(1501 + i), 1501, subtype="FLOAT")
    assert all(batch.lengths is None for batch in take(loader(tmp_path, 1.0, 4), 5))


def test_a_broken_clip_is_replaced_and_recorded(corpus):
    (corpus / "07.wav").write_bytes(b"broken")
    batches = loader(corpus)
    for batch in take(batches, 10):
        assert len(batch.keys) == len(batch.waveform) == 6
        assert "07.wav" not in batch.keys
    assert list(batches.skipped) == ["07.wav"]
    assert "07.wav" in batches.skipped["07.wav"]
    assert "cannot be read" in batches.skipped["07.wav"]


@pytest.mark.parametrize("workers", [0, 1])
def test_more_than_five_percent_unreadable_stops_the_run(corpus, workers):
    names = [f"{i:02}.wav" for i in range(5, 10)]
    for name in names:
        (corpus / name).unlink()
        (corpus / name).touch()
    batches = loader(corpus, workers=workers)
    with pytest.raises(AudiobatError, match=r"^5 of \d+ clips seen are unreadable, more than 5%.*0[5-9]\.wav"):
        take(batches, 10)
    assert sorted(batches.skipped) == names


@pytest.mark.parametrize("count", [1, 30])
def test_nothing_readable_ends_at_once(tmp_path, count):
    for i in range(count):
        (tmp_path / f"{i}.wav").write_bytes(b"broken")
    with pytest.raises(AudiobatError, match="None of the clips can be read"):
        take(loader(tmp_path), 1)


@pytest.mark.parametrize(
    ("skipped", "tried", "clips", "stops"),
    [
        (0, 100, 100, False),
        (5, 100, 100, False),  # exactly 5%
        (6, 100, 100, True),
        (4, 10, 10, False),  # fewer than five are a nuisance, whatever their share
        (5, 10, 10, True),
        (5, 30, 10_000, False),  # bad luck
        (6, 30, 10_000, True),  # beyond it
        (19, 19, 10_000, False),  # too few tried
        (60, 1000, 1_000_000, False),
        (90, 1000, 1_000_000, True),
    ],
)
def test_five_percent_rule(skipped, tried, clips, stops):
    reasons = {f"{i}.wav": "is damaged." for i in range(skipped)}
    if not stops:
        return check_skipped(reasons, tried, clips)
    with pytest.raises(AudiobatError, match=r"more than 5% .*0\.wav: is damaged\."):
        check_skipped(reasons, tried, clips)


def test_where_none_can_be_read_one_is_named():
    with pytest.raises(AudiobatError, match=r"None of the clips can be read.*one is a\.wav: why"):
        check_skipped({"a.wav": "why"}, 1, 1)
