"""Standings to tables: values with mean ranks, and duels, for Markdown and LaTeX; a section of the page; a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from audiobat.errors import counted, name_some
from audiobat.evaluation.certainty import interval_note
from audiobat.evaluation.report.collect import Collection
from audiobat.evaluation.report.paper_tables import Cell, Grid, Number, Section, with_best
from audiobat.evaluation.report.render import percent
from audiobat.evaluation.report.rows import NO_SHARES, Row, Summary, metric_title, ranked
from audiobat.evaluation.report.standings.places import Column, Duel, Standings, column_of
from audiobat.evaluation.report.web.html import section_html, table_html, text_cell

SHOWN = 6  # columns that a sentence names
HEADING = "Across data sets"
LABELS = ("Model", "Mean rank", "Won/tied/lost", "Win rate")
LEGEND = (
    "Won/tied/lost: against all other models, column by column. Win rate: share of these in which the value is the "
    "better one, however little; equal values count half."
)


def values_grid(found: Standings, records: Collection) -> Grid:
    """Models as lines, the best mean rank first; every column's value with its interval."""
    lines: list[tuple[Cell, ...]] = []
    for model in found.models:
        cells = [found.cells.get((model, column)) for column in found.columns]
        lines.append((model, *labels_of(found, model), *(None if s is None else Number(s) for s in cells)))
    note = interval_note(record for row in records.rows for record in row.records)
    upper = [(data, len(list(group))) for data, group in groupby(found.columns, key=lambda column: column.data)]
    return with_best(
        Grid(
            name="standings",
            caption=f"{len(found.models)} models on {len(upper)} data sets, in percent.",
            upper=(("", len(LABELS)), *upper),
            lower=(*LABELS, *(column_title(column) for column in found.columns)),
            labels=len(LABELS),
            sections=(Section("", tuple(lines)),),
            notes=(
                "Bold: best of its column.",
                f"Brackets: 95% interval over test clips. {note}",
                *sentences(found),
                f"{LEGEND} {found.verdicts.legend}",
                "- not measured.",
            ),
        )
    )


def duels_grid(found: Standings) -> Grid:
    """Every model against every other."""
    lines: list[tuple[Cell, ...]] = [
        (model, *("" if other == model else duel_text(found.duels[model, other]) for other in found.models))
        for model in found.models
    ]
    return Grid(
        name="duels",
        caption="Won/tied/lost and win rate, the model of the line against that of the column.",
        upper=(("", 1 + len(found.models)),),
        lower=("Model", *found.models),
        labels=1 + len(found.models),  # its cells are words
        sections=(Section("", tuple(lines)),),
        notes=(LEGEND,),
    )


def labels_of(found: Standings, model: str) -> tuple[str, str, str]:
    """A model's mean rank, duels and win rate, as words."""
    total = found.total(model)
    rank = f"{found.mean_ranks[model]:.2f}" if model in found.mean_ranks else "-"
    return rank, f"{total.won}/{total.tied}/{total.lost}", rate_text(total)


def duel_text(duel: Duel) -> str:
    """`3/1/0, 0.75`."""
    return f"{duel.won}/{duel.tied}/{duel.lost}, {rate_text(duel)}" if duel.columns else "-"


def rate_text(duel: Duel) -> str:
    """The share of columns in which the value is the better one."""
    return f"{duel.higher / duel.columns:.2f}" if duel.columns else "-"


def column_title(column: Column) -> str:
    """`CGP, mAP`."""
    return f"{column.head}, {metric_title(column.metric)}"


def sentences(found: Standings) -> Iterator[str]:
    """What the ranks are over, whether they differ by more than chance, and what was left out of them."""
    count = len(found.ranked)
    if count:
        yield (
            f"Mean rank: over {counted(count, 'data set')}, 1 for the best; where a data set has "
            "several heads or tasks, by the mean of the ranks under them."
        )
    if found.test is not None:
        p = "<0.0001" if found.test.p < 0.0001 else f"{found.test.p:.4f}"
        yield (
            f"Friedman's test that the models are alike: chi-squared {found.test.statistic:.2f}, p {p}; Kendall's W "
            f"{found.test.kendall_w:.2f} (1: all data sets agree on the order)."
        )
    if found.difference is not None:
        yield (
            f"Nemenyi's critical difference at 5%: mean ranks that differ by {found.difference:.2f} or less may do so "
            "by chance."
        )
    if found.left_out:
        names = "; ".join(f"{column.data}, {column.head}" for column in found.left_out[:SHOWN])
        more = f"; and {len(found.left_out) - SHOWN} more" if len(found.left_out) > SHOWN else ""
        whole = "" if count else " So there are no ranks."
        yield f"Left out of the ranks, as not all models have a value there: {names}{more}.{whole}"
    if found.unlike:
        some = list(found.unlike.items())[:SHOWN]
        named = "; ".join(f"{column.data}, {column.head} ({name_some(settings)})" for column, settings in some)
        more = f"; and {len(found.unlike) - SHOWN} more" if len(found.unlike) > SHOWN else ""
        yield f"Models differ in settings, too, so that these do not compare models alone: {named}{more}."


