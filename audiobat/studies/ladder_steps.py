"""The records of a ladder to its rungs and steps: Tables 2 to 4 and what each change makes of mAP, beside the paper.

A step is a rung against the one that it changes in one thing. Both saw the same clips, crops and masks under each seed,
so that a step is the mean of its differences seed by seed, with the interval of Student's t over them. Beside it stands
the interval over test clips, of the same runs on other clips: a paired bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from audiobat.config.recipes import base_of
from audiobat.config.rungs import describe_rung, rungs
from audiobat.evaluation.compare import resample
from audiobat.evaluation.compare_records import Entry
from audiobat.evaluation.metrics import interval_of_difference, mean_interval, t_quantile
from audiobat.evaluation.record import ResultRecord, load_record
from audiobat.evaluation.report.render import pipe_table
from audiobat.evaluation.report.style import BLACK, BLUE, SKY, WIDTH, folded, headline, styled
from audiobat.evaluation.results import record_path
from audiobat.studies.beside import Value

# Rung: its name in tables; the paper's mAP and F1 under CGP with 10,000 prototypes on AS-20K, in percent.
PAPER = {
    "ladder/1_eat_frontend": ("EAT's filter bank, global statistics", 34.86, 24.28),
    "ladder/2_mel_db": ("mel in dB, each clip's own range", 35.03, 24.75),
    "ladder/3_eob": ("end-of-block targets", 34.60, 25.00),
    "ladder/4_gates": ("MLP targets, gates", 35.09, 26.12),
    "ladder/5_gates_eob": ("end-of-block targets, gates", 35.42, 27.13),
    "ladder/6_vit": ("ViT decoder, half the heads, MLP x2", 37.43, 28.91),
    "ladder/7_bat": ("ViT decoder, all heads, MLP x4", 37.52, 29.11),
}
TABLES = {
    "Table 2. Frontend": ("ladder/1_eat_frontend", "ladder/2_mel_db"),
    "Table 3. Targets and gates": ("ladder/2_mel_db", "ladder/3_eob", "ladder/4_gates", "ladder/5_gates_eob"),
    "Table 4. Decoder": ("ladder/5_gates_eob", "ladder/6_vit", "ladder/7_bat"),
}
CHANGES = {  # what a rung changes in the one that it is made from
    "ladder/2_mel_db": "EAT's filter bank to mel in dB",
    "ladder/3_eob": "MLP to end-of-block targets",
    "ladder/4_gates": "gates, MLP targets",
    "ladder/5_gates_eob": "MLP to end-of-block targets, gates",
    "ladder/6_vit": "CNN to ViT decoder",
    "ladder/7_bat": "twice the decoder's heads and MLP",
}
HEADINGS = ("", "mAP", "95%", "paper", "F1", "paper")
STEP_HEADINGS = ("step", "mAP", "95% over seeds", "95% over clips", "paper", "")
PROBE_STRIDE = 1_000  # from the seed of a probe to that of the next
SAMPLES = 1_000  # of the test clips


class Rung(NamedTuple):
    """A rung as it was measured: mAP and F1 under CGP over its seeds."""

    name: str
    seeds: int
    map: Value
    f1: Value
    probes: int = 1  # of each run


class Step(NamedTuple):
    """What a change makes of mAP, in points: the mean over seeds and its interval, NaN where there is one seed."""

    name: str  # of the rung
    here: Value
    pooled: Value  # the same mean, its interval from the spread that all rungs have together
    clips: Value  # the same mean, its interval over test clips

    @property
    def paper(self) -> float:
        """The paper's."""
        return PAPER[self.name][1] - PAPER[str(base_of(self.name))][1]

    @property
    def verdict(self) -> Literal["agrees", "contradicts", "not resolved"]:
        """Whether the interval over seeds is beyond zero, and on which side."""
        if not (self.here.low > 0 or self.here.high < 0):
            return "not resolved"
        return "agrees" if self.here.mean * self.paper > 0 else "contradicts"


def record_of(out: Path, name: str, seed: int, probe: int = 0) -> Path:
    """Where the record of a rung, a seed and one of its probes is, such as results/4_gates-seed0_cgp_0.json."""
    return record_path(out, f"{Path(name).name}-seed{seed}", "cgp", seed + PROBE_STRIDE * probe)


def missing(out: Path, name: str, seed: int, probes: int) -> tuple[int, ...]:
    """The seeds of those probes of a rung and seed that have no record yet."""
    left = (probe for probe in range(probes) if not record_of(out, name, seed, probe).exists())
    return tuple(seed + PROBE_STRIDE * probe for probe in left)


