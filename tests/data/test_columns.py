"""Ragged columns and text columns against plain Python lists."""

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from audiobat.data import columns
from audiobat.data.columns import Ragged, Strings, map_array

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=30)
LISTS = st.lists(st.lists(st.integers(0, 600), max_size=4), max_size=30)


@given(TEXTS)
def test_texts_come_back(texts):
    column = Strings.of_texts(texts)
    assert len(column) == len(texts)
    assert column.tolist() == texts
    assert [column[i] for i in range(len(texts))] == texts
    if texts:
        assert column[-1] == texts[-1]


@given(LISTS, st.randoms(), st.integers(1, 5))
def test_taking_rows_is_what_lists_do(lists, random, chunk):
    whole = columns.CHUNK
    columns.CHUNK = chunk
    try:
        rows = [random.randrange(len(lists)) for _ in range(len(lists))]
        column = Ragged.of(lists, np.int32)
        taken = column.take(np.array(rows, dtype=np.int64))
        assert [taken.row(i).tolist() for i in range(len(rows))] == [lists[i] for i in rows]
        assert taken.lengths.tolist() == [len(lists[i]) for i in rows]
        assert list(Strings.of_texts([str(part) for part in lists])) == [str(part) for part in lists]
    finally:
        columns.CHUNK = whole


def test_a_mapped_column_is_sent_to_another_process_by_name(tmp_path):
    lists = [[1, 2], [], [3] * 5000]
    column = Ragged.of(lists, np.int64)
    np.save(tmp_path / "o.npy", column.offsets)
    np.save(tmp_path / "v.npy", column.values)
    mapped = Ragged(map_array(str(tmp_path / "o.npy")), map_array(str(tmp_path / "v.npy")))
    sent = pickle.dumps(mapped)
    assert len(sent) < 1000 < len(pickle.dumps(column))
    again = pickle.loads(sent)
    assert [again.row(i).tolist() for i in range(3)] == lists
    part = mapped.take(np.array([0, 1]))  # no longer what the file holds
    assert [pickle.loads(pickle.dumps(part)).row(i).tolist() for i in range(2)] == lists[:2]
    window = Ragged(mapped.offsets[:2], mapped.values)
    assert len(pickle.loads(pickle.dumps(window))) == 1


def test_an_empty_array_can_be_mapped(tmp_path):
    np.save(tmp_path / "e.npy", np.zeros(0, np.int32))
    assert map_array(str(tmp_path / "e.npy")).shape == (0,)
