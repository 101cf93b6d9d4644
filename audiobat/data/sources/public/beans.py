"""Lists in the style of BEANS (Hagiwara et al., 2023), one for each split, to a clip table.

The lists are `train`, `valid` (may be absent) and `test` beside each other, all named `PREFIXtrain.csv` or all
`PREFIXtrain.jsonl`.

CSV, one row for each clip, with these columns (others, such as pandas' nameless one, are left out):
- `path` or `filename`: the audio file, from the folder of the list, from `audio/` in it, or from up to three folders
  above (BEANS itself counts from its repository), whichever has any of them;
- `label` or `labels`: one name, several joined by `;`, or a list such as `['a', 'b']`; empty where nothing sounds;
- `begin`, `end` (may be absent): seconds, of a clip that is a part of its file.

JSON lines, one for each recording, which windows cut into clips: `path`, `length` in seconds, and `annotations`, a list
of {`st`, `ed` in seconds, `label`}.

A YAML file beside the lists, or `datasets.yml` above, may list data sets as {name, type, num_labels, labels,
window_width, window_shift}; see `Task`. The table reads no audio, so `sample_rate` and `max_duration` there change
nothing.
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiobat.config.recipes import parse_yaml
from audiobat.data.build import Clip, table_of_clips
from audiobat.data.clip_table import SPLITS, ClipTable
from audiobat.data.sources.catalog import DataSet
from audiobat.data.sources.lists import split_labels
from audiobat.data.sources.public.text_files import AGAIN, check_some_there, read_lines, read_rows, read_text
from audiobat.errors import AudiobatError

LIST = re.compile(r"(?P<prefix>.*?)(?P<split>train|valid|test)\.(?P<kind>csv|jsonl)")
NO_COMMA = re.compile(r"""['"]\s+['"]""")  # as numpy writes ['a' 'b'], which Python would read as one text 'ab'
FOLDERS_ABOVE = 3
MIN_OVERLAP = 0.2  # of the shorter of window and event, for the window to have the event's label; our reading
ROUNDING = 1e-6  # seconds


@dataclass(frozen=True)
class Task:
    """A data set's entry in the YAML file; everything may be absent."""

    kind: str | None = None  # classification (each clip has one label) or detection
    num_labels: int | None = None  # checked
    labels: tuple[str, ...] | None = None  # order of the classes; by default sorted
    window_width: float | None = None  # seconds
    window_shift: float | None = None  # seconds; by default the width


def read_beans(source: Path) -> ClipTable:
    """The clips of all splits, with classes as the YAML file lists them, else sorted.

    `source` is the folder of the lists, or one of them where a folder has lists of several data sets.
    """
    prefix, lists = _lists(source)
    folder = lists["train"].parent
    task = _task(folder, prefix)
    clips = [
        clip
        for split, path in lists.items()
        for clip in (_csv_clips if path.suffix == ".csv" else _windows)(path, split, task)
    ]
    names = {clip.path for clip in clips}
    places = (folder, folder / "audio", *_above(folder))  # the paths count from the first that has any of the files
    table = table_of_clips(
        next((place for place in places if any(os.path.exists(place / name) for name in names)), folder),
        clips,
        task.labels,
    )
    if task.num_labels not in (None, len(table.classes)):
        raise AudiobatError(
            f"{folder} has {len(table.classes)} labels, its YAML file says num_labels {task.num_labels}: fix one."
        )
    return check_some_there(table, folder)


def _lists(source: Path) -> tuple[str, dict[str, Path]]:
    """The prefix of the lists' names, and the list of each split."""
    folder = source if source.is_dir() else source.parent
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for path in folder.iterdir():
        if match := LIST.fullmatch(path.name):
            found.setdefault((match["prefix"], match["kind"]), {})[match["split"]] = path
    if not source.is_dir():
        found = {which: lists for which, lists in found.items() if source in lists.values()}
    if not found:
        raise AudiobatError(f"{source}: there is no train.csv, valid.csv, test.csv (or .jsonl): name their folder.")
    if len(found) > 1:
        names = ", ".join(sorted(path.name for lists in found.values() for path in lists.values()))
        raise AudiobatError(f"{folder} has the lists of several data sets ({names}): name one list instead.")
    [((prefix, kind), lists)] = found.items()
    for split in ("train", "test"):
        if split not in lists:
            raise AudiobatError(f"{folder} has no {prefix}{split}.{kind} beside the other lists: {AGAIN}.")
    return prefix, {split: lists[split] for split in SPLITS if split in lists}


def _task(folder: Path, prefix: str) -> Task:
    """The entry of the YAML file whose name is the folder's or the lists' prefix; the only one; or nothing."""
    beside = sorted(path for path in folder.iterdir() if path.suffix in (".yml", ".yaml"))
    above = [path for up in _above(folder) for path in (up / "datasets.yml", up / "datasets.yaml") if path.exists()]
    if not beside and not above:
        return Task()
    path = (beside or above)[0]
    entries = parse_yaml(read_text(path), str(path))
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise AudiobatError(f"{path} is no list of data sets: write `- name: ...` and its fields below.")
    names = (folder.name, prefix.strip("._-"))
    entries = [entry for entry in entries if entry.get("name") in names] or (entries if beside else [])
    if not entries:
        return Task()
    if len(entries) > 1:
        raise AudiobatError(
            f"{path} has several data sets, none or several named {names[0]}: rename the folder as one."
        )
    return _task_of(path, entries[0])


