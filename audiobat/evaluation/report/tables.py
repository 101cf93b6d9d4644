"""Result records to one table, one row for each model and head: rich for a terminal, Markdown for a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from audiobat.errors import AudiobatError
from audiobat.evaluation.record import Metric, ResultRecord, head_label

BEST = "★"
METRICS = {
    "map": "mAP",
    "f1": "F1",
    "f1_top": "F1, top class",
    "accuracy": "Accuracy",
}  # the records' names that tables show, in this order
LEGEND = f"{BEST} highest of its column. Brackets: 95% basic bootstrap interval over test clips."


@dataclass(frozen=True)
class Cell:
    """What one place of the table shows and what it is sorted by."""

    text: str
    value: float | str
    best: bool = False


def columns(records: Sequence[ResultRecord]) -> list[str]:
    """Headings: what all records measured, between what was probed and how."""
    return ["Model", "Head", *(METRICS[name] for name in shared_metrics(records)), "Probe steps", "Seed"]


def rows(records: Sequence[ResultRecord]) -> list[list[Cell]]:
    """One list of cells for each record, in the records' order.

    Raises AudiobatError for no records, and for records of different clips, which no column may compare.
    """
    if not records:
        raise AudiobatError("There are no result records to show: probe a model first.")
    if len({record.data.sha256 for record in records}) > 1:
        names = ", ".join(sorted({record.data.name for record in records}))
        raise AudiobatError(f"The result records are of different clips ({names}): make one table for each data set.")
    body = []
    for record in records:
        steps = record.head["steps"]
        metrics = []
        for name in shared_metrics(records):
            value = record.metrics[name].value
            best = all(not other.metrics[name].value > value for other in records) and not math.isnan(value)
            metrics.append(Cell(interval(record.metrics[name]), value, best))
        model, head = (Cell(text, text) for text in (record.model.id, head_label(record)))
        body.append([model, head, *metrics, Cell(f"{steps:,}", steps), Cell(str(record.seed), record.seed)])
    return body


def shared_metrics(records: Sequence[ResultRecord]) -> list[str]:
    """Those of METRICS that every record holds."""
    return [name for name in METRICS if all(name in record.metrics for record in records)]


def interval(metric: Metric) -> str:
    """`0.412 [0.380, 0.441]`; what is undefined reads n/a."""
    value, low, high = ("n/a" if math.isnan(x) else f"{x:.3f}" for x in (metric.value, metric.low, metric.high))
    return f"{value} [{low}, {high}]"


def terminal(records: Sequence[ResultRecord]) -> Table:
    """The table for a terminal of 80 columns; the best of a column is bold and starred.

    Names of models wrap and numbers do not. Probe steps and seed go below the table when all rows share them.
    """
    body = rows(records)
    shown = len(columns(records))
    caption = LEGEND
    if len({(row[-2].value, row[-1].value) for row in body}) == 1:
        shown -= 2
        caption = f"{LEGEND} {body[0][-2].text} probe steps, seed {body[0][-1].text}."
    table = Table(title=title(records), caption=caption, title_justify="left", caption_justify="left")
    for place, heading in enumerate(columns(records)[:shown]):
        table.add_column(heading, justify="left" if place < 2 else "right", no_wrap=place > 0)
    for i, row in enumerate(body):
        ends_model = row is body[-1] or body[i + 1][0].text != row[0].text
        cells = (Text(f"{c.text} {BEST}", style="bold green") if c.best else Text(c.text) for c in row[:shown])
        table.add_row(*cells, end_section=ends_model)
    return table


def markdown(records: Sequence[ResultRecord]) -> str:
    """The table as Markdown, with what its numbers are below it."""
    body = rows(records)
    heading = columns(records)
    rule = ["---"] * 2 + ["---:"] * (len(heading) - 2)
    lines: list[list[str]] = [
        heading,
        rule,
        *([f"**{c.text}** {BEST}" if c.best else c.text for c in row] for row in body),
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{title(records)}\n\n{table}\n\n{LEGEND}\n\n{definitions(records)}\n"


def title(records: Sequence[ResultRecord]) -> str:
    """Which clips the table is about."""
    data = records[0].data
    clips = ", ".join(f"{count:,} {split}" for split, count in data.clips.items())
    return f"{data.name}: {clips} clips, {data.classes_present} of {data.classes} classes present in the test clips"


def definitions(records: Sequence[ResultRecord]) -> str:
    """What each column's number is, as its record says."""
    return "\n".join(f"- {METRICS[name]}: {records[0].metrics[name].definition}" for name in shared_metrics(records))
