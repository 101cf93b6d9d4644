"""BirdSet (Rauch et al., 2025), one configuration such as HSN, to a clip table.

`train` holds focal recordings, `test` the 5-s windows of soundscapes (the data set's split test_5s; its event-wise
split `test` is left out). Classes are in the data set's order where its Parquet says it, else sorted over both splits.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from audiobat.data.build import Clip, table_of_clips
from audiobat.data.clip_table import ClipTable
from audiobat.data.sources.catalog import DataSet
from audiobat.data.sources.folders import files_below, is_audio
from audiobat.data.sources.parquet import open_parquet
from audiobat.data.sources.public.text_files import check_some_there, read_rows
from audiobat.errors import AudiobatError

SPLITS = {"train": "train", "test_5s": "test"}
SPLIT_WORD = re.compile(r"train|test(_5s)?")
CODE, CODES = "ebird_code", "ebird_code_multilabel"
COLUMNS = ("filepath", CODE, CODES, "start_time", "end_time")
TOKEN = re.compile(r"[^\s\[\]()'\",;]+")  # codes in a list that a CSV holds as text, as Python or numpy print it
NOTHING = {"", "nan", "none", "null"}


@dataclass(frozen=True)
class Listing:
    """A file that lists recordings or windows of one split."""

    path: str  # relative to the configuration's folder
    split: str
    columns: dict[str, list[Any]]
    inside: bool  # whether the recordings are in the rows themselves
    names: tuple[str, ...]  # of the class numbers; empty if it does not say


def read_birdset(folder: Path) -> ClipTable:
    """Focal recordings, and test windows `start_time` seconds into their audio; column `group` names the recording."""
    files = files_below(folder)
    listings = [listing for path in files if (listing := _open(folder, path))]
    _check(folder, listings)
    classes = next((listing.names for listing in listings if listing.names), ())
    by_name: dict[str, list[str]] = {}  # audio files
    for path in filter(is_audio, files):
        by_name.setdefault(os.path.basename(path), []).append(path)
    known = {str(number): name for number, name in enumerate(classes)} | {name: name for name in classes}
    clips = [list(_clips(folder, listing, by_name, known)) for listing in listings]
    table = table_of_clips(folder, [clip for own in clips for clip in own], classes or None)
    if listings[0].inside:  # the rows of each Parquet file
        return replace(table, offsets=np.concatenate([np.arange(len(own)) for own in clips]))
    return check_some_there(table, folder)


def _open(folder: Path, path: str) -> Listing | None:
    """A list of train or test_5s; None if the file is something else."""
    word = _split_word(path)
    if word is None or word[0] not in SPLITS:
        return None
    split = SPLITS[word[0]]
    if path.endswith(".csv"):
        rows = read_rows(folder / path)
        found = {name: [row[name] for row in rows] for name in COLUMNS if name in rows[0]}
        return Listing(path, split, found, False, ()) if {CODE, CODES} & set(found) else None
    if not path.endswith(".parquet"):
        return None
    file = open_parquet(folder / path)
    schema = file.schema_arrow
    if not {CODE, CODES} & set(schema.names):
        return None
    inside = "audio.bytes" in (leaves := [file.schema.column(i).path for i in range(len(file.schema))])
    wanted = [name for name in (*COLUMNS, "audio.path") if name in leaves or name in schema.names]
    columns = file.read(columns=wanted).to_pydict()
    if "audio" in columns:
        columns.setdefault("filepath", [(audio or {}).get("path") for audio in columns.pop("audio")])
    return Listing(path, split, columns, inside, _class_names(schema.metadata))


def _split_word(path: str) -> re.Match[str] | None:
    """The word in a path that names its split: the last one in the file's name, else in the folder next to it."""
    end = len(path)
    for part in reversed(path.split("/")):
        found = list(SPLIT_WORD.finditer(path.lower(), end - len(part), end))
        if found:
            return found[-1]
        end -= len(part) + 1
    return None


def _check(folder: Path, listings: Sequence[Listing]) -> None:
    """One set of lists, of one kind, with one order of the classes."""
    if not listings:
        raise AudiobatError(
            f"{folder} has no list of train or test_5s (.parquet or .csv with `train` or `test_5s` in its name and a "
            f"column {CODE} or {CODES}): name the folder of one configuration, such as HSN."
        )
    for split in set(SPLITS.values()):
        kinds: dict[tuple[str, str], str] = {}
        for listing in (listing for listing in listings if listing.split == split):
            word = _split_word(listing.path)
            assert word is not None
            kinds.setdefault((listing.path[: word.start()], os.path.splitext(listing.path)[1]), listing.path)
        if len(kinds) > 1:
            raise AudiobatError(
                f"{folder} has several lists of the split {split} ({', '.join(kinds.values())}): name the folder of "
                "one configuration, such as HSN, and keep one list in it."
            )
    if len(kind := {listing.inside: listing.path for listing in reversed(listings)}) > 1:
        raise AudiobatError(
            f"{folder}: some lists hold the recordings ({kind[True]}) and some do not ({kind[False]}): use one kind "
            "for train and test_5s."
        )
    if len(orders := {listing.names: listing.path for listing in listings if listing.names}) > 1:
        raise AudiobatError(
            f"{folder}: {' and '.join(list(orders.values())[:2])} have different classes: they are of different "
            "configurations, keep one's."
        )


