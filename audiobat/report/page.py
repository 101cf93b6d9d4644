"""Records, figures and clips to one index.html that holds everything: no request leaves it, online or off."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiobat.report.tables import LEGEND, columns, definitions, rows, title
from audiobat.results import ResultRecord

MIME = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True)
class Exhibit:
    """A figure's SVG or PNG file, its heading, and what to see in it."""

    path: Path
    heading: str
    caption: str


@dataclass(frozen=True, eq=False)
class PlayableClip:
    """A clip to listen to: waveform [S] in [-1, 1], its labels, and what a model hears in it, most likely first."""

    name: str
    waveform: NDArray[np.float32]
    sample_rate: int
    labels: Sequence[str]
    predictions: Sequence[tuple[str, float]]  # label, probability
    picture: bytes  # PNG of its spectrogram


def write_page(
    path: str | Path,
    *,
    heading: str,
    lead: str,
    records: Sequence[ResultRecord],
    exhibits: Sequence[Exhibit],
    clips: Sequence[PlayableClip],
    predicted_by: str,
    facts: Sequence[tuple[str, str]],
    notices: Sequence[str],
) -> Path:
    """Write the page, whole or not at all, and return its path.

    Args:
        path: the .html file.
        heading: of the page.
        lead: what was done and where the numbers come from, in two or three sentences.
        records: rows of the table, in this order.
        exhibits: figures, in this order.
        clips: to listen to.
        predicted_by: whose predictions the clips show.
        facts: what was run, as (name, value).
        notices: licences, one paragraph each.
    """
    sections = [
        f"<section><h2>Results</h2>{table_html(records)}</section>",
        *(exhibit_html(exhibit) for exhibit in exhibits),
        f"<section><h2>Listen</h2><p>Test clips, their labels, and the five classes that {escape(predicted_by)} finds "
        f"most likely (✓: the clip has it).</p><div class=clips>{''.join(map(clip_html, clips))}</div></section>",
        f"<section><h2>What was run</h2><dl>{''.join(map(fact_html, facts))}</dl></section>",
        f"<section><h2>Licences</h2>{''.join(f'<p>{escape(notice)}</p>' for notice in notices)}</section>",
    ]
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(heading)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<link rel="icon" href="data:,"><style>{CSS}</style></head>'
        f"<body><main><h1>{escape(heading)}</h1><p class=lead>{escape(lead)}</p>{''.join(sections)}</main>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(html, encoding="utf-8")
    os.replace(beside, path)
    return path


def table_html(records: Sequence[ResultRecord]) -> str:
    """The table, its headings buttons that sort by their column."""
    head = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in columns(records))
    body = "".join(
        "<tr>"
        + "".join(
            f'<td data-value="{escape(str(cell.value))}"{" class=best" if cell.best else ""}>{escape(cell.text)}</td>'
            for cell in row
        )
        + "</tr>"
        for row in rows(records)
    )
    notes = "".join(f"<li>{escape(line.removeprefix('- '))}</li>" for line in definitions(records).splitlines())
    return (
        f"<p>{escape(title(records))}.</p><div class=scroll><table class=sortable><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div><p class=note>{escape(LEGEND)} Click a heading to sort.</p>"
        f"<ul class=note>{notes}</ul>"
    )


def exhibit_html(exhibit: Exhibit) -> str:
    """A figure with its heading and caption."""
    return (
        f"<section><h2>{escape(exhibit.heading)}</h2><figure>"
        f'<img src="{file_uri(exhibit.path)}" alt="{escape(exhibit.heading)}">'
        f"<figcaption>{escape(exhibit.caption)}</figcaption></figure></section>"
    )


def clip_html(clip: PlayableClip) -> str:
    """A card: spectrogram, player, labels and predictions."""
    guesses = "".join(
        f"<li{' class=hit' if label in clip.labels else ''}><span>{escape(plain(label))}</span>"
        f'<meter min="0" max="1" value="{probability:.3f}"></meter><b>{probability:.2f}</b></li>'
        for label, probability in clip.predictions
    )
    labels = ", ".join(map(plain, clip.labels))
    return (
        f'<article><img src="{data_uri("image/png", clip.picture)}" alt="Spectrogram of {escape(clip.name)}">'
        f'<audio controls preload="none" src="{audio_uri(clip)}"></audio>'
        f"<p><b>{escape(clip.name)}</b>: {escape(labels)}</p><ol>{guesses}</ol></article>"
    )


def fact_html(fact: tuple[str, str]) -> str:
    """One thing that was run, and how."""
    return f"<dt>{escape(fact[0])}</dt><dd>{escape(fact[1])}</dd>"


def plain(label: str) -> str:
    """A class name as one reads it."""
    return label.replace("_", " ")


def audio_uri(clip: PlayableClip) -> str:
    """The clip as 16-bit WAV, which every browser plays."""
    buffer = io.BytesIO()
    soundfile.write(buffer, clip.waveform, clip.sample_rate, format="WAV", subtype="PCM_16")
    return data_uri("audio/wav", buffer.getvalue())


def file_uri(path: Path) -> str:
    """A picture's file as a data URI."""
    return data_uri(MIME[path.suffix], path.read_bytes())


def data_uri(mime: str, content: bytes) -> str:
    """Bytes as a URI that holds them."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


# Whatever the page says, the browser fetches nothing.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

CSS = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5a6470; --page: #f6f7f8; --card: #ffffff; --line: #d5dade;
  --link: #0072b2; --best: #d9efe6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a4adb6; --page: #15181b; --card: #1f2429;
  --line: #3a424a; --link: #56b4e9; --best: #0c4a38; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { margin: 0 0 .5rem; line-height: 1.2; }
h2 { margin: 0 0 .75rem; font-size: 1.25rem; }
.lead { font-size: 1.05rem; }
.note, figcaption { color: var(--soft); font-size: .9rem; }
section { margin-top: 1.5rem; padding: 1.25rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
th button { all: unset; cursor: pointer; color: var(--link); font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--link); }
th[aria-sort="ascending"] button::after { content: " ▲"; }
th[aria-sort="descending"] button::after { content: " ▼"; }
.best { background: var(--best); font-weight: 700; }
.best::after { content: " ★"; }
figure { margin: 0; }
figure img { display: block; width: 100%; max-width: 52rem; margin: 0 auto .75rem; padding: .5rem; background: #ffffff;
  border-radius: .4rem; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
article { padding: .75rem; border: 1px solid var(--line); border-radius: .5rem; }
article img { width: 100%; background: #ffffff; border-radius: .3rem; }
audio { width: 100%; }
article p { margin: .4rem 0; }
ol { margin: 0; padding: 0; list-style: none; font-size: .9rem; }
ol li span { flex: 0 0 10.5rem; }
ol li { display: flex; gap: .5rem; align-items: center; }
ol li meter { flex: 1; min-width: 2rem; }
.hit span { font-weight: 700; }
.hit span::after { content: " ✓"; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .3rem 1rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const down = heading.getAttribute("aria-sort") !== "descending";
    headings.forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = row => row.cells[column].dataset.value;
    const compare = (a, b) => isNaN(value(a)) ? value(a).localeCompare(value(b)) : value(a) - value(b);
    const sorted = [...table.tBodies[0].rows].sort((a, b) => down ? compare(b, a) : compare(a, b));
    table.tBodies[0].append(...sorted);
  }));
}
"""