def standings_html(found: Standings) -> str:
    """The section of the page."""
    headings = [*LABELS, *(f"{column.data}: {column_title(column)}" for column in found.columns)]
    best = {column: with_best_of(found, column) for column in found.columns}
    body = ""
    for model in found.models:
        total = found.total(model)
        rank, counts, rate = labels_of(found, model)
        cells = [
            text_cell(model),
            f'<td data-value="{found.mean_ranks.get(model, "")}">{rank}</td>',
            f'<td data-value="{total.won - total.lost}">{counts}</td>',
            f'<td data-value="{rate.strip("-")}">{rate}</td>',
            *(value_html(found.cells.get((model, c)), best[c], c.metric not in NO_SHARES) for c in found.columns),
        ]
        body += f"<tr>{''.join(cells)}</tr>"
    against = "".join(
        f"<tr>{text_cell(model)}{''.join(map(duel_html, (found.duels.get((model, o)) for o in found.models)))}</tr>"
        for model in found.models
    )
    notes = "".join(f"<p class=note>{escape(text)}</p>" for text in (*sentences(found), LEGEND))
    return section_html(
        HEADING,
        f'<div class="results one standings">{table_html(headings, body, LABELS[:1])}</div>{notes}'
        f"<details><summary>Each model against each other</summary>"
        f"{table_html(['Model', *found.models], against, LABELS[:1])}"
        "<p class=note>Won/tied/lost and win rate, the model of the line against that of the column.</p></details>",
    )


def with_best_of(found: Standings, column: Column) -> float | None:
    """The best value of a column that several models have."""
    held = [s for model in found.models if (s := found.cells.get((model, column))) is not None]
    best = [s.value for s in held if len(held) > 1 and not any(other.beats(s.value) for other in held)]
    return best[0] if best else None


def value_html(summary: Summary | None, best: float | None, share: bool) -> str:
    """A value with its interval, starred where it is the best of its column."""
    if summary is None:
        return '<td data-value="">-</td>'
    mark = " class=best" if summary.value == best else ""
    value = "" if summary.value != summary.value else repr(summary.value)
    return f'<td data-value="{value}"{mark}>{value_text(summary, share)}</td>'.replace(" [", " <small>[", 1).replace(
        "]</td>", "]</small></td>"
    )


def value_text(summary: Summary, share: bool) -> str:
    """`41.20 [38.1, 44.0]`; of a metric that is no share, the numbers as they are."""
    if share:
        return f"{percent(summary.value)} [{percent(summary.low, 1)}, {percent(summary.high, 1)}]"
    return f"{summary.value:.3g} [{summary.low:.3g}, {summary.high:.3g}]"


def duel_html(duel: Duel | None) -> str:
    """A cell of the table of duels; empty on its diagonal."""
    if duel is None or not duel.columns:
        return '<td data-value=""></td>'
    return f'<td data-value="{duel.higher / duel.columns}">{escape(duel_text(duel))}</td>'


def standings_lines(rows: Sequence[Row], found: Standings | None) -> Iterator[Table | Text]:
    """For a terminal: every row's value, data set by data set, and then the models' places, if there are any."""
    values = table_of("Values in percent, with 95% intervals", ("Data set", "Head, metric", "Model"), ("", "95%"))
    for data, of_data in groupby(rows, key=lambda row: row.data):
        shown = ""
        for title, group in groupby(of_data, key=lambda row: column_title(column_of(row))):
            held = ranked(list(group))
            for place, row in enumerate(held):
                value, _, interval = value_text(row.main, row.main_metric not in NO_SHARES).partition(" ")
                best = len(held) > 1 and row.main.value == held[0].main.value
                words = ("" if data == shown else data, "" if place else title)
                values.add_row(*map(Text, (*words, row.model, f"{value} {'★' if best else ' '}", interval)))
                shown = data
        values.add_section()
    yield values
    if found is not None:
        places = table_of(HEADING, LABELS[:1], LABELS[1:])
        for model in found.models:
            places.add_row(Text(model), *labels_of(found, model))
        yield places
        yield from map(Text, sentences(found))


def table_of(title: str, words: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    """An empty table: columns of words, and of numbers to the right."""
    table = Table(title=Text(title), title_justify="left", box=SIMPLE)
    for heading in words:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
