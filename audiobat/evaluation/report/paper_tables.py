"""Rows to the layouts of the paper's Table 1 and Table 5, numbers in percent; and one list of all numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from audiobat.evaluation.certainty import interval_note, rare_note
from audiobat.evaluation.head_names import head_order, head_title
from audiobat.evaluation.report.collect import Collection
from audiobat.evaluation.report.rows import Row, Summary, metric_title, natural
from audiobat.evaluation.report.verdicts import Verdicts

TABLE5 = {"finetune": "FT", "cgp": "CGP", "linear": "LP"}  # its columns for each data set
F1 = ("f1", "f1_top")


@dataclass(frozen=True)
class Number:
    """A measured cell; a cell that was not measured is None."""

    summary: Summary
    best: bool = False  # of its column
    tally: tuple[int, int, int] | None = None  # won, tied, lost


Cell: TypeAlias = str | Number | None


@dataclass(frozen=True)
class Section:
    """Rows of a table under one heading ("" for none): labels first, then numbers."""

    heading: str
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Grid:
    """A table: headings in two lines, the upper ones (text, columns they span)."""

    name: str
    caption: str
    upper: tuple[tuple[str, int], ...]
    lower: tuple[str, ...]
    labels: int  # leading columns that are text
    sections: tuple[Section, ...]
    notes: tuple[str, ...]


def table1(found: Collection, verdicts: Verdicts) -> Grid:
    """Heads as sections, models as lines; for each data set its main metric and F1."""
    shown = {data: metrics_of(found, data) for data in found.data_sets}
    place = {(row.head, row.model, row.data): i for i, row in enumerate(found.rows)}
    sections = []
    for head in dict.fromkeys(row.head for row in sorted(found.rows, key=lambda row: head_order(row.kind))):
        lines: list[tuple[Cell, ...]] = []
        for model in models_of(found, head):
            cells: list[Cell] = []
            for data, names in shown.items():
                i = place.get((head, model, data))
                cells += [None if i is None else number(found.rows[i], name, verdicts, i) for name in names]
            lines.append((model, *cells))
        sections.append(Section(head, tuple(lines)))
    return with_best(
        Grid(
            name="table1",
            caption="Models under each head (the layout of the paper's Table 1), in percent.",
            upper=(("", 1), *((data, len(names)) for data, names in shown.items())),
            lower=("Model", *(metric_title(name) for names in shown.values() for name in names)),
            labels=1,
            sections=tuple(sections),
            notes=notes(found, verdicts),
        )
    )


def table5(found: Collection, verdicts: Verdicts) -> Grid:
    """Models as lines; for each data set fine-tuning, CGP and the linear probe, by its main metric.

    Where CGP or linear probes of one data set differ in more than their seed, each has a column of its own.
    """
    columns: dict[str, list[str]] = {data: [] for data in found.data_sets}
    for data, heads in columns.items():
        for kind in TABLE5:  # a kind that no row of the data set has is a column of its own, too
            heads += dict.fromkeys(r.head for r in found.rows if r.data == data and r.kind == kind) or [
                head_title(kind)
            ]
    place = {(row.head, row.model, row.data): i for i, row in enumerate(found.rows)}
    lines = []
    for model in models_of(found):
        row = next(r for r in found.rows if r.model == model)
        cells: list[Cell] = [model, parameters(row.first.model.parameters)]
        for data, heads in columns.items():
            for head in heads:
                i = place.get((head, model, data))
                cells.append(None if i is None else number(found.rows[i], found.rows[i].main_metric, verdicts, i))
        lines.append(tuple(cells))
    names = {data: metric_title(metrics_of(found, data)[0]) for data in columns}
    return with_best(
        Grid(
            name="table5",
            caption="Fine-tuning (FT), CGP and linear probing (LP) of each model (the layout of the paper's Table 5), "
            "in percent.",
            upper=(("", 2), *((f"{data} ({names[data]})", len(heads)) for data, heads in columns.items())),
            lower=("Model", "# Params", *(short(head) for heads in columns.values() for head in heads)),
            labels=2,
            sections=(Section("", tuple(lines)),),
            notes=notes(found, verdicts),
        )
    )


def metrics_of(found: Collection, data: str) -> list[str]:
    """The metrics that Table 1 shows of a data set: its main metric and F1, as far as its rows have them."""
    rows = [row for row in found.rows if row.data == data]
    names = {name for row in rows for name in row.summaries}
    return list(dict.fromkeys([*(row.main_metric for row in rows), *(name for name in F1 if name in names)]))


def models_of(found: Collection, head: str | None = None) -> list[str]:
    """Names of the models (under one head), sorted."""
    return sorted({row.model for row in found.rows if head in (None, row.head)}, key=natural)


def short(head: str) -> str:
    """`CGP, 64 prototypes` for Table 5: FT and LP in place of the long names."""
    shorter = {head_title(kind): name for kind, name in TABLE5.items()}
    name, comma, settings = head.partition(",")
    return shorter.get(name, name) + comma + settings


def number(row: Row, name: str, verdicts: Verdicts, place: int) -> Number | None:
    """A cell, with the tally where it is the metric that rows are judged by."""
    if name not in row.summaries:
        return None
    return Number(row.summaries[name], tally=verdicts.tally(place) if name == row.main_metric else None)


def with_best(grid: Grid) -> Grid:
    """The grid with the best number of each column marked; equal numbers are all marked."""
    columns = zip(*(line for section in grid.sections for line in section.rows), strict=True)
    top: list[float | None] = []  # None where there are fewer than two numbers to compare
    for column in columns:
        found = [cell.summary for cell in column if isinstance(cell, Number) and not math.isnan(cell.summary.value)]
        best = min if any(summary.lower_is_better for summary in found) else max
        top.append(best(summary.value for summary in found) if len(found) > 1 else None)

    def marked(cell: Cell, best: float | None) -> Cell:
        return replace(cell, best=True) if isinstance(cell, Number) and cell.summary.value == best else cell

    sections = (replace(s, rows=tuple(tuple(map(marked, line, top)) for line in s.rows)) for s in grid.sections)
    return replace(grid, sections=tuple(sections))


def parameters(count: int | None) -> str:
    """`91M`, or `-` where it is not known."""
    if count is None:
        return "-"
    return f"{count / 1e6:.0f}M" if count >= 1e7 else f"{count / 1e6:.2g}M" if count >= 1e5 else f"{count:,}"


def notes(found: Collection, verdicts: Verdicts) -> tuple[str, ...]:
    """The notes below a table: how to read its cells."""
    seeds = any(row.main.sd_seeds is not None for row in found.rows)
    records = [record for row in found.rows for record in row.records]
    folds = any(row.main.sd_folds is not None for row in found.rows)
    spread = ["± standard deviation over seeds (ˢ)"] * seeds + ["± standard deviation over folds (ᶠ)"] * folds
    return (
        f"Bold: {'best' if any(row.main.lower_is_better for row in found.rows) else 'highest'} of its column.",
        f"Brackets: 95% interval over test clips{', its ends averaged over seeds' if seeds else ''}. "
        f"{interval_note(records)}",
        *filter(None, [rare_note(records)]),
        *([" and ".join(spread) + "."] if spread else []),
        *([f"Behind a cell, won/tied/lost. {verdicts.legend}"] if verdicts.of_pairs else []),
        "- not measured.",
    )


def everything(found: Collection, verdicts: Verdicts) -> list[dict[str, Any]]:
    """One dictionary for each row and metric, for a CSV file: fractions as in the records, not percent."""
    lines = []
    line: dict[str, Any]
    for place, row in enumerate(found.rows):
        won, tied, lost = verdicts.tally(place)
        for name, summary in row.summaries.items():
            main = name == row.main_metric
            line = {"data": row.data, "model": row.model, "head": row.head, "metric": name}
            line |= {"value": summary.value, "low": summary.low, "high": summary.high}
            line |= {"sd_seeds": summary.sd_seeds, "seeds": len(row.records)}
            line |= {"sd_folds": summary.sd_folds, "folds": len(row.first.folds or {}) or None}
            line |= {"won": won, "tied": tied, "lost": lost} if main else dict.fromkeys(("won", "tied", "lost"))
            lines.append(line | {"definition": summary.definition})
    return lines
