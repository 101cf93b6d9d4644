"""Rows, verdicts, curves, figures and clips of a report to its one index.html, which needs no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from audiobat.errors import counted
from audiobat.evaluation.certainty import FEW, interval_note, rare_classes, rare_note
from audiobat.evaluation.head_names import FINETUNE, head_title
from audiobat.evaluation.report.collect import Collection
from audiobat.evaluation.report.paper_tables import parameters
from audiobat.evaluation.report.rows import METRIC_NAMES, NO_SHARES, Row, metric_title, ranked
from audiobat.evaluation.report.style import RUNS_SHOWN
from audiobat.evaluation.report.verdicts import Verdicts
from audiobat.evaluation.report.web.charts import layer_chart
from audiobat.evaluation.report.web.html import (
    Exhibit,
    definitions_html,
    exhibit_html,
    section_html,
    table_html,
    text_cell,
    write_html,
)
from audiobat.evaluation.run_logs import RunLogs, table_of

BLOCKS = (
    "<p>Linear probes of single blocks, where <code>--layers</code> made them, and below them the weights that CGP's "
    "gate learned. Point at a block, or walk with the arrow keys, for its numbers. The dashed line is where the gate "
    "starts; ρ is Spearman's rank correlation of the two.</p>"
)
PROVENANCE = (
    *("Data set", "Model", "Head", "Preset", "Settings", "Clips", "Unreadable", "Classes"),
    *("Weights", "Table", "Run"),
)
BEFORE = {  # columns before those of the metrics
    "Data set": "The labelled clips that trained and tested the head.",
    "Model": "The model whose frozen features the head was trained on.",
    "Head": "What was trained on the features; its settings where heads of that kind differ in them.",
    "Compared": "▲ better than the row marked ◆, ▼ worse, or = no difference, by the main metric. Click a row's mark "
    "to compare the rows of its data set with it; at first that is the best row.",
    "Won / tied / lost": "Against every other row of the data set, by the main metric.",
}
WORDS = ("Data set", "Model", "Head")  # columns of words
AFTER = {  # columns behind them
    "SD seeds": "Standard deviation of the main metric over seeds of the head; empty for one seed.",
    "SD folds": "Standard deviation of the main metric over the folds of the data set; empty without folds.",
    "Seeds": "How many times the head was trained. Values are means over seeds.",
    "Parameters": "Of the model, without the head.",
}


def write_page(
    path: str | Path,
    found: Collection,
    verdicts: Verdicts,
    exhibits: Sequence[Exhibit],
    listening: str = "",
    training: str = "",
    *,
    standings: str = "",
    heading: str = "",
    lead: str = "",
    facts: Sequence[tuple[str, str]] = (),
    notices: Sequence[str] = (),
) -> Path:
    """Write the page, whole or not at all, and return its path.

    Args:
        path: the .html file.
        found: the rows and curves to show.
        verdicts: who wins among the rows.
        exhibits: figures, in this order.
        listening: the section of `listening_html`.
            standings: the section of `standings_html`.
            training: the sections of `training_html`.
            heading: of the page; "" counts models, heads and data sets.
        lead: two or three sentences below the heading; "" says how many records the page is made of.
        facts: what was run besides, as (name, value).
        notices: licences, as HTML paragraphs.
    """
    charts = "".join(map(layer_chart, found.layers))
    sections = [
        standings,
        section_html("Results", results_html(found, verdicts)),
        section_html("Block by block", f"{BLOCKS}<div class=charts>{charts}</div>") if charts else "",
        listening,
        *map(exhibit_html, exhibits),
        training,
        section_html("What was run", (definitions_html(facts) if facts else "") + provenance_html(found)),
        section_html("Licences", "".join(f"<p>{notice}</p>" for notice in notices)) if notices else "",
    ]
    top = f'{filters_html(found)}<div id="tip" role="status" hidden></div>'  # where page.js shows a block's numbers
    if not heading:
        models, kinds = {row.model for row in found.rows}, {row.kind for row in found.rows}
        counts = counted(len(models), "model"), counted(len(kinds), "head"), counted(len(found.data_sets), "data set")
        what = "Fine-tuning" if kinds == {FINETUNE} else "Probing"
        heading = f"{what} report: {', '.join(counts)}"
    if not lead:
        heads = sum(len(row.records) for row in found.rows)
        blocks = sum(len(probes) for curve in found.layers for probes in curve.probes)
        lead = (
            f"Made from {counted(heads, 'result record')}"
            f"{f' of heads and {blocks} of single blocks' if blocks else ''}. Numbers "
            "are in percent unless a column says otherwise, with 95% intervals over test clips in brackets."
        )
    return write_html(path, heading, lead, sections, top)


def training_html(logs: Sequence[RunLogs], exhibits: Sequence[Exhibit]) -> str:
    """The sections of training runs: a table with a line for each, and their curves."""
    headings, lines = table_of(logs)
    words = headings[: headings.index("steps")]
    body = ""
    for line in lines:
        body += f"<tr>{''.join(cell_html(cell, name in words) for name, cell in zip(headings, line, strict=True))}</tr>"
    about = "The settings are those in which the runs differ; values are those of the last row of each log."
    if len(logs) > RUNS_SHOWN:
        about += f" Curves show the first {RUNS_SHOWN} runs."
    table = f"{table_html(headings, body, words)}<p class=note>{about}</p>"
    return section_html("Training runs", table) + "".join(map(exhibit_html, exhibits))


def cell_html(text: str, is_word: bool) -> str:
    """A cell of words, or of a number, which may be missing: `400 of 1,000` sorts as 400."""
    if is_word:
        return text_cell(text)
    return f'<td data-value="{escape(text.split(" ")[0].replace(",", ""))}">{escape(text)}</td>'


def write_training_page(path: Path, logs: Sequence[RunLogs], exhibits: Sequence[Exhibit]) -> Path:
    """Write the page of runs that have no records; returns its path."""
    heading = f"Training report: {counted(len(logs), 'run')}"
    lead = "Made from the logs of runs, finished or not, as they stood when this page was written."
    return write_html(path, heading, lead, [training_html(logs, exhibits)])


def results_html(found: Collection, verdicts: Verdicts) -> str:
    """The table of all rows, without columns that would say nothing, and definitions of its columns."""
    metrics = metrics_shown(found)
    columns = columns_shown(found, verdicts)
    headings = [*(n for n in columns if n in BEFORE), *map(metric_title, metrics), *(n for n in columns if n in AFTER)]
    best = {(row.data, row.task): row for row in reversed(ranked(found.rows))}
    references = {place: found.rows.index(row) for place, row in best.items()}
    body = "".join(row_html(found, verdicts, place, headings, metrics, references) for place in range(len(found.rows)))
    definitions = {**BEFORE, **AFTER}
    records = [record for row in found.rows for record in row.records]
    for name in metrics:
        row = next(row for row in found.rows if name in row.summaries)
        definitions[metric_title(name)] = row.summaries[name].definition
    legend = f"★ best of its column in its data set. {escape(verdicts.legend)} " if verdicts.paired else ""
    return (
        f'<div class="results{"" if "Data set" in headings else " one"}">{table_html(headings, body, WORDS)}</div>'
        f"<p class=note>{legend}{'Click a heading to sort.' if len(found.rows) > 1 else ''}</p>"
        f"<p class=note>{escape(interval_note(records))} {escape(rare_note(records))}</p>"
        f"<details><summary>What the columns mean</summary>"
        f"{definitions_html([(name, definitions[name]) for name in headings])}</details>"
    )


def columns_shown(found: Collection, verdicts: Verdicts) -> list[str]:
    """The columns besides metrics that say something of these rows: one row alone has no rival, one seed no spread."""
    rows = found.rows
    says = {
        "Data set": len(found.data_sets) > 1,
        "Compared": bool(verdicts.paired),
        "Won / tied / lost": bool(verdicts.paired),
        "SD seeds": any(row.main.sd_seeds is not None for row in rows),
        "SD folds": any(row.main.sd_folds is not None for row in rows),
        "Seeds": any(len(row.records) > 1 for row in rows),
    }
    return [name for name in (*BEFORE, *AFTER) if says.get(name, True)]


def metrics_shown(found: Collection) -> list[str]:
    """Main metrics first, then the others in the order of METRIC_NAMES."""
    names = list(dict.fromkeys(row.main_metric for row in found.rows))
    measured = {name for row in found.rows for name in row.summaries} - set(names)
    for variant in ("map_all", "cmap5"):  # the same as mAP where no class is absent, or rare, in the test clips
        pairs = [(r.summaries.get("map"), r.summaries[variant]) for r in found.rows if variant in r.summaries]
        if all(a and (a.value, a.low, a.high) == (b.value, b.low, b.high) for a, b in pairs):
            measured.discard(variant)
    return names + sorted(
        measured, key=lambda name: (name not in METRIC_NAMES, [*METRIC_NAMES, name].index(name), name)
    )


def row_html(
    found: Collection,
    verdicts: Verdicts,
    place: int,
    headings: Sequence[str],
    metrics: Sequence[str],
    references: Mapping[tuple[str, str], int],
) -> str:
    """One line of the table; data-verdicts holds w, t, l or - for every row, from which page.js compares anew."""
    row = found.rows[place]
    letters = "".join(verdicts.of_pairs.get((place, other), "-")[0] for other in range(len(found.rows)))
    won, tied, lost = verdicts.tally(place)
    tally = f'"{won - lost}">{won} / {tied} / {lost}' if won + tied + lost else '"">-'
    share = row.main_metric not in NO_SHARES
    count = row.first.model.parameters
    cells = {
        "Data set": text_cell(row.data),
        "Model": text_cell(row.model),
        "Head": text_cell(row.head),
        "Compared": compared_html(verdicts, place, references[row.data, row.task]),
        "Won / tied / lost": f"<td data-value={tally}</td>",
        **{metric_title(name): metric_html(found, row, name) for name in metrics},
        "SD seeds": spread_html(row.main.sd_seeds, share),
        "SD folds": spread_html(row.main.sd_folds, share),
        "Seeds": f'<td data-value="{len(row.records)}">{len(row.records)}</td>',
        "Parameters": f'<td data-value="{"" if count is None else count}">{parameters(count)}</td>',
    }
    return (
        f'<tr data-data="{escape(row.data)}" data-head="{escape(row.kind)}" data-place="{place}" '
        f'data-verdicts="{letters}">{"".join(cells[name] for name in headings)}</tr>'
    )


def compared_html(verdicts: Verdicts, place: int, reference: int) -> str:
    """The verdict on the row against the reference, on a button that makes the row the reference."""
    if place == reference:
        value, text = "2", "◆ reference"
    else:
        words = {"win": ("1", "▲ better"), "tie": ("0", "= no difference"), "loss": ("-1", "▼ worse")}
        value, text = words.get(verdicts.of_pairs.get((place, reference), ""), ("", "not compared"))
    pressed = "true" if place == reference else "false"
    return (
        f'<td class="compared mark{value}" data-value="{value}"><button type="button" aria-pressed="{pressed}">{text}'
        "</button></td>"
    )


def metric_html(found: Collection, row: Row, name: str) -> str:
    """A value with its interval; starred where it is the best of its data set."""
    summary = row.summaries.get(name)
    if summary is None:
        return '<td data-value="">-</td>'
    same = [r for r in found.rows if (r.data, r.task) == (row.data, row.task)]
    rivals = [r.summaries[name] for r in same if name in r.summaries]
    best = len(rivals) > 1 and not math.isnan(summary.value) and not any(r.beats(summary.value) for r in rivals)
    value = "" if math.isnan(summary.value) else repr(summary.value)
    share = name not in NO_SHARES
    low, high = number_text(summary.low, 1, share), number_text(summary.high, 1, share)
    return (
        f'<td data-value="{value}"{" class=best" if best else ""}>{number_text(summary.value, 2, share)} '
        f"<small>[{low}, {high}]</small></td>"
    )


def number_text(value: float, digits: int, share: bool) -> str:
    """A fraction in percent, or another number as it is; n/a where undefined."""
    return "n/a" if math.isnan(value) else f"{value * (100 if share else 1):.{digits}f}"


def spread_html(sd: float | None, share: bool) -> str:
    """A standard deviation, if there is one."""
    if sd is None or math.isnan(sd):
        return '<td data-value=""></td>'
    return f'<td data-value="{sd!r}">{number_text(sd, 2, share)}</td>'


def filters_html(found: Collection) -> str:
    """A box for each data set and kind of head; page.js hides everything of a box that is not ticked."""
    kinds = list(dict.fromkeys(row.kind for row in found.rows))
    groups = (
        ("Data sets", "data", [(data, data) for data in found.data_sets]),
        ("Heads", "head", [(kind, head_title(kind)) for kind in kinds]),
    )
    html = ""
    for title, name, boxes in (group for group in groups if len(group[2]) > 1):  # a single box would hide everything
        labels = "".join(
            f'<label><input type="checkbox" checked data-filter="{name}" value="{escape(value)}"> '
            f"{escape(text)}</label>"
            for value, text in boxes
        )
        html += f"<fieldset><legend>{title}</legend>{labels}</fieldset>"
    return f"<div class=filters>{html}</div>"


def provenance_html(found: Collection) -> str:
    """A line for each row: settings, clips, weights, code."""
    body = ""
    for row in found.rows:
        record = row.first
        settings = {name: value for name, value in record.head.items() if name not in ("kind", "seed")}
        seeds = ", ".join(str(r.seed) for r in row.records)
        about, data = record.environment, record.data
        rare = f"; with fewer than {FEW} positive test clips: {', '.join(rare_classes(record)) or 'none'}"
        rare = "" if record.positives is None else rare
        untaught = f"; without training clips: {', '.join(data.untaught)}" if data.untaught else ""
        cells = [
            row.data,
            row.model,
            row.head,
            record.preset,
            ", ".join(f"{name} {value}" for name, value in settings.items()) + f"; seeds {seeds}",
            ", ".join(f"{count:,} {split}" for split, count in data.clips.items()),
            str(data.unreadable),
            f"{data.classes_present} of {data.classes} present{rare}{untaught}",
            (record.model.sha256 or "no weights")[:12],
            data.sha256[:12],
            f"{record.device}, torch {about.get('torch', '?')}, audiobat {about.get('audiobat', '?')}, "
            f"code {(record.git_commit or 'not in git')[:12]}, {about.get('created', '')}",
        ]
        line = "".join(map(text_cell, cells))
        body += f'<tr data-data="{escape(row.data)}" data-head="{escape(row.kind)}">{line}</tr>'
    return (
        "<details><summary>Settings, clips, weights and code of every row</summary>"
        f"{table_html(PROVENANCE, body, PROVENANCE)}"
        "<p class=note>Weights and Table: the starts of their sha256.</p></details>"
    )
