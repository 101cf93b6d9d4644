"""`audiobat prepare` beside its raw costs: the same files decoded, resampled and encoded on as many cores, no more.

    python benchmarks/prepare.py [--clips 600] [--rounds 3]

The raw way keeps nothing: no tar, no hashes, no index, no disk. Ours is timed from the folder of recordings to a folder
that can be read, processes started and everything on the disk.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import soundfile
import soxr
from loading import RATE, write_wavs

from audiobat.data.prepare.pack import FLAC_LEVEL
from audiobat.data.prepare.run import prepare

CORES = len(os.sched_getaffinity(0))


def raw_flac(path: Path) -> None:
    """Decode, mix, resample, encode."""
    soundfile.write(io.BytesIO(), raw_samples(path), RATE, "PCM_16", format="FLAC", compression_level=FLAC_LEVEL)


def raw_pcm(path: Path) -> None:
    """Decode, mix, resample."""
    raw_samples(path).tobytes()


def raw_samples(path: Path) -> np.ndarray:
    """16-bit samples [S] at the benchmark's rate."""
    samples, rate = soundfile.read(path, dtype="float32")
    resampled = soxr.resample((samples[:, 0] + samples[:, 1]) / 2, rate, RATE)
    return np.rint(resampled * 32767).astype(np.int16)


def timed(task: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = perf_counter()
    task()
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, multiprocessing.Pool(CORES) as pool:
        folder = Path(name)
        write_wavs(folder / "wav", options.clips)
        files = sorted((folder / "wav").iterdir())
        for encoding, task in (("flac", raw_flac), ("pcm", raw_pcm)):
            raw, ours = [], []
            for turn in range(options.rounds):
                raw.append(timed(lambda task=task: pool.map(task, files, chunksize=8)))
                out = folder / f"{encoding}{turn}"
                ours.append(timed(lambda out=out, encoding=encoding: prepare(folder / "wav", out, encoding=encoding)))
            rates = [len(files) / median(times) for times in (raw, ours)]
            print(
                f"{encoding}, {CORES} cores: raw costs {rates[0]:.0f} clips/s, prepare {rates[1]:.0f} clips/s: "
                f"{rates[1] / rates[0]:.2f} (goal 0.80)"
            )


if __name__ == "__main__":
    main()
