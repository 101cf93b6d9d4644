"""The kept index of a large table: it finds what brute force finds, goes on after a kill, and follows its table."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from audiobat.data.embeddings import write_embeddings
from audiobat.errors import AudiobatError
from audiobat.inference.library import graph as module
from audiobat.inference.library.graph import GraphLibrary, open_for_search
from audiobat.inference.library.vectors import open_library

ROWS, DIM = 600, 8


@pytest.fixture
def table(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(module, "KEPT_ROWS", 500)
    return written(tmp_path / "table.npz", 0)


def written(path: Path, seed: int, rows: int = ROWS) -> Path:
    rng = np.random.default_rng(seed)
    columns = {
        "path": np.array([f"{i // 5}.wav" for i in range(rows)]),
        "start": np.arange(rows) % 5 * 1.0,
        "end": np.arange(rows) % 5 + 1.0,
        "embedding": (rng.normal(size=(rows, DIM)) + 3).astype(np.float32),
    }
    columns["embedding"][7] = 0
    write_embeddings(path, iter([columns]), {"layer": 2, "seed": seed})
    return path


@pytest.mark.filterwarnings("ignore:.*rows of zeros")
def test_it_finds_the_rows_of_brute_force_and_keeps_what_a_search_needs(table: Path):
    found, exact = open_for_search(table), open_library(table)
    assert isinstance(found, GraphLibrary)
    assert (len(found), dict(found.table.meta)) == (ROWS, {"layer": 2, "seed": 0})
    np.testing.assert_array_equal(found.table.paths, exact.table.paths)
    np.testing.assert_array_equal(found.table.starts, exact.table.starts)
    queries = found.unit(np.random.default_rng(1).normal(size=(3, DIM)).astype(np.float32))
    near, all_ = found.cosines(queries, 20), exact.cosines(queries, 20)
    seen = np.isfinite(near)
    np.testing.assert_allclose(near[seen], all_[seen], atol=2e-3)  # 16 bits
    best = np.argsort(-all_)[:10]
    assert seen[best].mean() >= 0.9
    one = found.cosines(queries[:1], 20)
    assert np.isfinite(one).sum() == 20
    everything = found.cosines(queries[:1], ROWS)
    assert np.isfinite(everything).sum() > 0.95 * ROWS
    assert not everything[7] > 0.01  # the row of zeros


@pytest.mark.filterwarnings("ignore:.*rows of zeros")
@pytest.mark.parametrize("saves", [1, 3])
def test_a_build_that_is_killed_goes_on(table: Path, monkeypatch, saves: int):
    monkeypatch.setattr(module, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr("audiobat.inference.library.vectors.BLOCK_ROWS", 100)
    made: list[int] = []

    def dying(graph, folder, save=module.save):
        save(graph, folder)
        made.append(len(graph))
        if len(made) == saves:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "save", dying)
    with pytest.raises(KeyboardInterrupt):
        open_for_search(table)
    done = made[-1]
    assert 0 < done < ROWS
    added = []
    new_graph = module.new_graph

    def counting(dim):
        graph = new_graph(dim)
        add = graph.add
        graph.add = lambda keys, rows: added.append(len(keys)) or add(keys, rows)
        return graph

    monkeypatch.setattr(module, "new_graph", counting)
    monkeypatch.setattr(module, "save", dying)
    found = open_for_search(table)
    assert sum(added) == ROWS - done
    assert len(found.graph) == ROWS
    added.clear()
    open_for_search(table)
    assert added == []  # it is kept


@pytest.mark.filterwarnings("ignore:.*rows of zeros")
def test_a_table_that_changed_gets_another_index(table: Path):
    first = open_for_search(table)
    mean = np.array(first.mean)
    del first
    written(table, 1)
    os.utime(table, ns=(1, 1))
    second = open_for_search(table)
    assert second.table.meta["seed"] == 1
    assert not np.array_equal(mean, second.mean)
    del second
    written(table, 2, rows=400)  # small now: by its rows
    assert not isinstance(open_for_search(table), GraphLibrary)


@pytest.mark.filterwarnings("ignore:.*rows of zeros")
def test_a_damaged_index_is_told_and_nothing_of_it_is_used(table: Path, monkeypatch, capsys):
    open_for_search(table)
    folder = table.with_name("table.npz.index")
    for name in module.files():
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-8] + bytes(8))
        if whole[-8:] == bytes(8):
            (folder / name).write_bytes(whole[:-8])
        with pytest.raises(AudiobatError, match="is damaged: remove the folder"):
            open_for_search(table)
        (folder / name).write_bytes(whole)
    (folder / module.FACTS).write_text(json.dumps({"format": "other"}))
    assert isinstance(open_for_search(table), GraphLibrary)  # of another version: made anew
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert not isinstance(open_for_search(table), GraphLibrary)
    assert "pip install 'audiobat[library]'" in capsys.readouterr().err
