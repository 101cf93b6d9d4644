"""Our numbers beside the paper's: records to a value with its interval, lines to a terminal's table, and a figure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple, TypeAlias

from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from audiobat.evaluation.metrics import mean_interval
from audiobat.evaluation.record import ResultRecord
from audiobat.evaluation.report.style import BLACK, BLUE, WIDTH, folded, headline, styled


class Value(NamedTuple):
    """A metric in percent: the mean over seeds and its 95% interval; of one seed, the interval over test clips."""

    mean: float
    low: float
    high: float

    @staticmethod
    def of(records: Sequence[ResultRecord], name: str) -> Value:
        """The metric `name` of records that differ in their seed alone."""
        metrics = [record.metrics[name] for record in records]
        if len(metrics) == 1:
            return Value(100 * metrics[0].value, 100 * metrics[0].low, 100 * metrics[0].high)
        return Value(*mean_interval([100 * metric.value for metric in metrics]))

    @property
    def interval(self) -> str:
        """`[35.12, 39.90]`."""
        return f"[{self.low:.2f}, {self.high:.2f}]"


Panels: TypeAlias = Mapping[tuple[str, str], Sequence[tuple[str, Value | None, float | None]]]


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
    for line, after in zip_longest(lines, lines[1:]):
        ends = group is not None and (after is None or after[group] != line[group])
        table.add_row(*map(Text, line), end_section=ends)
    return table


@styled
def beside_figure(panels: Panels, title: str) -> Figure:
    """Panels of (title, metric in percent) with lines of (label, our number, the paper's), None where there is none."""
    longest = max(len(panel) for panel in panels.values())
    high = (len(panels) + 1) // 2
    figure = Figure(figsize=(WIDTH, 1.2 + high * (0.9 + 0.24 * longest)))
    axes = list(figure.subplots(high, min(2, len(panels)), squeeze=False).flat)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    for ax, ((heading, metric), panel) in zip(axes, panels.items(), strict=False):
        for y, (_, ours, paper) in enumerate(panel):
            if paper is not None:
                ax.plot(paper, y, "D", color=BLACK, markerfacecolor="white", label="the paper", zorder=2)
            if ours is not None:
                spread = [[ours.mean - ours.low], [ours.high - ours.mean]]
                ax.errorbar(ours.mean, y, xerr=spread, fmt="o", color=BLUE, capsize=3, label="here", zorder=3)
        ax.set_yticks(range(len(panel)), [folded(label, 24) for label, _, _ in panel])
        ax.invert_yaxis()
        ax.grid(True, axis="x")
        ax.set(title=heading, xlabel=f"{metric} (%)")
    marks = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles=list(marks.values()), labels=list(marks), loc="outside lower center", ncols=2)
    headline(figure, title)
    return figure
