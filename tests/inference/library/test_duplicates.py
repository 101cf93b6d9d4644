"""`duplicates`: copies made on purpose are found and placed, near sounds are not; neighbours against brute force."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from audiobat.cli.command import main
from audiobat.config import EncoderConfig, FrontendConfig, ModelConfig
from audiobat.data.embeddings import EmbeddingTable, read_embeddings
from audiobat.errors import AudiobatError
from audiobat.inference.embed import embed
from audiobat.inference.library import duplicates as module
from audiobat.inference.library import neighbours
from audiobat.inference.library.duplicates import duplicates, matching
from audiobat.inference.library.neighbours import nearest_rows
from audiobat.inference.library.vectors import Library, scaled
from audiobat.models.encoder import AudioEncoder

RATE = 8000
FRONTEND = FrontendConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=80, mel_bins=16)
MODEL = ModelConfig(FRONTEND, EncoderConfig(dim=8, depth=2, heads=2, patch_size=(16, 8), max_frames=96))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Fourteen recordings of noise on five tones, copies of four of them, one silent, and their table."""
    folder, rng = tmp_path_factory.mktemp("copies"), np.random.default_rng(0)
    (folder / "sounds").mkdir()

    def write(name: str, samples: np.ndarray, rate: int = RATE) -> None:
        soundfile.write(folder / "sounds" / name, samples.clip(-1, 1), rate)

    made = []
    for i in range(14):
        time = np.arange(int(rng.uniform(1.2, 1.8) * RATE)) / RATE
        made.append(0.1 * np.sin(2 * np.pi * (300 + 500 * (i % 5)) * time) + 0.1 * rng.normal(size=len(time)))
        write(f"take_{i:02d}.wav", made[-1])
    write("copy_03.ogg", 0.3 * made[3])
    write("copy_07.wav", made[7][4000:])  # begins half a second later
    write(
        "copy_11.wav", np.concatenate([0.001 * rng.normal(size=2400), made[11] + 0.02 * rng.normal(size=len(made[11]))])
    )
    write("copy_13.wav", soxr.resample(-made[13], RATE, 2 * RATE), 2 * RATE)  # at another rate, and turned around
    write("silent_1.wav", np.zeros(RATE))
    write("silent_2.wav", np.zeros(RATE))
    torch.manual_seed(0)
    embed(AudioEncoder(MODEL).eval(), folder / "sounds", folder / "table.npz", window_seconds=0.9, hop_seconds=0.45)
    return folder


def test_copies_are_found_and_placed_and_nothing_else(place: Path, tmp_path: Path, capsys):
    found = duplicates(place / "table.npz", out=tmp_path / "pairs.csv")
    pairs = {(pair.file, pair.copy): pair for pair in found}
    assert set(pairs) == {
        (f"copy_{i:02d}.{e}", f"take_{i:02d}.wav") for i, e in ((3, "ogg"), (7, "wav"), (11, "wav"), (13, "wav"))
    }
    assert [pair.correlation for pair in found] == sorted((pair.correlation for pair in found), reverse=True)
    offsets = {name[5:7]: pair.start - pair.copy_start for (name, _), pair in pairs.items()}
    assert offsets == pytest.approx({"03": 0, "07": -0.5, "11": 0.3, "13": 0}, abs=2 / RATE)
    for pair in found:
        assert pair.end - pair.start == pytest.approx(pair.copy_end - pair.copy_start)
        assert 0 <= pair.start < pair.end <= pair.seconds + 0.1
        assert 0 <= pair.copy_start < pair.copy_end <= pair.copy_seconds + 0.1
    long = pairs["copy_07.wav", "take_07.wav"]
    assert long.copy_seconds - long.seconds == pytest.approx(0.5, abs=0.2)
    with (tmp_path / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], float(row["correlation"])) for row in rows] == [(p.file, p.correlation) for p in found]
    with pytest.raises(AudiobatError, match=r"pairs\.csv exists"):
        duplicates(place / "table.npz", out=tmp_path / "pairs.csv")
    assert main(["duplicates", str(place / "table.npz"), "--out", str(tmp_path / "pairs.csv"), "--overwrite"]) == 0
    assert f"pairs.csv: {len(found)} pairs" in capsys.readouterr().out
    duplicates(place / "table.npz")
    assert "copy_07.wav from 0.00 s  =  take_07.wav from 0.50 s" in capsys.readouterr().out


