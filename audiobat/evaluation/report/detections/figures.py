"""Figures of an evaluation: precision, recall and F1 over thresholds, and the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from audiobat.evaluation.confusion import Confusion
from audiobat.evaluation.report.confusions import confusion_figure
from audiobat.evaluation.report.detections.evaluation import Evaluation
from audiobat.evaluation.report.detections.tables import LEVELS, main_level
from audiobat.evaluation.report.style import BLACK, BLUE, LINES, ORANGE, WIDTH, folded, headline, look, styled
from audiobat.evaluation.report.web.html import readable

CLASSES = 6  # lines of single classes, those with the most true events
THRESHOLD = (
    "Left: over all classes together, by the threshold that a score has to exceed; the dot is the highest F1. Right: "
    f"precision over recall, of all classes and of the {CLASSES} with the most true events."
)
CONFUSED = (
    "Counts of events, coloured by their share of the row. A missed event counts for the class of the false alarm "
    "that shares most time with it; what is left over is missed to the background, or a false alarm out of it."
)


@styled
def curves_figure(name: str, level: str, curve: Mapping[str, Any], counts: Mapping[str, int]) -> Figure:
    """Precision, recall and F1 over thresholds, and precision over recall."""
    figure = Figure(figsize=(WIDTH, 4.2))
    left, right = figure.subplots(1, 2)
    thresholds, micro = numbers(curve["thresholds"]), curve["micro"]
    parts = (("f1", "F1", BLACK), ("precision", "precision", BLUE), ("recall", "recall", ORANGE))
    for (part, title, colour), line in zip(parts, LINES, strict=False):
        values = numbers(micro[part])
        if part == "precision":
            values[numbers(micro["recall"]) == 0] = math.nan
        left.plot(thresholds, values, line, color=colour, label=title)
    f1 = numbers(micro["f1"])
    if not np.isnan(f1).all():
        best = int(np.nanargmax(f1))
        left.plot(thresholds[best], f1[best], "o", color=BLACK, label=f"best F1 at {thresholds[best]:.3g}")
    left.set(xlabel="threshold", ylim=(0, 1.02), title="all classes")
    left.legend(fontsize=8)
    most = sorted(counts, key=lambda label: (-counts[label], label))[:CLASSES]
    shown: list[tuple[str, Mapping[str, Sequence[float | None]]]] = [("all classes", micro)]
    shown += [(readable(label), curve["classes"][label]) for label in most] if len(counts) > 1 else []
    for i, (label, own) in enumerate(shown):
        style = look(i) | ({"color": BLACK, "linestyle": "-"} if not i else {})
        del style["marker"]
        style |= {"label": folded(label, 30, 1), "linewidth": 1 if i else 2}
        recall, precision = numbers(own["recall"]), numbers(own["precision"])
        precision[(recall == 0) & (precision == 0)] = math.nan  # nothing is predicted any more
        right.plot(recall, precision, **style)
    right.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), title="precision over recall")
    for ax in (left, right):
        ax.grid(True)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3, fontsize=8)
    headline(figure, f"{name}: {level.lower()}, by threshold")
    return figure


def numbers(values: Sequence[float | None]) -> Any:
    """An array, with NaN for null."""
    return np.array([math.nan if value is None else value for value in values], float)


def curves_of(found: Evaluation) -> Figure | None:
    """The figure of the main level's curve; None without scores."""
    level = found.plain["levels"][main_level(found)]
    if level["curve"] is None:
        return None
    counts = {label: own["truth"] for label, own in level["per_class"].items() if own["truth"]}
    return curves_figure(found.name, LEVELS[main_level(found)], level["curve"], counts)


def confusion_of_events(found: Evaluation) -> Figure | None:
    """The figure of the confusion matrix; None where labels have no times."""
    matrix = found.plain["confusion"]
    if matrix is None:
        return None
    counts = np.array(matrix["counts"], float)
    *classes, background = matrix["labels"]
    predicted = counts.sum(0)[:-1].astype(np.int64)
    return confusion_figure(found.name, Confusion(tuple(classes), counts, predicted, False, background), unit="events")
