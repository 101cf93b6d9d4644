"""`audiobat evaluate`: predictions beside truth to numbers with intervals, tables, and clips of the worst errors.

In: two sources of annotations, or a file of `predict --scores` as the predictions. Out: a folder, described in
`evaluation/detections/result.py`, and a table in the terminal.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

from audiobat.audio.read import audio_duration, open_audio
from audiobat.data.clip_table import ClipTable
from audiobat.data.sources.read import read_annotations
from audiobat.engine.files import replacing
from audiobat.errors import AudiobatError, name_some
from audiobat.evaluation.detections.align import Pair, Side, align, side_of
from audiobat.evaluation.detections.conventions import find_convention
from audiobat.evaluation.detections.event_list import Floats
from audiobat.evaluation.detections.result import JSON, DetectionResult, ErrorEvent, first_of_each, write_result
from audiobat.evaluation.detections.run import behind_end, doubled, evaluate_pair, known_lengths
from audiobat.evaluation.detections.show import show
from audiobat.inference.kept_scores import KeptScores
from audiobat.inference.scores import scores_in
from audiobat.inference.thresholds import Threshold, pick_thresholds

AROUND = 0.5  # seconds of a clip before and after its event
LONGEST = 10.0  # seconds of a clip
SHOWN = 5  # labels in a note


def evaluate(
    predictions: str | Path,
    truth: str | Path,
    out: str | Path,
    *,
    convention: Literal["ours", "sed_eval", "hear"] = "ours",
    segment_seconds: float | None = None,
    onset_collar: float | None = None,
    offset_collar: float | None = None,
    offset_share: float | None = None,
    threshold: Threshold | None = None,
    labels: Sequence[str] | None = None,
    label_column: str | None = None,
    background: tuple[str, ...] = (),
    map: str | Path | None = None,
    clips: int = 20,
    seed: int = 0,
    overwrite: bool = False,
) -> DetectionResult:
    """Measure predictions against truth, print a table, and write the numbers and the worst errors into `out`.

    Recordings are matched by their names, from the end: `a.wav` and `site/a.wav` are one unless another `a.wav` is
    there. A recording without predictions is one in which nothing was detected; one that only predictions have is left
    out, and told. Labels are matched by name; a label that truth never has counts as false alarms.

    Args:
        predictions: a table of `audiobat predict` in any of its forms, annotations of any other form, or the .npz file
            that `audiobat predict` wrote as `--scores`, for curves over all thresholds.
        truth: annotations: a list of events, a folder of recordings with annotation files, a clip list, class folders.
        out: folder to write.
        convention: who counts so: `ours`, `sed_eval`, `hear`; docs/evaluate.md has the differences.
        segment_seconds: length of a segment; None: 1.
        onset_collar: seconds between the onsets of a true event and its detection, at most; None: 0.2.
        offset_collar: seconds between their offsets, at most; None: 0.2.
        offset_share: or this share of the true event's length, if that is more; None: 0.2, in `sed_eval` 0.5.
        threshold: leaves out predictions with a score of this or less: a number, or a .json or .csv file of one for
            each label. None: of a table none is left out; of a file of scores, as `audiobat predict` does by default.
        labels: the labels to evaluate; None: all that either side has.
        label_column: the column of the truth that holds the labels.
        background: labels of the truth that are no event.
        map: a CSV of columns `from` and `to` that renames labels of both sides.
        clips: sounds of the worst misses, and of the worst false alarms, at most, where the recordings are here.
        seed: of the resamples behind intervals.
        overwrite: replace `out` if it exists, which is an error otherwise.

    Raises:
        AudiobatError: a source that cannot be read, no recording or no label in common, names that may mean several
            recordings, truth without any event, a bad argument, `out` exists.
    """
    out = Path(out)
    if out.exists() and not overwrite:
        raise AudiobatError(f"{out} exists: choose another --out, or replace it with --overwrite.")
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / JSON).is_file()):
        raise AudiobatError(f"--out {out} is there and no folder of an evaluation: name another.")
    if clips < 0:
        raise AudiobatError(f"--clips is {clips}: use 0 or more.")
    settings = find_convention(
        convention,
        segment_seconds=segment_seconds,
        onset_collar=onset_collar,
        offset_collar=offset_collar,
        offset_share=offset_share,
    )
    kept = KeptScores(predictions, threshold, map) if scores_in(predictions) is not None else None
    true = read_annotations(truth, label_column, background, map)
    true_side = side_of(true, str(truth))
    if kept is not None:
        predicted, predicted_side = None, kept.side(settings)
    else:
        predicted = read_annotations(predictions, label_map=map)
        predicted_side = _above(side_of(predicted, str(predictions)), threshold, predictions)
    pair = align(true_side, predicted_side, labels)
    audio = [_audio_of(pair, i, true, predicted) for i in range(len(pair.keys))]
    lengths = _lengths(pair, true, audio)
    seconds = known_lengths(pair, lengths, settings)
    result = evaluate_pair(
        pair,
        seconds,
        settings,
        seed,
        sweep=None if kept is None else kept.sweep(pair, seconds, settings),
        predictions=str(predictions),
        truth=str(truth),
        threshold=None if threshold is None else str(threshold),
        audio=audio,
        notes=[*true_side.notes, *predicted_side.notes, *_split_notes(true), *_notes(pair, lengths)],
    )
    with replacing(out) as folder:
        folder.mkdir(parents=True)
        result = replace(result, errors=_write_clips(result, folder, clips))
        write_result(result, folder, clips)
    show(result)
    sounds = len({error.clip for error in result.errors} - {None})
    heard = f"the sounds of {sounds} errors" if sounds else "no sounds"
    if not any(audio):
        heard += ", as no recording lies beside truth or predictions"
    print(f"{out} has the numbers, tables, and {heard}; audiobat report {out} makes a page of it.")
    return result


def _above(side: Side, threshold: Threshold | None, path: str | Path) -> Side:
    """The side without the events whose score is the threshold of their label or less."""
    if threshold is None:
        return side
    events = side.events
    if events.score is None:
        raise AudiobatError(f"--threshold {threshold} needs scores, and {path} has none: leave it out.")
    least = pick_thresholds(threshold, side.classes, [-math.inf] * len(side.classes), of_model=False)
    return replace(side, events=events.take(events.score > least[events.label]))


def _split_notes(truth: ClipTable) -> list[str]:
    """A sentence where the truth says which recordings are for training, as numbers on those are too good."""
    splits = set() if truth.splits is None else set(truth.splits.tolist())
    if splits <= {"test"}:
        return []
    return [f"The truth has recordings of the splits {', '.join(sorted(splits))}: all of them are evaluated."]


def _notes(pair: Pair, lengths: Floats) -> list[str]:
    """Sentences on what the two sides do not share, and on what is odd."""
    notes = []
    if pair.left_out:
        such = f"such as {pair.left_out[0]}"
        notes.append(f"Recordings of the predictions without truth, left out: {len(pair.left_out):,}, {such}.")
    if silent := int((pair.predicted_ids < 0).sum()):
        notes.append(f"Recordings of the truth without predictions, where nothing was detected: {silent:,}.")
    for names, side, rest in (
        (pair.only_predicted, "predictions have", "all false alarms; --labels can leave them out"),
        (pair.only_true, "truth has", "all missed"),
    ):
        if names:
            events = f"events: {sum(names.values()):,}, {rest}"
            notes.append(f"Labels that only the {side}: {name_some(names, SHOWN)} ({events}).")
    if not pair.timed:
        return notes
    for count, what in zip(behind_end(pair, lengths), ("True events", "Detections"), strict=True):
        if count:
            notes.append(f"{what} that begin behind the end of their recording: {count:,}.")
    if twice := doubled(pair):
        notes.append(f"True events that begin while another one of their label lasts, each of which counts: {twice:,}.")
    return notes


def _audio_of(pair: Pair, recording: int, truth: ClipTable, predicted: ClipTable | None) -> str | None:
    """The file of a recording, if it is here."""
    for table, ids in ((truth, pair.truth_ids), (predicted, pair.predicted_ids)):
        clip_id = int(ids[recording])
        if table is None:
            continue
        whole = table.offsets is None and table.begins is None
        if clip_id >= 0 and whole and "://" not in (path := table.path(clip_id)) and os.path.isfile(path):
            return path
    return None


def _lengths(pair: Pair, truth: ClipTable, audio: Sequence[str | None]) -> Floats:
    """Seconds of each recording, from the truth's table or the file; NaN: not known."""
    lengths = np.full(len(pair.keys), math.nan)
    for i, path in enumerate(audio):
        if truth.seconds is not None:
            lengths[i] = truth.seconds[pair.truth_ids[i]]
        if math.isnan(lengths[i]) and path is not None:
            try:
                lengths[i] = audio_duration(path)[0]
            except AudiobatError:  # what is no sound has no length; the numbers do not need one
                continue
    return lengths


def _write_clips(result: DetectionResult, folder: Path, most: int) -> list[ErrorEvent]:
    """Write sounds of the worst errors of each kind; returns all errors, those with their clips."""
    places = {key: path for key, path in zip(result.pair.keys, result.audio, strict=True) if path is not None}
    clips: dict[ErrorEvent, ErrorEvent] = {}
    for number, error in enumerate(first_of_each(result.errors, most), start=1):
        if error.file not in places:
            continue
        name = f"clips/{number:03d}_{error.kind.replace(' ', '_')}.wav"
        start = max(0.0, error.start - AROUND)
        seconds = min(LONGEST, error.end + AROUND - start)
        try:
            with open_audio(places[error.file]) as file:
                samples = file.read(round(start * file.rate), max(1, round(seconds * file.rate)))
                rate = file.rate
        except AudiobatError:
            continue
        if not len(samples):
            continue
        (folder / "clips").mkdir(exist_ok=True)
        soundfile.write(folder / name, np.clip(samples, -1, 1), rate, subtype="PCM_16")
        clips[error] = replace(error, clip=name, clip_start=start)
    return [clips.get(error, error) for error in result.errors]
