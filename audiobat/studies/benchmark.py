"""`audiobat benchmark`: the cells of Table 1 or 5 for which weights and data are here, beside the paper's numbers.

Every cell is a run of `probe` or `finetune` below `out`. What is done stays done, so that a benchmark that was killed
goes on; a cell that fails stops none of the others.
"""

from __future__ import annotations

import traceback
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from audiobat.config import FinetuneConfig, ProbeConfig
from audiobat.config.benchmark import FINETUNE, BenchmarkConfig
from audiobat.engine.files import remove, write_atomic
from audiobat.engine.run_folder import check_same, prepare_run, sole_use
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import load_record
from audiobat.evaluation.report.style import save
from audiobat.finetuning.run import finetune
from audiobat.probing.run import probe
from audiobat.studies.benchmark_cells import Cell, cells_of, with_paths
from audiobat.studies.benchmark_plan import plan_tables, survey
from audiobat.studies.benchmark_table import FAILED, Result, by_data, markdown_table, summary_line, tables
from audiobat.studies.figures import Panels, beside_figure

FIGURE = "Here and in the paper, with 95% intervals of ours"


def benchmark(
    config: BenchmarkConfig,
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
    out, config = Path(out), with_paths(config, models, data)
    asked = cells_of(config, only)
    console = Console()
    if dry_run:
        for part in plan_tables(asked, survey(config), out):
            console.print(part, soft_wrap=isinstance(part, Text))  # an error has no line break within a path
        return []
    if not any(not cell.missing or cell.is_done(out) for cell in asked):
        raise AudiobatError(
            f"None of the {len(asked)} cells can run: name weights with --models and data with --data; --dry-run lists "
            "what each cell needs and where to get it."
        )
    failed: dict[Cell, str] = {}
    for number, cell in enumerate(asked, start=1):
        if not cell.missing:
            state = "done" if cell.is_done(out) and not overwrite else cell.settings
            print(f"[{number} of {len(asked)}] {cell}: {state}", flush=True)
            attempt(cell, out, device, overwrite, failed)
    # The table shows all cells, also those that an earlier command measured.
    results = [result_of(cell, out, failed, cell in asked) for cell in cells_of(config)]
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "table.md", markdown_table(config, results))
    for part in tables(results):
        console.print(part, markup=False)
    console.print(summary_line(results))
    print(f"table: {out / 'table.md'}")
    if panels := panels_of(results):
        print(f"figure: {save(beside_figure(panels, FIGURE), out / 'figures', 'table')}")
    if failed:
        cells = defaultdict(list)
        for cell, sentence in failed.items():
            cells[sentence].append(str(cell))
        sentences = " ".join(f"{'; '.join(names)}: {sentence}" for sentence, names in cells.items())
        raise AudiobatError(f"{len(failed)} of {len(results)} cells failed. {sentences}")
    return results


def attempt(cell: Cell, out: Path, device: str, overwrite: bool, failed: dict[Cell, str]) -> None:
    """Run a cell unless it is done; if it fails, put the error's sentence into `failed`."""
    log = cell.folder(out).with_suffix(".error.txt")
    log.unlink(missing_ok=True)
    try:
        if cell.is_done(out) and not overwrite:
            for seed in cell.seeds():
                config, about = defined_by(cell, seed)
                check_same(cell.run(out, seed) / "config.yaml", config, about)
        elif cell.protocol == FINETUNE:
            run_finetune(cell, out, device, overwrite)
        else:
            run_probe(cell, out, device, overwrite)
    except AudiobatError as error:
        failed[cell] = str(error)
    except Exception as error:  # whatever it is, the other cells may take days and must not be lost for it
        log.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(log, traceback.format_exc())
        line = next(iter(str(error).splitlines()), "")
        failed[cell] = f"{type(error).__name__}: {line} (see {log})."
    if cell in failed:
        print(f"failed: {cell}: {failed[cell]}", flush=True)


def defined_by(cell: Cell, seed: int) -> tuple[ProbeConfig | FinetuneConfig, dict[str, str | int | None]]:
    """The settings that define a cell's run, in the form in which its config.yaml keeps them."""
    if cell.protocol != FINETUNE:
        return cell.probe_config(), {"model": cell.weights, "clips": cell.source}
    config = cell.finetune_config(seed)
    return replace(config, data=replace(config.data, path=cell.source)), {"model": cell.weights, "test_fold": None}


def run_finetune(cell: Cell, out: Path, device: str, overwrite: bool) -> None:
    """Train and test each seed, from where it was stopped."""
    for seed in cell.seeds():
        config = cell.finetune_config(seed)
        config = replace(config, train=replace(config.train, device=device))
        if not finetune(cell.weights, cell.source, cell.run(out, seed), config, overwrite=overwrite):
            raise KeyboardInterrupt  # a signal stopped the fine-tuning, so the benchmark stops too


def run_probe(cell: Cell, out: Path, device: str, overwrite: bool) -> None:
    """Train and test all seeds in one pass over the clips; a pass that was stopped begins anew."""
    folder, config = cell.folder(out), cell.probe_config()
    with sole_use(folder):
        prepare_run(folder, config, "auto", overwrite, defined_by(cell, 0)[1])
        probe(cell.weights, cell.source, config, out=folder, device=device, overwrite=True)
        remove(folder / "features")  # up to 64 GB that no later run reads


def result_of(cell: Cell, out: Path, failed: dict[Cell, str], asked: bool) -> Result:
    """The records of a cell, or why there are none; records without the table's metrics count as a failure."""
    try:
        if cell not in failed and cell.is_done(out):
            result = Result(cell, tuple(load_record(path) for path in cell.records(out)))
            result.lines()
            return result
    except AudiobatError as error:
        failed[cell] = str(error)
    if cell in failed:
        return Result(cell, (), FAILED, failed[cell])
    return Result(cell, (), cell.missing or "not asked for")


def panels_of(results: Sequence[Result]) -> Panels:
    """The figure's panels: a data set and metric of which there is a number of ours, to its lines."""
    lines = [line for found in by_data(results).values() for line in found]
    keys = dict.fromkeys((line.cell.data, line.metric) for line in lines if line.ours is not None)
    return {
        key: [
            (f"{line.cell.model}, {line.cell.protocol}", line.ours, line.paper)
            for line in lines
            if (line.cell.data, line.metric) == key
        ]
        for key in keys
    }
