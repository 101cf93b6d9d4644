"""Files and folders of result records to named systems, and the check that two records are of the same test clips.

A system is a model under a head, or on a task: records that differ in their seed alone are one system.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from audiobat.errors import AudiobatError
from audiobat.evaluation.head_names import head_label
from audiobat.evaluation.record import (
    LAYER_NAME,
    ResultRecord,
    Scores,
    Values,
    find_records,
    load_record,
    load_scores,
    load_values,
)

Kept = TypeVar("Kept", Scores, Values)
SEEDS = ("seed", "order_seed")


@dataclass(frozen=True, eq=False)
class Entry:
    """A record with its path and the name of its system."""

    path: Path
    record: ResultRecord
    system: str = ""
    goes_by_name: bool = False  # another data set has the same table: the same clips with noise, say

    @property
    def data(self) -> str:
        """The key of its data set."""
        data = self.record.data
        return f"{data.sha256} {data.name}" if self.goes_by_name else data.sha256

    @property
    def task(self) -> str:
        """The kind of the task that it is of; "" for a head."""
        return task_of(self.record)


def task_of(record: ResultRecord) -> str:
    """The kind of the task that a record is of; "" for a head, which has a loss whether it trains or not."""
    return "" if "loss" in record.head else str(record.head["kind"])


def read_entries(sources: Sequence[str | Path]) -> list[Entry]:
    """The records of files and folders, each once; AudiobatError for two different tables of one name.

    Of a folder, the probes of single blocks that `--layers` makes are left out: to compare them, name their files.
    """
    named = {Path(source).resolve() for source in sources}
    paths = dict.fromkeys(path.resolve() for source in sources for path in find_records(source))
    found = [Entry(path, load_record(path)) for path in paths]
    entries = [e for e in found if e.path in named or not str(e.record.head.get("name")).startswith(LAYER_NAME)]
    if len(entries) < len(found):
        count = len(found) - len(entries)
        print(f"left out: {count} probe{'s' if count > 1 else ''} of single blocks; name files to compare them too")
    whole = [e for e in entries if e.task and e.record.values is None and e.path not in named]
    if whole:
        kinds = ", ".join(sorted({e.task for e in whole}))
        print(f"left out: {len(whole)} of {kinds}, a number that is not made from values of single clips")
        entries = [e for e in entries if e not in whole]
    known: dict[str, Entry] = {}
    for entry in entries:
        other = known.setdefault(entry.record.data.name, entry)
        if other.data != entry.data:
            raise AudiobatError(
                f"{other.path} and {entry.path} are not of the same clips: both tables are called "
                f"{entry.record.data.name}, but their sha256 are {other.data[:8]} and {entry.data[:8]}."
            )
    return told_apart(entries)


def told_apart(entries: Sequence[Entry]) -> list[Entry]:
    """Records of one table under two names are of two data sets where the same probe was run on both.

    A table says nothing of what is in the sound files: those of two folders may have the same names and labels.
    """
    names: dict[tuple[str, int, str], set[str]] = {}
    for e in entries:
        probe = e.record.data.sha256, e.record.seed, repr(sorted(settings_of(e.record).items()))
        names.setdefault(probe, set()).add(e.record.data.name)
    doubled = {sha256 for (sha256, *_), found in names.items() if len(found) > 1}
    return [replace(e, goes_by_name=e.record.data.sha256 in doubled) for e in entries]


def name_systems(entries: Sequence[Entry]) -> list[Entry]:
    """Call each record by its model and head, and by those settings in which it differs from others of that name.

    Seeds make systems only where nothing else differs; records that differ in nothing get the names of their files.
    """
    named = [replace(e, system=f"{e.record.model.id} {head_label(e.record)}") for e in entries]
    named = distinguished(named, settings_of)
    if len({e.system for e in named}) == 1:
        named = distinguished(named, lambda record: {"seed": str(record.seed)})
    twins = {(e.system, e.data, e.record.seed) for e in named}
    return named if len(twins) == len(named) else [replace(e, system=f"{e.system} ({e.path})") for e in named]


def distinguished(entries: Sequence[Entry], settings: Callable[[ResultRecord], dict[str, str]]) -> list[Entry]:
    """Add to the systems' names the settings in which records of one name and data set differ."""
    values: dict[tuple[str, str, str], set[str]] = {}
    for e in entries:
        for name, value in settings(e.record).items():
            values.setdefault((e.system, name, e.data), set()).add(value)
    varying = {(system, name) for (system, name, _), found in values.items() if len(found) > 1}
    named = []
    for e in entries:
        tags = [f"{name} {value}" for name, value in settings(e.record).items() if (e.system, name) in varying]
        named.append(replace(e, system=", ".join([e.system, *tags])))
    return named


def settings_of(record: ResultRecord) -> dict[str, str]:
    """The settings that make a record's system: weights, preset and head, without seeds."""
    head = {name: str(value) for name, value in record.head.items() if name not in SEEDS}
    return {"weights": (record.model.sha256 or "")[:8], "preset": record.preset, **head}


def kept_of(entry: Entry) -> Scores | Values:
    """What lies beside a record, in order; AudiobatError if it has nothing, or the file is not its own."""
    path, record = entry.path, entry.record
    return in_order(load_values(path, record)) if entry.task else in_order(load_scores(path, record))


def in_order(kept: Kept) -> Kept:
    """Scores or values sorted by fold and clip; the patch columns of a clip stay in their order."""
    order = np.lexsort((kept.keys, folds_of(kept)))
    return replace(kept, **{name: array[order] for name, array in vars(kept).items() if array is not None})


def folds_of(scores: Scores | Values) -> NDArray[np.str_]:
    """The fold of each row of scores [n]; the same for all where there are no folds."""
    return np.zeros(len(scores.keys), dtype="U1") if scores.folds is None else scores.folds


def check_same_clips(a: Entry, ours: Scores | Values, b: Entry, theirs: Scores | Values) -> None:
    """AudiobatError if the test clips of two records, both `in_order`, differ in keys, folds or labels."""
    where = f"{a.path} and {b.path} are not of the same test clips"
    for mine, other, entry in ((ours, theirs, a), (theirs, ours, b)):
        alone = np.setdiff1d(mine.keys, other.keys)
        if len(alone):
            names = ", ".join(alone[:3].tolist()) + (", ..." if len(alone) > 3 else "")
            raise AudiobatError(f"{where}: {len(alone)} of them only {entry.path} has ({names}).")
    if not np.array_equal(ours.keys, theirs.keys) or not np.array_equal(folds_of(ours), folds_of(theirs)):
        raise AudiobatError(f"{where}: they are the same, but their folds or their numbers of frames differ.")
    if not np.array_equal(ours.targets, theirs.targets):  # type: ignore[arg-type]  # None is equal to None
        raise AudiobatError(f"{where}: their labels differ.")
