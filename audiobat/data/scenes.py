"""Demo recordings mixed into short labelled scenes: multi-label, AudioSet-like, real takes over real ambience.

In: the 554 takes of 37 sound events (folds 1-5) and the ambience that the package carries; a seed. Out: scenes with a
bed of ambience and 1 to 4 events each. Training scenes (takes of folds 1-4) and test scenes (fold 5) share no
recording.

The scenes are mixed, not recorded: say so wherever a number from them is shown.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiobat.audio.read import load_audio
from audiobat.data.clip_table import ClipTable
from audiobat.data.csv_text import write_csv
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.engine.files import write_atomic
from audiobat.errors import AudiobatError

RATE = 16_000
TEST_FOLD = 5
TEST_BEDS = {"amb_trade", "day_tropical", "wavecrash", "windleaves"}  # families under test scenes
MAX_EVENTS = 4
LEVEL_DB = (-5.0, 15.0)  # RMS of an event's active part above its bed's
BED_RMS = 0.05
BED_FLOOR = 1e-4  # a quieter stretch (one lull in a snowstorm) is scaled as if it were this loud: it is codec noise
ACTIVE_DB = 30.0  # an event is active where it is less than this below its loudest frame
ACTIVE_FRAME = 320  # 20 ms
SPLITS = ("train", "test")

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Event:
    """One take inside a scene."""

    label: str
    source: str
    start: int  # sample at which it begins
    level_db: float  # above the bed


@dataclass(frozen=True, eq=False)
class Scene:
    """A waveform [S] at 16 kHz, the recording under it and the events in it."""

    name: str
    split: str
    waveform: Samples
    bed: str  # its source
    events: tuple[Event, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Sorted names of the events."""
        return tuple(sorted(event.label for event in self.events))


@dataclass(frozen=True, eq=False)
class Stock:
    """Recordings of one split: takes by label, decoded when a scene first needs them, and beds by source."""

    takes: dict[str, list[tuple[str, str]]]  # of each label: (source, path)
    beds: dict[str, list[Samples]]
    load: Callable[[str], Samples]  # path -> samples of a take, cut to a scene's length


def demo_folder() -> Path:
    """Folder of the demo recordings inside the package (CC BY-SA 3.0; its README.md is the notice)."""
    return Path(__file__).parent / "demo"


def held_out_sources() -> set[str]:
    """`source` of every recording that test scenes are made of; pre-training must leave these out."""
    events, beds = _recordings()
    takes = events.select(_of_split(events, "test")).columns["source"]
    return {*takes, *_bed_sources(beds, "test")}


def write_scenes(
    out: str | Path, clips_train: int = 1200, clips_test: int = 400, seed: int = 0, seconds: float = 4.0
) -> Path:
    """Write scenes as 16-bit WAV into `out`/audio and return the CSV (`path,label,split`) that lists them.

    A folder that was finished with the same arguments is used again; an unfinished one is written anew.
    """
    out = Path(out)
    table, marker = out / "scenes.csv", out / "scenes.json"
    rules = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()  # scenes of an older version are mixed anew
    recipe = json.dumps({"train": clips_train, "test": clips_test, "seed": seed, "seconds": seconds, "rules": rules})
    if marker.exists() and marker.read_text() == recipe:
        return table
    (out / "audio").mkdir(parents=True, exist_ok=True)
    marker.unlink(missing_ok=True)
    lines = [("path", "label", "split")]
    for scene in make_scenes(clips_train, clips_test, seed, seconds):
        path = f"audio/{scene.name}.wav"
        sound = io.BytesIO()  # as libsndfile does not say why a file cannot be written
        soundfile.write(sound, scene.waveform, RATE, format="WAV", subtype="PCM_16")
        (out / path).write_bytes(sound.getvalue())
        lines.append((path, ";".join(scene.labels), scene.split))
    with table.open("w", newline="", encoding="utf-8") as file:
        write_csv(file, lines)
    write_atomic(marker, recipe)  # last: the folder is complete
    return table


