"""`probe` on several ranks: the features and records of one process, in memory, on disk, and encoded anew.

Run as a program, with a folder of clips and a model, it makes the records that the tests compare.
"""

import csv
import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from rank_processes import run_program, run_ranks

from audiobat.config import EncoderConfig, FrontendConfig, HeadConfig, ModelConfig, ProbeConfig, ProbeTrainConfig
from audiobat.models.encoder import AudioEncoder
from audiobat.probing import one_pass
from audiobat.probing.run import probe
from audiobat.zoo.release import save_release

RATE, BATCH = 8_000, 3
MODEL = ModelConfig(
    FrontendConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=80, mel_bins=16),
    EncoderConfig(dim=16, depth=2, heads=2, patch_size=(16, 8), max_frames=96),
)
CLIPS, BROKEN = 31, 4
PROBE = ProbeConfig(
    HeadConfig("cgp", prototypes=16),
    ProbeTrainConfig(steps=20, warmup_steps=2, batch_size=8, lr=1e-2),
    heads=("linear", "cgp"),
)
CASES = {"memory": 8.0, "spill": 1e-5, "anew": 0.0}  # GB that features may take; they take 3e-4
CACHE_FEATURES = one_pass.cache_features
HANG = 120  # seconds after which a rank that waits for another dies


def write_clips(folder: Path) -> None:
    """Clips of two classes and unequal lengths, one of which is no audio: fewer than 5%."""
    rng = np.random.default_rng(0)
    (folder / "clips").mkdir()
    rows = [["path", "label", "split"]]
    for n in range(CLIPS):
        path, label = folder / "clips" / f"{n:02}.wav", ("low", "top")[n % 2]
        time = np.arange(int((0.2 + 0.02 * n) * RATE)) / RATE
        samples = 0.1 * np.sin(2 * np.pi * (400 + 2_000 * (n % 2)) * time) + 0.05 * rng.normal(size=len(time))
        soundfile.write(path, samples, RATE)
        rows.append([path.name, label, "test" if n % 5 in (0, 1) else "train"])
    (folder / "clips" / f"{BROKEN:02}.wav").write_text("no audio")
    with (folder / "clips" / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def run(case: str, folder: Path, world: int) -> None:
    """The records CASE_WORLD, in which rank 0 alone trains; and how many clips each rank encodes."""
    signal.alarm(HANG)
    encoded = folder / f"{case}_{world}.encoded.{os.environ['RANK']}"
    encoded.touch()

    def logged(encoder, *given, **named):
        forward = encoder.forward_intermediates

        def counted(waveform, *rest):
            with encoded.open("a") as file:
                file.write(f"{len(waveform)}\n")
            return forward(waveform, *rest)

        encoder.forward_intermediates = counted
        source = CACHE_FEATURES(encoder, *given, batch_size=BATCH, **named)
        encoder.forward_intermediates = forward
        return source

    one_pass.cache_features = logged
    kept = folder / f"{case}_cache" if case == "found" else None
    config = replace(PROBE, cache_gb=CASES.get(case, 8.0), cache_dir=None if kept is None else str(kept))
    out = folder / f"{case}_{world}"
    records = probe(folder / "model", folder / "clips" / "clips.csv", config, out=out, device="cpu")
    assert len(records) == (2 if os.environ["RANK"] == "0" else 0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    write_clips(folder)
    torch.manual_seed(0)
    save_release(folder / "model", AudioEncoder(MODEL))
    run_program(__file__, folder)
    return folder


def numbers(folder: Path) -> dict[str, dict]:
    """The records of a run without times."""
    found = {}
    for path in (folder / "results").glob("*.json"):
        record = json.loads(path.read_text())
        for name in ("wall_seconds", "clips_per_second", "environment"):
            del record[name]
        found[path.name] = record
    return found


def encoded(folder: Path, name: str) -> list[int]:
    """The clips that each rank encoded."""
    logs = sorted(folder.glob(f"{name}.encoded.*"))
    return [sum(map(int, log.read_text().split())) for log in logs]


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_several_ranks_make_the_records_of_one(runs, case, world):
    alone, together = numbers(runs / f"{case}_1"), numbers(runs / f"{case}_{world}")
    assert len(alone) == 2
    assert together == alone
    for path in (runs / f"{case}_1" / "results").glob("*.npz"):
        one, two = (np.load(runs / f"{case}_{n}" / "results" / path.name) for n in (1, world))
        np.testing.assert_array_equal(two["scores"], one["scores"])
    skipped = runs / f"{case}_{world}" / "skipped.csv"
    assert skipped.read_bytes() == (runs / "memory_1" / "skipped.csv").read_bytes()
    assert f"{BROKEN:02}.wav" in skipped.read_text()


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("case", ["memory", "spill"])
def test_each_rank_encodes_its_share_once(runs, case, world):
    counts = encoded(runs, f"{case}_{world}")
    assert len(counts) == world
    assert sum(counts) == CLIPS - 1
    assert max(counts) - min(counts) <= 2 * BATCH
    assert (runs / f"{case}_{world}" / "features").exists() == (case == "spill")


def test_features_on_disk_are_found_by_any_number_of_ranks(runs):
    assert numbers(runs / "found_2") == numbers(runs / "memory_1")
    counts = encoded(runs, "found_2")
    first = BATCH  # is encoded again by rank 0, to see whether the encoder is the same
    assert sum(counts) - first == int((runs / "found.missing").read_text())
    assert min(counts) > 0


if __name__ == "__main__":
    place = Path(sys.argv[1])
    run_ranks([partial(run, case, place) for case in CASES], (1, 2, 3))
    shutil.copytree(place / "spill_3" / "features", place / "found_cache")  # as after a kill: parts of it are there
    lists = sorted((place / "found_cache").rglob("*.json"))[2::2]
    lost = sum(len(json.loads(path.read_text().splitlines()[1])["rows"]) for path in lists)
    (place / "found.missing").write_text(str(lost))
    for path in lists:
        path.unlink()
    run_ranks([partial(run, "found", place)], [2])
