"""Loading 10-s clips: from FLAC and PCM shards, beside bare libsndfile and beside loose 44.1 kHz WAV files.

    python benchmarks/loading.py [--clips 240] [--rounds 5]

All ways run in one process on one core, in turns, on the same clips: real recordings of the demo, laid end to end. What
is compared is batches of 16 clips as a training step gets them, in the order of a shuffled epoch.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import soundfile
import soxr
import torch

from audiobat.audio import load_audio
from audiobat.commands.prepare import prepare
from audiobat.data.dataset import CropLoader
from audiobat.data.index import ClipTable
from audiobat.data.sampler import ClipOrder
from audiobat.data.scenes import demo_folder
from audiobat.data.sources import read_clips

RATE, WAV_RATE, SECONDS, BATCH = 16_000, 44_100, 10.0, 16


def write_wavs(folder: Path, clips: int) -> None:
    """Loose 16-bit 44.1 kHz stereo WAV files, as today's peers ask for them."""
    folder.mkdir()
    files = iter(sorted(demo_folder().rglob("*.ogg")) * 100)
    held = np.zeros(0, np.float32)
    for i in range(clips):
        while len(held) < SECONDS * WAV_RATE:
            held = np.concatenate([held, load_audio(next(files), WAV_RATE)])
        clip, held = held[: int(SECONDS * WAV_RATE)], held[int(SECONDS * WAV_RATE) :]
        soundfile.write(folder / f"{i:04d}.wav", np.stack([clip, clip], 1), WAV_RATE)


def batches(table: ClipTable) -> Iterator[torch.Tensor]:
    """The batches of one epoch, as pre-training gets them."""
    loader = CropLoader(table, RATE, SECONDS, ClipOrder(len(table), 0), BATCH, seed=0, workers=0)
    for batch, _ in zip(loader, range(len(table) // BATCH), strict=False):
        yield batch.waveform


def plain_batches(table: ClipTable) -> Iterator[torch.Tensor]:
    """The plain way: open, decode, mean, resample, stack."""
    order = np.random.default_rng(0).permutation(len(table))
    for first in range(0, len(order) - BATCH + 1, BATCH):
        clips = []
        for row in order[first : first + BATCH]:
            samples, rate = soundfile.read(table.path(int(row)), dtype="float32")
            clips.append(torch.from_numpy(soxr.resample(samples.mean(1), rate, RATE)))
        yield torch.stack(clips)


def bare(members: list[bytes]) -> Iterator[torch.Tensor]:
    """libsndfile alone, on bytes that are in memory already."""
    for data in members:
        soundfile.read(io.BytesIO(data), dtype="float32")
        yield torch.empty(0)


def seconds(make: Callable[[], Iterator[torch.Tensor]]) -> float:
    start = perf_counter()
    for _ in make():
        pass
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_wavs(folder / "wav", options.clips)
        for encoding in ("flac", "pcm"):
            prepare(folder / "wav", folder / encoding, sample_rate=RATE, encoding=encoding)
        loose, flac, pcm = (read_clips(folder / part) for part in ("wav", "flac", "pcm"))
        members = [os.pread(os.open(p.path, os.O_RDONLY), p.size, p.offset) for p in map(flac.place, range(len(flac)))]
        ways = {
            "loose 44.1 kHz WAV, the plain way": lambda: plain_batches(loose),
            "bare libsndfile on the FLAC bytes": lambda: bare(members),
            "FLAC shards": lambda: batches(flac),
            "PCM shards": lambda: batches(pcm),
        }
        for make in ways.values():
            seconds(make)  # the page cache is warm for all
        times = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, make in ways.items():
                times[way].append(seconds(make))
        rates = {way: options.clips / median(taken) for way, taken in times.items()}
        for way, rate in rates.items():
            print(f"{way:>36}: {rate:8.0f} clips/s")
        wav, floor, from_flac, from_pcm = rates.values()
        print(f"FLAC shards / bare libsndfile {from_flac / floor:.2f} (goal 0.85)")
        print(f"PCM shards / FLAC shards {from_pcm / from_flac:.1f} (goal 10)")
        print(f"FLAC shards / plain {from_flac / wav:.2f} (goal 1); PCM shards / plain {from_pcm / wav:.1f} (goal 20)")


if __name__ == "__main__":
    main()
