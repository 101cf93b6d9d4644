"""The ladder as a figure: what each rung reached under CGP, ours beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from matplotlib.figure import Figure

from audiobat.evaluation.report.style import BLACK, BLUE, WIDTH, folded, headline, styled


class Measured(Protocol):
    """A mean and its interval, in percent."""

    @property
    def mean(self) -> float:
        """Over seeds."""

    @property
    def low(self) -> float:
        """The interval's lower end."""

    @property
    def high(self) -> float:
        """The interval's upper end."""


@styled
def ladder_figure(labels: Sequence[str], ours: Sequence[Measured], paper: Sequence[float]) -> Figure:
    """Two panels over the same rungs: our mAP with its interval, and the paper's."""
    figure = Figure(figsize=(WIDTH, 3.6))
    left, right = figure.subplots(1, 2, sharey=True)
    y = range(len(labels))
    means = [value.mean for value in ours]
    spread = [[v.mean - v.low for v in ours], [v.high - v.mean for v in ours]]
    left.errorbar(means, y, xerr=spread, fmt="o", color=BLUE, capsize=3)
    left.set_title("here")
    right.plot(paper, y, "D", color=BLACK)
    right.set_title("in the paper (base, AudioSet)")
    for ax in (left, right):
        ax.grid(True, axis="x")
        ax.set_xlabel("mAP under CGP (%)")
    left.set_yticks(list(y), [folded(label, 30) for label in labels])
    left.invert_yaxis()
    headline(figure, "From EAT's recipe to BAT's, rung by rung")
    return figure
