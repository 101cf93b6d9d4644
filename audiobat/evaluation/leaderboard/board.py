"""The leaderboard file: JSON lines, a result record in each, with a hash by which a line that was changed is found.

Lines are only added, by any number of processes at once. A line holds a record without the values of single classes,
the metric by which models are ranked, and the sha256 of all of that. A file may be put together from several by `cat`.
The hash finds damage and careless edits; it is no signature.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audiobat.config.checks import is_deep
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import ResultRecord, record_from

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

FORMAT = "audiobat-board-1"
LARGEST_LINE = 16 * 2**20  # bytes


@dataclass(frozen=True)
class Line:
    """A result on the board."""

    number: int  # of its line in the file, from 1
    record: ResultRecord
    metric: str  # by which models are ranked


@dataclass(frozen=True)
class Board:
    """The lines of a file that can be used, and sentences about those that cannot."""

    lines: tuple[Line, ...]
    refused: tuple[str, ...]


def add_records(board: Path, records: Sequence[tuple[ResultRecord, str]]) -> int:
    """Append records with their metrics, but for those that the file holds already; returns how many are new.

    Lines of several processes never mix. A line that a killed process left half written stays, as a line of its own.
    """
    lines = [line_of(record, metric) for record, metric in records]
    board.parent.mkdir(parents=True, exist_ok=True)
    with board.open("a+b") as file, alone(file.fileno()):
        file.seek(0)
        held = file.read()
        check_format(board, held)
        known = set(held.splitlines())
        new = [line for line in dict.fromkeys(lines) if line not in known]
        begun = b"\n" if held and not held.endswith(b"\n") else b""
        if new:
            try:
                file.write(begun + b"".join(line + b"\n" for line in new))
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                os.ftruncate(file.fileno(), len(held))  # on a full disk there is no room for half a line
                error.filename = error.filename or str(board)
                raise
    return len(new)


def read_board(board: Path) -> Board:
    """The lines of a leaderboard file.

    Raises:
        AudiobatError: no such file, or none with a line of a leaderboard, or of another format.
    """
    try:
        held = board.read_bytes()
    except OSError as error:
        raise AudiobatError(f"{board} cannot be read ({error.strerror}): give a file that --add has written.") from None
    check_format(board, held)
    lines, refused = [], []
    for number, text in enumerate(held.splitlines(), start=1):
        if text.strip():
            try:
                lines.append(parse(text, number, board))
            except AudiobatError as error:
                refused.append(str(error))
    if not lines:
        why = f" {refused[0]}" if refused else ""
        raise AudiobatError(f"{board} holds no result: add the records of runs with --add.{why}")
    return Board(tuple(lines), tuple(refused))


def line_of(record: ResultRecord, metric: str) -> bytes:
    """A record as a line without its end. The same record is always the same line."""
    kept = replace(record, per_class={}, positives=None, scores=None, data=replace(record.data, untaught={}))
    body = {"format": FORMAT, "metric": metric, "record": kept.plain()}
    return canonical({**body, "sha256": hash_of(body)})


def parse(text: bytes, number: int, board: Path) -> Line:
    """A line of a file; AudiobatError if it is damaged or was changed."""
    where = f"{board} line {number}"
    try:
        if len(text) > LARGEST_LINE:
            raise ValueError("it is too long")
        value = json.loads(text, parse_constant=no_number)
        if is_deep(value):
            raise ValueError("lists within lists without end")
        if not isinstance(value, dict):
            raise ValueError("it is no object")
        claimed, computed = value.pop("sha256", None), hash_of(value)  # ValueError for 1e999, read as infinity
    except (ValueError, RecursionError) as error:
        raise AudiobatError(f"{where} is damaged or half written ({error}): it is left out.") from None
    if claimed != computed:
        raise AudiobatError(f"{where} was changed after it was written (its sha256 differs): it is left out.")
    if value.get("format") != FORMAT:
        raise AudiobatError(f"{where} is of format {value.get('format')!r}, not {FORMAT}: it is left out.")
    record = record_from(value.get("record"), where)
    metric = value.get("metric")
    if not isinstance(metric, str) or metric not in record.metrics:
        raise AudiobatError(f"{where} ranks by {metric!r}, which its record has not: it is left out.")
    return Line(number, record, metric)


def check_format(board: Path, held: bytes) -> None:
    """Raise an AudiobatError for a file that another version or another program wrote."""
    for text in held.splitlines():
        try:
            value = json.loads(text[:LARGEST_LINE])
        except (ValueError, RecursionError):
            continue  # a damaged line, which `read_board` names
        if not isinstance(value, dict) or "format" not in value:
            continue  # and so is this, if other lines say which format they are of
        if (name := value["format"]) != FORMAT:
            raise AudiobatError(
                f"{board} is no leaderboard of format {FORMAT} (a line says {name!r}): give another file, or the "
                "version of audiobat that wrote it."
            )
        return
    if held.strip():
        raise AudiobatError(f"{board} is no leaderboard: none of its lines is a result. Give another file.")


def no_number(name: str) -> None:
    """JSON has no NaN and no infinity, though Python reads and writes them."""
    raise ValueError(f"{name} is no number")


def hash_of(body: dict[str, Any]) -> str:
    """The sha256 of what a line holds besides."""
    return hashlib.sha256(canonical(body)).hexdigest()


def canonical(value: dict[str, Any]) -> bytes:
    """JSON in one line, its names in alphabetical order, as UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


@contextmanager
def alone(file: int) -> Iterator[None]:
    """Hold the lock of a file; a process that has it is waited for."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX)  # closing the file frees it
    yield
