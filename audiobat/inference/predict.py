"""Recordings of any length to a table of labels: file, start, end, label, score of each window or event.

In: a model with a head, and recordings; or the scores that an earlier run kept. Windows are those of `data.windows` at
the model's rate. OUT.parts/ keeps what is done, so that a run that was killed goes on where it stopped, to the same
bytes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from audiobat.config import check
from audiobat.data.columns import Strings
from audiobat.engine.files import errors_of_writing, replacing
from audiobat.engine.ranks import launch
from audiobat.errors import AudiobatError
from audiobat.evaluation.score_file import Scores, read_scores
from audiobat.inference.journal import CHUNK_ROWS, CLIP_ID, Count, Journal, Rows, sibling
from audiobat.inference.review import make_review
from audiobat.inference.scores import ENDING, scores_in, write_scores
from audiobat.inference.scoring import ScoreTask, about
from audiobat.inference.settings import Settings
from audiobat.inference.thresholds import Threshold
from audiobat.inference.window_pass import GOES_ON, Windows, list_clips, make_table
from audiobat.inference.writers import Output, Prediction, pick_format
from audiobat.models.tagger import Tagger
from audiobat.zoo.release import load_tagger

COLUMNS = (CLIP_ID, "start", "end", "label", "score")  # of the rows in the journal


def predict(
    model: str | Path | Tagger | None,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    scores: str | Path | None = None,
    review: int | None = None,
    like: str | Path | Sequence[str | Path] | None = None,
    features: str | Path | None = None,
    top: int | None = None,
    threshold: Threshold | None = None,
    median: int | None = None,
    merge_gap: float | None = None,
    min_duration: float = 0.0,
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
    threshold after a median filter over time, also across windows, scored by the mean of its frames. A frame that
    several windows have has the mean of its scores if the windows are a whole number of frames apart; else it is taken
    from the window whose middle is nearer.

    Recordings that cannot be read are left out and listed, with the reason, in `out`.skipped.csv.

    Args:
        model: a release folder with a head, the run that made it, or a Tagger object; None where `data` is a file of
            scores.
        data: one or several of: an audio file, a .txt list of files (relative to it), a folder, a CSV or Parquet file
            with a path column, prepared shards, tars of recordings, NAME:FOLDER of a public data set; or the file that
            an earlier run wrote as `scores`, without a model: its rows are made anew and no audio is read.
        out: file to write; for Audacity and Raven with several recordings, a folder with a file for each.
        scores: .npz to keep all scores in, of every window or frame, so that rows of another threshold cost no pass.
        review: in place of a table, so many windows that are worth a person's ear, as clips in the folder `out` with a
            selection table or label tracks: those of which the model is least sure and that differ most, and none that
            its head was taught. `finetune --features` reads the answers. Without a head, those that differ most.
        like: with `review`, pick those that are most similar to these sounds.
        features: with `review`, a table that `embed` wrote of `data` with this model's encoder, so that nothing is
            computed again; None: one is made, `out`/features.npz.
        top: labels of each window, at most; None: 1 if they exclude each other, else all.
        threshold: only scores above it: a number; or a .json or .csv file of a threshold for each class, in which other
            classes keep the default. None: those of the model, if it has any and `top` is not given; else 0.3 for
            events; 0.5 for windows if several labels can hold at once and `top` is not given; else none.
        median: length of the median filter of events, in frames, odd; None: the model's own, else 3.
        merge_gap: make one event of those of a label that are at most so many seconds apart, and of neighbouring
            windows of a label; None: none.
        min_duration: drop events that are shorter, in seconds, after merging.
        format: `csv`, `parquet`, `jsonl`, `audacity` (label track) or `raven` (selection table); `auto`: by the ending
            of `out`: .csv, .parquet, .jsonl, .txt (Audacity), .selections.txt (Raven).
        window_seconds: length of a window; None: that of the windows that the head learnt from if it was made by
            `finetune --features`, else the longest clip that the model takes.
        hop_seconds: step between windows; None: likewise, else the window.
        batch_size: windows that are computed at once, at most; on a CPU no more than 20 s of audio for each thread.
        workers: threads that decode ahead; 0: none.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        overwrite: replace `out` and `scores` if they exist, which is an error otherwise.
        trust_remote_code: run the Python files that come with the model, if it has any; read them first.

    Raises:
        AudiobatError: a bad argument, a release without a head, no recordings or none that can be read, parts
            of other settings, no room on the disk, a damaged file of scores.
    """
    out, kept = Path(out), None if scores is None else Path(scores)
    if review is not None:
        if model is None:
            raise AudiobatError("--review needs a model: give --model, with a head or without.")
        unused = {"scores": scores, "top": top, "threshold": threshold, "median": median, "merge_gap": merge_gap}
        unused["min_duration"] = min_duration or None
        refuse(unused, "--review makes no table of labels: leave it out")
        return make_review(
            *(model, data, out, review),
            features=features,
            like=[like] if isinstance(like, str | Path) else like or (),
            format=format,
            window_seconds=window_seconds,
            hop_seconds=hop_seconds,
            device=device,
            trust_remote_code=trust_remote_code,
        )
    refuse({"like": like, "features": features}, "it belongs to --review, which says how many clips to pick")
    table_format = pick_format(out, format)
    settings = Settings(top, threshold, median, merge_gap, min_duration)
    if (file := scores_in(data)) is not None:
        given = {"model": model, "scores": scores, "window_seconds": window_seconds, "hop_seconds": hop_seconds}
        refuse(given, f"{file} holds what was scored already: leave it out")
        with launch("cpu") as ranks:
            if ranks.is_main:
                found = read_scores(file)
                output = Output(out, table_format, found.keys, found.about.nyquist, overwrite)
                print(write_from_scores(output, found, settings).line(out))
            ranks.barrier()
        return out
    if model is None:
        raise AudiobatError("predict needs a model: give --model, or a file of scores as --data.")
    check_kept(kept, out, overwrite)
    clips = list_clips(data)
    with launch(device) as ranks:
        tagger = load_tagger(model, trust_remote_code=trust_remote_code) if isinstance(model, str | Path) else model
        tagger.to(ranks.device).eval()
        windows = Windows.of_tagger(tagger, window_seconds, hop_seconds, batch_size, workers)
        described = about(tagger)
        output = Output(out, table_format, clips.keys, described.nyquist, overwrite)
        rule = settings.rule(described)  # errors of the settings come before the pass
        task = ScoreTask(tagger, windows.length, windows.hop, rule if kept is None else None)
        depends_on = {  # what rows depend on
            "verb": "predict",
            "model": described.model,
            "classes": hashlib.sha256("\n".join(tagger.classes).encode()).hexdigest(),
            "task": [tagger.task, tagger.multi_label],
            "scores": None if kept is None else str(kept),
        }
        if kept is None:
            depends_on |= settings.values(described)

        def write(journal: Journal) -> Count:
            if kept is not None:
                with errors_of_writing(kept, GOES_ON), replacing(kept) as beside:
                    write_scores(beside, journal.read, clips.keys, described)
                return write_from_scores(output, read_scores(kept), settings)
            rates: dict[int, int] = {}
            count = Count()
            for rows in journal.read(["rate"]):
                rates |= dict(zip(rows[CLIP_ID].tolist(), rows["rate"].tolist(), strict=True))
            chunks = count(journal.read(COLUMNS[1:]))
            output.write(
                predictions(chunks, clips.keys, tagger.classes, settings.sorts(described)),
                [clips.keys[clip_id] for clip_id in journal.broken],
                {clips.keys[clip_id]: rate for clip_id, rate in rates.items()},
            )
            return count

        make_table("predict", out, task, clips, windows, depends_on, overwrite, ranks, write)
    return out


