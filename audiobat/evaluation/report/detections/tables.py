"""Numbers of an evaluation as tables: of levels, classes and recordings, in percent, with 95% intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from audiobat.errors import name_some
from audiobat.evaluation.report.detections.evaluation import BY_OVERLAP, Evaluation
from audiobat.evaluation.report.web.html import definitions_html, table_html, text_cell

LEVELS = {"clip": "Recordings", "segment": "Segments", "overlap": "Events, overlap", "onset": "Events, onset"} | {
    "event": "Events, onset and end"
}
METRICS = {
    **{"f1_micro": "F1", "precision_micro": "Precision", "recall_micro": "Recall", "f1_macro": "F1, mean of classes"},
    **{"map": "mAP", "error_rate": "Error rate"},
}
PARTS = {"f1": "F1", "precision": "Precision", "recall": "Recall"}
BEST = (
    "The best thresholds are those that evaluation.json has, with the highest F1 of segments, or of recordings where "
    "labels have no times: choose them on other recordings than these."
)
RECORDINGS = 500  # in the table, the most mistakes first
NAMES = 20  # in a list of what was odd


def main_level(found: Evaluation) -> str:
    """The level of the tables of classes and recordings: overlap where events have times."""
    levels = found.plain["levels"]
    return BY_OVERLAP if BY_OVERLAP in levels else next(iter(levels), BY_OVERLAP)


def levels_html(found: Evaluation) -> str:
    """The table of levels, and what they are."""
    levels: Mapping[str, Any] = found.plain["levels"]
    names = [name for name in METRICS if any(name in level["metrics"] for level in levels.values())]
    body = ""
    for name, level in levels.items():
        cells = (value_cell(level["metrics"].get(metric), share=metric != "error_rate") for metric in names)
        body += f"<tr>{text_cell(LEVELS.get(name, name))}{''.join(cells)}</tr>"
    unit, units = found.plain["intervals"]["unit"], found.plain["intervals"]["units"]
    note = f"In percent, the error rate aside; in brackets 95% intervals over {units:,} {unit}."
    about = [(LEVELS.get(name, name), level["definition"]) for name, level in levels.items()]
    metrics = {name: metric for level in levels.values() for name, metric in level["metrics"].items()}
    about += [(METRICS[name], metrics[name]["definition"]) for name in names]
    headings = ["What counts", *(METRICS[name] for name in names)]
    return (
        f"<div class='results one'>{table_html(headings, body, headings[:1])}</div><p class=note>{escape(note)}</p>"
        f"<details><summary>What counts, and what the numbers mean</summary>{definitions_html(about)}</details>"
    )


def classes_html(found: Evaluation) -> str:
    """The table of classes, the lowest F1 first."""
    level = found.plain["levels"][main_level(found)]
    best: Mapping[str, float] = found.plain["thresholds"]
    headings = ["Class", *PARTS.values(), "True", "Missed", "Detected", "False alarms"]
    scored = any(own.get("average_precision") for own in level["per_class"].values())
    headings += ["AP"] if scored else []
    headings += ["Best threshold"] if best else []
    body = ""
    for label, own in sorted(level["per_class"].items(), key=lambda pair: worth(pair[1]["f1"])):
        cells = [value_cell(own[part]) for part in PARTS]
        cells += map(count_cell, (own["truth"], own["truth"] - own["found"]))
        cells += map(count_cell, (own["predicted"], own["predicted"] - own["right"]))
        cells += [value_cell(own.get("average_precision"))] if scored else []
        cells += [threshold_cell(best.get(label))] if best else []
        body += f"<tr>{text_cell(label)}{''.join(cells)}</tr>"
    note = f"{escape(LEVELS[main_level(found)])}: {escape(level['definition'])}. "
    note += BEST if best else ""
    return f"<div class='results one'>{table_html(headings, body, headings[:1])}</div><p class=note>{note}</p>"


def recordings_html(found: Evaluation) -> str:
    """The table of recordings, the most mistakes first."""
    name = main_level(found)
    rows = [(row, row["levels"][name]) for row in found.plain["per_recording"]]
    rows.sort(key=lambda pair: pair[1]["found"] + pair[1]["right"] - pair[1]["truth"] - pair[1]["predicted"])
    headings = ["Recording", *PARTS.values(), "True", "Missed", "Detected", "False alarms", "Minutes"]
    body = ""
    for row, own in rows[:RECORDINGS]:
        cells = [value_cell(None if own[part] is None else {"value": own[part]}) for part in PARTS]
        cells += map(count_cell, (own["truth"], own["truth"] - own["found"]))
        cells += map(count_cell, (own["predicted"], own["predicted"] - own["right"]))
        minutes = "" if row["seconds"] is None else f"{row['seconds'] / 60:.1f}"
        body += f'<tr>{text_cell(row["file"])}{"".join(cells)}<td data-value="{minutes}">{minutes}</td></tr>'
    left = len(rows) - RECORDINGS
    more = f" {left:,} more recordings are in per_recording.csv." if left > 0 else ""
    return (
        f"<div class='results one'>{table_html(headings, body, headings[:1])}</div>"
        f"<p class=note>{escape(LEVELS[name])}.{more}</p>"
    )


def about_html(found: Evaluation) -> str:
    """What was evaluated, and what was odd."""
    plain = found.plain
    recordings, events = plain["recordings"], plain["events"]
    rules = plain["convention"]
    convention = (
        f"{rules['name']}: segments of {rules['segment_seconds']:g} s; onsets at most {rules['onset_collar']:g} s "
        f"apart, ends {rules['offset_collar']:g} s or {rules['offset_share']:.0%} of the true event"
    )
    hours = (recordings["seconds"] or 0) / 3600
    facts = [
        ("Predictions", str(plain["predictions"])),
        ("Truth", str(plain["truth"])),
        ("Recordings", f"{recordings['evaluated']:,}, {hours:.2f} hours"),
        ("Without detections", listed(recordings["silent"])),
        ("Left out, named by predictions alone", listed(recordings["left_out"])),
        ("Events", f"{events['truth']:,} true, {events['predicted']:,} detected"),
        ("Labels of the truth alone", listed(f"{label} ({n})" for label, n in plain["only_true"].items())),
        ("Labels of predictions alone", listed(f"{label} ({n})" for label, n in plain["only_predicted"].items())),
        ("Threshold", plain["threshold"] or "as the predictions are"),
        ("Convention", convention),
    ]
    notes = "".join(f"<li>{escape(note)}</li>" for note in plain["notes"])
    return f"{f'<ul>{notes}</ul>' if notes else ''}{definitions_html(facts)}"


def listed(names: Iterable[str]) -> str:
    """Names in a line, the first ones where there are many; `none`."""
    return name_some(names, NAMES) or "none"


def worth(value: Mapping[str, Any] | None) -> float:
    """A sort key by which what is undefined comes last."""
    return math.inf if value is None or value["value"] is None else float(value["value"])


def value_cell(value: Mapping[str, Any] | None, share: bool = True) -> str:
    """A number with its interval, in percent if it is a share."""
    if value is None or value["value"] is None:
        return '<td data-value="">-</td>'
    scale, digits = (100, 1) if share else (1, 2)
    ends = value.get("low"), value.get("high")
    known = [f"{scale * end:.{digits}f}" for end in ends if end is not None]
    span = f" <small>[{', '.join(known)}]</small>" if len(known) == 2 else ""
    return f'<td data-value="{value["value"]!r}">{scale * value["value"]:.{digits}f}{span}</td>'


def count_cell(count: int) -> str:
    """A whole number."""
    return f'<td data-value="{count}">{count:,}</td>'


def threshold_cell(threshold: float | None) -> str:
    """A threshold, if there is one."""
    return '<td data-value="">-</td>' if threshold is None else f'<td data-value="{threshold!r}">{threshold:.3g}</td>'
