"""The demo's records to one table, a line for each model and head: for the terminal, and as Markdown for table.md."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from audiobat.evaluation.head_names import head_label
from audiobat.evaluation.record import Metric, ResultRecord
from audiobat.evaluation.report.render import pipe_table
from audiobat.evaluation.report.rows import metric_title

METRICS = ("map", "f1", "f1_top", "accuracy")  # shown, so far as all records hold them
BEST = "★"
LEGEND = f"{BEST} highest of its column. Brackets: 95% basic bootstrap interval over test clips."


def shown_metrics(records: Sequence[ResultRecord]) -> list[str]:
    """The metrics of METRICS that every record holds."""
    return [name for name in METRICS if all(name in record.metrics for record in records)]


def interval(metric: Metric) -> str:
    """`0.412 [0.380, 0.441]`; n/a where undefined."""
    value, low, high = ("n/a" if math.isnan(x) else f"{x:.3f}" for x in (metric.value, metric.low, metric.high))
    return f"{value} [{low}, {high}]"


def is_best(record: ResultRecord, name: str, records: Sequence[ResultRecord]) -> bool:
    """Whether no other record has a higher value of a metric."""
    value = record.metrics[name].value
    return not math.isnan(value) and not any(other.metrics[name].value > value for other in records)


def terminal(records: Sequence[ResultRecord]) -> Table:
    """The table for a terminal of 80 columns; the best of a column is bold and starred. Names of models may wrap."""
    names, head = shown_metrics(records), records[0].head
    caption = f"{LEGEND} {head['steps']:,} probe steps, seed {records[0].seed}."
    table = Table(title=title(records), caption=caption, title_justify="left", caption_justify="left")
    for place, heading in enumerate(["Model", "Head", *map(metric_title, names)]):
        table.add_column(heading, justify="left" if place < 2 else "right", no_wrap=place > 0)
    for record, after in zip(records, [*records[1:], None], strict=True):
        cells = [Text(record.model.id), Text(head_label(record))]  # as Text, so that [..] is not read as markup
        for name in names:
            text = interval(record.metrics[name])
            best = is_best(record, name, records)
            cells.append(Text(f"{text} {BEST}", style="bold green") if best else Text(text))
        table.add_row(*cells, end_section=after is None or after.model.id != record.model.id)
    return table


def markdown(records: Sequence[ResultRecord]) -> str:
    """The table as Markdown, with the definitions of its metrics below it."""
    names = shown_metrics(records)
    lines = []
    for record in records:
        cells = [record.model.id, head_label(record)]
        for name in names:
            text = interval(record.metrics[name])
            cells.append(f"**{text}** {BEST}" if is_best(record, name, records) else text)
        lines.append([*cells, f"{record.head['steps']:,}", str(record.seed)])
    table = pipe_table(["Model", "Head", *map(metric_title, names), "Probe steps", "Seed"], lines, labels=2)
    definitions = [f"- {metric_title(name)}: {records[0].metrics[name].definition}" for name in names]
    return "\n".join([title(records), "", *table, "", LEGEND, "", *definitions, ""])


def title(records: Sequence[ResultRecord]) -> str:
    """The clips that the table is about."""
    data = records[0].data
    clips = ", ".join(f"{count:,} {split}" for split, count in data.clips.items())
    return f"{data.name}: {clips} clips, {data.classes_present} of {data.classes} classes present in the test clips"
