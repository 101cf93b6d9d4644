"""Predictions to files: a CSV, JSON-lines or Parquet table, or a label track or selection table for each recording.

Audacity: tab-separated start, end, label. Raven: tab-separated, columns under Raven Pro's names, selections in view 1.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal, NamedTuple, cast, get_args

from audiobat.data.columns import Strings
from audiobat.data.csv_text import write_csv as write_rows
from audiobat.engine.files import replacing, restore
from audiobat.errors import AudiobatError, did_you_mean
from audiobat.inference.journal import is_finished

Format = Literal["csv", "parquet", "jsonl", "audacity", "raven"]

ENDINGS: dict[str, Format] = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".txt": "audacity"}
RAVEN_ENDING = ".selections.txt"  # as Raven names its tables
TRACKS: dict[str, str] = {"audacity": ".txt", "raven": RAVEN_ENDING}  # one file a recording
BOX_COLUMNS = ("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)")
RAVEN_COLUMNS = (*BOX_COLUMNS, "Begin File", "Label", "Score")
CHUNK_ROWS = 4096  # in a row group of Parquet


class Prediction(NamedTuple):
    """A row of the table; the fields are its columns."""

    file: str
    start: float  # seconds
    end: float
    label: str
    score: float


def pick_format(out: Path, name: str) -> Format:
    """The format called `name` or, if that is `auto`, the one that the ending of `out` names."""
    names = ("auto", *get_args(Format))
    if name not in names:
        raise AudiobatError(f"--format {name} is unknown{did_you_mean(name, names)}: choose one of {', '.join(names)}.")
    if name != "auto":
        return cast(Format, name)
    if out.name.lower().endswith(RAVEN_ENDING):
        return "raven"
    if out.suffix.lower() not in ENDINGS:
        known_endings = ", ".join([*ENDINGS, RAVEN_ENDING])
        raise AudiobatError(f"--out {out} ends in {out.suffix or 'nothing'}: use one of {known_endings}, or --format.")
    return ENDINGS[out.suffix.lower()]


@dataclass(frozen=True)
class Output:
    """Where predictions are written, and in which format.

    Raises:
        AudiobatError: `out` exists and `overwrite` is not given, or is something else than this would write; two
            recordings would share a file; pyarrow is missing.
    """

    out: Path
    format: Format
    recordings: Strings | Sequence[str]  # the names of all
    nyquist: float  # Hz: half the model's rate, above which it hears nothing
    overwrite: bool

    def __post_init__(self) -> None:
        out = self.out
        if self.format == "parquet" and importlib.util.find_spec("pyarrow") is None:
            raise AudiobatError(
                f"--out {out} needs pyarrow: pip install 'audiobat[parquet]', or write CSV or JSON lines."
            )
        if is_finished(out) and not self.overwrite:
            raise AudiobatError(f"{out} exists: choose another --out, or replace it with --overwrite.")
        if out.exists() and out.is_dir() != self.is_folder:
            wanted = "a folder for its recordings" if self.is_folder else "a file"
            raise AudiobatError(f"--out {out} is {'a folder' if out.is_dir() else 'a file'}: name {wanted}.")
        for path in out.rglob("*") if self.is_folder else ():
            if path.is_file() and not path.name.endswith(TRACKS[self.format]):
                raise AudiobatError(f"--out {out} holds {path.name}, which is no {self.format} file: name another.")
        first: dict[PurePath, str] = {}
        for name in self.recordings if self.is_folder else ():
            if first.setdefault(self.track(name), name) != name:
                raise AudiobatError(
                    f"{name} and {first[self.track(name)]} would share a file: choose another --format."
                )
        out.parent.mkdir(parents=True, exist_ok=True)

    @property
    def is_folder(self) -> bool:
        """Whether `out` is a folder with a file for each recording: for formats whose files are of one recording."""
        return self.format in TRACKS and len(self.recordings) > 1

    def track(self, recording: str) -> PurePath:
        """The file of a recording, relative to the folder `out`."""
        parts = [part for part in PurePath(recording).parts if part not in (PurePath(recording).anchor, "..")]
        return PurePath(*parts[:-1], parts[-1] + TRACKS[self.format])

    def write(self, predictions: Iterator[Prediction], broken: Iterable[str], rates: Mapping[str, int]) -> None:
        """Write all predictions, which come recording by recording; the files are replaced together, or not at all.

        Args:
            predictions: of recordings in their order.
            broken: names of the recordings that could not be read.
            rates: recording to its own sample rate, Hz, of those that have predictions.
        """
        restore(self.out)  # a folder that an earlier run, killed while it replaced it, left aside
        with replacing(self.out) as beside:
            if self.is_folder:
                self._write_tracks(beside, predictions, set(broken), rates)
            elif self.format in TRACKS:
                self._write_track(beside, predictions, rates.get(self.recordings[0]))
            else:
                {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}[self.format](beside, predictions)

    def _write_tracks(
        self, folder: Path, predictions: Iterator[Prediction], broken: set[str], rates: Mapping[str, int]
    ) -> None:
        """Write a file for each recording that could be read, also if nothing was found in it."""
        groups = itertools.groupby(predictions, key=lambda prediction: prediction.file)
        following = next(groups, None)
        for name in self.recordings:
            if name in broken:
                continue
            path = folder / self.track(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if following is not None and following[0] == name:
                self._write_track(path, following[1], rates.get(name))
                following = next(groups, None)
            else:
                self._write_track(path, iter(()))

    def _write_track(self, path: Path, predictions: Iterator[Prediction], rate: int | None = None) -> None:
        if self.format == "audacity":
            write_audacity(path, predictions)
        else:
            write_raven(path, predictions, self.nyquist if rate is None else min(self.nyquist, rate / 2))


def write_csv(path: Path, predictions: Iterable[Prediction]) -> None:
    """Columns file, start, end, label, score."""
    with path.open("w", newline="", encoding="utf-8") as file:
        write_rows(file, itertools.chain([Prediction._fields], predictions))


def write_jsonl(path: Path, predictions: Iterable[Prediction]) -> None:
    """An object with the same names on each line."""
    with path.open("w", encoding="utf-8") as file:
        for prediction in predictions:
            file.write(json.dumps(prediction._asdict(), ensure_ascii=False) + "\n")


def write_parquet(path: Path, predictions: Iterable[Prediction]) -> None:
    """The same columns; seconds and scores as doubles."""
    import pyarrow
    import pyarrow.parquet

    kinds = {"file": pyarrow.string(), "label": pyarrow.string()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in Prediction._fields])
    rows = iter(predictions)
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
            columns = [list(column) for column in zip(*chunk, strict=True)]
            writer.write_table(pyarrow.table(columns, schema=schema))


def write_audacity(path: Path, predictions: Iterable[Prediction]) -> None:
    """A label track: File > Import > Labels reads it."""
    with path.open("w", encoding="utf-8") as file:
        for prediction in predictions:
            file.write(f"{prediction.start:.6f}\t{prediction.end:.6f}\t{one_line(prediction.label)}\n")


def write_raven(path: Path, predictions: Iterable[Prediction], nyquist: float) -> None:
    """A selection table: File > Open Sound Selection Table reads it. Boxes reach from 0 Hz to `nyquist`."""
    with path.open("w", encoding="utf-8") as file:
        file.write("\t".join(RAVEN_COLUMNS) + "\n")
        for number, row in enumerate(predictions, start=1):
            where = box(number, row.start, row.end, nyquist)
            file.write(f"{where}\t{one_line(PurePath(row.file).name)}\t{one_line(row.label)}\t{row.score:.6f}\n")


def box(number: int, start: float, end: float, nyquist: float) -> str:
    """The cells of BOX_COLUMNS, of a box between two times in seconds that reaches from 0 Hz to `nyquist`.

    Raven refuses a box that ends above half the recording's sample rate, and crowsetta one of whole numbers.
    """
    return f"{number}\tSpectrogram 1\t1\t{start:.6f}\t{end:.6f}\t0.0\t{float(nyquist)}"


def one_line(text: str) -> str:
    """Text as a cell of a table without quotes: on one line, without tabs."""
    return " ".join(text.split())
