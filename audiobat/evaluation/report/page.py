"""Rows, verdicts, curves, figures and clips of a report to its one index.html, which needs no network."""

from __future__ import annotations

from collections.abc import Collection as Sized
from collections.abc import Sequence
from html import escape
from pathlib import Path

from audiobat.evaluation.head_names import head_title
from audiobat.evaluation.record import DataInfo
from audiobat.evaluation.report.charts import layer_chart
from audiobat.evaluation.report.collect import Collection
from audiobat.evaluation.report.html import (
    Exhibit,
    definitions_html,
    exhibit_html,
    section_html,
    table_html,
    text_cell,
    write_html,
)
from audiobat.evaluation.report.results_table import results_html
from audiobat.evaluation.report.verdicts import Verdicts

BLOCKS = (
    "<p>Linear probes of single blocks, and below them the weights that CGP's gate learned. Point at a block, or walk "
    "with the arrow keys, for its numbers. The dashed line is where the gate starts; ρ is Spearman's rank correlation "
    "of the two.</p>"
)
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


def write_page(
    path: str | Path,
    found: Collection,
    verdicts: Verdicts,
    exhibits: Sequence[Exhibit],
    listening: str = "",
    *,
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
        heading: of the page; "" counts models, heads and data sets.
        lead: two or three sentences below the heading; "" says how many records the page is made of.
        facts: what was run besides, as (name, value).
        notices: licences, as HTML paragraphs.
    """
    charts = "".join(map(layer_chart, found.layers))
    sections = [
        section_html("Results", results_html(found, verdicts)),
        section_html("Block by block", f"{BLOCKS}<div class=charts>{charts}</div>") if charts else "",
        listening,
        *map(exhibit_html, exhibits),
        section_html("What was run", (definitions_html(facts) if facts else "") + provenance_html(found)),
        section_html("Licences", "".join(f"<p>{notice}</p>" for notice in notices)) if notices else "",
    ]
    top = f'{filters_html(found)}<div id="tip" role="status" hidden></div>'  # where page.js shows a block's numbers
    return write_html(path, heading or heading_of(found), lead or lead_of(found), sections, top)


def heading_of(found: Collection) -> str:
    """How many models, heads and data sets there are."""
    models, kinds = {row.model for row in found.rows}, {row.kind for row in found.rows}
    return f"Probing report: {some(models, 'model')}, {some(kinds, 'head')}, {some(found.data_sets, 'data set')}"


def lead_of(found: Collection) -> str:
    """How many records the page is made of, and how its numbers read."""
    heads = sum(len(row.records) for row in found.rows)
    blocks = sum(len(probes) for curve in found.layers for probes in curve.probes)
    return (
        f"Made from {heads} result records of heads"
        + (f" and {blocks} of single blocks" if blocks else "")
        + ". Numbers are in percent unless a column says otherwise, "
        "with 95% bootstrap intervals over test clips in brackets."
    )


def some(things: Sized[str], name: str) -> str:
    """`3 models`, `1 model`."""
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


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


def classes_text(data: DataInfo) -> str:
    """`37 of 40 present`, and the classes that no training clip has."""
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
        line = "".join(map(text_cell, cells))
        body += f'<tr data-data="{escape(row.data)}" data-head="{escape(row.kind)}">{line}</tr>'
    return (
        "<details><summary>Settings, clips, weights and code of every row</summary>"
        f"{table_html(PROVENANCE, body)}<p class=note>Weights and Table: the starts of their sha256.</p></details>"
    )
