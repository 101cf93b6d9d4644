"""`audiobat benchmark`: the cells of Table 1 or 5 for which weights and data are here, beside the paper's numbers.

Every cell is a run of `probe` or `finetune` below `out`. What is done stays done, so that a benchmark that was killed
goes on; a cell that fails stops none of the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from audiobat.config.benchmark import FINETUNE, BenchmarkConfig
from audiobat.config.recipes import Recipe, make_config
from audiobat.engine.files import remove, write_atomic
from audiobat.engine.run_folder import check_same, prepare_run, sole_use
from audiobat.errors import AudiobatError
from audiobat.evaluation.certainty import interval_note
from audiobat.evaluation.record import ResultRecord, load_record
from audiobat.evaluation.report.render import pipe_table
from audiobat.evaluation.report.rows import metric_title
from audiobat.evaluation.report.style import save
from audiobat.finetuning.run import finetune
from audiobat.probing.run import probe
from audiobat.studies.benchmark_cells import Cell, cells_of, with_paths
from audiobat.studies.benchmark_plan import plan_tables
from audiobat.studies.beside import Panels, Value, beside_figure, terminal_table
from audiobat.studies.runs import attempt, check_none_failed, check_some_run, print_parts

HEADINGS = ("", "Model", "Metric", "Here", "95%", "Seeds", "Paper", "Diff.")
FAILED = "failed"


class Number(NamedTuple):
    """One metric of one cell, in percent: our number and the paper's."""

    metric: str
    ours: Value | None
    paper: float | None


class Result(NamedTuple):
    """A cell with the records of its seeds, or with the reason why there are none."""

    cell: Cell
    records: tuple[ResultRecord, ...]
    why: str = ""
    fault: str = ""  # the error's sentence, if it failed

    @property
    def own_settings(self) -> bool:
        """Whether it was trained with other settings than the preset's or the recipe's."""
        return any(record.preset == "custom" for record in self.records)

    def numbers(self) -> list[Number]:
        """A number for each metric of its data set; AudiobatError if the records lack one."""
        numbers = []
        for metric, paper in zip(self.cell.about_data.metrics, self.cell.paper, strict=True):
            ours = None
            if self.records:
                held = self.records[0].metrics
                name = "f1_top" if metric == "f1" and "f1" not in held else metric  # of clips with one label each
                if not all(name in record.metrics for record in self.records):
                    data = self.records[0].data.name
                    raise AudiobatError(
                        f"The records of {data} have no metric {metric!r}: choose from {', '.join(held)}."
                    )
                ours = Value.of(self.records, name)
            numbers.append(Number(metric_title(metric), ours, paper))
        return numbers

    def lines(self) -> list[tuple[str, ...]]:
        """The lines of a table, under HEADINGS."""
        lines = []
        for metric, ours, paper in self.numbers():
            cells = ["-", self.why, "", "-" if paper is None else f"{paper:.2f}", ""]
            if ours is not None:
                number = f"{ours.mean:.2f}{'*' if self.own_settings else ''}"
                difference = "-" if paper is None else f"{ours.mean - paper:+.2f}"
                cells = [number, ours.interval, str(len(self.records)), cells[3], difference]
            lines.append((self.cell.protocol, self.cell.model, metric, *cells))
        return lines


def benchmark(
    config: BenchmarkConfig | Recipe,
    *,
    out: str | Path,
    models: Sequence[str] = (),
    data: Sequence[str] = (),
    only: tuple[str, ...] = (),
    device: str = "auto",
    overwrite: bool = False,
    dry_run: bool = False,
) -> list[Result]:
    """Run the cells of a table that can be run, and print it with the paper's numbers beside ours.

    Args:
        config: the table: `benchmark/table1`, `benchmark/table5`, or one of your own.
        out: folder to write: runs/MODEL/DATA/PROTOCOL/, table.md, figures/.
        models: NAME=PATH of weights, PATH being whatever `probe` and `finetune` take; a new name is a new line.
        data: NAME=PATH of a data set's folder, of prepared shards, or with another NAME:FOLDER as PATH.
        only: run no more than the cells of these models, data sets and protocols.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        overwrite: begin the cells anew that `out` holds, of those that are asked for.
        dry_run: print what can run, what is missing, and the GPU hours, and stop.

    Returns:
        A result for each cell of the table; none in a dry run.

    Raises:
        AudiobatError: a bad argument, nothing that can run; at the end, if a cell has failed.
    """
    out, config = Path(out), with_paths(make_config(BenchmarkConfig, config), models, data)
    asked = cells_of(config, only)
    console = Console()
    if dry_run:
        print_parts(plan_tables(asked, out), console)
        return []
    check_some_run(asked, out, "cells", "what each cell needs and where to get it")
    faults: dict[Cell, str] = {}
    for number, cell in enumerate(asked, start=1):
        if not cell.missing:
            done = cell.is_done(out) and not overwrite
            print(f"[{number} of {len(asked)}] {cell}: {'done' if done else cell.settings}", flush=True)
            run = run_finetune if cell.protocol == FINETUNE else run_probe
            if fault := attempt(partial(run, cell, out, device, overwrite, done), cell.run(out)):
                faults[cell] = fault
                print(f"failed: {cell}: {fault}", flush=True)
    # The table shows all cells, also those that an earlier command measured.
    results = [result_of(cell, out, faults.get(cell, "")) for cell in cells_of(config)]
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "table.md", markdown_table(config, results))
    for table in tables(results):
        console.print(table, markup=False)
    console.print(summary_line(results))
    print(f"table: {out / 'table.md'}")
    if panels := panels_of(results):
        figure = beside_figure(panels, "Here and in the paper, with 95% intervals of ours")
        print(f"figure: {save(figure, out / 'figures', 'table')}")
    check_none_failed({str(r.cell): r.fault for r in results if r.fault}, len(results), "cells")
    return results