def active_rms(samples: Samples) -> float:
    """RMS over the 20-ms frames of [S] that lie within ACTIVE_DB of the loudest one."""
    frames = np.resize(samples, (-(-len(samples) // ACTIVE_FRAME), ACTIVE_FRAME)).copy()
    frames.reshape(-1)[len(samples) :] = 0
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    active = power >= power.max() * 10 ** (-ACTIVE_DB / 10)
    return float(np.sqrt(power[active].mean()))


def make_scenes(clips_train: int, clips_test: int, seed: int = 0, seconds: float = 4.0) -> Iterator[Scene]:
    """Mix training scenes, then test scenes; scene i of a split depends only on (seed, split, i) and `seconds`."""
    if min(clips_train, clips_test) < 0 or not 0 < seconds <= 10:
        raise AudiobatError(
            f"Scenes: {clips_train} for training, {clips_test} for test, {seconds} s long: "
            "use counts of 0 or more and a length of up to 10 s."
        )
    samples = round(seconds * RATE)
    for code, (split, count) in enumerate(zip(SPLITS, (clips_train, clips_test), strict=True)):
        stock = load_stock(split, samples)
        for i in range(count):
            yield _mix(np.random.default_rng((seed, code, i)), stock, samples, f"{split}_{i:05d}", split)


def _mix(rng: np.random.Generator, stock: Stock, samples: int, name: str, split: str) -> Scene:
    bed = list(stock.beds)[rng.integers(len(stock.beds))]
    part = stock.beds[bed][rng.integers(len(stock.beds[bed]))]
    start = rng.integers(len(part) - samples + 1)
    mix = part[start : start + samples].astype(np.float64)
    mix *= BED_RMS / max(BED_FLOOR, np.sqrt(np.square(mix).mean()))
    events = []
    for label in rng.choice(list(stock.takes), size=rng.integers(1, MAX_EVENTS + 1), replace=False).tolist():
        source, path = stock.takes[label][rng.integers(len(stock.takes[label]))]
        take = stock.load(path)
        level = rng.uniform(*LEVEL_DB)
        at = int(rng.integers(samples - len(take) + 1))
        mix[at : at + len(take)] += take * (BED_RMS * 10 ** (level / 20) / active_rms(take))
        events.append(Event(label, source, at, level))
    peak = max(1.0, np.abs(mix).max())
    return Scene(name, split, (mix / peak).astype(np.float32), bed, tuple(events))


def load_stock(split: str, samples: int) -> Stock:
    """The takes, and the decoded beds of at least `samples`, of one split."""
    events, ambience = _recordings()
    takes, beds = defaultdict(list), defaultdict(list)
    assert events.labels is not None
    for i in np.flatnonzero(_of_split(events, split)).tolist():
        label = events.classes[events.labels.row(i)[0]]
        takes[label].append((events.columns["source"][i], events.path(i)))
    sources = _bed_sources(ambience, split)
    for i, source in enumerate(ambience.columns["source"]):
        if source in sources and len(bed := _load(ambience.path(i))) >= samples:
            beds[source].append(bed)
    return Stock(dict(takes), dict(beds), functools.cache(lambda path: _load(path)[:samples]))


def _load(path: str) -> Samples:
    samples = load_audio(path, RATE)
    if not samples.any():
        raise AudiobatError(f"{path} is silent: restore the demo recordings, for example by installing again.")
    return samples


def _recordings() -> tuple[ClipTable, ClipTable]:
    """All takes, and all ambience, as clip tables."""
    unlabelled = read_clips(demo_folder() / "unlabelled.csv")
    ambient = [Path(key).name.startswith("ambient_") for key in unlabelled.keys]
    return read_labelled_clips(demo_folder() / "events.csv"), unlabelled.select(ambient)


def _of_split(events: ClipTable, split: str) -> NDArray[np.bool_]:
    assert events.folds is not None
    chosen: NDArray[np.bool_] = events.folds == TEST_FOLD
    return chosen if split == "test" else ~chosen


def _bed_sources(ambience: ClipTable, split: str) -> set[str]:
    """Ambience recordings of a split. Families stay together: windleaves_10 and _11 are one recording, edited twice."""
    families = {source: Path(source).stem.rstrip("_0123456789") for source in ambience.columns["source"]}
    return {source for source, family in families.items() if (family in TEST_BEDS) == (split == "test")}
