"""`audiobat benchmark`: the cells of Table 1 or 5 for which weights and data are here, beside the paper's numbers.

Every cell is a run of its own below `out`; what is done stays done, so that a killed benchmark goes on, and a cell that
fails stops none of the others.
"""

from __future__ import annotations

import traceback
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from audiobat.config import FinetuneConfig, ProbeConfig
from audiobat.config.benchmark import FINETUNE, BenchmarkConfig
from audiobat.engine.files import write_atomic
from audiobat.engine.run_folder import check_same, prepare_run, remove, sole_use
from audiobat.errors import AudiobatError
from audiobat.evaluation.record import load_record
from audiobat.evaluation.report.benchmark_figure import benchmark_figure
from audiobat.evaluation.report.style import save
from audiobat.finetuning.run import finetune
from audiobat.probing.run import probe
from audiobat.studies.benchmark_cells import Cell, cells_of, with_paths
from audiobat.studies.benchmark_plan import plan_tables, survey
from audiobat.studies.benchmark_table import FAILED, Result, markdown_table, summary_line, tables

NOT_ASKED = "not asked for"


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
        for table in plan_tables(asked, survey(config), out):
            console.print(table)
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
    results = [result_of(cell, out, failed, cell in asked) for cell in cells_of(config)]
    write_atomic(out / "table.md", markdown_table(config, results).encode())
    for table in tables(results):
        console.print(table)
    console.print(summary_line(results))
    print(f"table: {out / 'table.md'}")
    if any(result.records for result in results):
        figure = save(
            benchmark_figure([line for result in results for line in result.lines()]), out / "figures", "table"
        )
        print(f"figure: {figure}")
    if failed:
        raise AudiobatError(f"{len(failed)} of {len(results)} cells failed. {told(failed)}")
    return results


def attempt(cell: Cell, out: Path, device: str, overwrite: bool, failed: dict[Cell, str]) -> None:
    """Run a cell unless it is done; if it fails, put its sentence into `failed`."""
    log = cell.folder(out).with_suffix(".error.txt")
    log.unlink(missing_ok=True)
    try:
        if cell.is_done(out) and not overwrite:
            check_settings(cell, out)
        elif cell.protocol == FINETUNE:
            run_finetune(cell, out, device, overwrite)
        else:
            run_probe(cell, out, device, overwrite)
    except AudiobatError as error:
        failed[cell] = str(error)
    except Exception as error:  # the other cells, which may take days, must not pay for it
        log.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(log, traceback.format_exc().encode())
        line = next(iter(str(error).splitlines()), "")
        failed[cell] = f"{type(error).__name__}: {line} (see {log})."
    if cell in failed:
        print(f"failed: {cell}: {failed[cell]}", flush=True)


def check_settings(cell: Cell, out: Path) -> None:
    """Raise an AudiobatError unless the runs of a cell that is done had the settings that it has now."""
    for seed in cell.seeds():
        config, about = defined_by(cell, seed)
        check_same(cell.run(out, seed) / "config.yaml", config, about)


def defined_by(cell: Cell, seed: int) -> tuple[ProbeConfig | FinetuneConfig, dict[str, str | int | None]]:
    """What the run of a cell depends on, as its folder keeps it."""
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
            raise KeyboardInterrupt  # it was told to stop, and so are we


def run_probe(cell: Cell, out: Path, device: str, overwrite: bool) -> None:
    """Train and test all seeds in one pass over the clips; those of a pass that was stopped begin anew."""
    folder, config = cell.folder(out), cell.probe_config()
    with sole_use(folder):
        prepare_run(folder, config, "auto", overwrite, defined_by(cell, 0)[1])
        probe(cell.weights, cell.source, config, out=folder, device=device, overwrite=True)
        remove(folder / "features")  # up to 64 GB that nothing asks for again


def result_of(cell: Cell, out: Path, failed: dict[Cell, str], asked: bool) -> Result:
    """What the records of a cell say, or why there are none; a record that says nothing is a failure, too."""
    try:
        if cell not in failed and cell.is_done(out):
            result = Result(cell, tuple(load_record(path) for path in cell.records(out)))
            result.lines()
            return result
    except AudiobatError as error:
        failed[cell] = str(error)
    return Result(cell, (), FAILED, failed[cell]) if cell in failed else Result(cell, (), cell.missing or NOT_ASKED)


def told(failed: dict[Cell, str]) -> str:
    """Every sentence once, behind the cells that it is of."""
    cells = defaultdict(list)
    for cell, sentence in failed.items():
        cells[sentence].append(str(cell))
    return " ".join(f"{'; '.join(names)}: {sentence}" for sentence, names in cells.items())
