"""Rows of long recordings: what a crop of one holds wherever it is cut, and that windows are the recording."""

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from audiobat.data.build import clip_table
from audiobat.data.clip import read_clip
from audiobat.data.stretches import cut_to_stretches, cut_to_windows, silences, span_around
from audiobat.data.windows import cut_windows

RATE = 1_000

seconds = st.integers(0, 600).map(lambda tenth: tenth / 10)
spans = st.tuples(seconds, st.integers(1, 200).map(lambda tenth: tenth / 10)).map(lambda s: (s[0], s[0] + s[1]))


@given(spans, st.integers(0, 300).map(lambda tenth: tenth / 10), st.sampled_from([1.0, 4.0, 10.24]), st.floats(0, 1))
def test_a_crop_of_the_row_around_an_event_holds_it_or_half_of_itself(event, behind, crop, at):
    onset, offset = event
    length = max(offset + behind, crop)
    begin, end = span_around(onset, offset, length, crop)
    assert -1e-9 <= begin <= end <= length + 1e-9
    start = begin + at * (end - begin - crop)
    held = min(offset, start + crop) - max(onset, start)
    assert held >= min(offset - onset, crop / 2) - 1e-6


@given(st.lists(spans, max_size=8), st.integers(1, 900).map(lambda tenth: tenth / 10))
def test_silences_are_what_the_events_leave(events, length):
    found = silences(events, length)
    places = np.arange(0.05, length, 0.1)  # no edge is a multiple of a tenth and a half
    sounding = np.zeros(len(places), bool)
    for onset, offset in events:
        sounding |= (onset <= places) & (places < offset)
    silent = np.zeros(len(places), int)
    for begin, end in found:
        silent += (begin <= places) & (places < end)
    np.testing.assert_array_equal(silent, ~sounding)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory):
    """A minute whose samples count, with three events; a short clip with one; a long one without any."""
    folder = tmp_path_factory.mktemp("long")
    for name, length in (("day", 60), ("short", 2), ("quiet", 30)):
        soundfile.write(folder / f"{name}.wav", np.arange(length * RATE) / 2**17, RATE, subtype="FLOAT")
    events = [[("a", 10.0, 10.5), ("b", 30.0, 50.0), ("a", 59.5, 70.0), ("a", 80.0, 81.0)], [("b", 0.5, 1.0)], []]
    return clip_table(folder, ["day.wav", "short.wav", "quiet.wav"], events=events)


def test_rows_around_events_are_labelled_and_the_others_hold_none(recordings):
    rows = cut_to_stretches(recordings, 4.0)
    table = rows.table
    labels = [table.labels.row(i).tolist() for i in range(len(table))]
    assert [labels[i] for i in range(len(table)) if rows.clip_ids[i] == 0][:3] == [[0], [1], [0]]
    assert labels.count([0]) == 2  # the event behind the end has no row
    assert rows.cut
    for row in range(len(table)):
        events = table.events.row(row)
        whole = np.isnan(table.seconds[row])  # a clip that is no longer than a crop
        assert whole == (recordings.keys[int(rows.clip_ids[row])] == "short.wav")
        if not labels[row]:
            assert not len(events)
            assert table.seconds[row] >= 4.0
        else:
            assert set(labels[row]) <= set(events["label"].tolist())
    # Events are told from the row's own start, and the sound is what is there.
    row = labels.index([1])
    assert table.events.row(row)["onset"].tolist() == [30.0 - rows.starts[row]]
    samples = read_clip(table, row, RATE, 1.0, 0.5)
    np.testing.assert_allclose(samples, (np.arange(500) + (rows.starts[row] + 1.0) * RATE) / 2**17, atol=1e-6)


def test_long_silences_are_many_rows_and_all_of_the_recording(recordings):
    rows = cut_to_stretches(recordings, 2.0)
    quiet = np.flatnonzero(rows.clip_ids == 2)
    assert len(quiet) == 7  # of 30 s, each 4 s or a little more
    ends = rows.starts[quiet] + rows.table.seconds[quiet]
    np.testing.assert_allclose(rows.starts[quiet], [0.0, *ends[:-1]])
    assert ends[-1] == pytest.approx(30.0)


def test_windows_are_the_recording(recordings):
    rows = cut_to_windows(recordings, 7.0, 7.0, 0.5)
    assert rows.clip_ids.tolist() == [0] * 9 + [1] + [2] * 5
    own = np.flatnonzero(rows.clip_ids == 0)
    whole = np.concatenate([read_clip(rows.table, row, RATE) for row in own.tolist()])
    np.testing.assert_array_equal(whole, read_clip(recordings, 0, RATE))
    assert rows.table.events.row(4)["onset"].tolist() == [2.0]  # 30 s, in the window from 28 s
    assert len(cut_to_windows(recordings, 7.0, 7.0, 5.0).table) == len(rows.table) - 2  # rests of 4 s and of 2 s


def test_nothing_is_cut_where_clips_fit(recordings):
    rows = cut_to_stretches(recordings, 60.0)
    assert not rows.cut
    assert [rows.table.labels.row(i).tolist() for i in range(3)] == [[0, 1], [1], []]


def test_overlapping_windows_are_those_of_predict(recordings):
    """Against `cut_windows`, which makes them of samples."""
    for hop in (7.0, 3.0, 2.5):
        rows = cut_to_windows(recordings, 7.0, hop, 0.5)
        for clip_id in range(3):
            samples = read_clip(recordings, clip_id, RATE)
            expected = list(cut_windows([samples], 7 * RATE, round(hop * RATE), RATE // 2))
            own = np.flatnonzero(rows.clip_ids == clip_id).tolist()
            assert [round(rows.starts[row] * RATE) for row in own] == [start for start, _ in expected]
            for row, (_, cut) in zip(own, expected, strict=True):
                np.testing.assert_array_equal(read_clip(rows.table, row, RATE), cut)


def test_a_recording_behind_a_url_is_as_long_as_its_list_says():
    """Nothing is fetched: there is no such place."""
    events = [[("a", 10.0, 10.5)], [("a", 10.0, 10.5)]]
    table = clip_table("https://nowhere.invalid", ["a.wav", "b.wav"], events=events, seconds=[60.0, np.nan])
    rows = cut_to_stretches(table, 4.0)
    assert (rows.clip_ids == 0).sum() > 3
    assert (rows.clip_ids == 1).sum() == 1
