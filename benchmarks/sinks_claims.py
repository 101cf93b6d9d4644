"""What was measured of runs with and without gates to the paper's claims of Figures 4 and 5: tables, figures, a page.

A claim is a number of the runs of one seed; it is resolved if its 95% interval over the seeds leaves out zero.
"""

import contextlib
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from audiobat.engine.files import write_atomic
from audiobat.evaluation.metrics import mean_interval
from audiobat.evaluation.report.analysis_figures import by_block, from_zero
from audiobat.evaluation.report.curves import Layers
from audiobat.evaluation.report.record_figures import layer_curves
from audiobat.evaluation.report.render import pipe_table
from audiobat.evaluation.report.rows import metric_title
from audiobat.evaluation.report.style import BLACK, WIDTH, folded, headline, look, save, styled
from audiobat.studies.beside import Value

EAT, CNN, GATED_CNN, VIT, GATED_VIT = "EAT", "CNN", "CNN, gates", "ViT", "ViT, gates"
PAPER = {  # Figure 4 as Section 5 puts it, of 12 blocks: where the linear probe peaks, and how high (mAP on AS-20K)
    EAT: ("around block 7", "below 25"),
    GATED_CNN: ("around block 7", "below 25"),
    GATED_VIT: ("blocks 10 to 12", "nearly 30, in the last"),
}
MIDDLE, LATE = 7 / 12, 10 / 12  # depths of the two peaks
SHARES = {"first_token": "cls", "strongest_patch": "the top patch", "patch_to_itself": "the patch itself"}
MAPS = {"weights": "attention weights", "values": "weight × value", "gated": "weight × value, gated"}


@dataclass(frozen=True, eq=False)
class Run:
    """What was measured of one run."""

    probes: list[float]  # [L] the main metric of a linear probe of each block, in percent
    rho: float  # Spearman's rank correlation of the probes and CGP's gate weights
    attention: Mapping[str, Mapping[str, list[float]]]  # map -> measure -> [L], in percent, the mean over heads
    layers: Layers  # the records behind it
    tokens: int  # of a window, cls among them

    @property
    def later(self) -> float:
        """How far the late blocks, at the ViT's peak in the paper, are above the block at the CNN's."""
        depth = len(self.probes)
        late = [probe for block, probe in enumerate(self.probes, 1) if block / depth >= LATE]
        return statistics.fmean(late) - self.probes[round(MIDDLE * depth) - 1]

    def share(self, kind: str, measure: str) -> float:
        """The mean over blocks and heads."""
        return statistics.fmean(self.attention[kind][measure])


Runs = Mapping[str, Mapping[int, Run]]  # kind -> seed -> run


class Claim(NamedTuple):
    """A claim of the paper as a number of the runs of one seed, and the sign that it has if the claim holds."""

    text: str
    measure: str
    sign: int
    value: Callable[[Mapping[str, Run]], float]


LATER = "blocks from 10/12 of the depth on − that at 7/12"
BLOCK_CLAIMS = [  # Figure 4
    Claim("EAT peaks in the middle", LATER, -1, lambda runs: runs[EAT].later),
    Claim("BAT with the CNN peaks in the middle", LATER, -1, lambda runs: runs[GATED_CNN].later),
    Claim("BAT with the ViT peaks late", LATER, 1, lambda runs: runs[GATED_VIT].later),
    Claim(
        "the ViT shifts the peak to later blocks",
        "the same, ViT − CNN",
        1,
        lambda runs: runs[GATED_VIT].later - runs[GATED_CNN].later,
    ),
    Claim(
        "the ViT's best block is above the CNN's",
        "best block, ViT − CNN",
        1,
        lambda runs: max(runs[GATED_VIT].probes) - max(runs[GATED_CNN].probes),
    ),
    Claim(
        "the ViT makes the output more separable",
        "last block, ViT − CNN",
        1,
        lambda runs: runs[GATED_VIT].probes[-1] - runs[GATED_CNN].probes[-1],
    ),
    Claim(
        "CGP's gate follows the probes",
        "Spearman's correlation over blocks, mean of the three networks",
        1,
        lambda runs: statistics.fmean(runs[kind].rho for kind in PAPER),
    ),
]
# Figure 5: what gates do to a share of attention, by the three ways to do without them. Arguments: the share in a
# network with gates and in one that was trained without, each by map and measure.
Share = Callable[[str, str], float]
UNDONE: dict[str, Callable[[Share, Share, str], float]] = {
    "gates − no gates, weights": lambda gated, plain, m: gated("weights", m) - plain("weights", m),
    "gates − no gates, weight × value": lambda gated, plain, m: gated("gated", m) - plain("values", m),
    "gates on − off, weight × value": lambda gated, _, m: gated("gated", m) - gated("values", m),
}