def run_finetune(cell: Cell, out: Path, device: str, overwrite: bool, done: bool) -> None:
    """Train and test each seed, from where it was stopped; or check that this was done with these settings."""
    for seed in cell.seeds():
        folder, config = cell.run(out, seed), cell.finetune_config()
        config = replace(config, train=replace(config.train, seed=seed, device=device))
        if done:  # as the run's config.yaml has it, with the data
            config = replace(config, data=replace(config.data, path=cell.source))
            check_same(folder / "config.yaml", config, {"model": cell.weights, "test_fold": None, "folds": None})
        else:
            finetune(cell.weights, cell.source, folder, config, overwrite=overwrite)


def run_probe(cell: Cell, out: Path, device: str, overwrite: bool, done: bool) -> None:
    """Train and test all seeds in one pass over the clips, anew if it was stopped; or check that this was done so."""
    folder, config = cell.run(out), cell.probe_config()
    arguments = {"model": cell.weights, "clips": cell.source}
    if done:
        check_same(folder / "config.yaml", config, arguments)
        return
    with sole_use(folder):
        prepare_run(folder, config, "auto", overwrite, arguments)
        probe(cell.weights, cell.source, config, out=folder, device=device, overwrite=True)
        remove(folder / "features")  # up to 64 GB that no later run reads


def result_of(cell: Cell, out: Path, fault: str) -> Result:
    """The records of a cell, or why there are none; records without the table's metrics count as a failure."""
    try:
        if not fault and cell.is_done(out):
            result = Result(cell, tuple(load_record(path) for path in cell.records(out)))
            result.lines()
            return result
    except AudiobatError as error:
        fault = str(error)
    return Result(cell, (), FAILED if fault else cell.missing or "not asked for", fault)


def by_data(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The results of each data set."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[result.cell.data].append(result)
    return groups


def tables(results: Sequence[Result]) -> Iterator[Table | str]:
    """A table for each data set, for a terminal; a sentence for a data set of which no cell was run."""
    for data, group in by_data(results).items():
        if any(result.records or result.fault for result in group):
            lines = [line for result in group for line in result.lines()]
            yield terminal_table(f"{data}, in percent", HEADINGS, lines, text=(0, 1, 2, 4), group=0)
        else:
            yield f"{data}: no cell was run ({'; '.join(dict.fromkeys(result.why for result in group))})."


def panels_of(results: Sequence[Result]) -> Panels:
    """The figure's panels: a data set and metric of which there is a number of ours, to its lines."""
    panels = defaultdict(list)
    for result in results:
        for metric, ours, paper in result.numbers():
            panels[result.cell.data, metric].append((f"{result.cell.model}, {result.cell.protocol}", ours, paper))
    return {key: panel for key, panel in panels.items() if any(ours is not None for _, ours, _ in panel)}


def markdown_table(config: BenchmarkConfig, results: Sequence[Result]) -> str:
    """The same as Markdown, with what the numbers are of."""
    several = {len(result.records) > 1 for result in results if result.records}
    over = "over seeds" if True in several else "over test clips"
    if len(several) == 2:
        over = "over seeds or, of one seed, over test clips"
    legend = f"In percent. 95% intervals {over}; the difference is ours less the paper's."
    one_seed = [result.records[0] for result in results if len(result.records) == 1]
    legend = f"{legend} {interval_note(one_seed)}".rstrip()
    if any(result.own_settings for result in results):
        legend += " * trained with other settings than those named below."
    parts = [f"# {config.title or 'Benchmark'}", "", legend]
    for data, group in by_data(results).items():
        lines = [line for result in group for line in result.lines()]
        parts += ["", f"## {data}", "", *pipe_table(HEADINGS, lines, labels=3)]
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


def settings_lines(results: Sequence[Result]) -> list[str]:
    """The recipes and presets of the cells of each data set."""
    found: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    for cell in (result.cell for result in results):
        cells = f"{cell.model} {cell.protocol}" if cell.protocol == FINETUNE else cell.protocol
        found[cell.data][cell.settings][cells] = None
    return [
        f"{data}: " + "; ".join(f"{settings} ({', '.join(cells)})" for settings, cells in by_settings.items())
        for data, by_settings in found.items()
    ]


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
    numbers = [number for result in results for number in result.numbers()]
    compared = [(ours, paper) for _, ours, paper in numbers if ours is not None and paper is not None]
    if not compared:
        return f"{text}."
    inside = sum(ours.low <= paper <= ours.high for ours, paper in compared)
    mean = sum(ours.mean - paper for ours, paper in compared) / len(compared)
    return (
        f"{text}. The paper's number lies in our interval for {inside} of {len(compared)} numbers; "
        f"ours are {abs(mean):.2f} points {'above' if mean > 0 else 'below'} the paper's on average."
    )