def records_of(out: Path, name: str, seeds: Sequence[int], probes: int) -> list[list[ResultRecord]]:
    """The records of a rung: for each seed those of its probes."""
    return [[load_record(record_of(out, name, seed, probe)) for probe in range(probes)] for seed in seeds]


def rung_of_records(out: Path, name: str, seeds: Sequence[int], probes: int = 1) -> Rung:
    """A rung from its seeds' records; where clips have one label each, F1 is that of the likeliest class."""
    records = records_of(out, name, seeds, probes)
    f1 = "f1" if "f1" in records[0][0].metrics else "f1_top"
    return Rung(name, len(seeds), value_of(records, "map"), value_of(records, f1), probes)


def value_of(records: Sequence[Sequence[ResultRecord]], metric: str) -> Value:
    """A metric of runs, each with its probes: the mean and interval over runs; of one run, over test clips."""
    runs = [[record.metrics[metric] for record in run] for run in records]
    means = [100 * fmean(probe.value for probe in run) for run in runs]
    if len(runs) > 1:
        return Value(*mean_interval(means))
    return Value(means[0], 100 * fmean(probe.low for probe in runs[0]), 100 * fmean(probe.high for probe in runs[0]))


def steps_of_records(out: Path, seeds: Sequence[int], probes: int = 1) -> list[Step]:
    """The steps, from the records of all rungs and `seeds` and the scores beside them."""
    entries = []
    for name in rungs():
        paths = [record_of(out, name, seed, probe) for seed in seeds for probe in range(probes)]
        entries.append([Entry(path, load_record(path)) for path in paths])
    resampled = dict(zip(rungs(), resample(entries, "map", SAMPLES), strict=True))
    maps = maps_of(out, seeds, probes)
    half = math.nan
    if len(seeds) > 1:
        half = t_quantile((len(maps) - 1) * (len(seeds) - 1)) * common_deviation(maps) / math.sqrt(len(seeds))
    steps = []
    for name, differences in paired_differences(maps).items():
        here = Value(*mean_interval(differences))
        (_, before), (_, after) = resampled[str(base_of(name))], resampled[name]
        low, high, _ = interval_of_difference(here.mean, 100 * (after - before))
        pooled = Value(here.mean, here.mean - half, here.mean + half)
        steps.append(Step(name, here, pooled, Value(here.mean, low, high)))
    return steps


def maps_of(out: Path, seeds: Sequence[int], probes: int = 1) -> dict[str, list[float]]:
    """For each rung its mAP under each seed, in percent: the mean over the run's probes."""
    return {
        name: [100 * fmean(probe.metrics["map"].value for probe in run) for run in records_of(out, name, seeds, probes)]
        for name in rungs()
    }


