"""Rows and marks of a report to the table of its page: sortable, with intervals, and win/loss marks against any row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from audiobat.evaluation.report.collect import Collection
from audiobat.evaluation.report.marks import Marks
from audiobat.evaluation.report.paper_tables import parameters
from audiobat.evaluation.report.rows import METRIC_NAMES, NO_SHARES, Row, Summary, ranked

COLUMNS = {
    "Data set": "Which labelled clips trained and tested the head.",
    "Model": "Whose frozen features the head saw.",
    "Head": "What was trained on the features; its settings where heads of that kind differ in them.",
    "Held against": "▲ better, ▼ worse or = not told apart from the row marked ◆, by the main metric. Click a row's "
    "mark to hold the rows of its data set against it; at first it is the best one.",
    "Won / tied / lost": "Against every other row of the data set, by the main metric.",
    "SD seeds": "Standard deviation of the main metric over seeds of the head; empty for one seed.",
    "SD folds": "Standard deviation of the main metric over the folds of the data set; empty without folds.",
    "Seeds": "How many times the head was trained. Values are means over seeds.",
    "Parameters": "Of the model, without the head.",
}


def results_html(found: Collection, marks: Marks) -> str:
    """The table of all rows, and what its columns mean."""
    names = list(dict.fromkeys(row.main_metric for row in found.rows))
    measured = {name for row in found.rows for name in row.summaries} - set(names)
    if all(same_numbers(row, "map", "map_all") for row in found.rows):  # no class is absent from test clips
        measured.discard("map_all")
    names += sorted(measured, key=lambda name: (name not in METRIC_NAMES, [*METRIC_NAMES, name].index(name), name))
    columns = list(COLUMNS)
    heads = [*columns[:5], *(METRIC_NAMES.get(name, name) for name in names), *columns[5:]]
    references = {data: best_place(found, data) for data in found.data_sets}
    body = "".join(row_html(found, marks, place, names, references) for place in range(len(found.rows)))
    means = [(column, COLUMNS[column]) for column in columns[:5]]
    for name in names:
        row = next(row for row in found.rows if name in row.summaries)
        means.append((METRIC_NAMES.get(name, name), row.summaries[name].definition))
    means += [(column, COLUMNS[column]) for column in columns[5:]]
    described = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in means)
    return (
        f"<div class=results>{table_html(heads, body)}</div><p class=note>★ highest of its column in its data set. "
        f"{escape(marks.legend)} Click a heading to sort.</p>"
        f"<details><summary>What the columns mean</summary><dl>{described}</dl></details>"
    )


def same_numbers(row: Row, one: str, other: str) -> bool:
    """Whether the second metric says nothing that the first does not."""
    a, b = row.summaries.get(one), row.summaries.get(other)
    return b is None or (a is not None and (a.value, a.low, a.high) == (b.value, b.low, b.high))


def table_html(headings: Sequence[str], body: str) -> str:
    """A table whose headings sort it."""
    head = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in headings)
    return f"<div class=scroll><table class=sortable><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def row_html(found: Collection, marks: Marks, place: int, names: Sequence[str], references: dict[str, int]) -> str:
    """One line of the table of results."""
    row = found.rows[place]
    duels = "".join(
        marks.duels[place, other].outcome[0] if (place, other) in marks.duels else "-"
        for other in range(len(found.rows))
    )
    won, tied, lost = marks.tally(place)
    against = versus_html(marks, place, references[row.data])
    share = row.main_metric not in NO_SHARES
    count = row.first.model.parameters
    cells = [
        text_html(row.data),
        text_html(row.model),
        text_html(row.head),
        against,
        f'<td data-value="{won - lost}">{won} / {tied} / {lost}</td>',
        *(metric_html(found, row, name) for name in names),
        spread_html(row.main.sd_seeds, share),
        spread_html(row.main.sd_folds, share),
        f'<td data-value="{len(row.records)}">{len(row.records)}</td>',
        f'<td data-value="{"" if count is None else count}">{parameters(count)}</td>',
    ]
    return (
        f'<tr data-data="{escape(row.data)}" data-head="{escape(row.kind)}" data-place="{place}" data-duels="{duels}">'
        f"{''.join(cells)}</tr>"
    )


def versus_html(marks: Marks, place: int, reference: int) -> str:
    """How the row does against the reference, on a button that makes it the reference."""
    if place == reference:
        value, text = "2", "◆ held against"
    elif (place, reference) not in marks.duels:
        value, text = "", "not compared"
    else:
        value, text = {"win": ("1", "▲ better"), "tie": ("0", "= no difference"), "loss": ("-1", "▼ worse")}[
            marks.duels[place, reference].outcome
        ]
    pressed = "true" if place == reference else "false"
    return (
        f'<td class="versus mark{value}" data-value="{value}"><button type="button" aria-pressed="{pressed}">{text}'
        "</button></td>"
    )


def metric_html(found: Collection, row: Row, name: str) -> str:
    """A value with its interval; starred where it is the highest of its data set."""
    summary = row.summaries.get(name)
    if summary is None:
        return '<td data-value="">-</td>'
    rivals = [r.summaries[name].value for r in found.rows if r.data == row.data and name in r.summaries]
    best = len(rivals) > 1 and all(not rival > summary.value for rival in rivals) and not math.isnan(summary.value)
    value = "" if math.isnan(summary.value) else repr(summary.value)
    share = name not in NO_SHARES
    return (
        f'<td data-value="{value}"{" class=best" if best else ""}>{number_text(summary.value, 2, share)} '
        f"<small>{interval_text(summary, share)}</small></td>"
    )


def interval_text(summary: Summary, share: bool) -> str:
    """`[35.1, 39.9]`."""
    return f"[{number_text(summary.low, 1, share)}, {number_text(summary.high, 1, share)}]"


def number_text(value: float, digits: int, share: bool) -> str:
    """A fraction in percent, or another number as it is; n/a where undefined."""
    return "n/a" if math.isnan(value) else f"{value * (100 if share else 1):.{digits}f}"


def spread_html(sd: float | None, share: bool) -> str:
    """A standard deviation, if there is one."""
    if sd is None or math.isnan(sd):
        return '<td data-value=""></td>'
    return f'<td data-value="{sd!r}">{number_text(sd, 2, share)}</td>'


def text_html(text: str) -> str:
    """A cell of words."""
    return f'<td class="name" data-value="{escape(text)}">{escape(text)}</td>'


def best_place(found: Collection, data: str) -> int:
    """Place of the row with the highest main metric of a data set."""
    return found.rows.index(ranked([row for row in found.rows if row.data == data])[0])
