"""Figures 4 and 5 at small scale: which block knows the labels and where attention goes, with gates and without.

    python benchmarks/sinks.py --data scenes/scenes.csv --out OUT LADDER/runs/{1,3,5,7,8}_*

In: finished pre-trainings that differ in gates, decoder and seed: the ladder's rungs 1, 3, 5 and 7, and its last rung
without gates (docs/ladder.md). Out: OUT/sinks.md, the paper's claims beside ours with intervals over the runs' seeds;
OUT/figures/; and OUT/RUN/, what `audiobat analyze` finds of each run, which is not computed again.
"""

import argparse
import contextlib
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from audiobat import analyze, load
from audiobat.config import ProbeConfig
from audiobat.config.recipes import make_config
from audiobat.engine.checkpoint import load_checkpoint
from audiobat.engine.files import read_json, write_atomic
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.evaluation.report.analysis_figures import by_block, from_zero
from audiobat.evaluation.report.collect import collect, load_all
from audiobat.evaluation.report.curves import Layers, rhos
from audiobat.evaluation.report.record_figures import layer_curves
from audiobat.evaluation.report.render import pipe_table
from audiobat.evaluation.report.style import WIDTH, headline, look, save, styled
from audiobat.probing.analyze.run import read_table
from audiobat.studies.beside import T95

EAT, CNN, GATED_CNN, VIT, GATED_VIT = "EAT", "CNN", "CNN, gates", "ViT", "ViT, gates"
KINDS = {  # frontend.kind, target.source, decoder.kind, encoder.gated_attention -> how tables name the network
    ("kaldi_fbank", "mlp", "cnn", False): EAT,
    ("mel_db", "block", "cnn", False): CNN,
    ("mel_db", "block", "cnn", True): GATED_CNN,
    ("mel_db", "block", "vit", False): VIT,
    ("mel_db", "block", "vit", True): GATED_VIT,
}
PAPER = {  # Figure 4 as Section 5 puts it, of 12 blocks: where the linear probe peaks, and how high (mAP on AS-20K)
    EAT: ("around block 7", "below 25"),
    GATED_CNN: ("around block 7", "below 25"),
    GATED_VIT: ("blocks 10 to 12", "nearly 30, in the last"),
}
MIDDLE, LATE = 7 / 12, 10 / 12  # depths of the two peaks
CLIPS = 64  # whose attention is measured
SHARES = {
    "first_token": "cls",
    "strongest_patch": "the patch that gets most",
    "patch_to_itself": "itself",
}
MAPS = {
    "weights": "attention weights",
    "values": "weight × value",
    "gated": "weight × value, gated",
}


@dataclass(frozen=True, eq=False)
class Run:
    """What was measured of one run."""

    probes: list[float]  # [L] the main metric of a linear probe of each block, in percent
    rho: float  # Spearman's rank correlation of the probes and CGP's gate weights
    attention: Mapping[str, Mapping[str, list[float]]]  # map -> measure -> [L], in percent, the mean over heads
    layers: Layers  # the records behind it

    @property
    def later(self) -> float:
        """How far the late blocks, at the ViT's peak in the paper, are above the block at the CNN's."""
        depth = len(self.probes)
        late = [probe for block, probe in enumerate(self.probes, 1) if block / depth >= LATE]
        return statistics.fmean(late) - self.probes[round(MIDDLE * depth) - 1]

    def share(self, kind: str, measure: str) -> float:
        """The mean over blocks and heads."""
        return statistics.fmean(self.attention[kind][measure])

    @property
    def in_effect(self) -> str:
        """The map that says what a token takes: with the gate, where there is one."""
        return "gated" if "gated" in self.attention else "values"


Runs = Mapping[str, Mapping[int, Run]]  # kind -> seed -> run


