"""Rows and curves to figures, one function each: prototypes (Fig. 2), blocks (Fig. 4 and 6), heads, classes, F1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from audiobat.errors import AudiobatError
from audiobat.evaluation.certainty import FEW, RARE_MARK, rare_classes
from audiobat.evaluation.head_names import head_title
from audiobat.evaluation.report.curves import Layers, rho_text
from audiobat.evaluation.report.rows import Row, metric_title, ranked
from audiobat.evaluation.report.style import BLACK, ORANGE, SKY, WIDTH, folded, headline, look, styled

PANELS = 4  # side by side
CLASSES = 15  # best and worst classes shown, where not all are
ALL_CLASSES = 40  # up to so many are all shown, in one panel
OTHERS = 4  # models beside the best one in the figure of classes
LINES_SHOWN = 8  # in the figure of F1 by threshold
LARGEST = 40.0  # inches a figure is high at most

Array = NDArray[Any]


@styled
def layer_curves(curves: Sequence[Layers]) -> Figure:
    """Fig. 4 and 6: for each model of a data set linear probes of all blocks (top) over gate weights of CGP (bottom).

    Bars are means over seeds and dots the seeds, where there are several; lines on the top bars are 95% intervals over
    test clips. Spearman's rank correlation of the two rows: mean and standard deviation over seeds.
    """
    if not curves:
        raise AudiobatError("No record has gate weights or probes of single blocks: probe with --layers.")
    wide = min(PANELS, len(curves))
    high = math.ceil(len(curves) / wide)
    figure = Figure(figsize=(max(WIDTH, 2.6 * wide), min(LARGEST, 3.9 * high + 0.7)))
    lines = np.atleast_1d(np.asarray(figure.subfigures(high, 1), dtype=object))
    tops = [[s.high for s in curve.summaries if not math.isnan(s.high)] for curve in curves]
    top_limit = 1.05 * max((high for found in tops for high in found), default=1.0)
    gate_limit = 1.1 * max((weight for curve in curves for gate in curve.gates for weight in gate), default=1.0)
    metric = next((metric_title(curve.metric) for curve in curves if curve.probes), "no records")
    for line, part in enumerate(lines):
        shown = curves[line * wide : (line + 1) * wide]
        panels = part.subplots(2, wide, sharex="col", sharey="row", squeeze=False)
        for empty in panels[:, len(shown) :].ravel():
            empty.set_visible(False)
        for (top, bottom), curve in zip(panels.T, shown, strict=False):
            draw_layers(top, bottom, curve)
        panels[0, 0].set(ylabel=f"linear probe, {metric}", ylim=(0, top_limit))
        panels[1, 0].set(ylabel="CGP gate weight", ylim=(0, gate_limit))
    headline(figure, f"{curves[0].data}: linear probes of each block, and the weight that CGP gives it")
    return figure


def draw_layers(top: Axes, bottom: Axes, curve: Layers) -> None:
    """One model's two panels."""
    blocks = np.arange(1, curve.depth + 1)
    if curve.probes:
        values = np.array(curve.values)  # [seeds, L]
        summaries = curve.summaries
        bars(top, blocks, values, SKY)
        # Drawn about the middle of the interval: a basic bootstrap interval need not surround its value.
        ends = np.array([((s.low + s.high) / 2, (s.high - s.low) / 2) for s in summaries])
        top.errorbar(blocks, ends[:, 0], ends[:, 1], fmt="none", ecolor=BLACK, elinewidth=1, capsize=2)
    if curve.gates:
        bars(bottom, blocks, np.array(curve.gates), ORANGE)
        bottom.axhline(1 / curve.depth, color=BLACK, linestyle="--", linewidth=1)
    top.set_title(f"{folded(curve.model, 30)}\n{rho_text(curve)}", fontsize=9.5)
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    bottom.set_xlabel("block")


def bars(ax: Axes, blocks: Array, values: Array, colour: str) -> None:
    """Values [seeds, L] as bars of their means over seeds, and as a dot for each seed."""
    ax.bar(blocks, values.mean(0), color=colour, edgecolor=BLACK, linewidth=0.6)
    if len(values) > 1:
        shift = np.linspace(-0.25, 0.25, len(values))[:, None]
        places = (blocks[None, :] + shift).ravel()
        ax.plot(places, values.ravel(), "o", color="white", markeredgecolor=BLACK, markersize=2.6, markeredgewidth=0.6)


