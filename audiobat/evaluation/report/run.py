"""`audiobat report`: result records in; tables, figures and one page that needs no network, out.

No model runs and no audio is read: only the scores beside the records are resampled, to compare two of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from audiobat.engine.files import write_atomic
from audiobat.errors import AudiobatError
from audiobat.evaluation.report.collect import collect, load_all
from audiobat.evaluation.report.listening import gather, listening_html
from audiobat.evaluation.report.page import write_page
from audiobat.evaluation.report.paper_tables import everything, table1, table5
from audiobat.evaluation.report.render import csv_lines, csv_table, latex, markdown
from audiobat.evaluation.report.run_figures import draw_all
from audiobat.evaluation.report.verdicts import judge, paired_verdicts


def report(runs: Iterable[str | Path] | str | Path, out: str | Path, *, overwrite: bool = False) -> Path:
    """Write OUT/index.html, OUT/tables and OUT/figures from result records alone; returns `out`.

    Args:
        runs: folders that `audiobat probe` wrote, of any depth, or record files.
        out: folder to write.
        overwrite: replace a report that `out` holds, an error otherwise.

    Raises:
        AudiobatError: no records, one that cannot be read or that is there twice, scores that are not the record's.
    """
    out = Path(out)
    if isinstance(runs, str | Path):
        runs = [runs]
    if (out / "index.html").exists() and not overwrite:
        raise AudiobatError(f"{out / 'index.html'} exists: choose another --out, or replace it with --overwrite.")
    found = collect(load_all(runs))
    verdicts = judge(found.rows, paired_verdicts(found.rows))
    tables = out / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    for grid in (table1(found, verdicts), table5(found, verdicts)):
        for suffix, text in ((".md", markdown(grid)), (".tex", latex(grid)), (".csv", csv_table(grid))):
            write_atomic(tables / f"{grid.name}{suffix}", text)
    write_atomic(tables / "results.csv", csv_lines(everything(found, verdicts)))
    exhibits = draw_all(out / "figures", found)
    page = write_page(out / "index.html", found, verdicts, exhibits, listening_html(*gather(found)))
    counted = f"{len(found.rows)} row{'' if len(found.rows) == 1 else 's'}"
    print(f"{page} shows {counted}; {tables} and {out / 'figures'} hold what it is made of.")
    return out
