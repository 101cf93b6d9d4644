"""Does the recipe `finetune/detector` beat log-mel statistics on recordings as field work has them?

    python benchmarks/field_set.py FOLDER [--seed 0] [--train-minutes 60] [--test-minutes 30] [flags of finetune]

In: the demo's takes and ambience. Out: long recordings with few events and a Raven table beside each, in FOLDER/train
and FOLDER/test; what the detector and the baseline make of the test recordings. (Needs scikit-learn.)

Training and test recordings share no take and no ambience. Events lie at known places, -5 to 15 dB above the ambience;
some classes are rare, and no recording has all of them. The baseline is logistic regression on mean, deviation and
maximum of 64 log-mel bins over a second. Both choose thresholds, and the baseline its strength and the delay of its
onsets, on training recordings alone: by cross-validation over recordings, or on those that `select.held_out` takes.

F1 of seconds: a class is there in a second in which an event of it sounds; mean over the classes of the test set. F1 of
events: a hit has the class of a true event and begins within 0.2 s of it. Intervals: resamples of whole minutes.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import audiobat
from audiobat.audio.frontends.base import build_frontend
from audiobat.audio.read import load_audio
from audiobat.cli.command import main as audiobat_command
from audiobat.config import FrontendConfig
from audiobat.data.clip_table import ClipTable
from audiobat.data.scenes import ACTIVE_DB, ACTIVE_FRAME, BED_FLOOR, BED_RMS, RATE, Stock, active_rms, load_stock
from audiobat.data.sources.read import read_annotations, read_labelled_clips
from audiobat.evaluation.metrics import average_precision, best_thresholds, macro_map_present

CLASSES = 16
LEAST_TAKES = 8  # of a class
RECORDING = 300  # seconds
PER_MINUTE = 7.0  # events
LEVEL_DB = (-5.0, 15.0)  # of an event above the ambience
FADE = RATE // 2  # samples in which one stretch of ambience gives way to the next
HEADER = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies"
HOP = 0.2  # seconds from one second of the baseline to the next
FRAMES = 50  # of its spectrogram in a second
STRENGTHS = (0.01, 0.1, 1.0, 10.0)
FOLDS = 4
COLLAR = 0.2
RESAMPLES = 500

Spans = list[tuple[int, float, float]]  # class, onset, offset


# ---- the recordings ----


def ambience(rng: np.random.Generator, beds: dict[str, list[np.ndarray]], samples: int) -> np.ndarray:
    """A bed: stretches of one or two sources, one fading into the next, at a level that drifts."""
    sources = rng.choice(sorted(beds), size=int(rng.integers(1, 3)), replace=False)
    parts = [part for source in sources for part in beds[source]]
    bed, at, ramp = np.zeros(samples), 0, np.sqrt(np.linspace(0, 1, FADE))
    while at < samples:
        part = parts[rng.integers(len(parts))].astype(np.float64)
        part = part * BED_RMS / max(BED_FLOOR, np.sqrt(np.square(part).mean())) * 10 ** (rng.uniform(-3, 3) / 20)
        if at:
            part[:FADE] *= ramp
        part[-FADE:] *= ramp[::-1]
        part = part[: samples - at]
        bed[at : at + len(part)] += part
        at += max(len(part) - FADE, 1)
    return bed


def active_span(take: np.ndarray) -> tuple[int, int]:
    """First and last sample of a take that is less than ACTIVE_DB below its loudest 20 ms."""
    power = np.array([np.square(take[at : at + ACTIVE_FRAME]).mean() for at in range(0, len(take), ACTIVE_FRAME)])
    active = np.flatnonzero(power >= power.max() * 10 ** (-ACTIVE_DB / 10))
    return int(active[0]) * ACTIVE_FRAME, min(len(take), (int(active[-1]) + 1) * ACTIVE_FRAME)


def make_set(folder: Path, seed: int, minutes: dict[str, float]) -> None:
    """Write the recordings and their tables; the same for the same arguments."""
    stocks = {split: load_stock(split, 10 * RATE) for split in minutes}
    rng = np.random.default_rng(seed)
    counts = {label: sum(len(stock.takes[label]) for stock in stocks.values()) for label in stocks["train"].takes}
    known = sorted(label for label, count in counts.items() if count >= LEAST_TAKES)
    classes = sorted(rng.choice(known, CLASSES, replace=False).tolist())
    share = rng.permutation(1 / np.sqrt(np.arange(1, CLASSES + 1)))  # the rarest is a quarter of the most frequent
    for code, (split, stock) in enumerate(stocks.items()):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for number in range(round(minutes[split] * 60 / RECORDING)):
            own = np.random.default_rng((seed, code, number))
            write_recording(folder / split / f"rec_{number:02d}", own, stock, classes, share)


def write_recording(path: Path, rng: np.random.Generator, stock: Stock, classes: list[str], share: np.ndarray) -> None:
    """Mix one recording, and write it with its Raven table."""
    mix = ambience(rng, stock.beds, RECORDING * RATE)
    here = share * (rng.random(CLASSES) < 0.7)
    events = []
    for _ in range(rng.poisson(PER_MINUTE * RECORDING / 60)):
        label = classes[rng.choice(CLASSES, p=here / here.sum())]
        take = stock.load(stock.takes[label][rng.integers(len(stock.takes[label]))][1])
        at = int(rng.integers(len(mix) - len(take)))
        first, last = active_span(take)
        mix[at : at + len(take)] += take * (BED_RMS * 10 ** (rng.uniform(*LEVEL_DB) / 20) / active_rms(take))
        events.append((round((at + first) / RATE, 3), round((at + last) / RATE, 3), label))
    mix *= 10 ** (rng.uniform(-12, 0) / 20) / np.abs(mix).max()
    soundfile.write(path.with_suffix(".wav"), mix.astype(np.float32), RATE, subtype="PCM_16")
    lines = [
        f"{i}\tSpectrogram 1\t1\t{on}\t{off}\t0.0\t8000.0\t{label}" for i, (on, off, label) in enumerate(sorted(events))
    ]
    path.with_suffix(".Table.1.selections.txt").write_text("\n".join([HEADER, *lines]) + "\n")


# ---- what is scored: for each recording, which class is there in which second, and events ----


def events_of(table: ClipTable, classes: tuple[str, ...]) -> dict[str, Spans]:
    """The events of each recording, by its name."""
    assert table.events is not None
    place = {label: classes.index(label) for label in table.classes}
    return {
        Path(table.keys[i]).name: [
            (place[table.classes[label]], on, off) for label, on, off in table.events.row(i).tolist()
        ]
        for i in range(len(table))
    }


def seconds_of(events: Spans, classes: int) -> np.ndarray:
    """[seconds, C]"""
    there = np.zeros((RECORDING, classes), bool)
    for label, onset, offset in events:
        there[int(onset) : int(np.ceil(offset)), label] = True
    return there


def hits_of(true: Spans, found: Spans, classes: int) -> np.ndarray:
    """Hits, true and found events that begin in each minute, [minutes, 3]; a hit counts where the true one is."""
    tally = np.zeros((RECORDING // 60, 3))
    for c in range(classes):
        ref, est = (sorted(on for label, on, _ in events if label == c) for events in (true, found))
        for column, onsets in ((1, ref), (2, est)):
            np.add.at(tally[:, column], [min(int(on // 60), len(tally) - 1) for on in onsets], 1)
        i = j = 0
        while i < len(ref) and j < len(est):
            if abs(ref[i] - est[j]) <= COLLAR:
                tally[min(int(ref[i] // 60), len(tally) - 1), 0] += 1
            i, j = i + (ref[i] - est[j] <= COLLAR), j + (est[j] - ref[i] <= COLLAR)
    return tally


def scores(truth: dict[str, Spans], found: dict[str, Spans], classes: int) -> dict[str, np.ndarray]:
    """Both F1, [1 + RESAMPLES], of all minutes and of resamples of them, which are the same for everyone."""
    parts, tallies = [], []
    for name, true in truth.items():
        a, b = (seconds_of(events, classes).reshape(-1, 60, classes) for events in (true, found.get(name, [])))
        parts.append(np.stack([(a & b).sum(1), a.sum(1) + b.sum(1), a.sum(1)], 1))  # [minutes, 3, C]
        tallies.append(hits_of(true, found.get(name, []), classes))
    by_class, by_event = np.concatenate(parts), np.concatenate(tallies)
    rng = np.random.default_rng(0)
    draws = [np.ones(len(by_event))]
    draws += [
        np.bincount(rng.integers(len(by_event), size=len(by_event)), minlength=len(by_event)) for _ in range(RESAMPLES)
    ]
    counts = np.stack(draws)  # [R, minutes]
    hits, either, actual = np.moveaxis(np.einsum("rm,mkc->rkc", counts, by_class), 1, 0)
    present = np.where(actual > 0, 2 * hits / np.maximum(either, 1), np.nan)
    of_events = counts @ by_event
    return {"seconds": np.nanmean(present, 1), "events": 2 * of_events[:, 0] / of_events[:, 1:].sum(1)}


def line(values: np.ndarray) -> str:
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return f"{values[0]:.3f} [{low:.3f}, {high:.3f}]"


# ---- the baseline ----


def statistics(path: Path) -> np.ndarray:
    """Mean, deviation and maximum of log-mel bins over the second that begins at each multiple of HOP: [n, 192]."""
    frontend = build_frontend(FrontendConfig(hop_length=RATE // FRAMES, mel_bins=64))
    with torch.no_grad():
        spectrogram, _ = frontend(torch.from_numpy(load_audio(path, RATE))[None], None)
    seconds = spectrogram[0].unfold(0, FRAMES, round(HOP * FRAMES))  # [n, F, 50]
    return torch.cat([seconds.mean(2), seconds.std(2), seconds.amax(2)], 1).numpy()


def regression(x: np.ndarray, y: np.ndarray, strength: float, others: list[np.ndarray]) -> list[np.ndarray]:
    """Probabilities [n, C] for other rows, from a regression for each class."""
    scaler = StandardScaler().fit(x)
    models = [LogisticRegression(C=strength, max_iter=300).fit(scaler.transform(x), own) for own in y.T]
    return [np.stack([model.predict_proba(scaler.transform(other))[:, 1] for model in models], 1) for other in others]


def runs(probabilities: np.ndarray, thresholds: np.ndarray, delay: float) -> Spans:
    """Runs of seconds above the threshold as events, whose onset lies `delay` behind the start of the first."""
    found = []
    for c, active in enumerate((probabilities > thresholds).T):
        change = np.diff(active.astype(int), prepend=0, append=0)
        for first, end in zip(np.flatnonzero(change == 1), np.flatnonzero(change == -1), strict=True):
            onset = first * HOP + delay
            found.append((c, onset, max(onset + HOP, (end - 1) * HOP + 1 - delay)))
    return found


def baseline(folder: Path, train: dict[str, Spans], test: dict[str, Spans], classes: int) -> dict[str, np.ndarray]:
    """F1 of the baseline."""
    whole = round(1 / HOP)  # rows that are a second apart
    x = {name: statistics(folder / "train" / name) for name in train}
    y = {name: seconds_of(events, classes) for name, events in train.items()}
    names = sorted(train)
    folds = [names[k::FOLDS] for k in range(FOLDS)]
    truth = torch.from_numpy(np.concatenate([y[name] for fold in folds for name in fold]))
    best: tuple[float, float, dict[str, np.ndarray]] | None = None
    for strength in STRENGTHS:
        held: dict[str, np.ndarray] = {}
        for fold in folds:
            rest = [name for name in names if name not in fold]
            features = np.concatenate([x[name][::whole] for name in rest])
            targets = np.concatenate([y[name] for name in rest])
            held |= dict(zip(fold, regression(features, targets, strength, [x[name] for name in fold]), strict=True))
        seconds = torch.from_numpy(np.concatenate([held[name][::whole] for fold in folds for name in fold]))
        value = float(macro_map_present(average_precision(seconds, truth)))
        if best is None or value > best[0]:
            best, thresholds = (value, strength, held), best_thresholds(seconds, truth).numpy()
    assert best is not None
    _, strength, held = best
    delays = np.arange(0, 1, 0.1)
    tried = [
        scores(train, {n: runs(held[n], thresholds, delay) for n in names}, classes)["events"][0] for delay in delays
    ]
    delay = float(delays[int(np.argmax(tried))])
    features, targets = (
        np.concatenate([x[name][::whole] for name in names]),
        np.concatenate([y[name] for name in names]),
    )
    outputs = regression(features, targets, strength, [statistics(folder / "test" / name) for name in test])
    events = {name: runs(own, thresholds, delay) for name, own in zip(test, outputs, strict=True)}
    of_seconds = {  # whole seconds as they are: no run of overlapping ones is as exact
        name: [(int(c), float(s), s + 1.0) for s, c in zip(*np.nonzero(own[::whole] > thresholds), strict=True)]
        for name, own in zip(test, outputs, strict=True)
    }
    print(f"baseline: strength {strength:g}, delay {delay:.1f} s")
    return {"seconds": scores(test, of_seconds, classes)["seconds"], "events": scores(test, events, classes)["events"]}


# ---- the detector ----


def detector(folder: Path, test: dict[str, Spans], classes: tuple[str, ...], flags: list[str]) -> dict[str, np.ndarray]:
    """F1 of the release that the recipe makes, with the thresholds in it."""
    began = time.monotonic()
    command = f"finetune --model bat_nano --data {folder}/train --label-column Species --out {folder}/run --overwrite"
    if audiobat_command([*command.split(), "--config", "finetune/detector", *flags]):
        raise SystemExit(1)
    trained = time.monotonic()
    predicted = audiobat.predict(folder / "run", folder / "test", folder / "found.csv", overwrite=True)
    print(f"detector: {trained - began:.0f} s of training, {time.monotonic() - trained:.0f} s of predicting")
    return scores(test, events_of(read_annotations(predicted), classes), len(classes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-minutes", type=float, default=60)
    parser.add_argument("--test-minutes", type=float, default=30)
    given, flags = parser.parse_known_args()
    make_set(given.folder, given.seed, {"train": given.train_minutes, "test": given.test_minutes})
    tables = {split: read_labelled_clips(given.folder / split, "Species") for split in ("train", "test")}
    classes = tables["train"].classes
    train, test = (events_of(tables[split], classes) for split in ("train", "test"))
    results = {
        "log-mel statistics": baseline(given.folder, train, test, len(classes)),
        "finetune/detector": detector(given.folder, test, classes, flags),
    }
    for name, found in results.items():
        print(f"{name:20} F1 of seconds {line(found['seconds'])}, of events {line(found['events'])}")
    first, second = results.values()
    apart = {measure: line(second[measure] - first[measure]) for measure in first}
    print(f"{'apart':20} F1 of seconds {apart['seconds']}, of events {apart['events']}")


if __name__ == "__main__":
    main()
