"""Signals, rows of a run's log and arrays to figures, one function each (Fig. 3 and 5 of the paper); and the demo's."""

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
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from audiobat.audio.frontend import KaldiFrontend, MelFrontend
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import ResultRecord, head_label
from audiobat.evaluation.report.curves import Layers
from audiobat.evaluation.report.record_figures import layer_curves
from audiobat.evaluation.report.record_figures import spearman as spearman
from audiobat.evaluation.report.style import BLUE, COLOURS, LINES, MARKERS, WIDTH, styled
from audiobat.evaluation.report.style import png as png
from audiobat.evaluation.report.style import save as save

HEAT = "magma"  # its lightness rises evenly, so it reads in grey
SHOWN: dict[str, Any] = {"origin": "lower", "aspect": "auto", "cmap": HEAT, "interpolation": "none"}
TICKS_KHZ = (0.25, 0.5, 1, 2, 4, 8)
Array = NDArray[Any]


@styled
def frontends(waveform: torch.Tensor, labels: Sequence[str], mel: MelFrontend, kaldi: KaldiFrontend) -> Figure:
    """One clip [S] through both frontends (Fig. 3), each over the range of its own values."""
    figure = Figure(figsize=(WIDTH, 5.2))
    axes = figure.subplots(2, 1, sharex=True)
    panels: tuple[tuple[MelFrontend | KaldiFrontend, str, str], ...] = (
        (mel, "Mel dB, min-max over the clip (BAT): quiet detail keeps its contrast", "level (clip's min to max)"),
        (kaldi, "Kaldi filter bank, global statistics (EAT): one scale for all clips", "standardised log level"),
    )
    for ax, (frontend, title, unit) in zip(axes, panels, strict=True):
        spectrogram = frontend(waveform[None])[0][0].numpy()  # [T, F]
        image = draw_spectrogram(ax, spectrogram, frontend)
        ax.set_title(title)
        figure.colorbar(image, ax=ax, label=unit, pad=0.01)
    axes[1].set_xlabel("time (s)")
    figure.suptitle(f"One scene, two frontends. It holds: {listed(labels)}", x=0.01, ha="left", weight="bold")
    return figure


def draw_spectrogram(ax: Axes, spectrogram: Array, frontend: MelFrontend | KaldiFrontend) -> Any:
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
def thumbnail(spectrogram: Array, frontend: MelFrontend | KaldiFrontend) -> Figure:
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
    figure.suptitle(
        f"Live pre-training, {last['step']:,} steps in {last['seconds']:.0f} s: "
        f"loss {first['loss']:.2f} to {last['loss']:.2f}",
        x=0.01,
        ha="left",
        weight="bold",
    )
    return figure


def layers(probed: Sequence[tuple[ResultRecord, Sequence[ResultRecord]]]) -> Figure:
    """Fig. 4 from, for each model, its CGP record and its linear records, block 1 to L."""
    return layer_curves(
        [
            Layers(cgp.model.id, cgp.data.name, (tuple(linear),), (tuple(cgp.gate_weights or ()),))
            for cgp, linear in probed
        ]
    )


@dataclass(frozen=True, eq=False)
class Attention:
    """What one block's tokens take from one another, means over heads; token 0 is cls."""

    layer: int
    weights: Array  # [1 + N, 1 + N] softmax of Eq. 12, rows are queries
    ungated: Array  # [1 + N, 1 + N] norm of weight times value
    gated: Array | None  # [1 + N, 1 + N] the same after the gate of Eq. 13; None without one
    grid: tuple[int, int]  # (T, F) of the patches


@styled
def attention(
    seen: Attention, spectrogram: Array, frontend: MelFrontend | KaldiFrontend, labels: Sequence[str]
) -> Figure:
    """Fig. 5 for one clip: who listens to whom in a block, without and with gate, and where its cls token listens.

    A model without a gate has no panels of it.
    """
    figure = Figure(figsize=(WIDTH, 6.0))
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.2, 1)).ravel()
    gated = [] if seen.gated is None else [seen.gated]
    matrices = [rows_to_one(m) for m in (seen.weights, seen.ungated, *gated)]
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
    maps = [rows_to_one(m[:1, 1:]).reshape(seen.grid) for m in (seen.ungated, *gated)]
    top = max(float(m.max()) for m in maps)
    titles = ("cls takes, without gate" if gated else "cls takes", "cls takes, with gate", "")
    for ax, patches, title in zip(panels[1:], maps, titles, strict=False):
        image = ax.imshow(patches.T, **SHOWN, vmin=0, vmax=top, extent=(0.0, seconds, 0.0, rows))
        ax.set_title(title)
    for ax in panels:
        ax.set_xlabel("time (s)")
    lower.colorbar(image, ax=panels, label="share over patches", pad=0.01, format=PercentFormatter(1.0, 1))
    figure.suptitle(f"Who listens to whom in block {seen.layer}: {listed(labels)}", x=0.01, ha="left", weight="bold")
    return figure


def rows_to_one(matrix: Array) -> Array:
    """Scale each row of a matrix that is not negative to a sum of 1."""
    scaled: Array = matrix / np.maximum(matrix.sum(1, keepdims=True), 1e-12)
    return scaled


@styled
def per_class(records: Sequence[ResultRecord]) -> Figure:
    """Average precision of every class that test clips have, for each record, sorted by the first record's."""
    first = records[0].per_class
    names = sorted((n for n, v in first.items() if v is not None), key=lambda n: (first[n] or 0.0, n))
    places = np.arange(len(names))
    figure = Figure(figsize=(WIDTH, 1.8 + 0.19 * len(names)))
    ax = figure.subplots()
    values = np.array([[record.per_class[name] or 0.0 for name in names] for record in records])
    ax.hlines(places, values.min(0), values.max(0), color="#bbbbbb", linewidth=1.2)
    for record, row, colour, marker in zip(records, values, COLOURS, MARKERS, strict=False):
        first_one = record is records[0]
        look = {"markersize": 6, "zorder": 4, "markerfacecolor": colour} if first_one else {"markerfacecolor": "none"}
        label = f"{record.model.id}, {head_label(record)}: mAP {record.metrics['map'].value:.3f}"
        ax.plot(row, places, marker, color=colour, label=label, **look)
    ax.set_yticks(places, [name.replace("_", " ") for name in names], fontsize=8.5)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.8, len(names) - 0.2), xlabel="average precision on the test clips")
    ax.grid(True, axis="x")
    figure.legend(loc="outside lower left", ncols=3, fontsize=8.5, handletextpad=0.1, columnspacing=1.2)
    figure.suptitle(
        f"Average precision of each class, best known to {records[0].model.id} on top", x=0.01, ha="left", weight="bold"
    )
    return figure


def listed(labels: Sequence[str]) -> str:
    """Class names as one reads them."""
    return ", ".join(label.replace("_", " ") for label in labels)