def sink_claims(plain: str, gated: str, measure: str) -> list[Claim]:
    """Figure 5's claim about one share of attention, by each of `UNDONE`."""
    sign = 1 if measure == "patch_to_itself" else -1  # more to the token itself, less to a single other one
    text = f"{plain}: {'more' if sign > 0 else 'less'} to {SHARES[measure]}"

    def share_of(runs: Mapping[str, Run], kind: str) -> Share:
        return lambda name, measured: runs[kind].share(name, measured)  # only a network that is asked for is needed

    return [
        Claim(text, way, sign, lambda runs, of=of: of(share_of(runs, gated), share_of(runs, plain), measure))
        for way, of in UNDONE.items()
    ]


PAIRS = ((CNN, GATED_CNN), (VIT, GATED_VIT))
SINK_CLAIMS = [sink_claims(plain, gated, measure) for plain, gated in PAIRS for measure in SHARES]
CLAIMS = [*BLOCK_CLAIMS, *chain(*SINK_CLAIMS)]


def over_seeds(claim: Claim, runs: Runs) -> Value:
    """The claim's number over the seeds that all of its networks have; NaN without any."""
    values = []
    for seed in sorted({seed for of in runs.values() for seed in of}):
        with contextlib.suppress(KeyError):  # a network that was not trained with this seed
            values.append(claim.value({kind: of[seed] for kind, of in runs.items() if seed in of}))
    return Value(*mean_interval(values)) if values else Value(math.nan, math.nan, math.nan)


def verdict(value: Value, sign: int) -> str:
    """What the interval says of a number that has this sign if the paper is right."""
    if math.isnan(value.mean):
        return "not measured"
    if not (value.low > 0 or value.high < 0):  # also of one seed, whose ends are NaN
        return "not resolved"
    return "agrees" if value.mean * sign > 0 else "contradicts"


