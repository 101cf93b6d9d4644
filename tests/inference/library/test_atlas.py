"""`atlas`: groups of rows stay together and become clusters; clips, labels and the page; tiny and odd tables."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiobat.cli.command import main
from audiobat.data.embeddings import write_embeddings
from audiobat.errors import AudiobatError
from audiobat.evaluation.report.sound_map import read_map
from audiobat.inference.library import atlas as module
from audiobat.inference.library.atlas import atlas, clusters_of, main_components

RATE = 8000
GROUPS, EACH = 4, 12


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Recordings in four class folders, and a table in which those of a folder are near each other."""
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(GROUPS, 16))
    names, vectors = [], []
    for group in range(GROUPS):
        for i in range(EACH):
            name = f"{'abcd'[group]}/{i}.wav"
            (tmp_path / "sounds" / name).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / "sounds" / name, 0.1 * rng.normal(size=RATE // 2), RATE)
            names.append(name)
            vectors.append(centres[group] + rng.normal(size=16))
    order = rng.permutation(len(names))
    rows = {
        "path": np.array(names)[order],
        "start": np.full(len(names), 0.1),
        "end": np.full(len(names), 0.4),
        "embedding": np.array(vectors, np.float32)[order],
    }
    write_embeddings(tmp_path / "table.npz", iter([rows]), {"data": str(tmp_path / "sounds"), "sample_rate": RATE})
    return tmp_path


def test_groups_stay_together_and_become_clusters_with_labels_and_clips(place: Path, capsys):
    path = atlas(place / "table.npz", place / "atlas", clips=7)
    plain = read_map(path.parent)  # as the page reads it
    assert f"a map of {len(plain['file'])} sounds" in capsys.readouterr().out
    points, groups = np.array(plain["points"]), np.array([name[0] for name in plain["file"]])
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    nearest = groups[distance.argsort(1)[:, :5]]
    assert (nearest == groups[:, None]).mean() > 0.95
    assert plain["label"] == groups.tolist()
    for group in "abcd":  # each group is in one cluster of its own
        inside = np.array(plain["cluster"])[groups == group]
        assert (inside == np.bincount(inside[inside >= 0]).argmax()).mean() > 0.8
    clips = [(i, name) for i, name in enumerate(plain["clip"]) if name is not None]
    assert len(clips) == 7 == len(list((place / "atlas/clips").iterdir()))
    for _, name in clips:
        samples, rate = soundfile.read(place / "atlas" / name)
        assert len(samples) / rate == pytest.approx(0.3, abs=0.1)
    again = json.loads(atlas(place / "table.npz", place / "atlas", clips=7, overwrite=True).read_text())
    assert again == json.loads(path.read_text())
    assert main(["report", str(place / "atlas"), "--out", str(place / "page")]) == 0
    assert "Map of sounds" in (place / "page/index.html").read_text()


def test_a_map_of_some_rows_and_without_recordings(place: Path):
    path = atlas(place / "table.npz", place / "atlas", points=20, clips=0, data=place / "gone")
    plain = read_map(path.parent)
    assert len(plain["points"]) == 20
    assert {name[0] for name in plain["file"]} == set("abcd")
    assert set(plain["clip"]) == set(plain["label"]) == {None}


def test_a_recording_that_is_gone_is_told_and_the_others_have_clips(place: Path):
    gone = str(np.load(place / "table.npz")["path"][-1])
    (place / "sounds" / gone).unlink()
    with pytest.warns(UserWarning, match=f"1 recording cannot be read and gave no clips: .*{gone}"):
        plain = read_map(atlas(place / "table.npz", place / "atlas").parent)
    assert {file for file, clip in zip(plain["file"], plain["clip"], strict=True) if clip is None} == {gone}


def test_points_have_the_labels_of_the_events_in_them(place: Path):
    data = np.load(place / "table.npz")
    columns = {name: data[name] for name in ("path", "start", "end", "embedding")}
    columns["path"] = np.full(len(columns["path"]), "long.wav")
    columns["start"] = np.arange(len(columns["path"])) * 1.0
    columns["end"] = columns["start"] + 1.0
    (place / "season").mkdir()
    soundfile.write(place / "season/long.wav", np.zeros(60 * RATE, np.int16), RATE)
    (place / "season/long.txt").write_text("1.2\t1.5\tshort\n3.4\t5.3\tlong\n4.1\t4.9\tother\n")
    write_embeddings(place / "season.npz", iter([columns]), {"data": str(place / "season")})
    labels = read_map(atlas(place / "season.npz", place / "atlas", clips=0).parent)["label"]
    assert labels[:7] == [None, "short", None, "long", "long;other", None, None]
    assert not any(labels[7:])


@pytest.mark.parametrize("rows", [2, 3, 4, 5, 8])
def test_tables_of_few_rows_have_a_map(place: Path, rows: int):
    data = np.load(place / "table.npz")
    columns = {name: data[name][:rows] for name in ("path", "start", "end", "embedding")}
    if rows > 2:
        columns["embedding"][0] = columns["embedding"][1]  # two at one place
    write_embeddings(place / "few.npz", iter([columns]), {})
    plain = read_map(atlas(place / "few.npz", place / "few", clips=0).parent)
    assert len(plain["points"]) == rows


def test_main_components_are_those_of_a_singular_value_decomposition():
    rows = np.random.default_rng(0).normal(size=(60, 7)).astype(np.float32) * np.arange(1, 8, dtype=np.float32)
    u, s, _ = np.linalg.svd(rows.astype(np.float64) - rows.mean(0, dtype=np.float64), full_matrices=False)
    places = main_components(rows)
    for i in range(2):
        assert abs(u[:, i] @ places[:, i]) == pytest.approx(s[i], rel=1e-5)
    assert main_components(rows[:, :1]).shape == (60, 2)


def test_clusters_are_numbered_by_size():
    rng = np.random.default_rng(0)
    places = np.concatenate([rng.normal(size=(n, 2)) * 0.1 + at for n, at in ((20, 0), (60, 10), (40, 20))])
    found = clusters_of(places)
    assert [np.bincount(part[part >= 0]).argmax() for part in np.split(found, [20, 80])] == [2, 0, 1]
    assert clusters_of(places[:3]).tolist() == [-1, -1, -1]


def test_mistakes_get_a_sentence(place: Path, monkeypatch):
    with pytest.raises(AudiobatError, match="points"):
        atlas(place / "table.npz", place / "atlas", points=1)
    with pytest.raises(AudiobatError, match="is no folder of a map: choose another"):
        atlas(place / "table.npz", place / "sounds", overwrite=True)
    atlas(place / "table.npz", place / "atlas", clips=0)
    with pytest.raises(AudiobatError, match="holds a map: choose another --out, or give --overwrite"):
        atlas(place / "table.npz", place / "atlas")
    monkeypatch.setattr(module, "lay_out", None)  # which takes a minute: mistakes come before it
    with pytest.raises(AudiobatError, match="gone"):
        atlas(place / "table.npz", place / "other", data=place / "gone")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AudiobatError, match=r"needs openTSNE: pip install 'audiobat\[library\]'"):
        atlas(place / "table.npz", place / "other")
