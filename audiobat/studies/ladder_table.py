"""Rungs and their records to Tables 2 to 4, the paper's numbers beside ours, and to a line on the order of rungs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.table import Table

from audiobat.config.rungs import describe_rung
from audiobat.evaluation.record import ResultRecord

# Student's t for 95%, by seeds less one; beyond, the normal's 1.96 is near enough for two digits.
T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
# The paper's mAP and F1 under CGP with 10,000 prototypes on AS-20K, in percent (Tables 2, 3 and 4).
PAPER = {
    "ladder/1_eat_frontend": (34.86, 24.28),
    "ladder/2_mel_db": (35.03, 24.75),
    "ladder/3_eob": (34.60, 25.00),
    "ladder/4_gates": (35.09, 26.12),
    "ladder/5_gates_eob": (35.42, 27.13),
    "ladder/6_vit": (37.43, 28.91),
    "ladder/7_bat": (37.52, 29.11),
}
LABELS = {
    "ladder/1_eat_frontend": "EAT's filter bank, global statistics",
    "ladder/2_mel_db": "mel in dB, each clip's own range",
    "ladder/3_eob": "end-of-block targets",
    "ladder/4_gates": "MLP targets, gates",
    "ladder/5_gates_eob": "end-of-block targets, gates",
    "ladder/6_vit": "ViT decoder, half the heads, MLP x2",
    "ladder/7_bat": "ViT decoder, all heads, MLP x4",
}
TABLES = {
    "Table 2. Frontend": ("ladder/1_eat_frontend", "ladder/2_mel_db"),
    "Table 3. Targets and gates": ("ladder/2_mel_db", "ladder/3_eob", "ladder/4_gates", "ladder/5_gates_eob"),
    "Table 4. Decoder": ("ladder/5_gates_eob", "ladder/6_vit", "ladder/7_bat"),
}
HEADINGS = ("", "mAP", "95%", "paper", "F1", "paper")


@dataclass(frozen=True)
class Value:
    """A metric in percent: the mean over seeds and its 95% interval; of one seed, that over test clips."""

    mean: float
    low: float
    high: float

    @staticmethod
    def of(records: Sequence[ResultRecord], name: str) -> Value:
        """The metric `name` of records that differ in their seed."""
        values = [100 * record.metrics[name].value for record in records]
        if len(values) == 1:
            metric = records[0].metrics[name]
            return Value(values[0], 100 * metric.low, 100 * metric.high)
        mean = statistics.fmean(values)
        t = T95[len(values) - 2] if len(values) - 2 < len(T95) else 1.96
        half = t * statistics.stdev(values) / len(values) ** 0.5
        return Value(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Rung:
    """A rung as it was measured."""

    name: str
    seeds: int
    map: Value
    f1: Value

    @staticmethod
    def of(name: str, records: Sequence[ResultRecord]) -> Rung:
        """From the records of its seeds; F1 is that of the greatest score where clips have one label each."""
        f1 = "f1" if "f1" in records[0].metrics else "f1_top"
        return Rung(name, len(records), Value.of(records, "map"), Value.of(records, f1))

    def cells(self) -> tuple[str, ...]:
        """Its line in a table."""
        paper_map, paper_f1 = PAPER[self.name]
        interval = f"[{self.map.low:.2f}, {self.map.high:.2f}]"
        return (
            LABELS[self.name],
            f"{self.map.mean:.2f}",
            interval,
            f"{paper_map:.2f}",
            f"{self.f1.mean:.2f}",
            f"{paper_f1:.2f}",
        )


def tables(climbed: Sequence[Rung]) -> list[Table]:
    """Tables 2 to 4 for a terminal."""
    made = []
    for title, names in TABLES.items():
        table = Table(title=title, title_justify="left")
        for i, heading in enumerate(HEADINGS):
            table.add_column(heading, justify="right" if i else "left")
        for rung in (r for name in names for r in climbed if r.name == name):
            table.add_row(*rung.cells())
        made.append(table)
    return made


def markdown_table(climbed: Sequence[Rung], scale: str) -> str:
    """The same as Markdown, with what every rung changes."""
    of = "seeds" if climbed[0].seeds > 1 else "test clips"
    lines = [
        f"# The ladder at {scale} scale",
        "",
        f"CGP on frozen features, in percent; {climbed[0].seeds} seed(s), 95% intervals over {of}. The paper's numbers "
        "are of networks of base size, 400,000 steps on AudioSet and CGP on AS-20K: only their order can be compared.",
    ]
    for title, names in TABLES.items():
        lines += ["", f"## {title}", "", "| " + " | ".join(HEADINGS) + " |", "| --- |" + " ---: |" * 5]
        lines += ["| " + " | ".join(r.cells()) + " |" for name in names for r in climbed if r.name == name]
    lines += ["", order_line(climbed), "", *(f"- {describe_rung(r.name)}" for r in climbed), ""]
    return "\n".join(lines)


def order_line(climbed: Sequence[Rung]) -> str:
    """Which of the paper's steps go the same way here, and which of ours are beyond their intervals."""
    steps = [(a, b) for names in TABLES.values() for a, b in pairwise(names)]
    found = {rung.name: rung for rung in climbed}
    same, told_apart = 0, 0
    against = []
    for a, b in steps:
        ours, theirs = found[b].map.mean - found[a].map.mean, PAPER[b][0] - PAPER[a][0]
        same += ours * theirs > 0
        if ours * theirs <= 0:
            against.append(f"{LABELS[a]} to {LABELS[b]} ({ours:+.2f} here, {theirs:+.2f} in the paper)")
        told_apart += found[a].map.high < found[b].map.low or found[b].map.high < found[a].map.low
    text = f"{same} of the paper's {len(steps)} steps go the same way here; {told_apart} are beyond both intervals."
    return text + (f" The others: {'; '.join(against)}." if against else "")