class Spread(NamedTuple):
    """A number over seeds: the mean, and half of the 95% interval of Student's t; of one seed there is none."""

    mean: float
    half: float | None

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        if len(values) == 1:
            return Spread(values[0], None)
        t = T95[len(values) - 2] if len(values) - 2 < len(T95) else 1.96
        return Spread(statistics.fmean(values), t * statistics.stdev(values) / len(values) ** 0.5)

    def text(self, sign: str = "") -> str:
        """`3.21 [2.80, 3.62]`."""
        if self.half is None:
            return f"{self.mean:{sign}.2f}"
        return f"{self.mean:{sign}.2f} [{self.mean - self.half:{sign}.2f}, {self.mean + self.half:{sign}.2f}]"

    def verdict(self, sign: int) -> str:
        """Of a number that has this sign if the paper is right."""
        if self.half is None or not abs(self.mean) > self.half:  # nan as well
            return "not resolved"
        return "agrees" if self.mean * sign > 0 else "contradicts"


class Claim(NamedTuple):
    """A claim of the paper as a number of the runs of one seed, and the sign that it has if the claim holds."""

    text: str
    measure: str
    sign: int
    value: Callable[[Mapping[str, Run]], float]


LATER = "blocks from 10/12 of the depth on less that at 7/12"
BLOCK_CLAIMS = [  # Figure 4
    Claim("EAT peaks in the middle", LATER, -1, lambda runs: runs[EAT].later),
    Claim("BAT with the CNN peaks in the middle", LATER, -1, lambda runs: runs[GATED_CNN].later),
    Claim("BAT with the ViT peaks late", LATER, 1, lambda runs: runs[GATED_VIT].later),
    Claim(
        "the ViT shifts the peak to later blocks",
        "the same, ViT less CNN",
        1,
        lambda runs: runs[GATED_VIT].later - runs[GATED_CNN].later,
    ),
    Claim(
        "the ViT's best block is above the CNN's",
        "best block, ViT less CNN",
        1,
        lambda runs: max(runs[GATED_VIT].probes) - max(runs[GATED_CNN].probes),
    ),
    Claim(
        "the ViT makes the output more separable",
        "last block, ViT less CNN",
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
    "gates less no gates, weights": lambda gated, plain, m: gated("weights", m) - plain("weights", m),
    "gates less no gates, weight × value": lambda gated, plain, m: gated("gated", m) - plain("values", m),
    "gates on less off, weight × value": lambda gated, _, m: gated("gated", m) - gated("values", m),
}


def sink_claims(plain: str, gated: str, measure: str) -> list[Claim]:
    """Figure 5's claim about one share of attention, by each of `UNDONE`."""
    sign = 1 if measure == "patch_to_itself" else -1  # more to the token itself, less to a single other one
    text = f"{plain}: {'more' if sign > 0 else 'less'} to {SHARES[measure]}"
    return [
        Claim(text, way, sign, lambda runs, of=of: of(runs[gated].share, runs[plain].share, measure))
        for way, of in UNDONE.items()
    ]


SINK_CLAIMS = [
    sink_claims(plain, gated, measure) for plain, gated in ((CNN, GATED_CNN), (VIT, GATED_VIT)) for measure in SHARES
]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data", required=True, help="labelled clips, for the probes and for attention")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--config", default="demo_probe", help="how CGP and linear probes are trained")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(arguments)
    try:
        names = {run: kind_and_seed(run) for run in args.runs}
        found: dict[str, dict[int, Run]] = defaultdict(dict)
        for run, (kind, seed) in names.items():
            if seed in found[kind]:
                raise AudiobatError(f"{run} is a second run of {kind} with seed {seed}: name one of them.")
            found[kind][seed] = measured(run, seed, args)
    except AudiobatError as error:
        parser.error(str(error))
    runs = {kind: dict(sorted(found[kind].items())) for kind in KINDS.values() if kind in found}
    figures = args.out / "figures"
    save(layer_curves([joined(kind, of) for kind, of in runs.items()]), figures, "layers")
    save(attention_curves(runs), figures, "sinks")
    write_atomic(args.out / "sinks.md", page(runs))
    print(f"{args.out / 'sinks.md'}")


