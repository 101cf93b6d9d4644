"""An evaluation as tables in a terminal: every level, the weakest and strongest classes, what was odd."""

from __future__ import annotations

import math

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from audiobat.evaluation.detections.measures import MICRO, Value, mean_over
from audiobat.evaluation.detections.result import DetectionResult
from audiobat.evaluation.record import Metric

CLASSES_SHOWN = 12


def show(result: DetectionResult) -> None:
    """Print the result."""
    console = Console(highlight=False)
    pair = result.pair
    scope = f"{len(pair.keys):,} recordings ({result.seconds.sum() / 3600:,.2f} h), {len(pair.classes)} labels: "
    console.print(Text(f"{scope}{len(pair.truth):,} true events, {len(pair.found):,} detections"))
    for note in result.notes:
        console.print(Text(note))
    console.print(_levels(result))
    console.print(_classes(result))
    console.print(
        Text(
            f"P, R: precision and recall, micro; ER: error rate. Micro: {MICRO}; macro: "
            f"{mean_over(result.convention)}. 95% intervals over {result.units:,} {result.unit}. "
            f"Convention: {result.convention.name}."
        )
    )


def _levels(result: DetectionResult) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, collapse_padding=True)
    has_map = any("map" in level.metrics for level in result.levels.values())
    table.add_column("Level", no_wrap=True)
    for head in ("F1 micro", "F1 macro", "P", "R", "ER", *(["mAP"] if has_map else [])):
        table.add_column(head, justify="right", no_wrap=True)
    for name, level in result.levels.items():
        found = level.metrics
        single = ("precision_micro", "recall_micro", "error_rate", *(["map"] if has_map else []))
        table.add_row(
            name,
            cell(found["f1_micro"]),
            cell(found["f1_macro"]),
            *(cell(found.get(metric), interval=False) for metric in single),
        )
    return table


def _classes(result: DetectionResult) -> Table:
    """The labels with most true events, at the level that detections are most often looked at."""
    name = "overlap" if "overlap" in result.levels else "clip"
    table = Table(title=f"Labels by {name}", title_justify="left", box=SIMPLE)
    table.add_column("Label", no_wrap=True)
    for head in ("True", "Found", "Detections", "Right", "F1"):
        table.add_column(head, justify="right")
    ranked = sorted(result.levels[name].per_class.items(), key=lambda item: -item[1].truth)
    for label, own in ranked[:CLASSES_SHOWN]:
        table.add_row(Text(label), *(f"{n:,}" for n in (own.truth, own.found, own.predicted, own.right)), cell(own.f1))
    if len(ranked) > CLASSES_SHOWN:
        table.caption = f"and {len(ranked) - CLASSES_SHOWN} more in per_class.csv"
    return table


def cell(value: Value | Metric | None, *, interval: bool = True) -> str:
    """`0.512 [0.43, 0.59]`; `n/a` where there is no number."""
    if value is None:
        return ""
    if math.isnan(value.value):
        return "n/a"
    if not interval or math.isnan(value.low) or math.isnan(value.high):
        return f"{value.value:.3f}"
    return f"{value.value:.3f} [{value.low:.2f}, {value.high:.2f}]"
