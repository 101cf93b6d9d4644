"""What pages are made of: the shell of one self-contained HTML file, and its tables, figures and data URIs.

Whatever a page holds, the browser asks no network: pictures and sounds are data URIs, or files beside the page that
it names itself, and a policy forbids the rest.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from audiobat.engine.files import replacing

POLICY = (
    "default-src 'none'; img-src data:{0}; media-src data:{0}; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
BESIDE = " 'self' file:"  # of the policy where sounds and pictures lie beside the page; some browsers want the scheme
MIME = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True)
class Exhibit:
    """A figure's SVG or PNG file with its heading, and a caption that says how to read it."""

    path: Path
    heading: str
    caption: str
    data: str = ""  # the data set that it shows; "" for several, or none
    below: str = ""  # HTML below the caption


def write_html(
    path: str | Path,
    heading: str,
    lead: str,
    sections: Sequence[str],
    top: str = "",
    scripts: Sequence[str] = (),
    beside: bool = False,
) -> Path:
    """Write a page of HTML sections, whole or not at all, and return its path.

    Args:
        path: the .html file.
        heading: of the page.
        lead: two or three sentences below the heading.
        sections: HTML.
        top: HTML below the lead.
        scripts: files in this folder besides page.js that the page needs.
        beside: whether the page may show and play files that lie beside it, or below.
    """
    texts = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js", *scripts))
    css, script = next(texts), "".join(texts)
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(heading)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY.format(BESIDE if beside else "")}">'
        f'<link rel="icon" href="data:,"><style>{css}</style></head>'  # an empty icon: else the browser asks for one
        f"<body><main><h1>{escape(heading)}</h1><p class=lead>{escape(lead)}</p>{top}{''.join(sections)}</main>"
        f"<script>{script}</script></body></html>\n"
    )
    with replacing(path) as draft:
        draft.write_text(html, encoding="utf-8")
    return Path(path)


def section_html(heading: str, body: str, data: str = "") -> str:
    """A section of the page; one about a data set is hidden with that data set."""
    about = f' data-data="{escape(data)}"' if data else ""
    return f"<section{about}><h2>{escape(heading)}</h2>{body}</section>"


def exhibit_html(exhibit: Exhibit) -> str:
    """A figure with its heading and caption."""
    picture = data_uri(MIME[exhibit.path.suffix], exhibit.path.read_bytes())
    return section_html(
        exhibit.heading,
        f'<figure><div class=scroll><img src="{picture}" alt="{escape(exhibit.heading)}"></div>'
        f"<figcaption>{escape(exhibit.caption)}</figcaption></figure>{exhibit.below}",
        exhibit.data,
    )


def table_html(headings: Sequence[str], body: str, words: Container[str]) -> str:
    """A table, its headings buttons that sort the lines of `body`: each cell has its sort key as data-value.

    The columns whose headings are in `words` hold words, the others numbers.
    """
    head = "".join(
        f'<th scope="col"{" class=name" if name in words else ""}><button type="button">{escape(name)}</button></th>'
        for name in headings
    )
    return f"<div class=scroll><table class=sortable><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def text_cell(text: str) -> str:
    """A cell of words."""
    return f'<td class="name" data-value="{escape(text)}">{escape(text)}</td>'


def definitions_html(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and what they stand for."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in pairs)}</dl>"


def data_html(data: object) -> str:
    """A value for the page's scripts, as JSON in an element of its own; no text in it can end that element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json">{text}</script>'


def readable(label: str) -> str:
    """A class name with spaces."""
    return label.replace("_", " ")


def data_uri(mime: str, content: bytes) -> str:
    """A URI that holds the bytes themselves."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"
