"""How figures look, and their files: colours for colour-blind readers, markers and shades for grey prints."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from textwrap import wrap
from typing import Any, ParamSpec

import matplotlib
from matplotlib.figure import Figure

# Okabe and Ito's, in an order in which neighbours differ in lightness too.
BLUE, VERMILLION, GREEN, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9"
PURPLE, BLACK = "#CC79A7", "#000000"
COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, SKY)
LINES = ("-", "--", ":", "-.")
WIDTH = 7.5  # inches
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "audiobat",  # the same figure is the same file
    "text.parse_math": False,  # a name with two $ is a name
}
SERIES = ((BLUE, "o"), (ORANGE, "s"), (BLACK, "^"), (VERMILLION, "D"), (SKY, "v"), (GREEN, "P"), (PURPLE, "X"))
RUNS_SHOWN = 28  # series that `look` tells apart
P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Let a function draw in this file's style without changing matplotlib's settings for the rest of the process."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return inner


def png(figure: Figure) -> bytes:
    """The figure as a small PNG."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, dpi=100, format="png")
    return buffer.getvalue()


def save(figure: Figure, folder: str | Path, name: str) -> Path:
    """Write `folder`/NAME.svg and .png and return the path of the SVG."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure.savefig(folder / f"{name}.png", dpi=150)
        figure.savefig(folder / f"{name}.svg", dpi=150, metadata={"Date": None})
    return folder / f"{name}.svg"


def look(place: int) -> dict[str, Any]:
    """Colour, marker and line of the series at `place`: no two of the first 28 share all three."""
    colour, marker = SERIES[place % len(SERIES)]
    return {"color": colour, "marker": marker, "linestyle": LINES[place % len(LINES)]}


def folded(name: str, width: int, lines: int = 2) -> str:
    """A name over at most `lines` lines of `width` letters; the rest is cut, with an ellipsis."""
    plain = " ".join(name.split())
    cut = wrap(plain, width, max_lines=lines, placeholder="…")
    if cut and cut[-1] == "…":  # one word is longer than the line, and is left out whole: half a line holds any letters
        cut[-1] = f"{wrap(plain, width)[len(cut) - 1][: width // 2]}…"
    return "\n".join(cut)


def headline(figure: Figure, text: str) -> None:
    """Set the figure's title, at its left."""
    figure.suptitle("\n".join(wrap(text, 78)), x=0.01, ha="left", weight="bold")