def _find(folder: Path, filepath: str, by_name: dict[str, list[str]]) -> str:
    """The audio file that a list means, by its path or else by its name; what is not there stays as it is named."""
    found = by_name.get(os.path.basename(filepath), [])
    if filepath in found or not found:
        return filepath
    if len(found) > 1:
        raise AudiobatError(f"{folder}: {filepath} may be {found[0]} or {found[1]}: keep one of them.")
    return found[0]


def _clips(folder: Path, listing: Listing, by_name: dict[str, list[str]], known: dict[str, str]) -> Iterator[Clip]:
    """The recordings or windows of a listing; `by_name` has the folder's audio files, `known` the names of classes."""
    blank = [None] * len(next(iter(listing.columns.values())))
    columns = [listing.columns.get(name, blank) for name in COLUMNS]
    first = 2 if listing.path.endswith(".csv") else 0  # as editors count the rows below a header
    for place, (filepath, code, codes, start, end) in enumerate(zip(*columns, strict=True)):
        where = f"{folder / listing.path}, row {place + first}"
        name = _portable(filepath)
        if name is None and not listing.inside:
            raise AudiobatError(f"{where}: no filepath: name the recording.")
        recording = os.path.splitext(name)[0] if name else f"{os.path.splitext(listing.path)[0]}_{place:06d}"
        begin, seconds = _window(start, end, where)
        file = listing.path if listing.inside or name is None else _find(folder, name, by_name)
        key = recording if math.isnan(seconds) else f"{recording}_{round(begin * 1000):08d}"  # begin of a window in ms
        labels = _codes(code, codes, known, where)
        yield Clip(file, key, labels, listing.split, begin, seconds, group=recording)


def _portable(filepath: Any) -> str | None:
    """A path without the drive or cache folder of the machine that wrote it, and without `..`."""
    if _is_nothing(filepath):
        return None
    path = os.path.normpath(str(filepath).replace("\\", "/"))
    return os.path.basename(path) if os.path.isabs(path) or ".." in path.split("/") or ":" in path else path


def _window(start: Any, end: Any, where: str) -> tuple[float, float]:
    """Begin and length in seconds of a window; 0 and NaN for a whole recording."""
    if _is_nothing(start) or _is_nothing(end):
        return 0.0, math.nan
    try:
        begin, seconds = float(start), float(end) - float(start)
    except ValueError:
        begin = seconds = -1.0
    if not (begin >= 0 and 0 < seconds < math.inf):
        raise AudiobatError(f"{where}: a window from {start} to {end}: start_time and end_time are seconds, in order.")
    return begin, seconds


def _codes(code: Any, codes: Any, known: dict[str, str], where: str) -> list[str]:
    """Names of a row's classes: those of the list, which may be empty, or else the one code.

    `known` maps codes and numbers to names; it is empty if no list names the classes.
    """
    if isinstance(codes, str) and codes.strip():
        codes = [token for token in TOKEN.findall(codes) if not _is_nothing(token)]
    values = codes if isinstance(codes, list) else [] if _is_nothing(code) else [code]
    names = [str(value).strip().removesuffix(".0") for value in values]
    for name in names:
        if known and name not in known:
            classes = len(set(known.values()))
            raise AudiobatError(f"{where}: {name!r} is none of the {classes} classes of the Parquet schema.")
        if not known and name.lstrip("-").isdigit():
            raise AudiobatError(
                f"{where}: the class is the number {name}, and no list here names the classes (Hugging Face's Parquet "
                "does, in its schema): write eBird codes, such as amerob, in its place."
            )
    return [known.get(name, name) for name in names]


def _is_nothing(value: Any) -> bool:
    return value is None or str(value).strip().lower() in NOTHING


def _class_names(metadata: dict[bytes, bytes] | None) -> tuple[str, ...]:
    """The names that Hugging Face's `datasets` keeps in a Parquet schema for the class numbers."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return ()
    for column in (CODES, CODE):
        feature = features.get(column)
        while feature:  # a ClassLabel, or one or several lists around it, as versions of `datasets` write them
            if isinstance(feature, list):
                feature = feature[0]
            elif not isinstance(feature, dict):
                break
            elif "names" in feature:
                return tuple(map(str, feature["names"]))
            else:
                feature = feature.get("feature")
    return ()


DATA_SETS: tuple[DataSet, ...] = (
    DataSet(
        name="birdset",
        title="BirdSet: birds in soundscapes, one configuration (HSN, NBP, NES, PER, POW, SNE, SSW, UHH, XCL, XCM)",
        where="DBD-research-group/BirdSet on Hugging Face",
        licence="non-commercial research and education; each recording has its own Creative Commons licence",
        layout=(
            "the folder of one configuration, such as HSN: Parquet with the audio inside (train-*.parquet and "
            "test_5s-*.parquet), or recordings at any depth and lists of them, .parquet or .csv, with train or test_5s "
            f"in their names (HSN_metadata_train.parquet) and columns {', '.join(COLUMNS)}. Classes are in the order "
            "that the Parquet schema says; if it says none, all codes of train and test, sorted"
        ),
        read=read_birdset,
    ),
)
