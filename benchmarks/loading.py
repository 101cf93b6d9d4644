"""Loading 10-s clips: from FLAC and PCM shards, beside bare libsndfile and beside loose 44.1 kHz WAV files.

    python benchmarks/loading.py [--clips 240] [--rounds 5]

All ways run in one process on one core, in turns, on the same clips: real recordings of the demo, laid end to end. What
is compared is batches of 16 clips as a training step gets them, in the order of a shuffled epoch; then, format by
format, what it costs to look into a loose file, whether its header is right about its length.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import soundfile
import soxr
import torch

from audiobat.audio.read import load_audio, open_audio, resample
from audiobat.data.clip_table import ClipLocation, ClipTable
from audiobat.data.loader import CropLoader
from audiobat.data.prepare.run import prepare
from audiobat.data.sampler import ClipOrder
from audiobat.data.scenes import demo_folder
from audiobat.data.sources.read import read_clips

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


def ours(table: ClipTable, workers: int = 0) -> Iterator[int]:
    """Clips in each batch, as pre-training gets them, without end."""
    for batch in CropLoader(table, RATE, SECONDS, ClipOrder(len(table), 0), BATCH, seed=0, workers=workers):
        yield len(batch.waveform)


def plain(table: ClipTable) -> Iterator[int]:
    """The plain way: open, decode, mean, resample, stack."""
    order = ClipOrder(len(table), 0)
    for step in itertools.count():
        clips = []
        for row in order.batch_indices(step, BATCH).tolist():
            samples, rate = soundfile.read(table.path(row), dtype="float32")
            clips.append(torch.from_numpy(soxr.resample(samples.mean(1), rate, RATE)))
        yield len(torch.stack(clips))


def bare(members: list[bytes]) -> Iterator[int]:
    """libsndfile alone, on bytes that are in memory already."""
    for data in itertools.cycle(members):
        soundfile.read(io.BytesIO(data), dtype="float32")
        yield 1


def read_member(location: ClipLocation) -> bytes:
    """The bytes of a shard's member."""
    return os.pread(os.open(location.path, os.O_RDONLY), location.size, location.offset)


def loose(files: list[Path], is_right: bool) -> Iterator[int]:
    """Loose files one after another, looked into or with headers that are known to be right."""
    for path in itertools.cycle(files):
        with open_audio(path, is_right=is_right) as file:
            resample(file.read(0, None), file.rate, RATE)
        yield 1


def looks(folder: Path) -> None:
    """Print how much of the speed is left where files are looked into."""
    for kind in ("WAV", "FLAC", "OGG", "MP3"):
        files = []
        for path in sorted((folder / "wav").iterdir())[:20]:
            samples, file_rate = soundfile.read(path, dtype="float32")
            files.append(folder / f"{path.stem}.{kind.lower()}")
            soundfile.write(files[-1], samples, file_rate, format=kind)
        found = measure({"looked into": loose(files, False), "as it is": loose(files, True)}, 15, seconds=0.2)
        print(
            f"loose 44.1 kHz {kind}, looked into / as it is {found['looked into'] / found['as it is']:.3f} (goal 0.97)"
        )


def rate(batches: Iterator[int], seconds: float) -> float:
    """Clips per second."""
    start, done = perf_counter(), 0
    while perf_counter() - start < seconds:
        done += next(batches)
    return done / (perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_wavs(folder / "wav", options.clips)
        for encoding in ("flac", "pcm"):
            prepare(folder / "wav", folder / encoding, sample_rate=RATE, encoding=encoding)
        loose, flac, pcm = (read_clips(folder / part) for part in ("wav", "flac", "pcm"))
        members = [read_member(flac.location(clip_id)) for clip_id in range(len(flac))]
        ways = {
            "loose 44.1 kHz WAV, the plain way": plain(loose),
            "bare libsndfile on the FLAC bytes": bare(members),
            "FLAC shards": ours(flac),
            "PCM shards": ours(pcm),
        }
        one_worker = {
            "FLAC shards, one worker process": ours(flac, workers=1),
            "PCM shards, one worker process": ours(pcm, workers=1),
        }
        rates = measure(ways, options.rounds)  # before the workers, which would take turns with it
        for way, found in (rates | measure(one_worker, 1, seconds=5.0)).items():
            print(f"{way:>36}: {found:8.0f} clips/s")
        wav, floor, from_flac, from_pcm = rates.values()
        print(f"FLAC shards / bare libsndfile {from_flac / floor:.2f} (goal 0.85)")
        print(f"PCM shards / FLAC shards {from_pcm / from_flac:.1f} (goal 10)")
        looks(folder)
        print(f"FLAC shards / plain {from_flac / wav:.2f} (goal 1); PCM shards / plain {from_pcm / wav:.1f} (goal 20)")


def measure(ways: dict[str, Iterator[int]], rounds: int, seconds: float = 0.5) -> dict[str, float]:
    """Median clips per second of each way, measured in turns; the first turn only warms up."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, batches in ways.items():
            found[way].append(rate(batches, seconds))
    return {way: median(rates[1:]) for way, rates in found.items()}


if __name__ == "__main__":
    main()
