"""What the members beside a recording in a tar tell of it: KEY.json, KEY.cls, KEY.txt to labels, events, split, fold.

In JSON, labels are the first of `labels`, `label`, `tags`, `tag` that is there: text (several joined by ';'), a number,
or a list of these. `events` are a list of {label, onset, offset} or {label, start, end}, in seconds. `split` and `fold`
are as in a CSV. Other text and numbers are kept as columns.
"""

from __future__ import annotations

import json
import math
from sys import intern
from typing import Any, NamedTuple

from audiobat.data.build import Event
from audiobat.data.clip_table import SPLITS
from audiobat.data.sources.lists import split_labels
from audiobat.data.sources.tar_members import Notes

CLASS_TEXT, TEXT = "cls", "txt"  # extensions, and the columns that their texts are in
DESCRIPTIONS = (".json", f".{CLASS_TEXT}", f".{TEXT}")
LABELS = ("labels", "label", "tags", "tag")
OF_THE_MEMBER = ("key", "start", "seconds", "sample_rate")  # in prepared shards: what the file itself says
SPANS = (("onset", "offset"), ("start", "end"))
SPLIT_NAMES = {name: name for name in SPLITS} | {"training": "train", "testing": "test", "eval": "test"}
SPLIT_NAMES |= dict.fromkeys(("val", "validation", "dev"), "valid")
COLUMNS = 64  # names of columns that one recording may have
LABEL_LETTERS = 80  # a .txt of one line that is no longer is a label; else it is a description, a column


class Fields(NamedTuple):
    """What is known of a recording; None: nothing."""

    labels: list[str] | None = None
    events: list[Event] | None = None
    split: str | None = None
    fold: int | None = None
    columns: dict[str, str] = {}  # noqa: RUF012 - never changed


def read_json(data: bytes, name: str, notes: Notes) -> Fields:
    """The fields of a JSON member; what cannot be read is counted in `notes`, where `name` is the example."""
    try:
        plain = json.loads(data)
        if not isinstance(plain, dict):
            raise ValueError
    except (ValueError, RecursionError):
        notes.add("JSON members hold no object of fields, and are passed over", name)
        return Fields()
    labels = events = split = fold = None
    label_name = next((field for field in LABELS if plain.get(field) is not None), None)
    if label_name is not None and (labels := _labels(plain[label_name])) is None:
        notes.add("labels are neither text nor numbers nor lists of them, and are passed over", name)
    if plain.get("events") is not None and (events := _events(plain["events"])) is None:
        notes.add("events have no label, onset and offset in seconds, and are passed over", name)
    if plain.get("split") is not None and (split := SPLIT_NAMES.get(str(plain["split"]).strip().lower())) is None:
        notes.add(f"splits are none of {', '.join(SPLITS)}, and are kept as text", name)
    if plain.get("fold") is not None and (fold := _whole(plain["fold"])) is None:
        notes.add("folds are no whole numbers, and are kept as text", name)
    known = {label_name, *OF_THE_MEMBER, *(("split",) if split else ()), *(("fold",) if fold is not None else ())}
    # Each JSON brings its own copy of the names: one is enough for all.
    left = {intern(field): _text(value) for field, value in plain.items() if field not in known and _text(field)}
    columns = {field: text for field, text in left.items() if text}
    if len(columns) > COLUMNS:
        notes.add(f"JSON members have more than {COLUMNS} fields, of which the rest is passed over", name)
        columns = dict(list(columns.items())[:COLUMNS])
    return Fields(labels, events, split, fold, columns)


def read_text(data: bytes, name: str, notes: Notes) -> str:
    """The text of a .cls or .txt member, without white space around it."""
    try:
        return data.decode("utf-8-sig").replace("\0", "").strip()
    except UnicodeDecodeError:
        notes.add("text members are not UTF-8, and are passed over", name)
        return ""


def is_label(text: str) -> bool:
    """Whether the text of a .txt member is short enough to be a label."""
    return len(text) <= LABEL_LETTERS and len(text.splitlines()) <= 1


def _labels(value: Any) -> list[str] | None:
    if isinstance(value, str):
        return None if (text := _text(value)) is None else split_labels(text)
    values = value if isinstance(value, list) else [value]
    found = [_text(item) for item in values]
    return None if None in found else [text for text in found if text]


def _events(value: Any) -> list[Event] | None:
    if not isinstance(value, list):
        return None
    found: list[Event] = []
    for event in value:
        if not isinstance(event, dict) or (label := _text(event.get("label"))) is None:
            return None
        span = next(((event[a], event[b]) for a, b in SPANS if a in event and b in event), None)
        if span is None or not all(isinstance(end, int | float) for end in span):
            return None
        try:
            begin, end = float(span[0]), float(span[1])
        except OverflowError:
            return None
        if not 0 <= begin < end < math.inf:
            return None
        found.append((label, begin, end))
    return found


def _whole(value: Any) -> int | None:
    try:
        fold = int(value) if isinstance(value, int | str) else None
    except ValueError:
        return None
    return fold if fold is not None and abs(fold) < 2**63 else None


def _text(value: Any) -> str | None:
    """Text or a number as text that UTF-8 can hold; None for anything else."""
    if not isinstance(value, str | int | float):
        return None
    try:
        text = str(value).strip()
        text.encode()
    except ValueError:  # half of a surrogate pair; an integer of thousands of digits
        return None
    return text