def _task_of(path: Path, entry: dict[str, Any]) -> Task:
    kind, labels, count = entry.get("type"), entry.get("labels"), entry.get("num_labels")
    if kind not in (None, "classification", "detection"):
        raise AudiobatError(f"{path}: type is {kind!r}: write classification or detection.")
    if labels is not None and not isinstance(labels, list):
        raise AudiobatError(f"{path}: labels is {labels!r}: write a list of names.")
    if count is not None and not isinstance(count, int):
        raise AudiobatError(f"{path}: num_labels is {count!r}: write a whole number.")
    width = _positive(path, entry, "window_width")
    order = None if labels is None else tuple(map(str, labels))
    return Task(kind, count, order, width, _positive(path, entry, "window_shift") or width)


def _positive(path: Path, entry: dict[str, Any], name: str) -> float | None:
    value = entry.get(name)
    if value is not None and (not isinstance(value, int | float) or not 0 < value < math.inf):
        raise AudiobatError(f"{path}: {name} is {value!r}: write a number of seconds above 0.")
    return None if value is None else float(value)


def _csv_clips(path: Path, split: str, task: Task) -> Iterator[Clip]:
    rows = read_rows(path)
    file, label = _column(path, rows[0], "path", "filename"), _column(path, rows[0], "label", "labels")
    for i, row in enumerate(rows, start=2):
        where = f"{path}, row {i}"
        labels = _labels(where, row[label])
        if task.kind == "classification" and len(labels) != 1:
            raise AudiobatError(f"{where}, has {len(labels)} labels: give one, or say `type: detection`.")
        begin = _seconds(where, "begin", row)
        end = _seconds(where, "end", row)
        if end is None and begin is not None and task.window_width is not None:
            end = begin + task.window_width
        if end is None:
            seconds = math.nan
        else:
            begin = begin or 0.0
            seconds = end - begin
            if seconds <= 0:
                raise AudiobatError(f"{where}: the clip ends at {end} s, before it begins: fix `begin` or `end`.")
        name = _checked(where, row[file])
        yield Clip(name, name if begin is None else f"{name}@{begin}", labels, split, begin or 0.0, seconds)


def _column(path: Path, row: dict[str, str], *names: str) -> str:
    found = [name for name in names if name in row]
    if len(found) != 1:
        raise AudiobatError(
            f"{path} needs one column `{names[0]}` or `{names[1]}` (it has {', '.join(row)}): name it so."
        )
    return found[0]


def _labels(where: str, text: str) -> list[str]:
    """One name, `a;b` or `['a', 'b']` to names."""
    if not text.startswith("["):
        return split_labels(text)
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        values = None
    if not isinstance(values, list) or NO_COMMA.search(text):
        raise AudiobatError(f"{where}: the labels {text} are no list: write ['a', 'b'], or a;b.")
    return [str(value) for value in values]


def _seconds(where: str, name: str, row: dict[str, str]) -> float | None:
    text = row.get(name, "")
    try:
        value = float(text) if text else None
    except ValueError:
        value = math.nan
    if value is not None and not 0 <= value < math.inf:
        raise AudiobatError(f"{where}: {name} is {text!r}: use a number of seconds.")
    return value


def _windows(path: Path, split: str, task: Task) -> Iterator[Clip]:
    """All whole windows of each recording; a recording that is shorter than a window is one."""
    width, shift = task.window_width, task.window_shift
    if width is None or shift is None:
        raise AudiobatError(f"{path} needs windows: write window_width and window_shift in a YAML file beside it.")
    for i, line in enumerate(read_lines(path), start=1):
        where = f"{path}, line {i}"
        try:
            recording = json.loads(line)
            name, length = str(recording["path"]), float(recording["length"])
            events = [(str(e["label"]), float(e["st"]), float(e["ed"])) for e in recording["annotations"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise AudiobatError(f"{where}, is no recording with path, length, annotations ({error}): fix it.") from None
        if not 0 < length < math.inf:
            raise AudiobatError(f"{where}: length is {length}: give the recording's seconds.")
        for label, onset, offset in events:
            if not 0 <= onset <= offset < math.inf:
                raise AudiobatError(f"{where}: {label} from {onset} to {offset} s: give a start and a later end.")
        name = _checked(where, name)
        for k in range(1 + max(0, math.floor((length - width + ROUNDING) / shift))):
            begin = round(k * shift, 6)  # 0.3, not 0.30000000000000004, in the key
            end = min(begin + width, length)
            labels = [
                label
                for label, onset, offset in events
                if min(end, offset) - max(begin, onset) > MIN_OVERLAP * min(end - begin, offset - onset) > 0
            ]
            yield Clip(name, f"{name}@{begin}", labels, split, begin, end - begin)


def _checked(where: str, name: str) -> str:
    """The path as it is, unless it leaves the folder that it counts from."""
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise AudiobatError(f"{where}: the path {name!r} leaves the data set's folder: write it relative to that.")
    return Path(name).as_posix()


def _above(folder: Path) -> list[Path]:
    return list(folder.absolute().parents)[:FOLDERS_ABOVE]


DATA_SETS: tuple[DataSet, ...] = (
    DataSet(
        name="beans",
        title="a data set of BEANS, the benchmark of animal sounds, or lists in its style",
        where="https://github.com/earthspecies/beans, whose scripts fetch each data set from its own place",
        licence="each data set has its own",
        layout="train.csv, valid.csv, test.csv (path,label) or .jsonl, and a YAML file of windows where there are any",
        read=read_beans,
    ),
)
