"""Probed heads and their test clips to the clips that let one hear what the best head knows and what it does not."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiobat.data.clip import read_clip
from audiobat.data.clip_table import ClipTable
from audiobat.engine.files import write_atomic
from audiobat.evaluation.record import Scores
from audiobat.evaluation.report.clips import LIST, HeardClip, clips_folder, listed, read_heard
from audiobat.evaluation.report.curves import is_block_probe
from audiobat.probing.records import Probed

SECONDS = 10.0  # of a clip are kept
SAMPLE_RATE = 16_000
CLASSES = 3  # best ones and worst ones
GUESSES = 5

Side: TypeAlias = Literal["best", "worst"]
Pick: TypeAlias = tuple[Side, int, int, str]  # side, class, place of the clip, why


def save_clips(written: Sequence[tuple[Path, Probed]], table: ClipTable) -> None:
    """Write RUN/clips of the run's best head, the first one where several are; blocks' own probes do not count.

    Of a class it knows best, the clip that it is surest of; of one it knows worst, the clip that has the class and that
    it is least sure of, and the one without it that it is surest of. Clips of records of earlier runs stay.

    Args:
        written: the records of a run and their paths.
        table: the clips that their scores are of.

    Raises:
        AudiobatError: a list of an earlier run that is damaged, a clip that can no longer be read.
    """
    rivals = [pair for pair in written if not is_block_probe(pair[1].record) and known_classes(pair[1])]
    if not rivals:
        return
    path, best = max(rivals, key=lambda pair: main_value(pair[1]))
    folder = clips_folder(path)
    folder.mkdir(parents=True, exist_ok=True)
    keys, scores, targets = by_clip(best.scores)
    probabilities = np.exp(-np.logaddexp(0, -scores)) if best.record.head["loss"] != "ce" else np.exp(scores)
    picks = chosen(known_classes(best), table.classes, scores, targets)
    shown = {keys[place] for _, _, place, _ in picks}
    row_of = {key: row for row, key in enumerate(table.keys) if key in shown}
    clips = []
    for side, label, place, why in picks:
        likeliest = np.argsort(-scores[place], kind="stable")[:GUESSES]
        clips.append(
            HeardClip(
                record=path.stem,
                file=write_sound(folder, table, row_of[keys[place]]),
                key=keys[place],
                label=table.classes[label],
                side=side,
                average_precision=known_classes(best)[table.classes[label]],
                why=why,
                labels=tuple(name for name, there in zip(table.classes, targets[place], strict=True) if there),
                predictions=tuple((table.classes[i], float(probabilities[place, i])) for i in likeliest),
            )
        )
    replaced = {path.stem for path, _ in written}
    kept = [clip for clip in read_heard(folder) if clip.record not in replaced]
    write_atomic(folder / LIST, listed((*kept, *clips)))


def known_classes(probed: Probed) -> dict[str, float]:
    """Average precision by class, of those that test clips have."""
    return {name: value for name, value in probed.record.per_class.items() if value is not None}


def main_value(probed: Probed) -> float:
    """The main metric; minus infinity where it is undefined."""
    value = probed.record.metrics[probed.record.main_metric].value
    return -math.inf if math.isnan(value) else value


def by_clip(said: Scores) -> tuple[list[str], NDArray[np.float64], NDArray[np.bool_]]:
    """Keys, scores [n, C] and targets [n, C] of clips; of one with several rows, its patch columns, the highest."""
    order = np.argsort(said.keys, kind="stable")
    keys, starts = np.unique(said.keys[order], return_index=True)
    scores = np.maximum.reduceat(said.scores[order].astype(np.float64), starts)
    return keys.tolist(), scores, np.logical_or.reduceat(said.targets[order], starts)


def chosen(
    known: dict[str, float], classes: Sequence[str], scores: NDArray[np.float64], targets: NDArray[np.bool_]
) -> list[Pick]:
    """The classes to show, by their average precision, and clips of them, by scores and targets [n, C]."""
    ranked = sorted(known, key=lambda name: -known[name])
    best, worst = ranked[:CLASSES], ranked[CLASSES:][::-1][:CLASSES]
    picks: list[Pick] = []
    for label in map(classes.index, best):
        right = np.where(targets[:, label], scores[:, label], -np.inf)
        picks.append(("best", label, int(right.argmax()), "has the class, surest of it"))
    for label in map(classes.index, worst):
        missed = np.where(targets[:, label], scores[:, label], np.inf)
        picks.append(("worst", label, int(missed.argmin()), "has the class, least sure of it"))
        if not targets[:, label].all():
            false = np.where(targets[:, label], -np.inf, scores[:, label])
            picks.append(("worst", label, int(false.argmax()), "lacks the class, surest of it"))
    return picks


def write_sound(folder: Path, table: ClipTable, row: int) -> str:
    """KEY.wav of a clip; returns KEY."""
    key = table.keys[row]
    name = f"{re.sub(r'[^A-Za-z0-9]+', '-', Path(key).stem)[:40]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    waveform = read_clip(table, row, SAMPLE_RATE, seconds=SECONDS)
    soundfile.write(folder / f"{name}.wav", waveform, SAMPLE_RATE, subtype="PCM_16")
    return name
