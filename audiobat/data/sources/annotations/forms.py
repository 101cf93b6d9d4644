"""The tables of other programs to annotations: which of their columns hold the file, the times, the label, the score.

| form | program |
|---|---|
| Raven | Raven Pro and Lite, BirdNET-Analyzer's `--rtype table`, opensoundscape's and our own selection tables |
| BirdNET | BirdNET-Analyzer's CSV |
| BirdNET, R | its older versions' table for R |
| Kaleidoscope | id.csv and cluster.csv of Kaleidoscope Pro, and what BirdNET-Analyzer writes for it |
| predictions | what `audiobat predict` writes as CSV, Parquet or JSON lines |
| boxes | opensoundscape's BoxedAnnotations |
| sequence | crowsetta's simple-seq and generic-seq |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from audiobat.data.sources.annotations.rows import (
    Annotations,
    Row,
    check_span,
    number_of,
    parse_score,
    parse_seconds,
)
from audiobat.data.sources.annotations.text_table import TextTable
from audiobat.errors import AudiobatError, did_you_mean

NO_CALL = "nocall"  # BirdNET-Analyzer's row of a recording in which it found nothing
PREDICTIONS = "predictions"
IN_FILE = "file offset (s)"
SAME = ("begin path", "begin file", "begin time (s)", "end time (s)", IN_FILE)  # in both views of a selection


@dataclass(frozen=True)
class Form:
    """The columns of one program's tables, in lower case."""

    name: str
    onset: str
    offset: str  # its end, or its duration
    labels: tuple[str, ...]  # any of these: the first that holds something
    files: tuple[tuple[str, ...], ...] = ()  # any of these: columns whose cells, joined by /, name the recording
    score: tuple[str, ...] = ()
    lasts: bool = False  # whether `offset` is a duration

    def fits(self, names: Sequence[str]) -> bool:
        """Whether a header has both times, and what tells this form from those that share its times."""
        named = {name for group in self.files for name in group}
        return {self.onset, self.offset} <= set(names) and bool((named | set(self.labels)) & set(names))


RAVEN = Form(
    "Raven",
    *("begin time (s)", "end time (s)"),
    labels=("label", "annotation", "species", "common name"),
    files=(("begin path",), ("begin file",), ("audio_file",)),
    score=("score", "confidence"),
)
FORMS = (
    Form(
        "BirdNET",
        *("start (s)", "end (s)"),
        labels=("common name", "scientific name"),
        files=(("file",),),
        score=("confidence",),
    ),
    Form(
        "BirdNET, R",
        *("start", "end"),
        labels=("common_name", "scientific_name"),
        files=(("filepath",),),
        score=("confidence",),
    ),
    Form(
        "Kaleidoscope",
        *("offset", "duration"),
        labels=("manual id", "auto id", "top1match", "common_name"),
        files=(("indir", "folder", "in file"),),
        score=("confidence",),
        lasts=True,
    ),
    Form(PREDICTIONS, "start", "end", labels=("label",), files=(("file",),), score=("score",)),
    Form("boxes", "start_time", "end_time", labels=("annotation",), files=(("audio_file",),)),
    Form("sequence", "onset_s", "offset_s", labels=("label",), files=(("notated_path",),)),
)


def form_of(names: Sequence[str]) -> Form | None:
    """The form of a table with these columns, in lower case; None if it is of none."""
    if {RAVEN.onset, RAVEN.offset} <= set(names):
        return RAVEN
    return next((form for form in FORMS if form.fits(names)), None)


