"""Records of several seeds to a number with its interval, and lines of text to a table for a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from audiobat.evaluation.record import ResultRecord

# Student's t for 95%, by seeds less one; beyond, the normal's 1.96 is near enough for two digits.
T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


@dataclass(frozen=True)
class Value:
    """A metric in percent: the mean over seeds and its 95% interval; of one seed, the interval over test clips."""

    mean: float
    low: float
    high: float

    @staticmethod
    def of(records: Sequence[ResultRecord], name: str) -> Value:
        """The metric `name` of records that differ in their seed alone."""
        values = [100 * record.metrics[name].value for record in records]
        if len(values) == 1:
            metric = records[0].metrics[name]
            return Value(values[0], 100 * metric.low, 100 * metric.high)
        mean = statistics.fmean(values)
        t = T95[len(values) - 2] if len(values) - 2 < len(T95) else 1.96
        half = t * statistics.stdev(values) / len(values) ** 0.5
        return Value(mean, mean - half, mean + half)

    @property
    def interval(self) -> str:
        """`[35.12, 39.90]`."""
        return f"[{self.low:.2f}, {self.high:.2f}]"


def terminal_table(
    title: str, headings: Sequence[str], lines: Sequence[Sequence[str]], text: Collection[int], group: int | None = None
) -> Table:
    """A table for a terminal, its cells as they are: brackets in a name are no markup.

    Args:
        title: above it.
        headings: of the columns.
        lines: the cells, line by line.
        text: the columns of text, by their place; the others are numbers, set to the right.
        group: a column; where its cell changes from one line to the next, a rule parts the two.
    """
    table = Table(title=Text(title), title_justify="left")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place in text else "right", overflow="fold")
    for line, after in zip(lines, [*lines[1:], None], strict=True):
        table.add_row(
            *map(Text, line), end_section=group is not None and (after is None or after[group] != line[group])
        )
    return table
