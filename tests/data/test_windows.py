"""The stream of windows: the same for any threads, resumed anywhere, broken clips in their place."""

import itertools
import threading

import numpy as np
import pytest
import soundfile
from plain_windows import windows

from audiobat.audio.read import load_audio
from audiobat.data import windows as window_module
from audiobat.data.build import clip_table
from audiobat.data.clip import open_clip
from audiobat.data.windows import BrokenClip, Window, WindowStream, cut_windows, read_ahead

RATE = 1000


@pytest.fixture
def table(tmp_path):
    """Eleven clips of up to 5,000 samples: two at another rate, one without any, one no audio, one missing."""
    rng = np.random.default_rng(0)
    names = [f"{i}.wav" for i in range(11)]
    for i, name in enumerate(names):
        samples = rng.uniform(-0.5, 0.5, (0 if i == 4 else int(rng.integers(1, 5000)))).astype(np.float32)
        soundfile.write(tmp_path / name, samples, 1500 if i in (2, 7) else RATE, "FLOAT")
    (tmp_path / "6.wav").write_text("no audio")
    (tmp_path / "9.wav").unlink()
    return clip_table(tmp_path, names)


def plain(items):
    """Items as values that compare."""
    return [
        (item.clip_id, item.reason) if isinstance(item, BrokenClip) else (*item[:3], item.samples.tobytes(), item.last)
        for item in items
    ]


@pytest.mark.parametrize(
    ("samples", "window", "hop", "least", "wanted"),
    [
        (10, 4, 4, 1, [(0, 4), (4, 8), (8, 10)]),
        (10, 4, 4, 2, [(0, 4), (4, 8), (8, 10)]),
        (10, 4, 4, 3, [(0, 4), (4, 8)]),  # a rest of 2
        (8, 4, 4, 1, [(0, 4), (4, 8)]),
        (10, 4, 2, 1, [(0, 4), (2, 6), (4, 8), (6, 10)]),
        (9, 4, 2, 3, [(0, 4), (2, 6), (4, 8), (6, 9)]),  # a rest of 1, in a window of 3
        (3, 4, 2, 1, [(0, 3)]),
        (3, 4, 4, 4, [(0, 3)]),  # all that there is
    ],
)
def test_windows_by_hand(samples, window, hop, least, wanted):
    found = list(cut_windows([np.arange(samples, dtype=np.float32)], window, hop, least))
    assert [(start, start + len(part)) for start, part in found] == windows(samples, window, hop, least) == wanted


@pytest.mark.parametrize(
    ("window", "hop", "least"), [(700, 700, 1), (700, 700, 300), (700, 300, 1), (50, 50, 1), (9000, 10, 1)]
)
def test_windows_are_those_of_the_whole_clip(table, window, hop, least):
    found = list(WindowStream(table, RATE, window, hop, 2, least)())
    assert [item.clip_id for item in found] == sorted(item.clip_id for item in found)
    assert {item.clip_id for item in found if isinstance(item, BrokenClip)} == {4, 6, 9}
    for row in (0, 1, 2, 3, 5, 7, 8, 10):
        samples = load_audio(table.path(row), RATE)
        own = [item for item in found if item.clip_id == row]
        assert [(item.start, item.start + len(item.samples)) for item in own] == windows(
            len(samples), window, hop, least
        )
        assert [item.number for item in own] == list(range(len(own)))
        assert [item.last for item in own] == [False] * (len(own) - 1) + [True]
        for item in own:
            np.testing.assert_array_equal(item.samples, samples[item.start :][: len(item.samples)])


@pytest.mark.parametrize("threads", [0, 1, 3, 20])
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_threads_and_chunks_change_nothing_and_any_window_is_a_place_to_begin(table, monkeypatch, threads, chunk):
    wanted = list(WindowStream(table, RATE, 400, 250, 0, least=200)())
    monkeypatch.setattr(window_module, "CHUNK_WINDOWS", chunk)
    stream = WindowStream(table, RATE, 400, 250, threads, least=200)
    assert plain(stream()) == plain(wanted)
    for place in range(0, len(wanted), 7):
        first = wanted[place]
        assert plain(stream(first.clip_id, first.number if isinstance(first, Window) else 0)) == plain(wanted[place:])


def test_no_more_is_decoded_than_a_few_files_ahead(tmp_path, monkeypatch):
    begun = []
    soundfile.write(tmp_path / "a.wav", np.ones(RATE), RATE)
    table = clip_table(tmp_path, ["a.wav"] * 100, keys=[str(i) for i in range(100)])
    monkeypatch.setattr(
        window_module, "open_clip", lambda table, clip_id: begun.append(clip_id) or open_clip(table, clip_id)
    )
    items = WindowStream(table, RATE, RATE, RATE, threads=2)()
    for taken, _ in enumerate(itertools.islice(items, 50)):
        assert max(begun) <= taken + 2 * window_module.FILES_AHEAD
    items.close()
    assert max(begun) < 60


def test_reading_ahead_keeps_the_order_and_hands_errors_on():
    threads = set()

    def items():
        for i in range(5):
            threads.add(threading.get_ident())
            yield i
        raise ZeroDivisionError

    ahead = read_ahead(items())
    assert list(itertools.islice(ahead, 5)) == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        next(ahead)
    assert threading.get_ident() not in threads
    assert list(read_ahead(iter([]))) == []
