"""A line of Markdown, such as a licence notice, to HTML: emphasis, code and links; all else is shown as it is."""

from __future__ import annotations

import re
from html import escape

MARKS = re.compile(
    r"`(?P<code>[^`]+)`|\*\*(?P<strong>.+?)\*\*|(?<!\w)[*_](?P<em>[^*_]+)[*_](?!\w)"
    r"|\[(?P<text>[^\]]+)\]\((?P<url>[^()\s]+)\)|<(?P<auto>\w+://[^<>\s]+)>"
)
TAGS = ("code", "strong", "em")


def html_of(markdown: str) -> str:
    """One paragraph as HTML without a link that a browser could follow: addresses are text, without their scheme."""
    parts, done = [], 0
    for found in MARKS.finditer(markdown):
        parts += [escape(markdown[done : found.start()]), marked(found)]
        done = found.end()
    return "".join([*parts, escape(markdown[done:])]).replace("(c)", "©")


def marked(found: re.Match[str]) -> str:
    """One span."""
    for tag in TAGS:
        if found[tag] is not None:
            inner = escape(found[tag]) if tag == "code" else html_of(found[tag])
            return f"<{tag}>{inner}</{tag}>"
    if found["auto"] is not None:
        return address(found["auto"])
    return f"{escape(found['text'])} ({address(found['url'])})"


def address(url: str) -> str:
    """An address as text."""
    return f"<code>{escape(re.sub(r'^[a-z]+://', '', url))}</code>"