def test_listening_ends_where_hardly_any_pair_matches(place: Path, monkeypatch, capsys):
    heard = []
    align = module.align
    monkeypatch.setattr(module, "align", lambda *given: heard.append(1) or align(*given))
    monkeypatch.setattr(module, "MERE", 10)
    every = duplicates(place / "table.npz")
    all_pairs = len(heard)
    assert all_pairs > 10 + 20
    assert f"compare audio: {all_pairs}/{all_pairs} pairs, finished" in capsys.readouterr().err
    heard.clear()
    monkeypatch.setattr(module, "BLOCK_PAIRS", 20)
    monkeypatch.setattr(module, "FEW", 0.9)
    duplicates(place / "table.npz")
    assert len(heard) == 10 + 20
    said = capsys.readouterr().err
    assert f"compare audio: 30/{all_pairs} pairs, stopped" in said
    assert "match, hardly any of the last 20: the rest is left out" in said
    monkeypatch.setattr(module, "FEW", 0.0)
    assert duplicates(place / "table.npz") == every


def test_a_recording_that_is_gone_is_told_and_the_others_are_compared(place: Path, tmp_path: Path):
    copied = tmp_path / "sounds"
    copied.mkdir()
    for path in (place / "sounds").iterdir():
        (copied / path.name).write_bytes(path.read_bytes() if path.name != "copy_07.wav" else b"RIFF")
    with pytest.warns(UserWarning, match=r"1 recording cannot be read, such as copy_07\.wav"):
        found = duplicates(place / "table.npz", data=copied)
    assert {pair.file for pair in found} == {"copy_03.ogg", "copy_11.wav", "copy_13.wav"}
    with pytest.raises(AudiobatError, match=r"holds no .*which .*table\.npz lists: give another --data"):
        duplicates(place / "table.npz", data=copied / "take_00.wav")
    with pytest.raises(AudiobatError, match=r"name a \.csv"):
        duplicates(place / "table.npz", out=tmp_path / "pairs.txt")


def test_the_limit_follows_the_library():
    assert matching(np.linspace(0, 0.4, 101)) == pytest.approx(0.38 + 0.75 * 0.62)
    assert matching(np.full(50, 0.9)) == pytest.approx(0.975)
    assert 0.5 < matching(np.zeros(0)) < 1


@pytest.mark.parametrize("other", [False, True])
def test_neighbours_are_those_of_brute_force(monkeypatch, capsys, other: bool):
    monkeypatch.setattr(neighbours, "BLOCK_COSINES", 700)
    rng = np.random.default_rng(0)
    rows = scaled(rng.normal(size=(97, 6)).astype(np.float32))
    rows[[5, 50]] = 0
    paths = np.array([f"{i % 40}.wav" for i in range(97)])
    table = EmbeddingTable(Path("t.npz"), paths, np.zeros(97), np.ones(97), rows, {})
    ids, cosines = nearest_rows(Library(table, np.zeros(6, np.float32)), 7, "test", other_recordings=other)
    exact = rows.astype(np.float64) @ rows.astype(np.float64).T
    for row in range(97):
        left = [
            i
            for i in range(97)
            if i != row and i not in (5, 50) and row not in (5, 50) and not (other and paths[i] == paths[row])
        ]
        best = sorted(left, key=lambda i: -exact[row, i])[:7]
        if not best:
            assert (cosines[row] == -2).all()
            continue
        assert ids[row].tolist() == best
        np.testing.assert_allclose(cosines[row], exact[row, best], atol=1e-6)


def test_the_demo_table_of_one_recording_has_no_pairs(place: Path, tmp_path: Path, capsys):
    torch.manual_seed(0)
    table = embed(AudioEncoder(MODEL).eval(), place / "sounds/take_00.wav", tmp_path / "one.npz", window_seconds=0.5)
    assert len(read_embeddings(table)) > 2
    assert duplicates(table) == []
    assert "No recording holds the same sound" in capsys.readouterr().out
