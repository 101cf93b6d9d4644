"""Test clips to listen to, of the classes that a run's best head knows best and worst: RUN/clips, for the report."""

from __future__ import annotations

import hashlib
import io
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
from audiobat.evaluation.report.curves import is_block_probe
from audiobat.evaluation.report.listening.clips import LIST, SavedClip, clips_folder, clips_json, read_saved_clips
from audiobat.evaluation.results import Result

SECONDS = 10.0  # of a clip are kept
SAMPLE_RATE = 16_000
CLASSES = 3  # best classes, and as many worst ones
GUESSES = 5  # likeliest classes that are listed with a clip

Side: TypeAlias = Literal["best", "worst"]
Pick: TypeAlias = tuple[Side, int, int, str]  # side, class, row of the clip in the scores, why it was picked


def save_clips(written: Sequence[tuple[Path, Result]], table: ClipTable) -> None:
    """Write RUN/clips for the run's best head, the first where several are best; probes of single blocks do not count.

    Of a class that the head knows best: the clip with the highest score. Of a class that it knows worst: the clip with
    the lowest score among those that have the class, and the one with the highest among those that do not. Clips that
    belong to records of earlier runs in the same folder stay.

    Args:
        written: the records of a run and their paths.
        table: the clips that their scores are of.

    Raises:
        AudiobatError: a list of an earlier run that is damaged, a clip that can no longer be read.
    """
    rivals = [pair for pair in written if not is_block_probe(pair[1].record) and known_classes(pair[1])]
    if not rivals:
        return
    values = [result.record.metrics[result.record.main_metric].value for _, result in rivals]
    path, best = rivals[int(np.argmax([-math.inf if math.isnan(value) else value for value in values]))]
    assert isinstance(best.scores, Scores)  # a task's record has no classes
    folder = clips_folder(path)
    folder.mkdir(parents=True, exist_ok=True)
    # Where a clip has a row per patch column, it counts with its highest scores.
    order = np.argsort(best.scores.keys, kind="stable")
    keys, starts = np.unique(best.scores.keys[order], return_index=True)
    scores = np.maximum.reduceat(best.scores.scores[order].astype(np.float64), starts)  # [n, C]
    targets = np.logical_or.reduceat(best.scores.targets[order], starts)
    probabilities = np.exp(-np.logaddexp(0, -scores)) if best.record.head["loss"] != "ce" else np.exp(scores)
    known = known_classes(best)
    picks = pick_clips(known, table.classes, scores, targets)
    shown = {str(keys[row]) for _, _, row, _ in picks}
    id_of = {key: clip_id for clip_id, key in enumerate(table.keys) if key in shown}
    clips = []
    for side, label, row, why in picks:
        likeliest = np.argsort(-scores[row], kind="stable")[:GUESSES]
        clips.append(
            SavedClip(
                record=path.stem,
                file=write_sound(folder, table, id_of[str(keys[row])]),
                key=str(keys[row]),
                label=table.classes[label],
                side=side,
                average_precision=known[table.classes[label]],
                why=why,
                labels=tuple(name for name, present in zip(table.classes, targets[row], strict=True) if present),
                predictions=tuple((table.classes[i], float(probabilities[row, i])) for i in likeliest),
            )
        )
    replaced = {path.stem for path, _ in written}
    kept = [clip for clip in read_saved_clips(folder) if clip.record not in replaced]
    write_atomic(folder / LIST, clips_json((*kept, *clips)))


def known_classes(result: Result) -> dict[str, float]:
    """Average precision by class, of the classes that test clips have."""
    return {name: value for name, value in result.record.per_class.items() if value is not None}


def pick_clips(
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


def write_sound(folder: Path, table: ClipTable, clip_id: int) -> str:
    """Write NAME.wav, the start of a clip, and return NAME, made of its key and a hash that keeps names apart."""
    key = table.keys[clip_id]
    name = f"{re.sub(r'[^A-Za-z0-9]+', '-', Path(key).stem)[:40]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    waveform = read_clip(table, clip_id, SAMPLE_RATE, seconds=SECONDS)
    sound = io.BytesIO()  # as libsndfile does not say why a file cannot be written
    soundfile.write(sound, waveform, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    write_atomic(folder / f"{name}.wav", sound.getvalue())
    return name
