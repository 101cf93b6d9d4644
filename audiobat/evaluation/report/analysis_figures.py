"""The measures of `audiobat analyze` to figures, one function each: sinks, ranks, similarity of blocks, prototypes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from audiobat.audio.frontends.base import Frontend
from audiobat.evaluation.report.figures import HEAT, draw_spectrogram, listed
from audiobat.evaluation.report.style import LINES, WIDTH, folded, headline, look, styled

KINDS = {"weights": "attention weights", "values": "weight × value", "gated": "weight × value, gated"}
POPULATIONS = {"patches": "patches", "mean": "mean patch of each clip", "cls": "cls of each clip"}
MEANS = {  # over heads, measure by measure
    "strongest_token": "to the token that gets most",
    "sink_rate_any": "heads and clips that have a sink",
    "patch_to_itself": "patch to itself",
    "patch_entropy": "entropy of patches' rows, 100% if uniform",
}
OUTLINED = 5  # patches of a clip
INSET = 0.03  # of a patch, between its frame and its edge: neighbours' frames do not cover each other
NUMBERED = 12  # blocks up to which the map of CKA has numbers in its cells

Array = NDArray[Any]
Heads = Mapping[str, Mapping[str, Sequence[Sequence[float]]]]  # kind -> measure -> [L, H]


@styled
def sinks(measured: Heads) -> Figure:
    """Where attention goes: to cls for each block and head (top); means over heads (bottom), without and with gate."""
    figure = Figure(figsize=(WIDTH, 6.6))
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.6)).ravel()
    maps = {kind: np.asarray(measured[kind]["first_token"]).T for kind in measured}  # [H, L]
    heads, depth = next(iter(maps.values())).shape
    top = max(float(m.max()) for m in maps.values()) or 1.0
    axes = np.atleast_1d(upper.subplots(1, len(maps), sharey=True))
    for ax, (kind, values) in zip(axes, maps.items(), strict=True):
        extent = (0.5, depth + 0.5, heads + 0.5, 0.5)
        image = ax.imshow(values, cmap=HEAT, vmin=0, vmax=top, aspect="auto", interpolation="none", extent=extent)
        ax.set_title(f"{KINDS[kind]}\nto cls {values.mean():.1%}", fontsize=9)
        ax.set_xlabel("block")
        for axis, ticks in ((ax.xaxis, 7), (ax.yaxis, 12)):
            axis.set_major_locator(MaxNLocator(integer=True, nbins=ticks, min_n_ticks=1))
    axes[0].set_ylabel("head")
    upper.colorbar(image, ax=axes, label="share that goes to cls", pad=0.01, format=PercentFormatter(1.0, 0))
    panels = lower.subplots(2, 2, sharex=True).ravel()
    for ax, (name, title) in zip(panels, MEANS.items(), strict=True):
        for place, kind in enumerate(measured):
            values = np.asarray(measured[kind][name]).mean(1)
            ax.plot(range(1, depth + 1), values, label=KINDS[kind], markersize=4, **look(place))
        ax.set_title(title, fontsize=9.5)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        by_block(ax, depth)
        from_zero(ax)
    for ax in panels[:2]:
        ax.set_xlabel("")
    handles, labels = panels[0].get_legend_handles_labels()
    lower.legend(handles, labels, loc="outside lower left", ncols=3, fontsize=8.5)
    headline(figure, "Whether tokens sink their attention into cls, block by block and head by head")
    return figure


@styled
def ranks(blocks: Sequence[Mapping[str, Any]]) -> Figure:
    """Label-free measures block by block: RankMe, effective rank, LiDAR and the spread of unit vectors."""
    figure = Figure(figsize=(WIDTH, 5.2))
    panels = figure.subplots(2, 2, sharex=True).ravel()
    shown = [kind for kind in POPULATIONS if kind in blocks[0]]
    x = range(1, len(blocks) + 1)
    names = {"rankme": "RankMe", "effective_rank": "Effective rank", "token_std": "Spread of unit vectors"}
    for ax, (name, title) in zip((panels[0], panels[1], panels[3]), names.items(), strict=True):
        for place, kind in enumerate(shown):
            ax.plot(x, [block[kind][name] for block in blocks], label=POPULATIONS[kind], **look(place))
        ax.set_title(title)
    found = [block["lidar"] for block in blocks]
    panels[2].set_title("LiDAR: what tells clips apart")
    if all(value is not None for value in found):
        panels[2].plot(x, found, **look(3))
    else:
        panels[2].text(0.5, 0.5, "not measured", transform=panels[2].transAxes, ha="center")
        panels[2].set_yticks([])
    panels[3].set_ylabel("0 is collapse, 1 isotropic")
    for ax in panels:
        by_block(ax, len(blocks))
        from_zero(ax)
    for ax in panels[:3]:
        ax.set_ylabel("dimensions")
    for ax in panels[:2]:
        ax.set_xlabel("")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=3, fontsize=8.5)
    headline(figure, "How many directions each block's features use")
    return figure


@styled
def likeness(cka: Sequence[Sequence[float]]) -> Figure:
    """Linear CKA between all pairs of blocks, coloured from the tenth below the least to 1."""
    values = np.asarray(cka, dtype=float)
    depth = len(values)
    least = min(0.9, math.floor(10 * float(np.nan_to_num(values).min())) / 10)
    figure = Figure(figsize=(5.2, 4.6))
    ax = figure.subplots()
    extent = (0.5, depth + 0.5, 0.5, depth + 0.5)
    image = ax.imshow(values, cmap=HEAT, vmin=least, vmax=1, origin="lower", interpolation="none", extent=extent)
    for (row, column), value in np.ndenumerate(values) if depth <= NUMBERED else ():
        ink = "black" if value > least + 0.6 * (1 - least) else "white"
        ax.text(column + 1, row + 1, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
    ax.set(xlabel="block", ylabel="block")
    figure.colorbar(image, ax=ax, label="linear CKA of mean patches")
    headline(figure, "How alike the blocks are")
    return figure


@dataclass(frozen=True, eq=False)
class PrototypeClip:
    """A prototype and the clip that activates it most."""

    prototype: int
    strength: float  # how much it adds to the class's logit
    labels: Sequence[str]  # of the clip
    spectrogram: Array  # [frames, mel bins]
    similarity: Array  # [T, F] of the clip's patches with the prototype
    column_seconds: float  # from the start of a patch column to that of the next


@styled
def class_prototypes(label: str, precision: float, shown: Sequence[PrototypeClip], frontend: Frontend) -> Figure:
    """A class's strongest prototypes: the clip that activates each, its best patches framed, and all similarities."""
    figure = Figure(figsize=(WIDTH, 0.6 + 2.1 * len(shown)))
    panels = figure.subplots(len(shown), 2, sharex="row", sharey=True, squeeze=False, width_ratios=(1.25, 1))
    bins = frontend.config.mel_bins
    for (left, right), clip in zip(panels, shown, strict=True):
        draw_spectrogram(left, clip.spectrogram, frontend)
        seconds = left.get_xlim()[1]
        outline(left, clip, bins)
        left.set_title(folded(f"prototype {clip.prototype}, in a clip of {listed(clip.labels)}", 58), fontsize=8.5)
        extent = (0.0, len(clip.similarity) * clip.column_seconds, 0.0, float(bins))
        image = right.imshow(
            clip.similarity.T, cmap=HEAT, origin="lower", aspect="auto", interpolation="none", extent=extent
        )
        right.set_xlim(0, seconds)
        right.set_title(f"adds {clip.strength:+.2g} to the logit".replace("-", "−"), fontsize=8.5)
        figure.colorbar(image, ax=right, label="similarity", pad=0.01)
    for ax in panels[-1]:
        ax.set_xlabel("time (s)")
    headline(figure, f"Prototypes of {folded(label.replace('_', ' '), 32, 1)} (average precision {precision:.2f})")
    return figure


