"""A field season in small: recordings with two tones at known times, a model, and its embeddings of them."""

import csv
from pathlib import Path

import numpy as np
import soundfile
from tiny_encoder import RATE, write_encoder

import audiobat

TONES = {"low": 400.0, "top": 2500.0}


def write_recording(path: Path, seconds: float, events: list[tuple[str, float, float]], seed: int) -> None:
    """Noise with tones at the times of `events`: label, start, end in seconds."""
    time = np.arange(round(seconds * RATE)) / RATE
    samples = np.random.default_rng(seed).normal(scale=0.02, size=len(time))
    for name, start, end in events:
        samples += ((time >= start) & (time < end)) * 0.2 * np.sin(2 * np.pi * TONES[name] * time)
    soundfile.write(path, samples, RATE, subtype="FLOAT")


def write_season(folder: Path) -> Path:
    """model/, index.npz, recordings/ of 8 times 12 s; events.csv has the tones of six of them, all.csv of all."""
    write_encoder(folder / "model")
    (folder / "recordings").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(8):
        starts = np.arange(0.5, 11, 1.5) + rng.uniform(0, 0.4, 7)
        events = [(str(rng.choice(list(TONES))), float(s), float(s + rng.uniform(0.4, 0.9))) for s in starts]
        write_recording(folder / "recordings" / f"{number}.wav", 12.0, events, number)
        rows += [(f"recordings/{number}.wav", *event) for event in events]
    for name, some in (("events.csv", rows[: 6 * 7]), ("all.csv", rows)):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label", "onset", "offset"), *some])
    audiobat.embed(folder / "model", folder / "recordings", folder / "index.npz", window_seconds=0.6, hop_seconds=0.3)
    return folder
