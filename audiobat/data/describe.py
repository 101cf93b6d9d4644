"""`audiobat describe`: what a source of clips holds: hours, rates, labels and events, and what about them is odd.

Every recording is opened for its length and rate, and none is decoded, unless that is how its length is found.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from audiobat.data.clip import Length, measure
from audiobat.data.clip_table import ClipTable
from audiobat.data.sources.folders import NoLabels
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.errors import name_some

LABELS_SHOWN = 60  # of the commonest; the value that is returned has all
FRAME = 0.16  # seconds of a frame of the paper's models; a probe learns and scores only events in which one starts
SLACK = 0.05  # seconds by which an event may reach over the end of its recording


def describe(
    data: str | Path,
    *,
    label_column: str | None = None,
    background: tuple[str, ...] = (),
    map: str | Path | None = None,
) -> dict[str, Any]:
    """Print what a source of clips holds, and what is odd about it.

    Args:
        data: any source of clips: a folder of recordings, with annotations beside them or in class folders; a list; one
            file of annotations; prepared shards, tars, or NAME:FOLDER of a public data set.
        label_column: the column that holds the labels, of a list or of annotations; None: the usual one.
        background: labels that are no class: a clip or a span that has no other is background.
        map: a CSV of columns `from` and `to`: labels under other names; an empty one drops the label.

    Returns:
        What was printed, as plain numbers: `files`, `clips`, `hours`, `sample_rates`, `channels`, `unreadable`; of
        labelled clips `labelled`, `without_label`, `labels` ({name: clips, events, seconds}), `events`, `event_hours`,
        `overlap` (the share of the time with events in which several labels sound), `splits`, `folds`; and `odd`, the
        sentences.

    Raises:
        AudiobatError: a source or annotations that cannot be used.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clips = read_clips(data, annotated=Path(data).is_file())
        try:
            labelled = read_labelled_clips(data, label_column, background, map)
        except NoLabels:
            labelled = None
    odd = list(dict.fromkeys(str(warning.message) for warning in caught))
    lengths = measure(clips)
    found = about_files(clips, lengths, odd)
    if labelled is not None:
        known = dict(zip(clips.keys, lengths, strict=True))
        found |= about_labels(labelled, np.array([known[key].seconds for key in labelled.keys]), odd)
    found["odd"] = odd
    show(str(data), found)
    return found


def about_files(table: ClipTable, lengths: Sequence[Length], odd: list[str]) -> dict[str, Any]:
    """Files, hours and rates; what is odd about them goes into `odd`."""
    seconds = np.array([length.seconds for length in lengths])
    broken = [i for i, length in enumerate(lengths) if math.isnan(length.seconds)]
    if broken:
        odd.append(f"{len(broken)} clips cannot be read, such as {lengths[broken[0]].error.rstrip('.')}.")
    if empty := np.flatnonzero(seconds == 0).tolist():
        odd.append(f"{len(empty)} clips are empty, such as {table.keys[empty[0]]}.")
    return {
        "files": len(table.files),
        "clips": len(table),
        "hours": float(np.nansum(seconds)) / 3600,
        "sample_rates": counts(length.rate for length in lengths),
        "channels": counts(length.channels for length in lengths),
        "unreadable": len(broken),
    }


def counts(values: Iterable[int]) -> dict[int, int]:
    """How often each value occurs, in ascending order; 0 is not known."""
    return dict(sorted(Counter(filter(None, values)).items()))


def about_labels(table: ClipTable, seconds: NDArray[np.float64], odd: list[str]) -> dict[str, Any]:
    """Labels, events and splits of clips of these `seconds` [n]; what is odd about them goes into `odd`."""
    assert table.labels is not None
    per_label = table.label_counts()
    labels: dict[str, dict[str, Any]] = {name: {"clips": int(per_label[c])} for c, name in enumerate(table.classes)}
    found: dict[str, Any] = {
        "labelled": len(table),
        "without_label": int((table.labels.lengths == 0).sum()),
        "labels": labels,
    }
    odd += alike(table.classes)
    for name in ("splits", "folds"):
        parts = getattr(table, name)
        if parts is not None:
            found[name] = {
                str(part): {
                    "clips": int((parts == part).sum()),
                    "hours": float(np.nansum(seconds[parts == part])) / 3600,
                }
                for part in np.unique(parts)
            }
    if alone := [name for c, name in enumerate(table.classes) if per_label[c] == 1]:
        odd.append(f"{len(alone)} labels are in one clip alone, which cannot train and test: {name_some(alone)}.")
    if table.events is not None:
        found |= about_events(table, seconds, labels, odd)
    return found