def outline(ax: Axes, clip: PrototypeClip, bins: int) -> None:
    """Frame the patches that activate the prototype most: the best with a solid line, the others dotted."""
    rows, end = clip.similarity.shape[1], ax.get_xlim()[1]
    pen = min(1.6, max(0.4, 50 * clip.column_seconds / end))  # points: a fifth of a narrow column
    order = np.argsort(-np.nan_to_num(clip.similarity, nan=-np.inf).ravel())[:OUTLINED]
    for place, patch in reversed(list(enumerate(order))):
        t, f = divmod(int(patch), rows)
        start, stop = t * clip.column_seconds, min((t + 1) * clip.column_seconds, end)  # the last column may be cut
        gap = INSET * clip.column_seconds, INSET * bins / rows
        corner, size = (start + gap[0], f * bins / rows + gap[1]), (stop - start - 2 * gap[0], bins / rows - 2 * gap[1])
        for width, colour, line in ((2 * pen, "black", "-"), (pen, "white", LINES[0] if place == 0 else LINES[2])):
            ax.add_patch(Rectangle(corner, *size, fill=False, ec=colour, lw=width, ls=line))


def from_zero(ax: Axes) -> None:
    """Begin the axis of values at zero, with room above the highest mark."""
    ax.update_datalim([(1, 0)])
    ax.margins(y=0.07)
    ax.autoscale_view()
    ax.set_ylim(bottom=0)


def by_block(ax: Axes, depth: int) -> None:
    """Blocks 1 to `depth` below, a grid behind."""
    ax.set(xlabel="block", xlim=(0.7, depth + 0.3))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
    ax.grid(True)
