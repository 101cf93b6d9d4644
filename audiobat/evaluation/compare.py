"""`audiobat compare`: result records of the same clips in; which system is better, by how much, and how sure, out.

Each pair is judged by a paired bootstrap over test clips, with Holm's correction for the number of pairs; over many
data sets by win rates and Wilcoxon's signed-rank test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Literal

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from audiobat.errors import AudiobatError
from audiobat.evaluation.compare_measures import Measure, measure_of
from audiobat.evaluation.compare_records import Entry, check_same_clips, kept_of, name_systems, read_entries
from audiobat.evaluation.metrics import bootstrap_values, holm, interval_of_difference, wilcoxon

ALPHA = 0.05  # a Holm-corrected p below it is a win or a loss
ENOUGH = 5  # data sets for Wilcoxon's test: with fewer its least possible p is 0.125 or more
SCORES = 2**24  # of records that are measured in the same draws: 0.7 GB with their order
BY_HOLM = ("= Holm", "")  # a tie by the correction alone: the pair's own interval leaves 0 out
MARKS = {"win": ("▲ win", "green"), "loss": ("▼ loss", "red"), "tie": ("= tie", "")}


@dataclass(frozen=True)
class Difference:
    """Two systems on one data set: the metric of each, and the difference a - b."""

    data: str
    metric: str
    a: str
    b: str
    value_a: float
    value_b: float
    low: float  # 95% interval of value_a - value_b
    high: float
    p: float
    lower_is_better: bool = False
    task: str = ""  # the kind of the task; "" of heads
    p_holm: float = math.nan

    @property
    def advantage(self) -> float:
        """By how much `a` is the better one."""
        return self.value_b - self.value_a if self.lower_is_better else self.value_a - self.value_b

    @property
    def tie_by_holm(self) -> bool:
        """Whether it would be a win or a loss if this pair were the only one."""
        return self.verdict == "tie" and self.p < ALPHA

    @property
    def verdict(self) -> Literal["win", "loss", "tie"]:
        """The verdict on `a`: a tie where the corrected p is not below 0.05."""
        if not self.p_holm < ALPHA:
            return "tie"
        return "win" if self.advantage > 0 else "loss"


@dataclass(frozen=True)
class Duel:
    """Two systems over all data sets on which both were measured."""

    a: str
    b: str
    data_sets: int
    win_rate: float  # share of the data sets on which `a` is the better one; equal values count half
    p: float  # Wilcoxon's; NaN for fewer than `ENOUGH` data sets
    p_holm: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """Every pair of systems on every data set, and, of several data sets, every pair over all of them."""

    systems: list[str]
    differences: list[Difference]
    duels: list[Duel]


def compare(
    records: Sequence[str | Path] | str | Path, *, metric: str | None = None, samples: int = 10_000, seed: int = 0
) -> Comparison:
    """Print how the systems behind result records differ, and return it.

    Args:
        records: record files, or folders of them such as a run's.
        metric: name of the metric to compare; None: the main one of each data set.
        samples: resamples of the test clips; clips of a fold are resampled within it.
        seed: seed of the resamples.

    Raises:
        AudiobatError: records that cannot be read or have no scores, fewer than two systems on a data set, test clips
            that differ, a metric that a record does not have.
    """
    if samples < 1:
        raise AudiobatError(f"--samples is {samples}: use 1 or more, and thousands for p values that mean something.")
    if isinstance(records, str | Path):
        records = [records]
    entries = name_systems(read_entries(records))
    systems = list(dict.fromkeys(entry.system for entry in entries))
    differences: list[Difference] = []
    for place in dict.fromkeys((entry.data, entry.task) for entry in entries):  # a task has units of its own
        differences += on_one_data_set([e for e in entries if (e.data, e.task) == place], metric, samples, seed)
    if not differences:
        found = ", ".join(f"{e.path} on {e.record.data.name} ({e.data[:8]})" for e in entries)
        raise AudiobatError(f"There are no two systems with records of the same clips to compare: {found}.")
    several = len({d.data for d in differences}) > 1
    comparison = Comparison(systems, differences, duels(systems, differences) if several else [])
    show(comparison, samples)
    return comparison


def on_one_data_set(entries: Sequence[Entry], metric: str | None, samples: int, seed: int) -> list[Difference]:
    """Every pair of systems on one data set, with Holm's correction; nothing if there is one system."""
    systems = list(dict.fromkeys(entry.system for entry in entries))
    if len(systems) < 2:
        return []
    name = entries[0].record.main_metric if metric is None else metric
    found = resample([[e for e in entries if e.system == system] for system in systems], name, samples, seed)
    data, lower, pairs = entries[0].record.data.name, entries[0].record.metrics[name].lower_is_better, []
    for (a, (value_a, resampled_a)), (b, (value_b, resampled_b)) in combinations(zip(systems, found, strict=True), 2):
        low, high, p = interval_of_difference(value_a - value_b, resampled_a - resampled_b)
        pairs.append(Difference(data, name, a, b, value_a, value_b, low, high, p, lower, entries[0].task))
    corrected = holm([pair.p for pair in pairs])
    return [replace(pair, p_holm=p) for pair, p in zip(pairs, corrected, strict=True)]


