"""A folder as `audiobat evaluate` writes it: a few recordings with noise, true events and detections with scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from audiobat.data.csv_text import csv_text

RATE = 8_000
CLASSES = ("bell_ringing", "goat", "horn")
Row = tuple[str, float, float, str, float | None]  # file, start, end, label, score


def value(number: float | None) -> dict[str, Any]:
    """A number with an interval."""
    return {"value": number, "low": number and number - 0.05, "high": number and number + 0.05}


def metric(number: float) -> dict[str, Any]:
    return {**value(number), "definition": "as the test has it", "sd": None, "interval": "halves"}


def shares_time(one: Row, other: Row) -> bool:
    """Whether two events of one recording and label share time."""
    return one[0] == other[0] and one[3] == other[3] and min(one[2], other[2]) - max(one[1], other[1]) > 1e-9


def ratios(truth: int, predicted: int, found: int, right: int) -> dict[str, Any]:
    precision, recall = right / predicted if predicted else 0.0, found / truth if truth else None
    f1 = None if recall is None else 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"f1": f1, "precision": precision, "recall": recall}


def random_events(seed: int, files: dict[str, float], classes: tuple[str, ...]) -> tuple[list[Row], list[Row]]:
    """True events, and detections that find some of them."""
    rng = np.random.default_rng(seed)
    truth: list[Row] = []
    found: list[Row] = []
    for file, seconds in files.items():
        for _ in range(int(seconds / 2)):
            start = float(rng.uniform(0, seconds - 3.5))
            one = (file, round(start, 3), round(start + float(rng.uniform(0.2, 3.4)), 3), str(rng.choice(classes)))
            truth.append((*one, None))
            if rng.random() < 0.7:
                label = str(rng.choice(classes)) if rng.random() < 0.2 else one[3]
                moved = [round(max(0.0, time + float(rng.normal(0, 0.2))), 3) for time in one[1:3]]
                found.append((file, moved[0], max(moved[1], moved[0] + 0.05), label, round(float(rng.random()), 4)))
    return truth, found


def write_evaluation(
    folder: Path,
    truth: list[Row],
    found: list[Row],
    files: dict[str, float],
    classes: tuple[str, ...] = CLASSES,
    sounds: bool = True,
) -> Path:
    """Write evaluation.json, events.csv, a clip, and the recordings of noise in a folder beside; returns `folder`."""
    folder.mkdir(parents=True)
    (folder / "clips").mkdir()
    rng = np.random.default_rng(0)
    audio: dict[str, str | None] = dict.fromkeys(files)
    for number, (file, seconds) in enumerate(files.items() if sounds else ()):
        path = folder.parent / "sounds" / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(round(seconds * RATE)), RATE)
        audio[file] = str(path)
    soundfile.write(folder / "clips" / "001_miss.wav", 0.1 * rng.standard_normal(2 * RATE), RATE)
    good = [
        [any(shares_time(one, other) for other in others) for one in ones]
        for ones, others in ((truth, found), (found, truth))
    ]
    lines = []
    for side, events, right, words in (
        ("truth", truth, good[0], ("missed", "found")),
        ("predicted", found, good[1], ("wrong", "right")),
    ):
        lines += [[*one, side, words[fine], None] for one, fine in zip(events, right, strict=True)]
    lines.sort(key=lambda line: line[:2])
    head = ["file", "start", "end", "label", "score", "side", "result", "confused_with"]
    (folder / "events.csv").write_text(csv_text([head, *lines]), encoding="utf-8")

    def counts(column: int, wanted: str) -> dict[str, int]:
        own = [
            [fine for one, fine in zip(e, g, strict=True) if one[column] == wanted]
            for e, g in zip((truth, found), good, strict=True)
        ]
        return {"truth": len(own[0]), "predicted": len(own[1]), "found": sum(own[0]), "right": sum(own[1])}

    thresholds = [0.0, 0.25, 0.5, 0.75]
    curve = {part: [0.4, 0.6, 0.5, None] for part in ("f1", "precision", "recall")}
    per_class = {}
    for label in classes:
        own = counts(3, label)
        shares = {part: value(number) for part, number in ratios(**own).items()}
        per_class[label] = {**own, **shares, "average_precision": value(0.5)}
    names = ("f1_micro", "precision_micro", "recall_micro", "f1_macro", "error_rate", "map")
    level = {
        "definition": "as the test has it",
        "metrics": {name: metric(0.5) for name in names},
        "per_class": per_class,
        "curve": {"thresholds": thresholds, "micro": curve, "macro": curve, "classes": dict.fromkeys(classes, curve)},
    }
    miss = next((one for one, fine in zip(truth, good[0], strict=True) if not fine), None)
    errors = []
    if miss is not None:
        where = {"file": miss[0], "start": miss[1], "end": miss[2], "label": miss[3], "score": None}
        other = {"confused_with": classes[0], "clip": "clips/001_miss.wav", "clip_start": miss[1] - 0.5}
        errors = [
            {"kind": "miss", **where, **other},
            {"kind": "false alarm", **where, **other, "clip": None, "score": 0.5},
        ]
    plain = {
        "format": "audiobat-evaluation-1",
        "predictions": "runs/found.csv",
        "truth": "truth.csv",
        "convention": {"name": "ours", "segment_seconds": 1.0, "slack": 1e-6}
        | dict.fromkeys(("onset_collar", "offset_collar", "offset_share"), 0.2),
        "threshold": None,
        "classes": list(classes),
        "recordings": {"evaluated": len(files), "seconds": sum(files.values()), "silent": [], "left_out": []},
        "events": {"truth": len(truth), "predicted": len(found)},
        "only_predicted": {},
        "only_true": {classes[-1]: 2},
        "notes": ["Something was odd."],
        "intervals": {"unit": "stretches of 60 s", "units": 4},
        "levels": {"clip": {**level, "curve": None}, "overlap": level},
        "thresholds": dict.fromkeys(classes[1:], 0.25),
        "per_recording": [
            {
                "file": file,
                "audio": audio[file],
                "seconds": seconds,
                "levels": {"overlap": {**counts(0, file), **ratios(**counts(0, file))}},
            }
            for file, seconds in files.items()
        ],
        "confusion": {
            "labels": [*classes, "background"],
            "counts": (np.arange((len(classes) + 1) ** 2).reshape(len(classes) + 1, -1) % 7).tolist(),
        },
        "errors": errors,
    }
    (folder / "evaluation.json").write_text(json.dumps(plain), encoding="utf-8")
    return folder
