"""Tables of embeddings: what is written comes back from each type of file; other files are refused in a sentence."""

import json
from pathlib import Path

import numpy as np
import pytest

from audiobat.data.embeddings import check_table_name, read_embeddings, sidecar, write_embeddings
from audiobat.errors import AudiobatError

META = {"model": "bat_nano", "layer": 4, "root": "/recordings", "window_seconds": 1.5}


def chunks(rows: int = 7, dim: int = 5):
    rng = np.random.default_rng(0)
    names = ["=day/é.wav", "https://x.org/b.wav", "c.wav"]
    for size in (3, rows - 3):
        starts = rng.random(size).round(3)
        yield {
            "path": np.array([names[i % 3] for i in range(size)]),
            "start": starts,
            "end": starts + 1.5,
            "embedding": rng.normal(size=(size, dim)).astype(np.float32),
        }


@pytest.mark.parametrize("ending", [".csv", ".npz", ".parquet"])
def test_a_table_comes_back_with_what_made_it(tmp_path: Path, ending: str):
    out = tmp_path / f"table{ending}"
    write_embeddings(out, chunks(), META)
    found = read_embeddings(out)
    wanted = [np.concatenate(column) for column in zip(*map(dict.values, chunks()), strict=True)]
    for column, values in zip((found.paths, found.starts, found.ends, found.vectors), wanted, strict=True):
        np.testing.assert_array_equal(column, values)
    assert (len(found), found.vectors.dtype, found.meta) == (7, np.float32, META)
    assert [found.audio(row) for row in range(3)] == [
        "/recordings/=day/é.wav",
        "https://x.org/b.wav",
        "/recordings/c.wav",
    ]
    assert sidecar(out).exists() == (ending == ".csv")


@pytest.mark.parametrize("ending", [".csv", ".npz", ".parquet"])
def test_a_table_of_another_shape_or_kind_is_refused(tmp_path: Path, ending: str):
    out = tmp_path / f"table{ending}"
    with pytest.raises(AudiobatError, match=r"is no table of embeddings \(no such file\)"):
        read_embeddings(out)
    out.write_bytes(b"path,start\na.wav,0\n")
    with pytest.raises(AudiobatError, match="cannot be read as a table of embeddings"):
        read_embeddings(out)
    if ending == ".npz":
        np.savez(out, scores=np.zeros(3))
        with pytest.raises(AudiobatError, match=r"\(no column 'path'\)"):
            read_embeddings(out)
    bad = [{**rows, "start": np.full(len(rows["path"]), np.nan)} for rows in chunks()]
    write_embeddings(out, iter(bad), META)
    with pytest.raises(AudiobatError, match="not finite"):
        read_embeddings(out)


def test_tables_of_earlier_versions_are_read_without_what_made_them(tmp_path: Path):
    out = tmp_path / "table.npz"
    np.savez(out, **next(chunks()))
    assert read_embeddings(out).meta == {}
    write_embeddings(tmp_path / "table.csv", chunks(), META)
    sidecar(tmp_path / "table.csv").unlink()
    assert read_embeddings(tmp_path / "table.csv").meta == {}
    with pytest.raises(AudiobatError, match=r"ends in \.txt: use one of"):
        check_table_name(tmp_path / "table.txt")


def test_a_failed_write_leaves_the_earlier_table_and_its_facts(tmp_path: Path):
    out = tmp_path / "table.csv"
    write_embeddings(out, chunks(), META)
    before = out.read_bytes()

    def failing():
        yield next(chunks())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_embeddings(out, failing(), {"layer": 9})
    assert out.read_bytes() == before
    assert json.loads(sidecar(out).read_text()) == META
