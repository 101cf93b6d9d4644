"""Cells and their records to the tables of a benchmark: our number, its interval, the paper's, and the difference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from audiobat.config.benchmark import FINETUNE, BenchmarkConfig
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import ResultRecord
from audiobat.evaluation.report.render import pipe_table
from audiobat.evaluation.report.rows import metric_title
from audiobat.studies.benchmark_cells import Cell
from audiobat.studies.tables import Value, terminal_table

HEADINGS = ("", "Model", "Metric", "Here", "95%", "Seeds", "Paper", "Diff.")
F1 = ("f1", "f1_top")  # of clips with several labels, or with one
FAILED = "failed"


@dataclass(frozen=True)
class Line:
    """One metric of one cell."""

    cell: Cell
    metric: str
    ours: Value | None
    seeds: int
    paper: float | None
    own_settings: bool  # other than the preset's or the recipe's
    why: str  # there is no number of ours

    @property
    def difference(self) -> float | None:
        """Our number less the paper's."""
        return None if self.ours is None or self.paper is None else self.ours.mean - self.paper

    def texts(self) -> tuple[str, ...]:
        """The line as a table shows it."""
        names = (self.cell.protocol, self.cell.model, self.metric)
        paper = "-" if self.paper is None else f"{self.paper:.2f}"
        if self.ours is None:
            return (*names, "-", self.why, "", paper, "")
        ours = f"{self.ours.mean:.2f}{'*' if self.own_settings else ''}"
        difference = "-" if self.difference is None else f"{self.difference:+.2f}"
        return (*names, ours, self.ours.interval, str(self.seeds), paper, difference)


@dataclass(frozen=True)
class Result:
    """A cell with the records of its seeds, or with the reason why there are none."""

    cell: Cell
    records: tuple[ResultRecord, ...]
    why: str = ""
    fault: str = ""  # the error's sentence, if it failed

    def lines(self) -> list[Line]:
        """A line for each metric of its data set; AudiobatError if the records lack one."""
        own = any(record.preset == "custom" for record in self.records)
        lines = []
        for metric, paper in zip(self.cell.about_data.metrics, self.cell.paper, strict=True):
            ours = Value.of(self.records, record_metric(metric, self.records)) if self.records else None
            lines.append(Line(self.cell, metric_title(metric), ours, len(self.records), paper, own, self.why))
        return lines


def record_metric(metric: str, records: Sequence[ResultRecord]) -> str:
    """The name of a metric in the records; AudiobatError if they lack it."""
    for name in F1 if metric == "f1" else (metric,):
        if all(name in record.metrics for record in records):
            return name
    has = ", ".join(records[0].metrics)
    raise AudiobatError(f"The records of {records[0].data.name} have no metric {metric!r}: choose from {has}.")


def by_data(results: Sequence[Result]) -> dict[str, list[Line]]:
    """The lines of each data set."""
    lines: dict[str, list[Line]] = {result.cell.data: [] for result in results}
    for result in results:
        lines[result.cell.data] += result.lines()
    return lines


def tables(results: Sequence[Result]) -> Iterator[Table | str]:
    """A table for each data set, for a terminal; a sentence for a data set of which no cell was run."""
    for data, lines in by_data(results).items():
        if all(line.ours is None and line.why != FAILED for line in lines):
            yield f"{data}: no cell was run ({'; '.join(dict.fromkeys(line.why for line in lines))})."
        else:
            texts = [line.texts() for line in lines]
            yield terminal_table(f"{data}, in percent", HEADINGS, texts, text=(0, 1, 2, 4), group=0)


def markdown_table(config: BenchmarkConfig, results: Sequence[Result]) -> str:
    """The same as Markdown, with what the numbers are of."""
    parts = [f"# {config.title or 'Benchmark'}", "", "In percent. " + legend(results)]
    for data, lines in by_data(results).items():
        parts += ["", f"## {data}", "", *pipe_table(HEADINGS, [line.texts() for line in lines], labels=3)]
    parts += ["", summary_line(results), ""]
    lists = {
        "Failed": [f"{result.cell}: {result.fault}" for result in results if result.fault],
        "Measured": measured_lines(results),
        "Settings": settings_lines(results),
        "Notes": config.notes,
    }
    for title, sentences in lists.items():
        if sentences:
            parts += [f"{title}:", "", *(f"- {sentence}" for sentence in sentences), ""]
    return "\n".join(parts)


def legend(results: Sequence[Result]) -> str:
    """How to read intervals and marks."""
    several = {len(result.records) > 1 for result in results if result.records}
    kinds = {frozenset({True}): "over seeds", frozenset({True, False}): "over seeds or, of one seed, over test clips"}
    over = kinds.get(frozenset(several), "over test clips")
    marked = any(line.own_settings for result in results for line in result.lines())
    return f"95% intervals {over}; the difference is ours less the paper's." + (
        " * trained with other settings than those named below." if marked else ""
    )


def settings_lines(results: Sequence[Result]) -> list[str]:
    """The recipes and presets of the cells of each data set."""
    found: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    for cell in (result.cell for result in results):
        cells = f"{cell.model} {cell.protocol}" if cell.protocol == FINETUNE else cell.protocol
        found[cell.data][cell.settings][cells] = None
    lines = []
    for data, by_settings in found.items():
        named = [f"{settings} ({', '.join(cells)})" for settings, cells in by_settings.items()]
        lines.append(f"{data}: {'; '.join(named)}")
    return lines


def measured_lines(results: Sequence[Result]) -> list[str]:
    """The weights and then the clips that the numbers are of, as the records have them; each once."""
    models: dict[str, None] = {}
    data_sets: dict[str, None] = {}
    for result in results:
        for record in result.records:
            model, data = record.model, record.data
            size = "" if model.parameters is None else f", {model.parameters / 1e6:.1f}M parameters"
            models[f"{result.cell.model}: {model.id}, sha256 {(model.sha256 or 'unknown')[:12]}{size}"] = None
            clips = ", ".join(f"{count:,} {split}" for split, count in data.clips.items())
            if record.folds is not None:
                clips = f"{sum(data.clips.values()):,} in {len(data.clips)} folds"
            lost = f", {data.unreadable:,} unreadable" if data.unreadable else ""
            present = f"test clips have {data.classes_present} of {data.classes} classes"
            data_sets[f"{result.cell.data}: {clips} clips{lost}; {present}"] = None
    return [*models, *data_sets]


def summary_line(results: Sequence[Result]) -> str:
    """How many cells were measured, and how near they are to the paper's."""
    text = f"{sum(bool(result.records) for result in results)} of {len(results)} cells measured"
    lines = [line for result in results for line in result.lines()]
    compared = [(line.ours, line.paper) for line in lines if line.ours is not None and line.paper is not None]
    if not compared:
        return f"{text}."
    inside = sum(ours.low <= paper <= ours.high for ours, paper in compared)
    mean = sum(ours.mean - paper for ours, paper in compared) / len(compared)
    return (
        f"{text}. The paper's number lies in our interval for {inside} of {len(compared)} numbers; "
        f"ours are {abs(mean):.2f} points {'above' if mean > 0 else 'below'} the paper's on average."
    )
