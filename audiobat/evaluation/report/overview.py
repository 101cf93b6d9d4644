"""Rows, marks, curves, figures and clips of a report to its one index.html, in which nothing needs a network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from audiobat.evaluation.record import DataInfo
from audiobat.evaluation.report.assets import REPORT_CSS, REPORT_SCRIPT
from audiobat.evaluation.report.charts import layer_chart
from audiobat.evaluation.report.collect import Collection
from audiobat.evaluation.report.marks import Marks
from audiobat.evaluation.report.page import Exhibit, exhibit_html, write_html
from audiobat.evaluation.report.results_table import results_html, table_html, text_html
from audiobat.evaluation.report.rows import HEADS

PROVENANCE = (
    "Data set",
    "Model",
    "Head",
    "Preset",
    "Settings",
    "Clips",
    "Unreadable",
    "Classes",
    "Weights",
    "Table",
    "Run",
)


def write_overview(
    path: str | Path, found: Collection, marks: Marks, exhibits: Sequence[Exhibit], listening: str = ""
) -> Path:
    """Write the page, whole or not at all, and return its path; `listening` is its section of clips."""
    models = {row.model for row in found.rows}
    kinds = {row.kind for row in found.rows}
    count = sum(len(row.records) for row in found.rows)
    blocks = sum(len(probes) for curve in found.layers for probes in curve.probes)
    heading = f"Probing report: {some(models, 'model')}, {some(kinds, 'head')}, {some(found.data_sets, 'data set')}"
    lead = (
        f"Made from {count} result records of heads"
        + (f" and {blocks} of single blocks" if blocks else "")
        + ". Numbers are in percent where nothing else is said, "
        "with 95% bootstrap intervals over test clips in brackets."
    )
    charts = "".join(map(layer_chart, found.layers))
    sections = [
        f"<section><h2>Results</h2>{results_html(found, marks)}</section>",
        f"<section><h2>Block by block</h2><p>Linear probes of single blocks, and below them what CGP's gate learned. "
        f"Point at a block, or walk with the arrow keys, for its numbers. The dashed line is where the gate starts; "
        f"ρ is Spearman's rank correlation of the two.</p><div class=charts>{charts}</div></section>"
        if charts
        else "",
        listening,
        *(exhibit_html(exhibit) for exhibit in exhibits),
        f"<section><h2>What was run</h2>{provenance_html(found)}</section>",
    ]
    top = f'{filters_html(found)}<div id="tip" role="status" hidden></div>'
    return write_html(path, heading, lead, sections, REPORT_CSS, REPORT_SCRIPT, top)


def some(things: Sequence[str] | set[str], name: str) -> str:
    """`3 models`, `1 model`."""
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def filters_html(found: Collection) -> str:
    """A box for each data set and kind of head; what is not ticked is hidden everywhere."""
    kinds = list(dict.fromkeys(row.kind for row in found.rows))
    groups = (
        ("Data sets", "data", [(data, data) for data in found.data_sets]),
        ("Heads", "head", [(kind, HEADS.get(kind, kind)) for kind in kinds]),
    )
    return (
        "<div class=filters>"
        + "".join(
            f"<fieldset><legend>{title}</legend>"
            + "".join(
                f'<label><input type="checkbox" checked data-filter="{name}" value="{escape(value)}"> '
                f"{escape(text)}</label>"
                for value, text in boxes
            )
            + "</fieldset>"
            for title, name, boxes in groups
        )
        + "</div>"
    )


def classes_text(data: DataInfo) -> str:
    """`37 of 40 present`, and which of them no training clip had."""
    untaught = f"; without training clips: {', '.join(data.untaught)}" if data.untaught else ""
    return f"{data.classes_present} of {data.classes} present{untaught}"


def provenance_html(found: Collection) -> str:
    """A line for each row: settings, clips, weights, code."""
    body = ""
    for row in found.rows:
        record = row.first
        settings = {name: value for name, value in record.head.items() if name not in ("kind", "seed")}
        seeds = ", ".join(str(r.seed) for r in row.records)
        about = record.environment
        cells = [
            row.data,
            row.model,
            row.head,
            record.preset,
            ", ".join(f"{name} {value}" for name, value in settings.items()) + f"; seeds {seeds}",
            ", ".join(f"{count:,} {split}" for split, count in record.data.clips.items()),
            str(record.data.unreadable),
            classes_text(record.data),
            (record.model.sha256 or "no weights")[:12],
            record.data.sha256[:12],
            f"{record.device}, torch {about.get('torch', '?')}, audiobat {about.get('audiobat', '?')}, "
            f"code {(record.git_commit or 'not in git')[:12]}, {about.get('created', '')}",
        ]
        body += (
            f'<tr data-data="{escape(row.data)}" data-head="{escape(row.kind)}">{"".join(map(text_html, cells))}</tr>'
        )
    return (
        "<details><summary>Settings, clips, weights and code of every row</summary>"
        f"{table_html(PROVENANCE, body)}<p class=note>Weights and Table: the starts of their sha256.</p></details>"
    )
