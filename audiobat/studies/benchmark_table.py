"""Cells and their records to the lines of a benchmark: our number, its interval, the paper's, and the difference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from audiobat.config.benchmark import FINETUNE, BenchmarkConfig
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import ResultRecord
from audiobat.evaluation.report.rows import METRIC_NAMES
from audiobat.studies.benchmark_cells import Cell
from audiobat.studies.ladder_table import Value

HEADINGS = ("", "Model", "Metric", "Here", "95%", "Seeds", "Paper", "Diff.")
LEFT = 3  # columns of text
F1 = ("f1", "f1_top")  # of several labels, or of one, to a clip
NONE = "-"
FAILED = "failed"


@dataclass(frozen=True)
class Line:
    """One metric of one cell."""

    data: str
    protocol: str
    model: str
    metric: str
    ours: Value | None
    seeds: int
    paper: float | None
    own_settings: bool  # other than the preset's or the recipe's
    why: str  # there is no number of ours

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.ours is None or self.paper is None else self.ours.mean - self.paper

    def cells(self) -> tuple[str, ...]:
        """As a table shows it."""
        names = (self.protocol, self.model, self.metric)
        paper = NONE if self.paper is None else f"{self.paper:.2f}"
        if self.ours is None:
            return (*names, NONE, self.why, "", paper, "")
        mark = "*" if self.own_settings else ""
        interval = f"[{self.ours.low:.2f}, {self.ours.high:.2f}]"
        difference = NONE if self.difference is None else f"{self.difference:+.2f}"
        return (*names, f"{self.ours.mean:.2f}{mark}", interval, str(self.seeds), paper, difference)


@dataclass(frozen=True)
class Result:
    """A cell with the records of its seeds, or with why there are none."""

    cell: Cell
    records: tuple[ResultRecord, ...]
    why: str = ""
    fault: str = ""  # the sentence, if it failed

    def lines(self) -> list[Line]:
        """One for each metric of its data set."""
        cell = self.cell
        return [
            Line(
                cell.data,
                cell.protocol,
                cell.model,
                METRIC_NAMES.get(metric, metric),
                Value.of(self.records, named(metric, self.records)) if self.records else None,
                len(self.records),
                paper,
                any(record.preset == "custom" for record in self.records),
                self.why,
            )
            for metric, paper in zip(cell.about_data.metrics, cell.paper, strict=True)
        ]


def named(metric: str, records: Sequence[ResultRecord]) -> str:
    """The metric as the records call it.

    Raises an AudiobatError if they lack it.
    """
    names = F1 if metric == "f1" else (metric,)
    for name in names:
        if all(name in record.metrics for record in records):
            return name
    has = ", ".join(records[0].metrics)
    raise AudiobatError(f"The records of {records[0].data.name} have no metric {metric!r}: choose from {has}.")


def by_data(results: Sequence[Result]) -> Iterator[tuple[str, list[Line]]]:
    """The lines of each data set."""
    for data in dict.fromkeys(result.cell.data for result in results):
        yield data, [line for result in results if result.cell.data == data for line in result.lines()]


def tables(results: Sequence[Result]) -> Iterator[Table | str]:
    """A table for each data set, for a terminal; a line for one of which no cell was tried."""
    for data, lines in by_data(results):
        if all(line.ours is None and line.why != FAILED for line in lines):
            whys = "; ".join(dict.fromkeys(line.why for line in lines))
            yield f"{data}: no cell was run ({whys})."
            continue
        table = Table(title=f"{data}, in percent", title_justify="left")
        for place, heading in enumerate(HEADINGS):
            table.add_column(heading, justify="left" if place < LEFT or heading == "95%" else "right")
        for i, line in enumerate(lines):
            last = i + 1 == len(lines) or lines[i + 1].protocol != line.protocol
            table.add_row(*line.cells(), end_section=last)
        yield table


def markdown_table(config: BenchmarkConfig, results: Sequence[Result]) -> str:
    """The same as Markdown, with what the numbers are."""
    parts = [f"# {config.title or 'Benchmark'}", "", "In percent. " + legend(results)]
    for data, lines in by_data(results):
        rule = "| --- " * LEFT + "| ---: " * (len(HEADINGS) - LEFT) + "|"
        parts += ["", f"## {data}", "", f"| {' | '.join(HEADINGS)} |", rule]
        parts += [f"| {' | '.join(line.cells())} |" for line in lines]
    parts += ["", summary_line(results), ""]
    titled = {
        "Failed": [f"{result.cell}: {result.fault}" for result in results if result.fault],
        "Measured": measured_lines(results),
        "Settings": settings_lines(results),
        "Notes": config.notes,
    }
    for title, lines_of in titled.items():
        if told := [f"- {line}" for line in lines_of]:
            parts += [f"{title}:", "", *told, ""]
    return "\n".join(parts)


def legend(results: Sequence[Result]) -> str:
    """What intervals and marks are."""
    counts = {len(result.records) for result in results if result.records}
    over = {True: "over seeds", False: "over test clips"}
    kinds = " or, of one seed, ".join(over[several] for several in (True, False) if several in {n > 1 for n in counts})
    words = f"95% intervals {kinds or 'over test clips'}; the difference is ours less the paper's."
    marked = any(line.own_settings for result in results for line in result.lines())
    return words + (" * trained with other settings than those named below." if marked else "")


def settings_lines(results: Sequence[Result]) -> Iterator[str]:
    """Whose settings the cells of each data set have."""
    for data in dict.fromkeys(result.cell.data for result in results):
        named: dict[str, dict[str, None]] = defaultdict(dict)
        for cell in (result.cell for result in results if result.cell.data == data):
            who = f"{cell.model} {cell.protocol}" if cell.protocol == FINETUNE else cell.protocol
            named[cell.settings][who] = None
        told = [f"{settings} ({', '.join(who)})" for settings, who in named.items()]
        yield f"{data}: {'; '.join(told)}"


def measured_lines(results: Sequence[Result]) -> Iterator[str]:
    """Which weights and which clips the numbers are of, as the records say; each once."""
    lines: dict[str, None] = {}
    for result in results:
        for record in result.records:
            model = record.model
            size = "" if model.parameters is None else f", {model.parameters / 1e6:.1f}M parameters"
            lines[f"{result.cell.model}: {model.id}, sha256 {(model.sha256 or 'unknown')[:12]}{size}"] = None
    for result in results:
        for record in result.records:
            data = record.data
            counts = [f"{count:,} {split}" for split, count in data.clips.items()]
            clips = (
                ", ".join(counts) if record.folds is None else f"{sum(data.clips.values()):,} in {len(counts)} folds"
            )
            lost = f", {data.unreadable:,} unreadable" if data.unreadable else ""
            present = f"test clips have {data.classes_present} of {data.classes} classes"
            lines[f"{result.cell.data}: {clips} clips{lost}; {present}"] = None
    yield from lines


def summary_line(results: Sequence[Result]) -> str:
    """How many cells were measured, and how near they came."""
    lines = [line for result in results for line in result.lines()]
    compared = [line for line in lines if line.ours is not None and line.difference is not None]
    text = f"{sum(bool(result.records) for result in results)} of {len(results)} cells measured"
    if not compared:
        return f"{text}."
    inside = sum(line.ours.low <= line.paper <= line.ours.high for line in compared)  # type: ignore[union-attr, operator]
    mean = sum(line.difference or 0.0 for line in compared) / len(compared)
    return (
        f"{text}. The paper's number lies in our interval for {inside} of {len(compared)} numbers; "
        f"ours are {abs(mean):.2f} points {'above' if mean > 0 else 'below'} the paper's on average."
    )
