"""Waveforms, logs of runs and attention maps to figures, one function each (Fig. 3 and 5 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from audiobat.audio.frontends.base import Frontend
from audiobat.audio.frontends.kaldi_fbank import KaldiFrontend
from audiobat.audio.frontends.mel_db import MelFrontend
from audiobat.errors import AudiobatError
from audiobat.evaluation.report.style import BLUE, COLOURS, LINES, WIDTH, folded, headline, look, styled
from audiobat.evaluation.run_logs import RunLogs

HEAT = "magma"  # its lightness rises evenly, so it reads in grey
SHOWN: dict[str, Any] = {"origin": "lower", "aspect": "auto", "cmap": HEAT, "interpolation": "none"}
POINTS = 500  # of a curve over steps
MARKED = 40  # curves of so many points have a mark at each
TICKS_KHZ = (0.25, 0.5, 1, 2, 4, 8)
Array = NDArray[Any]


@styled
def frontends(waveform: torch.Tensor, labels: Sequence[str], mel: MelFrontend, kaldi: KaldiFrontend) -> Figure:
    """One clip [S] through both frontends (Fig. 3), each over the range of its own values."""
    figure = Figure(figsize=(WIDTH, 5.2))
    axes = figure.subplots(2, 1, sharex=True)
    panels: tuple[tuple[Frontend, str, str], ...] = (
        (mel, "Mel dB, min-max over the clip (BAT): quiet detail keeps its contrast", "level (clip's min to max)"),
        (kaldi, "Kaldi filter bank, global statistics (EAT): one scale for all clips", "standardised log level"),
    )
    for ax, (frontend, title, unit) in zip(axes, panels, strict=True):
        spectrogram = frontend(waveform[None])[0][0].numpy()  # [T, F]
        image = draw_spectrogram(ax, spectrogram, frontend)
        ax.set_title(title)
        figure.colorbar(image, ax=ax, label=unit, pad=0.01)
    axes[1].set_xlabel("time (s)")
    headline(figure, f"One scene, two frontends. It holds: {listed(labels)}")
    return figure


def draw_spectrogram(ax: Axes, spectrogram: Array, frontend: Frontend) -> Any:
    """Show a spectrogram [T, F] with seconds below and kHz at the side; returns the image."""
    config = frontend.config
    seconds = len(spectrogram) * config.hop_length / config.sample_rate
    image = ax.imshow(spectrogram.T, **SHOWN, extent=(0.0, seconds, 0.0, float(config.mel_bins)))
    top = config.f_max or config.sample_rate / 2
    shown = [khz for khz in TICKS_KHZ if config.f_min < 1000 * khz <= top]
    low, high = mels(config.f_min), mels(top)
    step = (high - low) / (config.mel_bins + 1)  # filter f peaks at low + (f + 1) step, the middle of row f
    ax.set_yticks([(mels(1000 * khz) - low) / step - 0.5 for khz in shown], [f"{khz:g}" for khz in shown])
    ax.set_ylim(0, config.mel_bins)
    ax.set_ylabel("frequency (kHz)")
    return image


def mels(hertz: float) -> float:
    """Hertz on the mel scale that both frontends use."""
    return 2595 * math.log10(1 + hertz / 700)


@styled
def thumbnail(spectrogram: Array, frontend: Frontend) -> Figure:
    """A spectrogram [T, F] for a card of the page."""
    figure = Figure(figsize=(4.0, 1.7))
    figure.set_layout_engine("none")  # a fixed frame: to find one takes longer than to draw
    ax = figure.add_axes((0.13, 0.25, 0.84, 0.7))
    draw_spectrogram(ax, spectrogram, frontend)
    ax.set(xlabel="time (s)", ylabel="kHz")
    ax.tick_params(labelsize=8)
    return figure


@styled
def live_curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss and its parts, target variance, feature rank and position share over the steps of metrics.jsonl."""
    if not rows:
        raise AudiobatError("The run logged no row: let it train for at least train.log_every steps.")
    steps = [row["step"] for row in rows]
    figure = Figure(figsize=(WIDTH, 5.0))
    (loss, variance), (rank, share) = figure.subplots(2, 2, sharex=True)
    parts = (("loss", "sum"), ("local_loss", "local: masked patches"), ("global_loss", "global: cls token"))
    for (name, label), colour, line in zip(parts, COLOURS, LINES, strict=False):
        loss.plot(steps, [row[name] for row in rows], line, color=colour, label=label)
    loss.legend()
    loss.set(title="Loss and its two parts", ylabel="mean squared error")
    variance.set(title="Target variance: 0 would be collapse", ylabel="variance over tokens")
    rank.set(title="Feature rank: 1 would be collapse", ylabel="participation ratio")
    share.set(title="Position explains this much of the targets", ylabel="share of variance")
    share.yaxis.set_major_formatter(PercentFormatter(1.0))
    for ax, name in ((variance, "target_variance"), (rank, "feature_rank"), (share, "position_share")):
        ax.plot(steps, [row[name] for row in rows], color=BLUE)
    for ax in (loss, variance, rank, share):
        ax.set_ylim(0, 1 if ax is share else None)
        ax.grid(True)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in (rank, share):
        ax.set_xlabel("step")
    first, last = rows[0], rows[-1]
    length = f"{last['step']:,} steps in {last['seconds']:.0f} s"
    headline(figure, f"Live pre-training, {length}: loss {first['loss']:.2f} to {last['loss']:.2f}")
    return figure


