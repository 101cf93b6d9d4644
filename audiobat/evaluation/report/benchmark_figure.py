"""A benchmark as a figure: a panel for each data set, our numbers with their intervals beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from matplotlib.figure import Figure

from audiobat.evaluation.report.ladder_figure import Measured
from audiobat.evaluation.report.style import BLACK, BLUE, WIDTH, folded, headline, styled


class Compared(Protocol):
    """One metric of one model on one data set by one protocol, in percent."""

    @property
    def data(self) -> str:
        """The data set."""

    @property
    def protocol(self) -> str:
        """How the model is used."""

    @property
    def model(self) -> str:
        """The model."""

    @property
    def metric(self) -> str:
        """What was measured."""

    @property
    def ours(self) -> Measured | None:
        """None: not measured."""

    @property
    def paper(self) -> float | None:
        """None: not in the paper."""


@styled
def benchmark_figure(lines: Sequence[Compared]) -> Figure:
    """Panels of the data sets and metrics of which there is a number of ours; rows of models and protocols."""
    panels = [
        [line for line in lines if (line.data, line.metric) == key]
        for key in dict.fromkeys((line.data, line.metric) for line in lines if line.ours is not None)
    ]
    rows = max(len(panel) for panel in panels)
    high = (len(panels) + 1) // 2
    figure = Figure(figsize=(WIDTH, 1.2 + high * (0.9 + 0.24 * rows)))
    axes = list(figure.subplots(high, min(2, len(panels)), squeeze=False).flat)
    for ax in axes:
        ax.set_visible(False)
    for ax, panel in zip(axes, panels, strict=False):
        ax.set_visible(True)
        for y, line in enumerate(panel):
            if line.paper is not None:
                ax.plot(line.paper, y, "D", color=BLACK, markerfacecolor="white", label="the paper", zorder=2)
            if line.ours is not None:
                spread = [[line.ours.mean - line.ours.low], [line.ours.high - line.ours.mean]]
                ax.errorbar(line.ours.mean, y, xerr=spread, fmt="o", color=BLUE, capsize=3, label="here", zorder=3)
        ax.set_yticks(range(len(panel)), [folded(f"{line.model}, {line.protocol}", 24) for line in panel])
        ax.invert_yaxis()
        ax.grid(True, axis="x")
        ax.set_title(panel[0].data)
        ax.set_xlabel(f"{panel[0].metric} (%)")
    handles: dict[str, Any] = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles=list(handles.values()), labels=list(handles), loc="outside lower center", ncols=2)
    headline(figure, "Here and in the paper, with 95% intervals of ours")
    return figure