def paired_differences(maps: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """For each step what it makes of mAP under each seed, in points."""
    return {name: [b - a for a, b in zip(maps[str(base_of(name))], maps[name], strict=True)] for name in CHANGES}


def common_deviation(maps: Mapping[str, Sequence[float]]) -> float:
    """The standard deviation of the difference of two rungs from seed to seed, if it is the same for all of them.

    That of randomised blocks: from what rungs and seeds, two at least, leave of mAP when the mean of each is taken off.
    """
    table = np.array([maps[name] for name in maps])  # [rungs, seeds]
    left = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    return math.sqrt(2 * float((left**2).sum()) / ((len(table) - 1) * (table.shape[1] - 1)))


def table_lines(measured: Sequence[Rung]) -> dict[str, list[tuple[str, ...]]]:
    """The lines of Tables 2 to 4, by their titles."""
    cells = {}
    for rung in measured:
        label, paper_map, paper_f1 = PAPER[rung.name]
        numbers = (rung.map.mean, rung.map.interval, paper_map, rung.f1.mean, paper_f1)
        cells[rung.name] = (label, *(n if isinstance(n, str) else f"{n:.2f}" for n in numbers))
    return {title: [cells[name] for name in names] for title, names in TABLES.items()}


def step_lines(steps: Sequence[Step]) -> list[tuple[str, ...]]:
    """The lines of the table of steps."""
    return [
        (
            CHANGES[step.name],
            f"{step.here.mean:+.2f}",
            *map(signed_interval, (step.here, step.clips)),
            f"{step.paper:+.2f}",
            step.verdict,
        )
        for step in steps
    ]


def signed_interval(value: Value) -> str:
    """`[-0.12, +0.90]`, or n/a where there is none."""
    return "n/a" if math.isnan(value.low) else f"[{value.low:+.2f}, {value.high:+.2f}]"


def markdown_table(measured: Sequence[Rung], steps: Sequence[Step], scale: str) -> str:
    """Tables 2 to 4 and the steps as Markdown, with the changes of every rung."""
    seeds, probes = measured[0].seeds, measured[0].probes
    of = "seeds" if seeds > 1 else "test clips"
    each = f", each the mean of {probes} probes" if probes > 1 else ""
    lines = [
        f"# The ladder at {scale} scale",
        "",
        f"CGP on frozen features, in percent; {seeds} seed(s){each}, 95% intervals over {of}. The paper's "
        "numbers are of networks of base size, 400,000 steps on AudioSet and CGP on AS-20K: only their order can be "
        "compared.",
    ]
    for title, cells in table_lines(measured).items():
        lines += ["", f"## {title}", "", *pipe_table(HEADINGS, cells, labels=1)]
    lines += [
        "",
        "## Steps",
        "",
        "A rung less the one that it changes, in points of mAP, seed by seed on the same clips, crops and masks. A "
        "step is resolved where its interval over seeds leaves out zero; the interval over clips is of these "
        "runs on other test clips.",
        "",
        *pipe_table(STEP_HEADINGS, step_lines(steps), labels=1),
        "",
        verdict_line(steps),
        *pooled_lines(steps),
        "",
        *(f"- {describe_rung(rung.name)}" for rung in measured),
        "",
    ]
    return "\n".join(lines)


def verdict_line(steps: Sequence[Step]) -> str:
    """How many steps are resolved, and which agree with the paper, contradict it, or stay open."""
    if math.isnan(steps[0].here.low):
        return "One seed resolves no step: add more, such as --seeds 0,1,2."
    parts = []
    for verdict in ("agrees", "contradicts", "not resolved"):
        found = [step for step in steps if step.verdict == verdict]
        if found:
            names = (f"{CHANGES[s.name]} ({s.here.mean:+.2f} here, {s.paper:+.2f} in the paper)" for s in found)
            parts.append(f"{verdict}: {'; '.join(names)}")
    resolved = sum(step.verdict != "not resolved" for step in steps)
    text = ". ".join(part[0].upper() + part[1:] for part in parts)
    return f"{resolved} of the paper's {len(steps)} steps are resolved. {text}."


def pooled_lines(steps: Sequence[Step]) -> list[str]:
    """The intervals from the common spread as Markdown; nothing for one seed."""
    if math.isnan(steps[0].pooled.low):
        return []
    found = (f"{CHANGES[step.name]} {signed_interval(step.pooled)}" for step in steps)
    beyond = sum(step.pooled.low > 0 or step.pooled.high < 0 for step in steps)
    return [
        "",
        f"If all rungs stray alike from seed to seed, their spread is known from all of them, and {beyond} of the "
        f"{len(steps)} intervals leave out zero: {'; '.join(found)}.",
    ]


@styled
def steps_figure(steps: Sequence[Step], scale: str) -> Figure:
    """Each step with its intervals over seeds and over test clips, around zero, beside the paper's."""
    figure = Figure(figsize=(WIDTH, 1.6 + 0.5 * len(steps)))
    ax = figure.subplots()
    ax.axvline(0, color=BLACK, linewidth=0.8)
    for y, step in enumerate(steps):
        draw = partial(ax.errorbar, step.here.mean, capsize=3)
        draw(y + 0.18, xerr=around(step.clips), fmt="none", color=SKY, label="95% over test clips")
        fill = "white" if step.verdict == "not resolved" else BLUE
        draw(y - 0.04, xerr=around(step.here), fmt="o", color=BLUE, label="here, 95% over seeds", markerfacecolor=fill)
        ax.plot(step.paper, y - 0.04, "D", color=BLACK, markerfacecolor="white", label="the paper")
    ax.set_yticks(range(len(steps)), [f"{folded(CHANGES[step.name], 40)}\n{step.verdict}" for step in steps])
    ax.invert_yaxis()
    ax.grid(True, axis="x")
    ax.set(xlabel="points of mAP under CGP that a change makes")
    marks = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    figure.legend(handles=list(marks.values()), labels=list(marks), loc="outside lower center", ncols=3)
    headline(figure, f"What each change makes at {scale} scale; a full dot is a step that is resolved")
    return figure


def around(value: Value) -> list[list[float]] | None:
    """How far an interval reaches to both sides, as matplotlib takes it; None where there is none."""
    return None if math.isnan(value.low) else [[value.mean - value.low], [value.high - value.mean]]