@styled
def prototype_curve(sweeps: Sequence[Sequence[Row]]) -> Figure:
    """Fig. 2: the main metric over the number of prototypes; each sweep is rows that differ in nothing else."""
    if not sweeps:
        raise AudiobatError("No records differ in their prototypes alone: probe with --grid.prototypes 100,1000,10000.")
    data_sets = list(dict.fromkeys(sweep[0].data for sweep in sweeps))
    wide = min(3, len(data_sets))
    high = math.ceil(len(data_sets) / wide)
    figure = Figure(figsize=(WIDTH if wide < 3 else 9.5, min(LARGEST, 3.3 * high + 0.7)))
    panels = figure.subplots(high, wide, squeeze=False).ravel()
    names = list(dict.fromkeys(series_name(sweep[0]) for sweep in sweeps))
    for ax in panels[len(data_sets) :]:
        ax.set_visible(False)
    for ax, data in zip(panels, data_sets, strict=False):
        counts: set[int] = set()
        for sweep in (sweep for sweep in sweeps if sweep[0].data == data):
            x = [row.first.head["prototypes"] for row in sweep]
            style = look(names.index(series_name(sweep[0])))
            ax.plot(x, [row.main.value for row in sweep], label=series_name(sweep[0]), **style)
            lows, highs = zip(*((row.main.low, row.main.high) for row in sweep), strict=True)
            ax.fill_between(x, lows, highs, color=style["color"], alpha=0.13, lw=0)
            counts.update(x)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(sorted(counts)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value)))
        metric = next(sweep[0].main_metric for sweep in sweeps if sweep[0].data == data)
        ax.set(title=folded(data, 36), xlabel="prototypes", ylabel=metric_title(metric))
        ax.grid(True)
    handles = {label: handle for ax in panels for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    labels = [folded(name, 44, 1) for name in handles]
    figure.legend(handles.values(), labels, loc="outside lower left", ncols=2, fontsize=8.5)
    headline(figure, "Main metric by the number of prototypes")
    return figure


def series_name(row: Row) -> str:
    """Model and kind of head."""
    return f"{row.model}, {head_title(row.kind)}"


def thousands(value: float) -> str:
    """A count as an axis shows it: `500`, `1,024`, `10k`."""
    return f"{value:,.0f}" if value < 10_000 or value % 100 else f"{value / 1000:g}k"


@styled
def head_comparison(rows: Sequence[Row]) -> Figure:
    """The main metric of every model under every head of one data set, with 95% intervals; best model on top.

    Heads and tasks of other main metrics have panels of their own.
    """
    if not rows:
        raise AudiobatError("There are no rows to compare: give the rows of one data set.")
    heads = list(dict.fromkeys(row.head for row in rows))
    groups = [[r for r in rows if r.main_metric == m] for m in dict.fromkeys(row.main_metric for row in rows)]
    heights = [len(group) + len({row.model for row in group}) for group in groups]  # lines: rows, and between models
    keys_height = 0.2 * math.ceil(len(heads) / 3)
    figure = Figure(figsize=(WIDTH, min(LARGEST, 0.9 + 0.6 * len(groups) + keys_height + 0.19 * sum(heights))))
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, group in zip(panels, groups, strict=True):
        draw_heads(ax, group, heads)
    keys = [panels[0].plot([], [], **(look(i) | {"linestyle": "none"}))[0] for i in range(len(heads))]
    figure.legend(keys, [folded(h, 40, 1) for h in heads], loc="outside lower left", ncols=3, fontsize=8.5)
    headline(figure, f"{rows[0].data}: every model under every head")
    return figure


def draw_heads(ax: Axes, rows: Sequence[Row], heads: Sequence[str]) -> None:
    """The rows of one main metric in a panel, a mark with its interval each, those of a model together."""
    models = list(dict.fromkeys(row.model for row in ranked(sorted(rows, key=lambda row: row.model))))
    place, ticks = 0.0, []
    for model in models:
        found = [row for row in rows if row.model == model]
        for line, row in enumerate(found):
            style = look(heads.index(row.head)) | {"linestyle": "none"}
            ax.hlines(place + line, row.main.low, row.main.high, color=style["color"], linewidth=1.4)
            ax.plot(row.main.value, place + line, markersize=7, markeredgecolor="white", markeredgewidth=0.6, **style)
        ticks.append(place + (len(found) - 1) / 2)
        place += len(found) + 1
        ax.axhline(place - 1, color="#cccccc", linewidth=0.8)
    ax.set_yticks(ticks, [folded(model, 32, 2 if len(rows) > len(models) else 1) for model in models])
    metric = rows[0].main_metric
    ax.set(ylim=(place - 1, -1), xlabel=f"{metric_title(metric)} with 95% interval over test clips")
    ax.grid(True, axis="x")


@styled
def class_bars(rows: Sequence[Row]) -> Figure:
    """Average precision of classes: the first row's as bars, the others' as marks; all, or the best and the worst."""
    first, others = rows[0], rows[1 : 1 + OTHERS]
    known, rare = first.per_class, set(rare_classes(first.first))
    names = sorted((name for name in known if not math.isnan(known[name])), key=lambda name: (known[name], name))
    if not names:
        raise AudiobatError(f"{first.model} has no average precision of a single class: probe again with this version.")
    whole = len(names) <= ALL_CLASSES
    parts = [("all classes", names)] if whole else [("worst", names[:CLASSES]), ("best", names[-CLASSES:])]
    longest = max(len(shown) for _, shown in parts)
    figure = Figure(figsize=(WIDTH if whole else 9.5, 1.9 + 0.22 * longest))
    for ax, (title, shown) in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        places = np.arange(len(shown))
        ax.barh(places, [known[n] for n in shown], color=SKY, edgecolor=BLACK, linewidth=0.5, label=row_name(first))
        for i, row in enumerate(others):
            style = look(1 + i) | {"linestyle": "none", "markeredgecolor": "white", "markersize": 6}
            ax.plot([row.per_class.get(n, math.nan) for n in shown], places, label=row_name(row), **style)
        marks = [f"{RARE_MARK} " if n in rare else "" for n in shown]
        ax.set_yticks(
            places, [m + folded(n.replace("_", " "), 28, 1) for m, n in zip(marks, shown, strict=True)], fontsize=8.5
        )
        ax.set(xlim=(0, 1.02), ylim=(-0.7, len(shown) - 0.3), xlabel="average precision")
        ax.set_title(title if whole else f"the {len(shown)} {title} of {len(names)}")
        ax.grid(True, axis="x")
    handles, labels = ([*part[-1:], *part[:-1]] for part in ax.get_legend_handles_labels())  # the bars come first
    figure.legend(handles, labels, loc="outside lower left", ncols=2, fontsize=8.5)
    subject = "average precision of each class" if whole else f"classes that {first.model} knows best and worst"
    if rare:
        subject += f" ({RARE_MARK} {len(rare)} of {len(names)}: fewer than {FEW} clips)"
    headline(figure, f"{first.data}: {subject}")
    return figure


def row_name(row: Row) -> str:
    """Model and head for a legend, with the main metric."""
    return (
        f"{folded(row.model, 28, 1)}, {folded(row.head, 22, 1)}: {metric_title(row.main_metric)} {row.main.value:.3f}"
    )


@dataclass(frozen=True, eq=False)
class Thresholds:
    """Macro F1 of one row over the threshold of the probability."""

    name: str
    thresholds: tuple[float, ...]
    f1: tuple[float, ...]


@styled
def f1_by_threshold(data: str, lines: Sequence[Thresholds]) -> Figure:
    """F1 over the threshold: the best threshold of each line is marked, and 0.5, at which F1 is reported."""
    if not lines:
        raise AudiobatError("No record has scores beside it: probe again with this version.")
    figure = Figure(figsize=(WIDTH, 3.9 + 0.17 * len(lines)))
    ax = figure.subplots()
    for i, line in enumerate(lines):
        style = look(i)
        best = int(np.nanargmax(line.f1))
        label = f"{folded(line.name, 52, 1)}: best at {line.thresholds[best]:.2f}"
        ax.plot(line.thresholds, line.f1, color=style["color"], linestyle=style["linestyle"])
        ax.plot(line.thresholds[best], line.f1[best], markersize=7, markeredgecolor="white", label=label, **style)
    ax.axvline(0.5, color=BLACK, linestyle=":", linewidth=1)
    ax.set(xlim=(0, 1), ylim=(0, None), xlabel="threshold of the probability", ylabel="macro F1 on the test clips")
    ax.grid(True)
    figure.legend(loc="outside lower left", ncols=1 if len(lines) < 3 else 2, fontsize=8.5)
    headline(figure, f"{data}: F1 by threshold")
    return figure
