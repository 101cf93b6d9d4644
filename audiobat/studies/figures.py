"""Numbers of ours beside the paper's as one figure: the ladder (Tables 2 to 4), a benchmark (Tables 1 and 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from matplotlib.figure import Figure

from audiobat.evaluation.report.style import BLACK, BLUE, WIDTH, folded, headline, styled
from audiobat.studies.tables import Value

Panels: TypeAlias = Mapping[tuple[str, str], Sequence[tuple[str, Value | None, float | None]]]


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
        ax.set_title(heading)
        ax.set_xlabel(f"{metric} (%)")
    found = [ax.get_legend_handles_labels() for ax in axes]
    marks = {label: handle for handles, labels in found for handle, label in zip(handles, labels, strict=True)}
    figure.legend(handles=list(marks.values()), labels=list(marks), loc="outside lower center", ncols=2)
    headline(figure, title)
    return figure