def resample(systems: Sequence[Sequence[Entry]], name: str, samples: int, seed: int = 0) -> list[tuple[float, Tensor]]:
    """The metric `name` of systems, the mean over their seeds: on the clips as they are, and in resamples [samples].

    All systems are measured in the same resamples, which are drawn once for as many records as memory has room for.
    Seeds are averaged within a resample, so that an interval is of the system's mean.

    Raises:
        AudiobatError: scores that are not a record's, or of other clips than those of the first record.
    """
    measured: dict[Entry, tuple[float, Tensor]] = {}
    together: dict[object, list[Entry]] = {}  # records of the same units: of a task each seed may draw its own
    for entry in (entry for seeds in systems for entry in seeds):
        together.setdefault(entry.task and entry.record.seed, []).append(entry)
    for entries in together.values():
        wanted = kept_of(entries[0])
        size = max(1, SCORES // wanted.size)
        for some in (entries[start : start + size] for start in range(0, len(entries), size)):
            measures = []
            for entry in some:
                kept = kept_of(entry)
                check_same_clips(entries[0], wanted, entry, kept)
                measure, sizes = measure_of(entry, kept, name)
                measures.append(measure)
            values = [float(measure(torch.ones(1, sum(sizes), dtype=torch.float64))) for measure in measures]
            resampled = bootstrap_values(partial(all_of, measures), sizes, samples, seed).T.contiguous()
            measured |= dict(zip(some, zip(values, resampled, strict=True), strict=True))
    found = []
    for seeds in systems:
        each = [measured[entry] for entry in seeds]
        found.append((sum(value for value, _ in each) / len(each), torch.stack([own for _, own in each]).mean(0)))
    return found


def all_of(measures: Sequence[Measure], counts: Tensor) -> Tensor:
    """Several metrics of the same counts [R, n]: [R, metrics]."""
    return torch.stack([measure(counts) for measure in measures], dim=1)


def duels(systems: Sequence[str], differences: Sequence[Difference]) -> list[Duel]:
    """Every pair of systems over the data sets that both have, with Holm's correction."""
    found = []
    for a, b in combinations(systems, 2):
        gaps = [d.advantage for d in differences if (d.a, d.b) == (a, b)]
        gaps += [-d.advantage for d in differences if (d.a, d.b) == (b, a)]
        if gaps:
            rate = sum((gap > 0) + 0.5 * (gap == 0) for gap in gaps) / len(gaps)
            found.append(Duel(a, b, len(gaps), rate, wilcoxon(gaps) if len(gaps) >= ENOUGH else math.nan))
    corrected = holm([duel.p for duel in found])
    return [replace(duel, p_holm=p) for duel, p in zip(found, corrected, strict=True)]


def show(comparison: Comparison, samples: int) -> None:
    """Print the systems with a letter for each, a table for each data set, and the duels."""
    console = Console(highlight=False)
    letter = {system: letters(i) for i, system in enumerate(comparison.systems)}
    for system, short in letter.items():
        console.print(Text(f"{short}  {system}"))
    for place in dict.fromkeys((d.data, d.task) for d in comparison.differences):
        pairs = [d for d in comparison.differences if (d.data, d.task) == place]
        console.print(difference_table(pairs, letter))
    console.print(
        f"95% basic interval and p of a paired bootstrap over test clips, {samples:,} resamples. Holm: p corrected for "
        f"the pairs of a table; below {ALPHA} the first one wins or loses."
    )
    if any(d.tie_by_holm for d in comparison.differences):
        console.print(
            f'"{BY_HOLM[0]}": a tie, though the interval of this pair by itself leaves 0 out: among so many pairs one '
            "like it is expected by chance. Compare fewer systems, chosen beforehand, to ask about a single pair."
        )
    if comparison.duels:
        console.print(win_table(comparison, letter))
        if any(duel.p == duel.p for duel in comparison.duels):
            console.print(duel_table(comparison.duels, letter))
        else:
            console.print(f"Wilcoxon's signed-rank test needs {ENOUGH} data sets that two systems share.")


def difference_table(pairs: Sequence[Difference], letter: dict[str, str]) -> Table:
    """A table of the pairs of one data set."""
    place = ", ".join(filter(None, (pairs[0].data, pairs[0].task)))
    table = table_of(f"{place}: {pairs[0].metric}", "Pair", "Values", "Difference [95%]", "p", "Holm", "")
    for d in pairs:
        gap = f"{d.value_a - d.value_b:+.4f} [{d.low:+.4f}, {d.high:+.4f}]"
        values = f"{d.value_a:.3f} {d.value_b:.3f}"
        mark, style = BY_HOLM if d.tie_by_holm else MARKS[d.verdict]
        table.add_row(f"{letter[d.a]} - {letter[d.b]}", values, gap, p_text(d.p), p_text(d.p_holm), Text(mark, style))
    return table


def win_table(comparison: Comparison, letter: dict[str, str]) -> Table:
    """Share of data sets on which the system of the row is better than that of the column."""
    rate = {(d.a, d.b): d.win_rate for d in comparison.duels} | {(d.b, d.a): 1 - d.win_rate for d in comparison.duels}
    table = table_of("Win rate over data sets, row against column", "", *letter.values())
    for row, short in letter.items():
        cells = (f"{rate[row, column]:.2f}" if (row, column) in rate else "" for column in letter)
        table.add_row(short, *cells)
    return table


def duel_table(found: Sequence[Duel], letter: dict[str, str]) -> Table:
    """A table of the pairs over all data sets."""
    table = table_of("Wilcoxon's signed-rank test over data sets", "Pair", "Data sets", "Win rate", "p", "Holm")
    for d in found:
        pair = f"{letter[d.a]} - {letter[d.b]}"
        table.add_row(pair, str(d.data_sets), f"{d.win_rate:.2f}", p_text(d.p), p_text(d.p_holm))
    return table


def table_of(title: str, *columns: str) -> Table:
    """An empty table; all columns but the first are numbers."""
    table = Table(title=Text(title), title_justify="left", box=SIMPLE)  # with this box a line fits into 80 columns
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    return table


def p_text(p: float) -> str:
    """`0.0312`, `<0.0001`, or n/a."""
    if math.isnan(p):
        return "n/a"
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def letters(place: int) -> str:
    """The letters of a system: A for 0, Z for 25, AA for 26."""
    return (letters(place // 26 - 1) if place >= 26 else "") + chr(ord("A") + place % 26)
