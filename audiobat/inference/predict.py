"""Audio of any length and a release with a head to a table: file, start, end, label, score for each window or event.

Windows are those of `audio.windows` at the model's rate. OUT.parts/ keeps what is done, so that a run that was killed
goes on where it stopped, to the same bytes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from audiobat.config import check
from audiobat.data.clip_table import ClipTable
from audiobat.engine.ranks import pick_device
from audiobat.engine.run_folder import sole_use
from audiobat.engine.tensors import weights_sha256
from audiobat.inference.journal import Journal, Rows, sibling, told_when_full
from audiobat.inference.predict_rows import FrameEvents, WindowLabels
from audiobat.inference.recordings import list_clips, longest_clip
from audiobat.inference.window_pass import Cut, Task, run_pass
from audiobat.inference.writers import Prediction, Table, pick_format
from audiobat.models.tagger import Tagger
from audiobat.zoo.release import load_tagger

MULTI_LABEL_THRESHOLD = 0.5
EVENT_THRESHOLD = 0.3  # as events are scored (`metrics.frames_to_events`): DCASE-2016 task 2
EVENT_MEDIAN = 3


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
) -> Path:
    """Write what a model with a head hears in every file of `data` to the table `out`; returns its path.

    A head that labels clips gives rows for each window, best label first: all labels above the threshold where several
    may be there at once, else the best one. A head that labels frames gives a row for each event: a run of frames above
    the threshold after a median filter over time, across windows; its score is the mean of its frames'. Where windows
    overlap, each gives the frames nearer to its own middle.

    Files that cannot be read are listed, with the reason, in `out`.skipped.csv.

    Args:
        model: a release folder with a head, the run that made it, or a Tagger object.
        data: one or several of: an audio file, a .txt list of files (relative to it), a folder, a CSV or Parquet file
            with a path column, prepared shards, NAME:FOLDER of a public data set.
        out: file to write; for Audacity and Raven with several recordings, a folder with a file for each.
        top: labels of each window, at most; None: one if classes exclude each other, else all.
        threshold: only scores above it; None: 0.3 for events; 0.5 for windows where several labels may be there at
            once and `top` is not given; else none.
        median: frames under the filter of events, odd; None: 3.
        format: `csv`, `parquet`, `jsonl`, `audacity` (label track) or `raven` (selection table); `auto`: by the ending
            of `out`: .csv, .parquet, .jsonl, .txt (Audacity), .selections.txt (Raven).
        window_seconds: length of a window; None: the model's longest clip.
        hop_seconds: step between windows; None: the window.
        batch_size: windows that are computed at once.
        workers: threads that decode ahead; 0: none.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        overwrite: replace `out`, which is an error if it exists otherwise.

    Raises:
        AudiobatError: a bad argument, a release without a head, nothing to hear, more than 5% of the files unreadable,
            parts of other settings, no room on the disk.
    """
    out, where = Path(out), pick_device(device)
    form = pick_format(out, format)
    clips = list_clips(data)
    tagger = load_tagger(model) if isinstance(model, str | Path) else model
    tagger.to(where).eval()
    window = longest_clip(tagger.encoder) if window_seconds is None else window_seconds
    cut = Cut(tagger.sample_rate, window, window if hop_seconds is None else hop_seconds, batch_size, workers)
    table = Table(out, form, clips.keys, tagger.sample_rate / 2, overwrite)
    task, settings = build_task(tagger, cut, top, threshold, median)
    with told_when_full(out), sole_use(sibling(out, "parts")):
        journal = Journal(sibling(out, "parts"), clips, settings | model_settings(tagger, cut), overwrite)
        run_pass("predict", task, clips, cut, journal, where, sibling(out, "skipped.csv"))
        broken = {clips.keys[row] for row in journal.broken}
        table.write(predictions(journal.read(), clips, tagger.classes, by_start=tagger.task == "frame"), broken)
        journal.close()
    return out


def build_task(
    tagger: Tagger, cut: Cut, top: int | None, threshold: float | None, median: int | None
) -> tuple[Task, dict[str, Any]]:
    """What to do with windows, and what of it rows depend on."""
    classes, is_frame = len(tagger.classes), tagger.task == "frame"
    check(threshold is None or 0 <= threshold <= 1, "threshold", threshold, "use 0 to 1")
    if is_frame:
        check(top is None, "top", top, "this head labels frames, use --threshold")
        median = EVENT_MEDIAN if median is None else median
        check(median > 0 and median % 2 == 1, "median", median, "use an odd number of frames, 1 for no filter")
        threshold = EVENT_THRESHOLD if threshold is None else threshold
        task: Task = FrameEvents(tagger, threshold, median, cut.window, cut.hop)
        return task, {"threshold": threshold, "median": median}
    check(median is None, "median", median, "it filters frames, and this head labels clips: leave it out")
    check(top is None or 1 <= top <= classes, "top", top, f"use 1 to {classes}, as many as the head has classes")
    if threshold is None:
        threshold = MULTI_LABEL_THRESHOLD if tagger.multi_label and top is None else -1.0
    if top is None:
        top = classes if tagger.multi_label else 1
    return WindowLabels(tagger, top, threshold), {"top": top, "threshold": threshold}


def model_settings(tagger: Tagger, cut: Cut) -> dict[str, Any]:
    """What else rows depend on, besides the audio."""
    classes = hashlib.sha256("\n".join(tagger.classes).encode()).hexdigest()
    return {
        "verb": "predict",
        "model": weights_sha256(tagger),
        "classes": classes,
        "task": [tagger.task, tagger.multi_label],
        "window_seconds": cut.window_seconds,
        "hop_seconds": cut.hop_seconds,
    }


def predictions(
    chunks: Iterator[Rows], clips: ClipTable, classes: Sequence[str], by_start: bool
) -> Iterator[Prediction]:
    """Rows of the journal as predictions, recording by recording; `by_start`: those of each in order of their start."""
    plain = (row for rows in chunks for row in zip(*(rows[name].tolist() for name in ("row", *COLUMNS)), strict=True))
    for clip, own in itertools.groupby(plain, key=lambda row: row[0]):
        name = clips.keys[clip]
        for _, start, end, label, score in sorted(own) if by_start else own:
            yield Prediction(name, start, end, classes[label], score)


COLUMNS = ("start", "end", "label", "score")