def kind_and_seed(run: Path) -> tuple[str, int]:
    """Which of `KINDS` a finished run is, and its seed."""
    try:
        config = yaml.safe_load((run / "config.yaml").read_text())
    except OSError as error:
        raise AudiobatError(f"{run} is no run folder ({error}): name folders that pretrain wrote.") from None
    fields = (config["frontend"]["kind"], config["target"]["source"], config["decoder"]["kind"])
    kind = KINDS.get((*fields, config["encoder"]["gated_attention"]))
    if kind is None:
        raise AudiobatError(f"{run} is a network of none of the figures: see KINDS in {__file__}.")
    done, steps = load_checkpoint(run).step, config["train"]["steps"]
    if done < steps:
        raise AudiobatError(f"{run} is at step {done:,} of {steps:,}: train it to its end first.")
    return kind, config["train"]["seed"]


def measured(run: Path, seed: int, args: argparse.Namespace) -> Run:
    """What `analyze` finds of a run, probed with the run's own seed."""
    config = make_config(ProbeConfig, args.config)
    config = replace(config, seeds=(seed,), grid=replace(config.grid, prototypes=(config.head.prototypes,)))
    table, _ = read_table(args.data, None, CLIPS, config.select, config.labels)
    folder = args.out / run.name
    held = read_json(folder / "analysis.json") if (folder / "analysis.json").exists() else None
    now = (weights_sha256(load(run)), table.sha256())
    if held is None or (held["model"]["sha256"], held["data"]["sha256"]) != now:
        few = {"clips": CLIPS, "views": 0, "pictures": 0}
        held = analyze(run, args.data, config, out=folder, device=args.device, overwrite=True, **few)
    (layers,) = collect(load_all([folder / "results"])).layers
    attention = {
        kind: {name: [100 * statistics.fmean(heads) for heads in blocks] for name, blocks in of.items()}
        for kind, of in held["attention"]["measures"].items()
    }
    return Run([100 * value for value in layers.values[0]], rhos(layers)[0], attention, layers)


def joined(kind: str, runs: Mapping[int, Run]) -> Layers:
    """The records of a kind's runs as one model's, seed by seed."""
    of = [run.layers for run in runs.values()]
    return Layers(kind, of[0].data, sum((one.probes for one in of), ()), sum((one.gates for one in of), ()))


@styled
def attention_curves(runs: Runs) -> Figure:
    """Figure 5 as numbers: the share of attention that goes to each place, block by block, with 95% over seeds."""
    figure = Figure(figsize=(WIDTH, 5.0))
    panels = figure.subplots(2, len(SHARES), sharex=True, sharey="col")
    for row, title in zip(panels, ("weights", "gate in effect"), strict=True):
        for ax, (measure, place) in zip(row, SHARES.items(), strict=True):
            for number, (kind, of) in enumerate(runs.items()):
                maps = ["weights" if title == "weights" else run.in_effect for run in of.values()]
                curves = np.array([run.attention[m][measure] for run, m in zip(of.values(), maps, strict=True)])
                spread = [Spread.of(block.tolist()) for block in curves.T]
                means = np.array([one.mean for one in spread])
                halves = np.array([one.half or 0.0 for one in spread])
                x = np.arange(1, len(means) + 1)
                ax.plot(x, means, label=kind, markersize=4, **look(number))
                ax.fill_between(x, means - halves, means + halves, color=look(number)["color"], alpha=0.13, lw=0)
            ax.set_title(f"{title}: to {place}", fontsize=9)
            ax.yaxis.set_major_formatter(PercentFormatter(decimals=0))
            by_block(ax, len(means))
            from_zero(ax)
    for ax in panels[0]:
        ax.set_xlabel("")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=5, fontsize=8.5)
    headline(figure, "Where attention goes, with gates and without")
    return figure


