"""`audiobat report`: result records in; tables, figures and one page that needs no network, out. Nothing is computed
anew but what the records' own scores say when two of them are held against each other.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from audiobat.engine.progress import Progress
from audiobat.errors import AudiobatError
from audiobat.evaluation.compare import measure_of
from audiobat.evaluation.compare_records import Entry, check_same_clips, ordered
from audiobat.evaluation.metrics import bootstrap_values, interval_of_difference
from audiobat.evaluation.record import Scores, load_scores
from audiobat.evaluation.report.collect import Collection, collect, load_all
from audiobat.evaluation.report.listening import listening_html
from audiobat.evaluation.report.marks import Marks, Outcome, mark
from audiobat.evaluation.report.overview import write_overview
from audiobat.evaluation.report.paper_tables import everything, table1, table5
from audiobat.evaluation.report.render import csv_lines, csv_table, latex, markdown
from audiobat.evaluation.report.rows import Row
from audiobat.evaluation.report.run_clips import gather
from audiobat.evaluation.report.run_figures import draw_all

SAMPLES = 1000


def report(runs: Iterable[str | Path], out: str | Path, *, overwrite: bool = False) -> Path:
    """Write OUT/index.html, OUT/tables and OUT/figures from result records alone; returns `out`.

    Args:
        runs: folders that `audiobat probe` wrote, of any depth, or record files.
        out: folder to write.
        overwrite: replace a report that `out` holds, an error otherwise.

    Raises:
        AudiobatError: no records, one that cannot be read or that is there twice, scores that are not the record's.
    """
    out = Path(out)
    if (out / "index.html").exists() and not overwrite:
        raise AudiobatError(f"{out / 'index.html'} exists: choose another --out, or replace it with --overwrite.")
    found = collect(load_all(runs))
    marks = mark(found.rows, paired(found.rows))
    write_tables(out / "tables", found, marks)
    exhibits = draw_all(out / "figures", found)
    page = write_overview(out / "index.html", found, marks, exhibits, listening_html(*gather(found)))
    print(f"{page} shows {len(found.rows)} rows; {out / 'tables'} and {out / 'figures'} hold what it is made of.")
    return out


def write_tables(folder: Path, found: Collection, marks: Marks) -> None:
    """Table 1 and Table 5 as .md, .tex and .csv, and results.csv with everything."""
    for grid in (table1(found, marks), table5(found, marks)):
        for suffix, text in ((".md", markdown(grid)), (".tex", latex(grid)), (".csv", csv_table(grid))):
            write(folder / f"{grid.name}{suffix}", text)
    write(folder / "results.csv", csv_lines(everything(found, marks)))


def write(path: Path, text: str) -> None:
    """A text file, whole or not at all; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def paired(rows: Sequence[Row]) -> dict[tuple[int, int], Outcome]:
    """Outcomes of the pairs of rows whose records all have scores of the same test clips.

    Each row's main metric is computed in the same resamples of the clips, the mean over its seeds.
    """
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if all(record.scores is not None for record in row.records):
            groups[row.data, row.main_metric].append(place)
    rivals = [places for places in groups.values() if len(places) > 1]
    outcomes: dict[tuple[int, int], Outcome] = {}
    with Progress("compare", total=sum(map(len, rivals)), unit="row", shown=bool(rivals)) as bar:
        for places in rivals:
            values: dict[int, Tensor] = {}
            first: tuple[Entry, Scores] | None = None
            for place in places:
                first, values[place] = resampled(rows[place], first)
                bar.advance()
            for a, b in combinations(places, 2):
                outcomes[a, b] = judge(rows[a].main.value - rows[b].main.value, values[a] - values[b])
    return outcomes


def resampled(row: Row, first: tuple[Entry, Scores] | None) -> tuple[tuple[Entry, Scores], Tensor]:
    """The row's main metric in resamples of its clips [SAMPLES]; AudiobatError if they are not those of `first`."""
    values = []
    for path, record in row.loaded:
        entry = Entry(path, record)
        scores = ordered(load_scores(path, record))
        first = first or (entry, scores)
        check_same_clips(*first, entry, scores)
        measure, sizes = measure_of(entry, scores, row.main_metric)
        values.append(bootstrap_values(measure, sizes, SAMPLES))
    assert first is not None
    return first, torch.stack(values).mean(0)


def judge(difference: float, resamples: Tensor) -> Outcome:
    """A win or a loss where the 95% interval of the difference leaves out 0."""
    low, high, _ = interval_of_difference(difference, resamples)
    if low > 0:
        return "win"
    return "loss" if high < 0 else "tie"
