"""Rows and verdicts to the table of the page: sortable, with intervals, each row compared with a chosen one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from audiobat.evaluation.report.collect import Collection
from audiobat.evaluation.report.html import definitions_html, table_html, text_cell
from audiobat.evaluation.report.paper_tables import parameters
from audiobat.evaluation.report.rows import METRIC_NAMES, NO_SHARES, Row, Summary, metric_title, ranked
from audiobat.evaluation.report.verdicts import Verdicts

COLUMNS = {
    "Data set": "The labelled clips that trained and tested the head.",
    "Model": "The model whose frozen features the head was trained on.",
    "Head": "What was trained on the features; its settings where heads of that kind differ in them.",
    "Compared": "▲ better than the row marked ◆, ▼ worse, or = no difference, by the main metric. Click a row's mark "
    "to compare the rows of its data set with it; at first that is the best row.",
    "Won / tied / lost": "Against every other row of the data set, by the main metric.",
    "SD seeds": "Standard deviation of the main metric over seeds of the head; empty for one seed.",
    "SD folds": "Standard deviation of the main metric over the folds of the data set; empty without folds.",
    "Seeds": "How many times the head was trained. Values are means over seeds.",
    "Parameters": "Of the model, without the head.",
}


def results_html(found: Collection, verdicts: Verdicts) -> str:
    """The table of all rows, and definitions of its columns."""
    names = metrics_shown(found)
    columns = list(COLUMNS)
    headings = [*columns[:5], *map(metric_title, names), *columns[5:]]
    references = {data: best_place(found, data) for data in found.data_sets}
    body = "".join(row_html(found, verdicts, place, names, references) for place in range(len(found.rows)))
    definitions = dict(COLUMNS)
    for name in names:
        row = next(row for row in found.rows if name in row.summaries)
        definitions[metric_title(name)] = row.summaries[name].definition
    return (
        f"<div class=results>{table_html(headings, body)}</div><p class=note>★ highest of its column in its data set. "
        f"{escape(verdicts.legend)} Click a heading to sort.</p>"
        f"<details><summary>What the columns mean</summary>"
        f"{definitions_html([(name, definitions[name]) for name in headings])}</details>"
    )


def metrics_shown(found: Collection) -> list[str]:
    """Main metrics first, then the others in the order of METRIC_NAMES."""
    names = list(dict.fromkeys(row.main_metric for row in found.rows))
    measured = {name for row in found.rows for name in row.summaries} - set(names)
    for variant in ("map_all", "cmap5"):  # the same as mAP where no class is absent, or rare, in the test clips
        if all(same_numbers(row, "map", variant) for row in found.rows):
            measured.discard(variant)
    return names + sorted(
        measured, key=lambda name: (name not in METRIC_NAMES, [*METRIC_NAMES, name].index(name), name)
    )


def same_numbers(row: Row, one: str, other: str) -> bool:
    """Whether metric `other` has the same value and interval as metric `one`, or is not there."""
    a, b = row.summaries.get(one), row.summaries.get(other)
    return b is None or (a is not None and (a.value, a.low, a.high) == (b.value, b.low, b.high))


def row_html(
    found: Collection, verdicts: Verdicts, place: int, names: Sequence[str], references: Mapping[str, int]
) -> str:
    """One line of the table; data-verdicts holds w, t, l or - for every row, from which page.js compares anew."""
    row = found.rows[place]
    letters = "".join(verdicts.of_pairs.get((place, other), "-")[0] for other in range(len(found.rows)))
    won, tied, lost = verdicts.tally(place)
    share = row.main_metric not in NO_SHARES
    count = row.first.model.parameters
    cells = [
        text_cell(row.data),
        text_cell(row.model),
        text_cell(row.head),
        compared_html(verdicts, place, references[row.data]),
        f'<td data-value="{won - lost}">{won} / {tied} / {lost}</td>',
        *(metric_html(found, row, name) for name in names),
        spread_html(row.main.sd_seeds, share),
        spread_html(row.main.sd_folds, share),
        f'<td data-value="{len(row.records)}">{len(row.records)}</td>',
        f'<td data-value="{"" if count is None else count}">{parameters(count)}</td>',
    ]
    return (
        f'<tr data-data="{escape(row.data)}" data-head="{escape(row.kind)}" data-place="{place}" '
        f'data-verdicts="{letters}">{"".join(cells)}</tr>'
    )


def compared_html(verdicts: Verdicts, place: int, reference: int) -> str:
    """The verdict on the row against the reference, on a button that makes the row the reference."""
    if place == reference:
        value, text = "2", "◆ reference"
    elif (place, reference) not in verdicts.of_pairs:
        value, text = "", "not compared"
    else:
        value, text = {"win": ("1", "▲ better"), "tie": ("0", "= no difference"), "loss": ("-1", "▼ worse")}[
            verdicts.of_pairs[place, reference]
        ]
    pressed = "true" if place == reference else "false"
    return (
        f'<td class="compared mark{value}" data-value="{value}"><button type="button" aria-pressed="{pressed}">{text}'
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


def best_place(found: Collection, data: str) -> int:
    """Place of the row with the highest main metric of a data set."""
    return found.rows.index(ranked([row for row in found.rows if row.data == data])[0])