def page(runs: Runs) -> str:
    """Both figures as tables, then the claims."""
    metric = next(iter(next(iter(runs.values())).values())).layers.metric
    lines = ["# Figures 4 and 5 at small scale", ""]
    lines += ["Means over the runs' seeds with 95% intervals of Student's t, in percent.", ""]
    lines += [
        "## Figure 4: which block knows the labels",
        "",
        "![Linear probes and gate weights](figures/layers.png)",
        "",
    ]
    headings = ("network", "seeds", "best block of each seed", metric, "last block", "Spearman with CGP's gate")
    cells = []
    for kind, of in runs.items():
        best = [max(run.probes) for run in of.values()]
        places = [f"{run.probes.index(top) + 1}" for run, top in zip(of.values(), best, strict=True)]
        last, rho = [run.probes[-1] for run in of.values()], [run.rho for run in of.values()]
        numbers = (Spread.of(each).text() for each in (best, last, rho))
        depth = len(next(iter(of.values())).probes)
        cells.append((kind, str(len(of)), f"{', '.join(places)} of {depth}", *numbers, *PAPER.get(kind, ("", ""))))
    lines += pipe_table((*headings, "paper: peak, of 12", "paper: mAP"), cells, labels=1)
    depth = max(len(run.probes) for of in runs.values() for run in of.values())
    cells = [
        (kind, *(Spread.of(block).text() for block in zip(*(run.probes for run in of.values()), strict=True)))
        for kind, of in runs.items()
    ]
    lines += ["", *pipe_table(("network", *(f"block {n + 1}" for n in range(depth))), cells, labels=1), ""]
    lines += ["## Figure 5: where attention goes", "", "![Shares of attention by block](figures/sinks.png)", ""]
    lines += ["Means over blocks and heads. The paper shows maps and gives no shares.", ""]
    cells = []
    for kind, of in runs.items():
        for name, title in MAPS.items():
            if all(name in run.attention for run in of.values()):
                each = ([run.share(name, measure) for run in of.values()] for measure in (*SHARES, "sink_rate_any"))
                cells.append((kind, title, *(Spread.of(values).text() for values in each)))
    lines += pipe_table(
        ("network", "map", *(f"to {place}" for place in SHARES.values()), "heads with a sink"), cells, 2
    )
    told = {claim: verdict(claim, runs) for claim in chain(BLOCK_CLAIMS, *SINK_CLAIMS)}
    counts = Counter(word for _, word in told.values())
    lines += ["", "## The paper's claims", "", "Paired by seed; resolved if the interval does not hold zero. "]
    lines[-1] += f"Of {len(told)}: {', '.join(f'{count} {word}' for word, count in counts.most_common())}."
    cells = [(claim.text, claim.measure, f"{claim.sign:+}"[0], *told[claim]) for claim in BLOCK_CLAIMS]
    lines += ["", *pipe_table(("Figure 4", "measure", "paper", "here", ""), cells, labels=3), ""]
    cells = [(row[0].text, *(" ".join(told[claim]) for claim in row)) for row in SINK_CLAIMS]
    lines += pipe_table(("Figure 5: gates give", *UNDONE), cells, labels=1)
    return "\n".join([*lines, ""])


def verdict(claim: Claim, runs: Runs) -> tuple[str, str]:
    """The claim's number with its interval, over the seeds that all of its networks have, and what it says."""
    values = []
    for seed in sorted({seed for of in runs.values() for seed in of}):
        with contextlib.suppress(KeyError):  # a network that was not trained with this seed
            values.append(claim.value({kind: of[seed] for kind, of in runs.items() if seed in of}))
    if not values:
        return "", "not measured"
    spread = Spread.of(values)
    return spread.text("+"), spread.verdict(claim.sign)


if __name__ == "__main__":
    main()