def refuse(arguments: Mapping[str, object], why: str) -> None:
    """Raise an AudiobatError if one of the arguments is given."""
    for name, value in arguments.items():
        check(value is None, name, value, why)


def check_kept(kept: Path | None, out: Path, overwrite: bool) -> None:
    """Raise an AudiobatError unless scores may be written to `kept`."""
    if kept is None:
        return
    check(kept.suffix.lower() == ENDING, "scores", str(kept), f"name a file that ends in {ENDING}")
    if kept.exists() and not overwrite and not sibling(out, "parts").exists():
        raise AudiobatError(f"{kept} exists: choose another --scores, or replace it with --overwrite.")


def write_from_scores(output: Output, scores: Scores, settings: Settings) -> Count:
    """Write what the settings make of scores; recordings without scores could not be read."""
    about, keys, count = scores.about, scores.keys, Count()
    chunks = count(map(settings.rule(about).rows, scores.stretches(CHUNK_ROWS)))
    output.write(
        predictions(chunks, keys, about.classes, settings.sorts(about)),
        set(output.recordings) - set(keys),
        dict(zip(keys, scores.rates.tolist(), strict=True)),
    )
    return count


def predictions(
    chunks: Iterator[Rows], keys: Strings | Sequence[str], classes: Sequence[str], by_start: bool
) -> Iterator[Prediction]:
    """Rows as predictions, recording by recording; `by_start` sorts those of a recording."""
    lines = (line for rows in chunks for line in zip(*(rows[name].tolist() for name in COLUMNS), strict=True))
    for clip_id, own in itertools.groupby(lines, key=lambda line: line[0]):
        name = keys[clip_id]
        for _, start, end, label, score in sorted(own) if by_start else own:
            yield Prediction(name, start, end, classes[label], score)
