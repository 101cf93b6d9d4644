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

from audiobat.evaluation.record import ResultRecord
from audiobat.evaluation.report.assets import CSS, POLICY, SCRIPT
from audiobat.evaluation.report.prose import html_of
from audiobat.evaluation.report.tables import LEGEND, columns, definitions, rows, title

MIME = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True)
class Exhibit:
    """A figure's SVG or PNG file, its heading, and what to see in it."""

    path: Path
    heading: str
    caption: str
    data: str = ""  # the data set it is about, where it is about one


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
        f"<section><h2>Licences</h2>{''.join(f'<p>{html_of(notice)}</p>' for notice in notices)}</section>",
    ]
    return write_html(path, heading, lead, sections, CSS, SCRIPT)


def write_html(
    path: str | Path, heading: str, lead: str, sections: Sequence[str], css: str, script: str, top: str = ""
) -> Path:
    """A page of sections, whole or not at all; `top` is HTML that follows the lead."""
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(heading)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<link rel="icon" href="data:,"><style>{css}</style></head>'
        f"<body><main><h1>{escape(heading)}</h1><p class=lead>{escape(lead)}</p>{top}{''.join(sections)}</main>"
        f"<script>{script}</script></body></html>\n"
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
    about = f' data-data="{escape(exhibit.data)}"' if exhibit.data else ""
    return (
        f"<section{about}><h2>{escape(exhibit.heading)}</h2><figure>"
        f'<div class=scroll><img src="{file_uri(exhibit.path)}" alt="{escape(exhibit.heading)}"></div>'
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