@styled
def attention_curves(runs: Runs) -> Figure:
    """Figure 5 as numbers: the share of attention that goes to each place, block by block, with 95% over seeds."""
    figure = Figure(figsize=(WIDTH, 5.4))
    panels = figure.subplots(2, len(SHARES), sharex=True, sharey="col")
    for row, (plain, gated) in zip(panels, PAIRS, strict=True):
        lines = {"no gates": (plain, "values"), "gates, undone": (gated, "values"), "gates": (gated, "gated")}
        for ax, (measure, place) in zip(row, SHARES.items(), strict=True):
            for number, (label, (kind, name)) in enumerate(lines.items()):
                curves = [run.attention[name][measure] for run in runs.get(kind, {}).values()]
                if not curves:
                    continue
                mean, low, high = zip(*map(mean_interval, zip(*curves, strict=True)), strict=True)
                x = range(1, len(mean) + 1)
                ax.plot(x, mean, label=label, markersize=4, **look(number))
                ax.fill_between(x, low, high, color=look(number)["color"], alpha=0.15, lw=0)
                by_block(ax, len(mean))
            ax.set_title(f"{plain}: to {place}", fontsize=9.5)
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
    for upper, lower in panels.T:
        upper.set_xlabel("")
        from_zero(lower)
        lower.set_ylim(top=min(100, lower.get_ylim()[1]))  # a share; intervals of few seeds reach beyond
    handles = dict(zip(*reversed(panels[0, 0].get_legend_handles_labels()), strict=True))
    handles |= dict(zip(*reversed(panels[1, 0].get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="outside lower left", ncols=3, fontsize=8.5)
    headline(figure, "Where attention goes (weight × value), with gates and without")
    return figure


@styled
def claims_figure(found: Mapping[Claim, Value]) -> Figure:
    """The claims' numbers, turned so that those to the right of zero are as the paper says; but for the correlation.

    What is not measured, as its networks are not there, is left out.
    """
    groups = {"Figure 4: linear probes": [[claim] for claim in BLOCK_CLAIMS[:-1]]}
    for first, second in zip(SINK_CLAIMS, SINK_CLAIMS[len(SHARES) :], strict=False):  # of the CNN and of the ViT
        groups[f"Figure 5: {first[0].text.removeprefix(f'{CNN}: ')}"] = [first, second]
    measured = {
        title: [row for row in rows if not all(math.isnan(found[claim].mean) for claim in row)]
        for title, rows in groups.items()
    }
    shown = {title: rows for title, rows in measured.items() if rows}
    figure = Figure(figsize=(WIDTH, 6.0))
    panels = figure.subplots(2, 2).ravel()
    for ax in panels[len(shown) :]:
        ax.set_visible(False)
    for ax, (title, rows) in zip(panels, shown.items(), strict=False):
        ax.axvline(0, color=BLACK, linewidth=0.8)
        for y, row in enumerate(rows):
            for way, claim in enumerate(row):
                draw_claim(ax, y + 0.25 * (way - (len(row) - 1) / 2), way, claim, found[claim])
        labels = [folded(row[0].text, 24) if len(row) == 1 else row[0].text.partition(":")[0] for row in rows]
        ax.set_yticks(range(len(rows)), labels, fontsize=8)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.grid(True, axis="x")
        ax.set_title(title, fontsize=9.5)
        ax.set_xlabel("points")
    if any(title.startswith("Figure 5") for title in shown):  # the ways are of its claims alone
        handles, labels = panels[len(shown) - 1].get_legend_handles_labels()
        figure.legend(handles[: len(UNDONE)], labels[: len(UNDONE)], loc="outside lower left", fontsize=8.5)
    headline(figure, "Right of zero is as the paper says; a full mark is resolved")
    return figure


def draw_claim(ax: Axes, y: float, way: int, claim: Claim, value: Value) -> None:
    """A claim's number and interval at the height `y`."""
    reach = None if math.isnan(value.low) else [[(value.high - value.low) / 2]] * 2
    style = look(way) | {"linestyle": "none", "capsize": 3, "label": claim.measure}
    if verdict(value, claim.sign) == "not resolved":
        style["markerfacecolor"] = "white"
    ax.errorbar([claim.sign * value.mean], [y], xerr=reach, **style)


def write_page(runs: Runs, out: Path) -> Path:
    """Write OUT/sinks.md and OUT/figures/; returns the page's path."""
    joined = [
        Layers(
            kind,
            next(iter(of.values())).layers.data,
            tuple(chain(*(run.layers.probes for run in of.values()))),
            tuple(chain(*(run.layers.gates for run in of.values()))),
        )
        for kind, of in runs.items()
    ]
    found = {claim: over_seeds(claim, runs) for claim in CLAIMS}
    save(layer_curves(joined), out / "figures", "layers")
    save(attention_curves(runs), out / "figures", "sinks")
    save(claims_figure(found), out / "figures", "claims")
    write_atomic(out / "sinks.md", page(runs, found))
    return out / "sinks.md"


def page(runs: Runs, found: Mapping[Claim, Value]) -> str:
    """The claims, then both figures as tables."""
    first = next(iter(next(iter(runs.values())).values()))
    metric = metric_title(first.layers.metric)
    lines = [
        "# Figures 4 and 5 at small scale",
        "",
        "Means over the runs' seeds with 95% intervals of Student's t, in percent.",
        "",
        "## The paper's claims",
        "",
        "![Each claim's number with its interval around zero](figures/claims.png)",
        "",
        *claim_tables(found),
        "",
        "## Figure 4: which block knows the labels",
        "",
        "![Linear probes of each block and the weight that CGP gives it](figures/layers.png)",
        "",
        *block_table(runs, metric),
        "",
        f"Linear probes, {metric}:",
        "",
        *probe_table(runs),
        "",
        "## Figure 5: where attention goes",
        "",
        "![Shares of attention by block](figures/sinks.png)",
        "",
        f"Means over blocks and heads; even attention would give each of a window's {first.tokens} tokens "
        f"{100 / first.tokens:.2f}. The paper shows maps and gives no shares.",
        "",
        *share_table(runs),
        "",
    ]
    return "\n".join(lines)


def block_table(runs: Runs, metric: str) -> list[str]:
    """For each kind where the linear probe peaks and how high, beside the paper's."""
    cells = []
    for kind, of in runs.items():
        best = [max(run.probes) for run in of.values()]
        places = [f"{run.probes.index(top) + 1}" for run, top in zip(of.values(), best, strict=True)]
        depth = len(next(iter(of.values())).probes)
        last, rho = [run.probes[-1] for run in of.values()], [run.rho for run in of.values()]
        cells.append(
            (kind, f"{', '.join(places)} of {depth}", *map(told, (best, last, rho)), *PAPER.get(kind, ("", "")))
        )
    headings = ("network", "best block, by seed", f"its {metric}", "last block", "Spearman with CGP's gate")
    return pipe_table((*headings, "paper: best of 12", "paper: mAP"), cells, labels=2)


def probe_table(runs: Runs) -> list[str]:
    """The probes of each block."""
    cells = [(kind, *map(told, zip(*(run.probes for run in of.values()), strict=True))) for kind, of in runs.items()]
    depth = max(len(line) for line in cells) - 1
    return pipe_table(("network", *(f"block {n + 1}" for n in range(depth))), cells, labels=1)


def share_table(runs: Runs) -> list[str]:
    """The shares of attention of each kind, by map."""
    cells = []
    for kind, of in runs.items():
        for name, title in MAPS.items():
            if all(name in run.attention for run in of.values()):
                each = ([run.share(name, measure) for run in of.values()] for measure in (*SHARES, "sink_rate_any"))
                cells.append((kind, title, *map(told, each)))
    headings = ("network", "map", *(f"to {place}" for place in SHARES.values()), "heads with a sink (> 30%)")
    return pipe_table(headings, cells, labels=2)


def claim_tables(found: Mapping[Claim, Value]) -> list[str]:
    """Each claim's number and what it says."""
    verdicts = {claim: verdict(value, claim.sign) for claim, value in found.items()}
    counts = ", ".join(f"{word} {count}" for word, count in Counter(verdicts.values()).most_common())
    blocks = [(c.text, c.measure, "> 0" if c.sign > 0 else "< 0", signed(found[c]), verdicts[c]) for c in BLOCK_CLAIMS]
    sinks = [(row[0].text, *(f"{signed(found[c])} {verdicts[c]}" for c in row)) for row in SINK_CLAIMS]
    return [
        f"Differences are seed by seed; one whose interval leaves out zero is resolved. Of {len(found)}: {counts}.",
        "",
        *pipe_table(("Figure 4", "measure", "paper", "here", ""), blocks, labels=3),
        "",
        *pipe_table(("Figure 5: gates give", *UNDONE), sinks, labels=1),
    ]


def told(values: Sequence[float]) -> str:
    """Seeds' values as `3.21 [2.80, 3.62]`; of one seed the value alone."""
    return text_of(Value(*mean_interval(values)))


def signed(value: Value) -> str:
    """The same of a difference: `+0.41 [-0.10, +0.92]`."""
    return text_of(value, "+")


def text_of(value: Value, sign: str = "") -> str:
    """A value with its interval, as far as they are known."""
    if math.isnan(value.low):
        return "" if math.isnan(value.mean) else f"{value.mean:{sign}.2f}"
    return f"{value.mean:{sign}.2f} [{value.low:{sign}.2f}, {value.high:{sign}.2f}]"