@styled
def training_curves(logs: Sequence[RunLogs], names: Sequence[str], titles: Mapping[str, str]) -> Figure:
    """A panel for each statistic in `names` over the steps of runs, each run in its own colour and line."""
    wide = min(2, len(names))
    high = -(-len(names) // wide)
    several = len(logs) > 1
    key = 0.35 + 0.19 * ((len(logs) + 1) // 2) if several else 0.0  # inches that the key takes
    figure = Figure(figsize=(WIDTH, 0.2 + 1.9 * high + key))
    axes = list(figure.subplots(high, wide, squeeze=False).flat)
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    for ax, name in zip(axes, names, strict=False):
        for place, log in enumerate(logs):
            steps, values = thinned(*log.points(name))
            style = look(place)
            marker = style.pop("marker") if len(steps) <= MARKED else ""
            ax.plot(steps, values, marker=marker, markersize=3.5, linewidth=1.3, **style)
        ax.set_title(titles.get(name, name.replace("_", " ")))
        ax.grid(True)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.margins(x=0.02)
    for ax in axes[max(0, len(names) - wide) : len(names)]:
        ax.set_xlabel("step")
    if several:
        lines = [Line2D([], [], linewidth=1.3, markersize=3.5, **look(place)) for place in range(len(logs))]
        labels = [folded(log.name, 44, 1) for log in logs]
        figure.legend(lines, labels, loc="outside lower left", ncols=2, fontsize=9)
    return figure


def thinned(steps: Sequence[int], values: Sequence[float]) -> tuple[Array, Array]:
    """At most `POINTS` points of a curve: means of neighbours where there are more."""
    cuts = min(len(steps), POINTS)
    parts = [np.array_split(np.asarray(numbers, np.float64), cuts) if cuts else [] for numbers in (steps, values)]
    return tuple(np.array([part.mean() for part in each]) for each in parts)  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Attention:
    """The attention of one block between its tokens, means over heads; token 0 is cls."""

    layer: int
    weights: Array  # [1 + N, 1 + N] softmax of Eq. 12, rows are queries
    ungated: Array  # [1 + N, 1 + N] norm of weight times value
    gated: Array | None  # [1 + N, 1 + N] the same after the gate of Eq. 13; None without one
    grid: tuple[int, int]  # (T, F) of the patches


@styled
def attention(shown: Attention, spectrogram: Array, frontend: Frontend, labels: Sequence[str]) -> Figure:
    """Fig. 5 for one clip: the attention of a block without and with gate, and the attention of its cls token.

    A model without a gate has no panels with gate.
    """
    figure = Figure(figsize=(WIDTH, 6.0))
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.2, 1)).ravel()
    gated = [] if shown.gated is None else [shown.gated]
    matrices = [rows_to_one(m) for m in (shown.weights, shown.ungated, *gated)]
    titles = ("attention weights", "without gate: weight × value" if gated else "weight × value", "with gate")
    norm = PowerNorm(0.5, vmin=0, vmax=max(float(np.quantile(m, 0.999)) for m in matrices))
    axes = upper.subplots(1, len(matrices), sharey=True)
    for ax, matrix, title in zip(axes, matrices, titles, strict=False):
        image = ax.imshow(matrix, cmap=HEAT, norm=norm, interpolation="none")
        ax.set_title(f"{title}\nto cls {matrix[:, 0].mean():.1%}, to itself {np.diag(matrix).mean():.1%}", fontsize=9)
        ax.set_xlabel("key: cls, then patches")
    axes[0].set_ylabel("query: cls, then patches")
    upper.colorbar(image, ax=axes, label="share of the row", shrink=0.85, pad=0.01, format=PercentFormatter(1.0, 1))
    panels = lower.subplots(1, len(matrices), sharey=True)
    draw_spectrogram(panels[0], spectrogram, frontend)
    panels[0].set_title("the clip")
    seconds, rows = panels[0].get_xlim()[1], frontend.config.mel_bins
    maps = [rows_to_one(m[:1, 1:]).reshape(shown.grid) for m in (shown.ungated, *gated)]
    top = max(float(m.max()) for m in maps)
    titles = ("cls takes, without gate" if gated else "cls takes", "cls takes, with gate", "")
    for ax, patches, title in zip(panels[1:], maps, titles, strict=False):
        image = ax.imshow(patches.T, **SHOWN, vmin=0, vmax=top, extent=(0.0, seconds, 0.0, rows))
        ax.set_title(title)
    for ax in panels:
        ax.set_xlabel("time (s)")
    lower.colorbar(image, ax=panels, label="share over patches", pad=0.01, format=PercentFormatter(1.0, 1))
    headline(figure, f"Attention of block {shown.layer}: {listed(labels)}")
    return figure


def rows_to_one(matrix: Array) -> Array:
    """A matrix without negative numbers, each of its rows scaled to a sum of 1."""
    scaled: Array = matrix / np.maximum(matrix.sum(1, keepdims=True), 1e-12)
    return scaled


def listed(labels: Sequence[str]) -> str:
    """Class names in a sentence."""
    return ", ".join(label.replace("_", " ") for label in labels)