def about_events(
    table: ClipTable, seconds: NDArray[np.float64], labels: dict[str, dict[str, Any]], odd: list[str]
) -> dict[str, Any]:
    """Events, how long they sound and how much they overlap; each label's go into `labels`, oddities into `odd`."""
    assert table.events is not None
    values = table.events.values
    events = np.bincount(values["label"], minlength=len(table.classes))
    sounding = np.zeros(len(table.classes))
    any_time = several_time = 0.0
    repeated = 0  # events of one label that overlap
    for i in range(len(table)):
        own = table.events.row(i)
        spans = []
        for c in np.unique(own["label"]):
            same = own[own["label"] == c]
            joined = union(same["onset"], same["offset"])
            sounding[c] += (joined[:, 1] - joined[:, 0]).sum()
            repeated += len(same) - len(joined)
            spans.append(joined)
        if spans:
            any_of, several_of = layers(np.concatenate(spans))
            any_time, several_time = any_time + any_of, several_time + several_of
    for c, name in enumerate(table.classes):
        labels[name] |= {"events": int(events[c]), "seconds": float(sounding[c])}
    if repeated:
        odd.append(f"{repeated} events overlap or touch another one of the same label in the same recording.")
    ends = np.repeat(seconds, table.events.lengths)
    if over := int((values["offset"] > ends + SLACK).sum()):
        odd.append(f"{over} events end behind the end of their recording.")
    if short := int((values["offset"] - values["onset"] < FRAME).sum()):
        odd.append(f"{short} events last less than {FRAME} s, a frame of the paper's models: probes may miss them.")
    return {
        "events": len(values),
        "event_hours": any_time / 3600,
        "overlap": several_time / any_time if any_time else 0.0,
    }


def union(onsets: NDArray[np.float64], offsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """The spans [M, 2] in which at least one of some spans lies, apart from each other, in order."""
    order = np.argsort(onsets, kind="stable")
    onsets, offsets = onsets[order], np.maximum.accumulate(offsets[order])
    first = np.concatenate([[True], onsets[1:] > offsets[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.stack([onsets[first], offsets[last]], 1)


def layers(spans: NDArray[np.float64]) -> tuple[float, float]:
    """Seconds in which at least one, and at least two, of some spans [M, 2] lie."""
    times = spans.ravel()
    order = np.argsort(times, kind="stable")
    depth = np.cumsum(np.tile([1, -1], len(spans))[order])[:-1]
    widths = np.diff(times[order])
    return float(widths[depth > 0].sum()), float(widths[depth > 1].sum())


def alike(names: Iterable[str]) -> list[str]:
    """A sentence for each group of labels that differ in nothing but case, spaces and signs."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups["".join(filter(str.isalnum, name.casefold()))].append(name)
    listed = (" and ".join(map(repr, group)) for plain, group in groups.items() if plain and len(group) > 1)
    return [f"{group} differ in case or signs alone: --map joins them, if they are one class." for group in listed]


def show(source: str, found: dict[str, Any]) -> None:
    """Print all that was found."""
    console = Console(highlight=False)
    rates = ", ".join(f"{rate:,} Hz ({count:,})" for rate, count in found["sample_rates"].items())
    channels = ", ".join(f"{number} channel{'s' * (number > 1)} ({n:,})" for number, n in found["channels"].items())
    hours = duration(found["hours"])
    clips = "" if found["clips"] == found["files"] else f", {found['clips']:,} clips"
    console.print(Text(f"{source}: {found['files']:,} files{clips}, {hours}, {rates or 'no rate known'}; {channels}"))
    if "labels" in found:
        timed = "events" in found
        text = f"{found['labelled']:,} {'annotated' if timed else 'labelled'}"
        text += f", {found['without_label']:,} of them {'without an event' if timed else 'with an empty label'}"
        if timed:
            text += f"; {found['events']:,} events over {duration(found['event_hours'])}"
            text += f"; several labels sound at once in {found['overlap']:.1%} of that time"
        console.print(Text(text))
        console.print(label_table(found["labels"], "events" in found))
        for name in ("splits", "folds"):
            parts = found.get(name, {}).items()
            if parts:
                listed = (f"{part} {values['clips']:,} clips ({duration(values['hours'])})" for part, values in parts)
                console.print(Text(f"{name}: {', '.join(listed)}"))
    else:
        console.print("no labels: no annotations beside the recordings, no class folders, no column `label`")
    for sentence in found["odd"]:
        console.print(Text(f"odd: {sentence}"))
    if not found["odd"]:
        console.print("odd: nothing")


def duration(hours: float) -> str:
    """`2.50 h`, `12.0 min` or `3.5 s`."""
    if hours >= 1:
        return f"{hours:,.2f} h"
    return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.1f} s"


def label_table(labels: dict[str, dict[str, Any]], has_events: bool) -> Table:
    """A row for each label, the commonest first."""
    table = Table(box=SIMPLE)
    table.add_column("label")
    for name in ("clips", "events", "seconds") if has_events else ("clips",):
        table.add_column(name, justify="right", no_wrap=True)
    key = "seconds" if has_events else "clips"
    ranked = sorted(labels.items(), key=lambda item: (-item[1][key], item[0]))
    for name, values in ranked[:LABELS_SHOWN]:
        cells = [f"{values['events']:,}", f"{values['seconds']:,.1f}"] if has_events else []
        table.add_row(Text(name), f"{values['clips']:,}", *cells)
    if ranked[LABELS_SHOWN:]:
        table.add_row(f"and {len(ranked) - LABELS_SHOWN:,} more", *[""] * (len(table.columns) - 1))
    return table
