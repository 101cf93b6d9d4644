"""`audiobat report`: result records, logs of runs, or an evaluation, in; tables, figures and one page out.

No model runs. Of records no audio is read: only the scores beside them are resampled, to compare two of them. Of an
evaluation the recordings with the most mistakes are read, to be looked at and played.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from audiobat.data.csv_text import csv_text
from audiobat.engine.files import write_atomic
from audiobat.errors import AudiobatError, counted
from audiobat.evaluation.report.collect import Collection, collect, load_all
from audiobat.evaluation.report.detections.evaluation import Evaluation, evaluation_folder, read_evaluation
from audiobat.evaluation.report.detections.mistakes import FOLDER as CLIPS
from audiobat.evaluation.report.detections.sections import detection_sections
from audiobat.evaluation.report.detections.timeline import FOLDER as RECORDINGS
from audiobat.evaluation.report.listening.section import gather, listening_html
from audiobat.evaluation.report.page import training_html, write_page, write_training_page
from audiobat.evaluation.report.paper_tables import Grid, everything, table1, table5
from audiobat.evaluation.report.render import csv_lines, csv_table, latex, markdown
from audiobat.evaluation.report.run_figures import clear, draw_all, draw_training
from audiobat.evaluation.report.sound_map import map_folder, write_map_page
from audiobat.evaluation.report.standings.figure import CAPTION, rank_figure
from audiobat.evaluation.report.standings.places import Standings, standings_of
from audiobat.evaluation.report.standings.tables import HEADING, duels_grid, standings_html, values_grid
from audiobat.evaluation.report.style import save
from audiobat.evaluation.report.verdicts import Verdicts, judge, paired_verdicts
from audiobat.evaluation.report.web.html import Exhibit, write_html
from audiobat.evaluation.run_logs import RunLogs, find_runs, load_logs, table_of

OF_SEVERAL = ("tables/standings.*", "tables/duels.*", "figures/ranks.*")  # written for several models and data sets


def report(runs: Iterable[str | Path] | str | Path, out: str | Path, *, overwrite: bool = False) -> Path:
    """Write OUT/index.html, and the tables, figures and sounds that belong to it; returns `out`.

    Args:
        runs: folders that `audiobat pretrain`, `finetune` or `probe` wrote, of any depth, or record files; or the
            folder of one `audiobat evaluate`, or of one `audiobat atlas`.
        out: folder to write.
        overwrite: replace a report that `out` holds, an error otherwise.

    Raises:
        AudiobatError: no records, one that cannot be read or that is there twice, scores that are not the record's.
    """
    out = Path(out)
    sources = [Path(runs)] if isinstance(runs, str | Path) else list(map(Path, runs))
    if (out / "index.html").exists() and not overwrite:
        raise AudiobatError(f"{out / 'index.html'} exists: choose another --out, or replace it with --overwrite.")
    alone = [source for source in sources if evaluation_folder(source) or map_folder(source)]
    if alone and len(sources) > 1:
        raise AudiobatError(f"{alone[0]} has a page of its own: report it alone, and the rest by itself.")
    if alone and (folder := evaluation_folder(alone[0])):
        return report_detections(read_evaluation(folder), out)
    if alone and (folder := map_folder(alone[0])):
        return report_map(folder, out)
    return report_records(sources, out)


def report_detections(found: Evaluation, out: Path) -> Path:
    """Write the page of an evaluation; returns `out`."""
    sections, scripts = detection_sections(found, out)
    lead = (
        f"Predictions beside the truth, on {found.plain['recordings']['evaluated']:,} recordings. The folders "
        f"{RECORDINGS} and {CLIPS}, where there are any, belong beside this page: it plays what lies there."
    )
    page = write_html(out / "index.html", f"Detections: {found.name}", lead, sections, scripts=scripts, beside=True)
    print(f"{page} shows {found.name}; what it plays and draws lies beside it.")
    return out


def report_map(folder: Path, out: Path) -> Path:
    """Write the page of a map of sounds; returns `out`."""
    print(f"{write_map_page(folder, out)} shows the map of {folder}.")
    return out


def report_records(sources: Sequence[Path], out: Path) -> Path:
    """Write the page, tables and figures of result records, and of the logs of training runs; returns `out`."""
    runs = {source: find_runs(source) for source in sources}
    logs = load_logs(folder for found in runs.values() for folder in found)
    with_records = [source for source in sources if not runs[source] or any(source.rglob("results/*.json"))]
    if logs:
        headings, lines = table_of(logs)
        (out / "tables").mkdir(parents=True, exist_ok=True)
        write_atomic(out / "tables" / "training.csv", csv_text([headings, *lines]))
    if logs and not with_records:
        return report_training(logs, out)
    found = collect(load_all(with_records))
    write_report(found, judge(found.rows, paired_verdicts(found.rows)), out, logs)
    return out


def write_report(found: Collection, verdicts: Verdicts, out: Path, logs: Sequence[RunLogs] = ()) -> None:
    """Write the page, tables and figures of rows that are judged, and of the logs of training runs."""
    tables, figures = out / "tables", out / "figures"
    standings = standings_of(found.rows, verdicts)
    exhibits = write_standings(standings, found, out)
    for grid in (table1(found, verdicts), table5(found, verdicts)):
        write_table(grid, tables)
    write_atomic(tables / "results.csv", csv_lines(everything(found, verdicts)))
    exhibits += draw_all(figures, found)
    page = write_page(
        out / "index.html",
        found,
        verdicts,
        exhibits,
        listening_html(*gather(found)),
        training=training_html(logs, draw_training(figures, logs)) if logs else "",
        standings="" if standings is None else standings_html(standings),
    )
    print(f"{page} shows {counted(len(found.rows), 'row')}; {tables} and {figures} hold what it is made of.")


def write_standings(standings: Standings | None, found: Collection, out: Path) -> list[Exhibit]:
    """Write the tables and the figure of standings, in place of older ones; returns the figure."""
    for old in (path for name in OF_SEVERAL for path in out.glob(name)):
        old.unlink()
    if standings is None:
        return []
    for grid in (values_grid(standings, found), duels_grid(standings)):
        write_table(grid, out / "tables")
    if len(standings.ranked) < 2:  # the order on one data set is in its own figure
        return []
    return [Exhibit(save(rank_figure(standings), out / "figures", "ranks"), f"{HEADING}: mean ranks", CAPTION)]


def write_table(grid: Grid, folder: Path) -> None:
    """Write a table as Markdown, LaTeX and CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in ((".md", markdown(grid)), (".tex", latex(grid)), (".csv", csv_table(grid))):
        write_atomic(folder / f"{grid.name}{suffix}", text)


def report_training(logs: Sequence[RunLogs], out: Path) -> Path:
    """Write the page and figures of training runs that have no records; returns `out`."""
    clear(out / "figures")
    page = write_training_page(out / "index.html", logs, draw_training(out / "figures", logs))
    print(f"{page} shows {counted(len(logs), 'run')}; {out / 'figures'} holds what it is made of.")
    return out
