"""`search`: against brute force in float64; what is left out; tables, tracks, clips; sentences for mistakes."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiobat.cli.command import main
from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.data.embeddings import read_embeddings, write_embeddings
from audiobat.errors import AudiobatError
from audiobat.inference.embed import embed
from audiobat.inference.library import search as module
from audiobat.inference.library import vectors
from audiobat.inference.library.search import search
from audiobat.models.encoder import AudioEncoder
from audiobat.zoo import release as release_io

RATE = 8000
FRONTEND = FrontendConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=80, mel_bins=16)
MODEL = ModelConfig(FRONTEND, EncoderConfig(dim=8, depth=2, heads=2, patch_size=(16, 8), max_frames=96))
WINDOW = 0.5


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(MODEL).eval()


@pytest.fixture(scope="module")
def place(encoder: AudioEncoder, tmp_path_factory) -> Path:
    """A model, eight recordings of 1 to 2.4 s, each of a tone of its own in noise, and their table."""
    folder = tmp_path_factory.mktemp("library")
    release_io.save_release(folder / "model", encoder)
    rng = np.random.default_rng(0)
    for i in range(8):
        time = np.arange(int((1 + 0.2 * i) * RATE)) / RATE
        samples = 0.2 * np.sin(2 * np.pi * (200 + 300 * i) * time) + 0.02 * rng.normal(size=len(time))
        path = folder / "clips" / "ab"[i % 2] / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, RATE)
    embed(folder / "model", folder / "clips", folder / "table.npz", layer=1, window_seconds=WINDOW, hop_seconds=0.25)
    return folder


def by_hand(place: Path, encoder: AudioEncoder, query: Path, start: float = 0.0, end: float | None = None):
    """The cosine [R] of each row of the table with the nearest window of a sound, in float64."""
    table = read_embeddings(place / "table.npz")
    samples = soundfile.read(query)[0][round(start * RATE) : None if end is None else round(end * RATE)]
    size, hop = round(WINDOW * RATE), round(0.25 * RATE)
    parts = [samples[at : at + size] for at in range(0, max(1, len(samples) - size + hop), hop)]
    made = [encoder.embed(part, RATE, layer=1).numpy() for part in parts if len(part) >= encoder.column_samples]
    rows, mean = table.vectors.astype(np.float64), table.vectors.astype(np.float64).mean(0)
    a, b = rows - mean, np.stack(made).astype(np.float64) - mean
    return table, (a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)).max(1)


def test_the_nearest_windows_are_those_of_brute_force(place: Path, encoder: AudioEncoder, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(vectors, "BLOCK_ROWS", 7)
    query = tmp_path / "query.wav"
    soundfile.write(query, soundfile.read(place / "clips/b/3.wav")[0][1000:9000], RATE)
    found = search(place / "table.npz", query, top=1000)
    table, scores = by_hand(place, encoder, query)
    by_place = {(str(p), s): c for p, s, c in zip(table.paths, table.starts, scores, strict=True)}
    for row in found:
        assert row.score == pytest.approx(by_place[row.file, row.start], abs=1e-5)
    assert [row.score for row in found] == sorted((row.score for row in found), reverse=True)
    assert found[0].file == "b/3.wav"
    assert found[0].score == pytest.approx(scores.max(), abs=1e-5)
    kept = {(row.file, row.start): row for row in found}
    for path, start, end, score in zip(table.paths, table.starts, table.ends, scores, strict=True):
        overlaps = [row for row in found if row.file == path and row.start < end and start < row.end]
        assert len(overlaps) == 1 or ((path, start) not in kept)  # no two that overlap
        assert max(row.score for row in overlaps) >= score - 1e-5  # and only for one that is nearer
    assert [row[:4] for row in search(place / "table.npz", query, top=3)] == [row[:4] for row in found[:3]]


def test_a_query_of_the_library_does_not_find_itself(place: Path, encoder: AudioEncoder):
    query = place / "clips/b/3.wav"
    whole = search(place / "table.npz", query, top=1000)
    assert whole
    assert "b/3.wav" not in {row.file for row in whole}
    part = search(place / "table.npz", query, start=0.1, end=0.6, top=1000)
    own = [row for row in part if row.file == "b/3.wav"]
    assert own
    assert all(row.start >= 0.6 or row.end <= 0.1 for row in own)
    _, scores = by_hand(place, encoder, query, 0.1, 0.6)
    others = search(place / "table.npz", query, start=0.1, end=0.6, top=1)
    assert others[0].score <= scores.max() + 1e-5


def test_tables_tracks_and_clips_hold_what_was_found(place: Path, tmp_path: Path, monkeypatch, capsys):
    query = place / "clips/a/0.wav"
    found = search(place / "table.npz", query, top=5, out=tmp_path / "found.csv")
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["file"], float(r["start"]), float(r["score"])) for r in rows] == [
        (r.file, r.start, r.score) for r in found
    ]
    search(place / "table.npz", query, top=5, out=tmp_path / "tracks", format="raven")
    tracks = [path.relative_to(tmp_path / "tracks").as_posix() for path in (tmp_path / "tracks").rglob("*.txt")]
    assert sorted(tracks) == sorted({f"{row.file}.selections.txt" for row in found})
    assert f"\t{RATE / 2}\t" in (tmp_path / "tracks" / f"{found[0].file}.selections.txt").read_text()
    search(place / "table.npz", query, top=5, out=tmp_path / "clips")
    clips = sorted((tmp_path / "clips").glob("*.wav"))
    assert len(clips) == 5
    printed = capsys.readouterr().out
    assert "found.csv: 5 windows" in printed
    assert "clips: 5 clips to hear" in printed
    for clip, row in zip(clips, found, strict=True):
        whole, rate = soundfile.read(place / "clips" / row.file)
        np.testing.assert_allclose(
            soundfile.read(clip)[0], whole[round(row.start * rate) : round(row.end * rate)], atol=1e-4
        )
    with pytest.raises(AudiobatError, match="exists: choose another --out"):
        search(place / "table.npz", query, out=tmp_path / "clips")
    search(place / "table.npz", query, top=2, out=tmp_path / "clips", overwrite=True)
    assert len(list((tmp_path / "clips").glob("*.wav"))) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_model", None)  # which may take a minute: mistakes come before it
        for out in ("mine", "mine/notes.txt"):
            with pytest.raises(AudiobatError, match="something else"):
                search(place / "table.npz", query, out=tmp_path / out, format="clips", overwrite=True)
        with pytest.raises(AudiobatError, match="exists: choose another --out"):
            search(place / "table.npz", query, out=tmp_path / "found.csv")
    assert main(["search", str(place / "table.npz"), str(query), "--top", "2"]) == 0
    assert found[0].file in capsys.readouterr().out


def test_a_table_that_does_not_say_its_model_needs_one(place: Path, tmp_path: Path):
    old = tmp_path / "old.npz"
    with np.load(place / "table.npz") as arrays:
        np.savez(old, **{name: arrays[name] for name in ("path", "start", "end", "embedding")})
    query = place / "clips/a/0.wav"
    with pytest.raises(AudiobatError, match=r"does not say which model made it: give --model"):
        search(old, query)
    with pytest.warns(UserWarning, match="does not say which layer"):
        found = search(old, query, model=place / "model", top=3)
    assert len(found) == 3
    with pytest.warns(UserWarning, match="which layer"), pytest.raises(AudiobatError, match=r"--data"):
        search(old, query, model=place / "model", out=tmp_path / "clips")
    with pytest.warns(UserWarning, match="which layer"):
        search(old, query, model=place / "model", out=tmp_path / "clips", data=place / "clips", top=1)


def altered(place: Path, out: Path, change) -> Path:
    """The table with other rows or facts."""
    table = read_embeddings(place / "table.npz")
    columns = {"path": table.paths, "start": table.starts, "end": table.ends, "embedding": table.vectors}
    meta = dict(table.meta)
    columns = change(columns, meta) or columns
    write_embeddings(out, iter([columns]), meta)
    return out


def test_rows_of_zeros_match_nothing_and_are_told(place: Path, tmp_path: Path):
    def zeros(columns, meta):
        columns["embedding"][[0, 5, 6]] = 0

    with pytest.warns(UserWarning, match="3 rows of zeros"):
        found = search(altered(place, tmp_path / "t.npz", zeros), place / "clips/b/3.wav", top=1000)
    table = read_embeddings(place / "table.npz")
    gone = {(str(table.paths[i]), float(table.starts[i])) for i in (0, 5, 6)}
    assert not gone & {(row.file, row.start) for row in found}


def test_mistakes_get_a_sentence(place: Path, tmp_path: Path, encoder: AudioEncoder):
    def fails(match, index=place / "table.npz", query=place / "clips/a/0.wav", **options):
        with pytest.raises(AudiobatError, match=match):
            search(index, query, **options)

    fails("no such file", index=tmp_path / "none.npz")
    fails("none.wav", query=tmp_path / "none.wav")
    fails("--end 1 is not behind --start 2", start=2.0, end=1.0)
    fails("has no audio from 9 s on", start=9.0)
    fails("top", top=0)
    fails("ends in .doc", out=tmp_path / "a.doc")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    fails("empty.wav", query=tmp_path / "empty.wav")
    torch.manual_seed(1)
    fails("was made by other weights", model=AudioEncoder(MODEL))
    wide = ModelConfig(FRONTEND, EncoderConfig(dim=16, depth=2, heads=2, patch_size=(16, 8), max_frames=96))
    fails("holds 8 numbers a row, the model makes 16", model=AudioEncoder(wide))

    def gone(columns, meta):
        meta["model"] = meta["data"] = str(tmp_path / "gone")

    moved = altered(place, tmp_path / "moved.npz", gone)
    fails("The model that made .* cannot be loaded", index=moved)
    fails("recordings of .* are gone", index=moved, model=place / "model", out=tmp_path / "clips")
    one = altered(place, tmp_path / "one.npz", lambda columns, meta: {n: v[:1] for n, v in columns.items()})
    fails("holds 1 row", index=one)

    def alike(columns, meta):
        columns["embedding"][:] = columns["embedding"][:1]

    fails("the same vector in every row", index=altered(place, tmp_path / "alike.npz", alike))

    def broken(columns, meta):
        columns["embedding"][3, 2] = np.nan

    fails("not finite", index=altered(place, tmp_path / "nan.npz", broken))
    assert not (tmp_path / "clips").exists()
