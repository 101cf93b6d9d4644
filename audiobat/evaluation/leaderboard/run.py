"""`audiobat leaderboard`: a file of results, and new ones for it, in; its models in order, tables and a page out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from audiobat.errors import AudiobatError, counted, did_you_mean
from audiobat.evaluation.leaderboard.board import add_records, read_board
from audiobat.evaluation.record import ResultRecord
from audiobat.evaluation.report.collect import Collection, collect, load_all
from audiobat.evaluation.report.curves import is_block_probe
from audiobat.evaluation.report.rows import Loaded, row_key
from audiobat.evaluation.report.run import write_report
from audiobat.evaluation.report.standings.places import Standings, standings_of
from audiobat.evaluation.report.standings.tables import standings_lines
from audiobat.evaluation.report.verdicts import judge


def leaderboard(
    board: str | Path,
    *,
    add: Sequence[str | Path] = (),
    only: tuple[str, ...] = (),
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Standings | None:
    """Print the models of a leaderboard file in order, after results were added to it if there are any to add.

    Args:
        board: the file, JSON lines; made by the first `add`.
        add: folders that `audiobat probe`, `finetune` or `suite` wrote, or record files, whose results are appended.
        only: show no more than these models, data sets and kinds of heads.
        out: folder for a page, tables and figures of it; None: they are only printed.
        overwrite: replace a page that `out` holds, an error otherwise.

    Returns:
        The models' places over all data sets; None for a single model or a single data set.

    Raises:
        AudiobatError: no such file, or no leaderboard; records that cannot be read; a name that it does not have.
    """
    board = Path(board)
    if out is not None and (page := Path(out) / "index.html").exists() and not overwrite:
        raise AudiobatError(f"{page} exists: choose another --out, or replace it with --overwrite.")
    if add:
        records = [record for _, record in load_all(add) if not is_block_probe(record)]
        new = add_records(board, [(record, record.main_metric) for record in records])
        print(f"{board}: {new} of {len(records)} results are new")
    found = chosen(collect_board(board), only)
    verdicts = judge(found.rows, {})  # the scores of clips stay with their runs
    standings = standings_of(found.rows, verdicts)
    console = Console(highlight=False)
    for part in standings_lines(found.rows, standings):
        console.print(part, soft_wrap=True)
    if out is not None:
        write_report(found, verdicts, Path(out))
    return standings


def collect_board(board: Path) -> Collection:
    """The rows of a leaderboard file; of two results of one head and seed the later one. Prints what is left out."""
    held = read_board(board)
    for sentence in held.refused:
        print(f"! {sentence}", file=sys.stderr)
    latest = {key_of(line.record): line for line in held.lines}
    if older := len(held.lines) - len(latest):
        print(f"{board}: {counted(older, 'older result')} of the same model, data, head and seed hidden")
    loaded: list[Loaded] = [(board / f"line {line.number}", line.record) for line in latest.values()]
    metrics = {(line.record.data.name, line.record.head["kind"]): line.metric for line in latest.values()}
    return collect(loaded, metrics)


def key_of(record: ResultRecord) -> tuple[object, ...]:
    """A key that is equal for two results of the same model, data, head and seed."""
    return (*row_key(record), record.seed, record.head.get("order_seed"))


def chosen(found: Collection, only: Sequence[str]) -> Collection:
    """The rows of the models, data sets and kinds of heads in `only`; AudiobatError for a name that is none of them."""
    names = [{getattr(row, group) for row in found.rows} for group in ("model", "data", "kind")]
    known = sorted(set().union(*names))
    for name in only:
        if name not in known:
            raise AudiobatError(f"--only has {name!r}{did_you_mean(name, known)}: choose from {', '.join(known)}.")
    models, data, kinds = ({name for name in only if name in group} or group for group in names)
    rows = tuple(row for row in found.rows if row.model in models and row.data in data and row.kind in kinds)
    if not rows:
        raise AudiobatError(f"The board has no result of {', '.join(only)} together: leave some of --only out.")
    return Collection(rows, ())
