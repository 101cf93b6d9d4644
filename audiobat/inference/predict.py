"""Recordings of any length to a table of labels: file, start, end, label, score of each window or event.

In: a model with a head, and recordings. Windows are those of `data.windows` at the model's rate. OUT.parts/ keeps what
is done, so that a run that was killed goes on where it stopped, to the same bytes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from audiobat.config import check
from audiobat.data.clip_table import ClipTable
from audiobat.engine.ranks import launch
from audiobat.engine.tensors import weights_sha256
from audiobat.inference.events import FrameEvents, WindowLabels
from audiobat.inference.journal import CLIP_ID, Journal, Rows
from audiobat.inference.window_pass import Task, Windows, list_clips, make_table
from audiobat.inference.writers import Output, Prediction, pick_format
from audiobat.models.tagger import Tagger
from audiobat.zoo.release import load_tagger

MULTI_LABEL_THRESHOLD = 0.5
EVENT_THRESHOLD = 0.3  # with the median, as `metrics.frames_to_events` scores events: DCASE-2016 task 2
EVENT_MEDIAN = 3  # frames
COLUMNS = (CLIP_ID, "start", "end", "label", "score")  # of the rows in the journal


def predict(
    model: str | Path | Tagger,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    top: int | None = None,
    threshold: float | None = None,
    median: int | None = None,
    format: Literal["auto", "csv", "parquet", "jsonl", "audacity", "raven"] = "auto",
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    batch_size: int = 16,
    workers: int = 2,
    device: str = "auto",
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> Path:
    """Label every recording of `data` with a model that has a head, and write a table; returns its path, `out`.

    A head that labels clips gives rows for each window, the best label first: all labels above the threshold if several
    can hold at once, else the best. A head that labels frames gives a row for each event: a run of frames above the
    threshold after a median filter over time, also across windows, scored by the mean of its frames. Where windows
    overlap, a frame is taken from the window whose middle is nearer.

    Recordings that cannot be read are left out and listed, with the reason, in `out`.skipped.csv.

    Args:
        model: a release folder with a head, the run that made it, or a Tagger object.
        data: one or several of: an audio file, a .txt list of files (relative to it), a folder, a CSV or Parquet file
            with a path column, prepared shards, tars of recordings, NAME:FOLDER of a public data set.
        out: file to write; for Audacity and Raven with several recordings, a folder with a file for each.
        top: labels of each window, at most; None: 1 if they exclude each other, else all.
        threshold: only scores above it; None: 0.3 for events; 0.5 for windows if several labels can hold at once and
            `top` is not given; else none.
        median: length of the median filter of events, in frames, odd; None: 3.
        format: `csv`, `parquet`, `jsonl`, `audacity` (label track) or `raven` (selection table); `auto`: by the ending
            of `out`: .csv, .parquet, .jsonl, .txt (Audacity), .selections.txt (Raven).
        window_seconds: length of a window; None: that of the windows that the head learnt from if it was made by
            `finetune --features`, else the longest clip that the model takes.
        hop_seconds: step between windows; None: likewise, else the window.
        batch_size: windows that are computed at once, at most; on a CPU no more than 20 s of audio for each thread.
        workers: threads that decode ahead; 0: none.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        overwrite: replace `out` if it exists, which is an error otherwise.
        trust_remote_code: run the Python files that come with the model, if it has any; read them first.

    Raises:
        AudiobatError: a bad argument, a release without a head, no recordings or none that can be read, parts
            of other settings, no room on the disk.
    """
    out = Path(out)
    table_format = pick_format(out, format)
    clips = list_clips(data)
    with launch(device) as ranks:
        tagger = load_tagger(model, trust_remote_code=trust_remote_code) if isinstance(model, str | Path) else model
        tagger.to(ranks.device).eval()
        windows = Windows.of_tagger(tagger, window_seconds, hop_seconds, batch_size, workers)
        output = Output(out, table_format, clips.keys, tagger.sample_rate / 2, overwrite)
        task, settings = build_task(tagger, windows, top, threshold, median)
        settings |= {  # what else rows depend on
            "verb": "predict",
            "model": weights_sha256(tagger),
            "classes": hashlib.sha256("\n".join(tagger.classes).encode()).hexdigest(),
            "task": [tagger.task, tagger.multi_label],
        }

        def write(journal: Journal) -> None:
            broken = {clips.keys[clip_id] for clip_id in journal.broken}
            output.write(predictions(journal.read(), clips, tagger.classes, by_start=tagger.task == "frame"), broken)

        make_table("predict", out, task, clips, windows, settings, overwrite, ranks, write)
    return out


def build_task(
    tagger: Tagger, windows: Windows, top: int | None, threshold: float | None, median: int | None
) -> tuple[Task, dict[str, Any]]:
    """The task for the head, and those of its settings that rows depend on; what is None gets its default."""
    classes, is_frame = len(tagger.classes), tagger.task == "frame"
    check(threshold is None or 0 <= threshold <= 1, "threshold", threshold, "use 0 to 1")
    if is_frame:
        check(top is None, "top", top, "this head labels frames, use --threshold")
        median = EVENT_MEDIAN if median is None else median
        check(median > 0 and median % 2 == 1, "median", median, "use an odd number of frames, 1 for no filter")
        threshold = EVENT_THRESHOLD if threshold is None else threshold
        task: Task = FrameEvents(tagger, threshold, median, windows.length, windows.hop)
        return task, {"threshold": threshold, "median": median}
    check(median is None, "median", median, "it filters frames, and this head labels clips: leave it out")
    check(top is None or 1 <= top <= classes, "top", top, f"use 1 to {classes}, as many as the head has classes")
    if threshold is None:
        threshold = MULTI_LABEL_THRESHOLD if tagger.multi_label and top is None else -1.0
    if top is None:
        top = classes if tagger.multi_label else 1
    return WindowLabels(tagger, top, threshold), {"top": top, "threshold": threshold}


def predictions(
    chunks: Iterator[Rows], clips: ClipTable, classes: Sequence[str], by_start: bool
) -> Iterator[Prediction]:
    """The rows of the journal as predictions, recording by recording; `by_start` sorts those of a recording."""
    lines = (line for rows in chunks for line in zip(*(rows[name].tolist() for name in COLUMNS), strict=True))
    for clip_id, own in itertools.groupby(lines, key=lambda line: line[0]):
        name = clips.keys[clip_id]
        for _, start, end, label, score in sorted(own) if by_start else own:
            yield Prediction(name, start, end, classes[label], score)
