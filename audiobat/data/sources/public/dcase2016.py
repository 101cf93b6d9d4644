"""DCASE 2016 Task 2 (office sounds, with onsets and offsets) as in HEAR's tarballs, to a clip table with events.

`labelvocabulary.csv` (idx,label) orders the classes; `train.json`, `valid.json`, `test.json` (or `fold00.json` and
more) list each file's events as {label, start, end} in milliseconds; the audio lies in `SAMPLE_RATE/SPLIT/`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from audiobat.data.build import Event, clip_table
from audiobat.data.clip_table import SPLITS, ClipTable
from audiobat.data.sources.catalog import DataSet
from audiobat.data.sources.public.text_files import AGAIN, check_some_there, find_folder, read_json, read_rows
from audiobat.errors import AudiobatError

TASK = "dcase2016_task2"
VOCABULARY, METADATA = "labelvocabulary.csv", "task_metadata.json"
PREFERRED_RATE = 16_000  # Hz, the models'; else the highest, so that resampling only goes down


def read_dcase2016(folder: Path) -> ClipTable:
    """Recordings of 120 s with their events in seconds, classes in the vocabulary's order, splits or folds.

    `folder` is the task's (`dcase2016_task2-hear2021-full`), or `tasks`, or the folder that holds `tasks`. Of several
    sample rates it takes 16,000 Hz, else the highest; the table's `sample_rates` say which. Keys do not depend on it.
    """
    root = find_folder(folder, VOCABULARY, (f"{TASK}*", f"tasks/{TASK}*"))
    metadata = read_json(root / METADATA)
    if not isinstance(metadata, dict) or not str(metadata.get("task_name", "")).startswith(TASK):
        raise AudiobatError(f"{root / METADATA} is not of {TASK}: name the folder of that task, or {AGAIN}.")
    seconds = metadata.get("sample_duration")
    rates = sorted(int(path.name) for path in root.iterdir() if path.is_dir() and path.name.isdecimal())
    if not rates:
        raise AudiobatError(f"{root} has no audio, in a folder such as {PREFERRED_RATE}: {AGAIN}.")
    rate = PREFERRED_RATE if PREFERRED_RATE in rates else rates[-1]
    listed = [(part, name, events) for part in _parts(root) for name, events in _recordings(root, part)]
    by_split = listed[0][0] in SPLITS
    table = clip_table(
        root,
        [f"{rate}/{part}/{name}" for part, name, _ in listed],
        keys=[f"{part}/{name}" for part, name, _ in listed],
        classes=_classes(root / VOCABULARY),
        events=[events for *_, events in listed],
        splits=[part for part, *_ in listed] if by_split else None,
        folds=None if by_split else [int(part.removeprefix("fold")) for part, *_ in listed],
        seconds=[float(seconds) if _is_time(seconds) else math.nan] * len(listed),
    )
    return check_some_there(replace(table, sample_rates=np.full(len(table), rate, np.int32)), root)


def _parts(root: Path) -> list[str]:
    """The three splits; where none of their lists is there, the folds."""
    folds = sorted(path.stem for path in root.glob("fold*.json") if path.stem.removeprefix("fold").isdecimal())
    if not folds or any((root / f"{split}.json").exists() for split in SPLITS):
        return list(SPLITS)
    if len(folds) < 2:
        raise AudiobatError(f"{root} has {folds[0]}.json and no other fold: {AGAIN}.")
    return folds


def _classes(path: Path) -> list[str]:
    """Labels in the order of `idx`."""
    rows = read_rows(path, ("idx", "label"))
    names = {row["idx"]: row["label"] for row in rows}
    order = [str(i) for i in range(len(rows))]
    if set(names) != set(order) or len(set(names.values())) != len(rows):
        raise AudiobatError(f"{path}: `idx` and `label` must count from 0 and name each class once: {AGAIN}.")
    return [names[i] for i in order]


def _recordings(root: Path, part: str) -> Iterator[tuple[str, list[Event]]]:
    """Name and events of each recording of a part, a split or a fold such as `fold00`, in the order of its list."""
    path = root / f"{part}.json"
    listed = read_json(path)
    if not isinstance(listed, dict):
        raise AudiobatError(f"{path} does not list files and their events: {AGAIN}.")
    if not listed:
        raise AudiobatError(f"{path} is empty: {AGAIN}.")
    for name, events in listed.items():
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise AudiobatError(f"{path} lists {name!r}, which leaves the folder {part}: {AGAIN}.")
        if not isinstance(events, list):
            raise AudiobatError(f"{path}: what {name} has is no list of events: {AGAIN}.")
        yield name, [_event(path, name, event) for event in events]


def _event(path: Path, name: str, event: Any) -> Event:
    """One entry in milliseconds to an event in seconds."""
    if isinstance(event, dict):
        label, start, end = event.get("label"), event.get("start"), event.get("end")
        if isinstance(label, str) and _is_time(start) and _is_time(end) and start <= end:
            return label, start / 1000, end / 1000
    raise AudiobatError(f"{path}: an event of {name} is {event}, not a label with a start and a later end: {AGAIN}.")


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


DATA_SETS: tuple[DataSet, ...] = (
    DataSet(
        name="dcase2016-task2",
        title="DCASE 2016 Task 2: synthetic office scenes of 120 s, 11 classes with onsets and offsets",
        where="https://hearbenchmark.com, under Tasks: the tarball of dcase2016_task2 for 16000 or 48000 Hz",
        licence="as its Zenodo record states",
        layout=f"{METADATA}, {VOCABULARY}, train.json, valid.json, test.json and 16000/{{train,valid,test}}/*.wav",
        read=read_dcase2016,
    ),
)