def rows_of(table: TextTable, form: Form, label_column: str | None = None) -> Annotations:
    """The annotations of a table.

    Args:
        table: its cells.
        form: which columns they are in.
        label_column: the column that holds the class; None: the one that the form has.

    Raises:
        AudiobatError: a row without times, without a label, with times that are no numbers or span nothing; no column
            of labels, or several that may be meant.
    """
    path = table.path
    named = next((group for group in form.files if set(group) <= set(table.columns)), ())
    parts = [table.columns[name] for name in named]
    files = [_path(cells) for cells in zip(*parts, strict=True)] if parts else [""] * len(table.lines)
    if not table.lines:
        return Annotations(path, form.name, [])
    onsets, offsets = table.columns[form.onset], table.columns[form.offset]
    in_file = table.columns.get(IN_FILE) if form is RAVEN else None
    labels = _labels(table, form, label_column)
    score, scores = next(((name, table.columns[name]) for name in form.score if name in table.columns), ("", None))
    if form is RAVEN and scores is not None and any(cell and number_of(cell) is None for cell in scores):
        scores = None  # the word of whoever annotated on how sure they were
    selections = table.columns.get("selection", [""] * len(table.lines))
    rows: list[Row] = []
    views: dict[tuple[str, ...], str] = {}  # selections, and the view that showed each first
    for i, line in enumerate(table.lines):
        if not (onsets[i] or offsets[i] or labels[i]) and not selections[i]:
            continue  # a recording without events, as opensoundscape writes it
        onset = parse_seconds(path, line, form.onset, onsets[i])
        offset = parse_seconds(path, line, form.offset, offsets[i]) + (onset if form.lasts else 0.0)
        if in_file is not None and in_file[i]:
            # Begin and End Time go on over all files of a sequence; the offset is that in the row's own file.
            start = parse_seconds(path, line, IN_FILE, in_file[i])
            onset, offset = start, start + offset - onset
        check_span(path, line, onset, offset)
        if form is RAVEN and (_is_shown_before(table, i, views) or _is_no_call(table, i)):
            continue
        if not labels[i]:
            raise AudiobatError(
                f"{path}, row {line}: the event has no label: name its class, remove the row, or choose another column "
                "with --label-column."
            )
        value = math.nan if scores is None else parse_score(path, line, score, scores[i])
        rows.append(Row(files[i], onset, offset, labels[i], value, line))
    return Annotations(path, form.name, rows, tuple(dict.fromkeys(filter(None, files))))


def _labels(table: TextTable, form: Form, label_column: str | None) -> list[str]:
    """The class of each row, from the column that is asked for, or the only one of the form's that holds anything."""
    names = ", ".join(filter(None, table.names))
    if label_column is not None:
        if (cells := table.find(label_column)) is None:
            guess = did_you_mean(label_column, table.names)
            raise AudiobatError(f"{table.path} has no column {label_column!r}{guess}: it has {names}.")
        return cells
    filled = {name: cells for name in form.labels if any(cells := table.columns.get(name, []))}
    if form is not RAVEN:
        filled = dict(list(filled.items())[:1])
    if len(filled) == 1:
        return list(*filled.values())
    if any(name in table.columns for name in form.labels) and not filled:
        return [""] * len(table.lines)
    if filled:
        raise AudiobatError(f"{table.path} has labels in {' and in '.join(filled)}: choose one with --label-column.")
    raise AudiobatError(
        f"{table.path} does not say which column has the labels (it has {names}): name it with --label-column."
    )


def _is_shown_before(table: TextTable, i: int, views: dict[tuple[str, ...], str]) -> bool:
    """Whether Raven shows row i in another view of the same selection: a waveform and a spectrogram make two rows."""
    view, selection = table.columns.get("view"), table.columns.get("selection")
    if view is None or selection is None:
        return False
    same = tuple(cells[i] for name in ("selection", *SAME) if (cells := table.columns.get(name)) is not None)
    return views.setdefault(same, view[i]) != view[i]


def _is_no_call(table: TextTable, i: int) -> bool:
    """Whether row i is that which BirdNET-Analyzer writes where it found nothing."""
    codes = [table.columns.get(name) for name in ("common name", "species code")]
    return all(cells is not None and cells[i] == NO_CALL for cells in codes)


def _path(parts: Sequence[str]) -> str:
    """The path of a recording, from Windows too."""
    return "/".join(
        part.replace("\\", "/").strip("/") if at else part.replace("\\", "/").rstrip("/")
        for at, part in enumerate(parts)
        if part
    )
