"""The clips that bat_nano was pre-trained on: python benchmarks/nano_corpus.py CORPUS OUT

CORPUS is the folder of 26.6 hours of recordings from Debian packages, with its `pretrain.csv` (path, seconds, source,
category). Left out: every recording that the demo's test scenes are made of (fold-5 takes and test beds), copies of
them under other names, and takes whose waveform correlates with a held-out take by more than 0.8. Most recordings are
shorter than a training crop, so they are laid into 10-s clips without a look at any label: half of the clips are short
sounds over a long recording at -5 to +15 dB, a quarter are short sounds one after the other, a quarter are long
recordings as they are. Written to OUT: audio/*.wav (16 kHz, 16 bit), clips.csv, left_out.csv.
"""

import csv
import hashlib
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile

from audiobat.audio.read import load_audio
from audiobat.data.scenes import active_rms, held_out_sources
from audiobat.engine.progress import Progress

RATE, SECONDS, CLIPS, SEED = 16_000, 10.0, 9_000, 0
SAMPLES = int(RATE * SECONDS)
SHORT = {"sfx": 0.6, "instrument": 0.2, "speech": 0.2}  # what short sounds are drawn from
LONG = {"ambience": 0.5, "music": 0.3, "sfx": 0.1, "speech": 0.1}  # what beds and whole clips are drawn from
SHORTER_THAN, LONGER_THAN = 4.0, 10.0  # seconds
COPY = 0.8  # correlation above which a take counts as a copy


def samples_of(path):
    return load_audio(path, RATE)


def game_source(path):
    """The demo's name of a recording: `.../audio/x/y.ogg.flac` in the game's package is `audio/x/y.ogg`."""
    return "audio/" + path.rsplit("/audio/", 1)[-1].removesuffix(".flac")


def digest(x):
    return hashlib.sha256((x * 32768).round().astype(np.int16).tobytes()).hexdigest()


def unit_spectrum(x, size):
    return np.fft.rfft(x / (np.linalg.norm(x) + 1e-9), size)


def left_out(corpus, rows):
    """Path -> reason, for the recordings that pre-training must not hear."""
    held = held_out_sources()
    game = corpus / "audio/0ad-data"
    originals = [p for p in sorted(game.rglob("*.flac")) if game_source(p.as_posix()) in held]
    takes = [samples_of(p) for p in originals]
    digests = {digest(x) for x in takes}
    size = 1 << 17
    spectra = [unit_spectrum(x, size) for x in takes if len(x) < size // 2]
    reasons = {}
    with Progress("look for copies of held-out takes", len(rows), "clip") as progress:
        for row in rows:
            progress.advance()
            if row["source"] != "0ad-data":
                continue
            x = samples_of(corpus / row["path"])
            if game_source(row["path"]) in held:
                reasons[row["path"]] = "held out for the test scenes"
            elif digest(x) in digests:
                reasons[row["path"]] = "the same samples as a held-out recording"
            elif len(x) < size // 2:
                own = unit_spectrum(x, size).conj()
                closest = max(np.abs(np.fft.irfft(s * own)).max() for s in spectra)
                if closest > COPY:
                    reasons[row["path"]] = f"correlates with a held-out take by {closest:.2f}"
    return reasons


def stock(corpus, rows):
    """Paths of short and long recordings by kind."""
    short, long = defaultdict(list), defaultdict(list)
    for row in rows:
        kind = "ambience" if "/ambient/" in row["path"] else row["category"]
        seconds = float(row["seconds"])
        if seconds < SHORTER_THAN and kind in SHORT:
            short[kind].append(corpus / row["path"])
        elif seconds >= LONGER_THAN and kind in LONG:
            long[kind].append(corpus / row["path"])
    return short, long


def draw(rng, shelves, shares):
    kinds = [k for k in shares if shelves[k]]
    weight = np.array([shares[k] for k in kinds])
    paths = shelves[kinds[rng.choice(len(kinds), p=weight / weight.sum())]]
    return paths[rng.integers(len(paths))]


def long_clip(rng, long):
    path = draw(rng, long, LONG)
    info = soundfile.info(path)
    start = rng.random() * (info.duration - SECONDS)
    x = load_audio(path, RATE, start, SECONDS)[:SAMPLES]
    return np.pad(x, (0, SAMPLES - len(x)))


def mixed_clip(rng, short, long):
    x = long_clip(rng, long).astype(np.float64)
    x *= 0.05 / max(np.sqrt(np.square(x).mean()), 1e-4)
    for _ in range(rng.integers(3, 10)):
        event = samples_of(draw(rng, short, SHORT))
        level = 0.05 * 10 ** (rng.uniform(-5, 15) / 20)
        at = rng.integers(SAMPLES - len(event) + 1)
        x[at : at + len(event)] += event * level / max(active_rms(event), 1e-4)
    return x


def row_of_sounds(rng, short):
    x = rng.standard_normal(SAMPLES) * 10 ** rng.uniform(-5, -3)  # a noise floor: no recording is digital silence
    at = 0
    while at < SAMPLES:
        event = samples_of(draw(rng, short, SHORT))[: SAMPLES - at]
        x[at : at + len(event)] += event * 10 ** (rng.uniform(-10, 5) / 20)
        at += len(event) + int(rng.uniform(0, 0.5) * RATE)
    return x


def make_clip(number, short, long):
    rng = np.random.default_rng((SEED, number))
    kind = ("mix", "mix", "row", "long")[number % 4]
    x = {"mix": lambda: mixed_clip(rng, short, long), "row": lambda: row_of_sounds(rng, short)}.get(
        kind, lambda: long_clip(rng, long)
    )()
    return kind, x / max(1.0, np.abs(x).max())


def main(corpus, out):
    with (corpus / "pretrain.csv").open() as file:
        rows = list(csv.DictReader(file))
    reasons = left_out(corpus, rows)
    rows = [row for row in rows if row["path"] not in reasons]
    short, long = stock(corpus, rows)
    (out / "audio").mkdir(parents=True, exist_ok=True)
    with (out / "left_out.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "reason"), *sorted(reasons.items())])
    table = [("path", "seconds", "kind")]
    with Progress("write clips", CLIPS, "clip") as progress:
        for number in range(CLIPS):
            kind, x = make_clip(number, short, long)
            name = f"audio/{number:05d}.wav"
            soundfile.write(out / name, x, RATE, subtype="PCM_16")
            table.append((name, SECONDS, kind))
            progress.advance()
    with (out / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)
    print(f"{len(reasons)} recordings left out; {CLIPS} clips, {CLIPS * SECONDS / 3600:.1f} hours in {out}/clips.csv")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
