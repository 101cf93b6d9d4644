"""The critical-difference diagram: models at their mean ranks, bars over those that do not differ (Demsar, Fig. 1)."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from audiobat.evaluation.report.standings.places import Standings
from audiobat.evaluation.report.style import BLACK, BLUE, VERMILLION, WIDTH, folded, headline, styled

CAPTION = (
    "Models at their mean rank over data sets, the best one left. Red bars join models whose mean ranks differ by no "
    "more than the critical difference CD (Nemenyi, 5%), so that these data sets cannot tell them apart."
)
LINE = 0.24  # inches for a model's name
BAR = 0.16  # for a bar


@styled
def rank_figure(found: Standings) -> Figure:
    """The diagram of standings that have mean ranks; without a critical difference there are no bars."""
    ranks = list(found.mean_ranks.items())
    count, alike = len(ranks), found.alike
    left = math.ceil(count / 2)  # models named at the left, the others at the right
    high = 0.2 + BAR * len(alike) + LINE * (left + 0.5)
    figure = Figure(figsize=(WIDTH, high + 0.9))
    ax = figure.subplots()
    margin = 0.45 * (count - 1)
    ax.set(xlim=(1 - margin, count + margin), ylim=(high, -0.55))
    ax.axis("off")
    ax.plot([1, count], [0, 0], color=BLACK, linewidth=1)
    for tick in range(1, count + 1, math.ceil(count / 20)):
        ax.plot([tick, tick], [0, -0.08], color=BLACK, linewidth=1)
        ax.text(tick, -0.12, str(tick), ha="center", va="bottom")
    if found.difference is not None:
        end = min(1 + found.difference, count + margin)
        ax.plot([1, end], [-0.42, -0.42], color=VERMILLION, linewidth=2)
        ax.text(end + 0.02 * count, -0.42, f"CD {found.difference:.2f}", ha="left", va="center", color=VERMILLION)
    below = 0.1 + BAR * len(alike)
    for place, (model, rank) in enumerate(ranks):
        at_left = place < left
        line = place if at_left else count - 1 - place
        y = below + LINE * (line + 0.6)
        end = 1 - 0.05 * margin if at_left else count + 0.05 * margin
        ax.plot([rank, rank, end], [0, y, y], color=BLUE, linewidth=0.9)
        words = f"{folded(model, 24, 1)}  {rank:.2f}" if at_left else f"{rank:.2f}  {folded(model, 24, 1)}"
        ax.text(end, y, f"{words} " if at_left else f" {words}", ha="right" if at_left else "left", va="center")
    for number, (first, last) in enumerate(alike):
        y = 0.1 + BAR * number
        ax.plot([ranks[first][1] - 0.03, ranks[last][1] + 0.03], [y, y], color=VERMILLION, linewidth=3.5)
    headline(figure, f"Mean ranks over {len(found.ranked)} data sets")
    return figure
