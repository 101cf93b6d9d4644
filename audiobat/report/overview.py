"""Rows, marks, curves, figures and clips of a report to its one index.html, in which nothing needs a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from audiobat.report.assets import REPORT_CSS, REPORT_SCRIPT
from audiobat.report.charts import layer_chart
from audiobat.report.clips import HeardClip, clips_folder, read_heard
from audiobat.report.collect import Collection
from audiobat.report.marks import Marks
from audiobat.report.page import Exhibit, data_uri, exhibit_html, plain, write_html
from audiobat.report.paper_tables import parameters
from audiobat.report.prose import html_of
from audiobat.report.rows import HEADS, METRIC_NAMES, NO_SHARES, Row, Summary

CLIP_BYTES = 12_000_000  # of sound and pictures on one page
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


def write_overview(path: str | Path, found: Collection, marks: Marks, exhibits: Sequence[Exhibit]) -> Path:
    """Write the page, whole or not at all, and return its path."""
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
        listen_html(found),
        *(exhibit_html(exhibit) for exhibit in exhibits),
        f"<section><h2>What was run</h2>{provenance_html(found)}</section>",
        notices_html(found),
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


def results_html(found: Collection, marks: Marks) -> str:
    """The table of all rows, and what its columns mean."""
    names = [name for name in METRIC_NAMES if any(name in row.summaries for row in found.rows)]
    names += sorted({name for row in found.rows for name in row.summaries} - set(names))
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
        f"{table_html(heads, body)}<p class=note>★ highest of its column in its data set. {escape(marks.legend)} "
        f"Click a heading to sort.</p><details><summary>What the columns mean</summary><dl>{described}</dl></details>"
    )


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
    places = [i for i, row in enumerate(found.rows) if row.data == data]
    return max(places, key=lambda i: -math.inf if math.isnan(found.rows[i].main.value) else found.rows[i].main.value)


def listen_html(found: Collection) -> str:
    """Clips of the best and worst classes of every record that has some, as many as the page can carry."""
    carried, left_out = 0, 0
    groups: list[str] = []
    for row in found.rows:
        cards = []
        path = row.loaded[0][0]
        for clip in read_heard(clips_folder(path)).clips:
            if clip.record != path.stem:
                continue
            sound, picture = (clips_folder(path) / f"{clip.file}{suffix}" for suffix in (".wav", ".png"))
            if not sound.is_file() or not picture.is_file():
                left_out += 1
                continue
            size = 4 * (sound.stat().st_size + picture.stat().st_size) // 3
            if carried + size > CLIP_BYTES:
                left_out += 1
                continue
            carried += size
            cards.append(card_html(clip, sound.read_bytes(), picture.read_bytes()))
        if cards:
            groups.append(
                f'<details data-data="{escape(row.data)}" data-head="{escape(row.kind)}"{"" if groups else " open"}>'
                f"<summary>{escape(row.model)}, {escape(row.head)}, {escape(row.data)}</summary>"
                f"<div class=clips>{''.join(cards)}</div></details>"
            )
    if not groups:
        return ""
    more = f" {left_out} more did not fit on this page: see the clips folders of the runs." if left_out else ""
    return (
        "<section><h2>Listen</h2><p>Test clips of the classes that a head knows best and worst, by average precision, "
        f"with the classes that it finds most likely (✓: the clip has it).{more}</p>{''.join(groups)}</section>"
    )


def card_html(clip: HeardClip, sound: bytes, picture: bytes) -> str:
    """A card: class, spectrogram, player, labels and predictions."""
    guesses = "".join(
        f"<li{' class=hit' if label in clip.labels else ''}><span>{escape(plain(label))}</span>"
        f'<meter min="0" max="1" value="{p:.3f}"></meter><b>{p:.2f}</b></li>'
        for label, p in clip.predictions
    )
    labels = ", ".join(map(plain, clip.labels)) or "no label"
    return (
        f"<article><p><b>{escape(plain(clip.label))}</b>, one of the {clip.side}: average precision "
        f"{100 * clip.average_precision:.1f}<br><span class=why>The clip {escape(clip.why)}.</span></p>"
        f'<img src="{data_uri("image/png", picture)}" alt="Spectrogram of {escape(clip.key)}">'
        f'<audio controls preload="none" src="{data_uri("audio/wav", sound)}"></audio>'
        f"<p>Labels: {escape(labels)}</p><ol>{guesses}</ol></article>"
    )


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
            f"{record.data.classes_present} of {record.data.classes} present",
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


def notices_html(found: Collection) -> str:
    """Licences of the clips."""
    folders = {clips_folder(path) for row in found.rows for path, _ in row.loaded}
    notices = sorted({read_heard(folder).notice for folder in folders} - {""})
    if not notices:
        return ""
    words = "".join(f"<p>{html_of(notice)}</p>" for notice in notices)
    return f"<section><h2>Licences</h2>{words}</section>"
