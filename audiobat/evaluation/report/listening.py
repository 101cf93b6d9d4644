"""Clips of the classes that heads know best and worst to the part of the page where one hears and sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from audiobat.evaluation.report.clips import HeardClip
from audiobat.evaluation.report.page import data_uri, plain
from audiobat.evaluation.report.rows import Row


@dataclass(frozen=True)
class Card:
    """A clip with what one hears and sees of it."""

    clip: HeardClip
    sound: bytes  # a WAV file
    picture: bytes  # a PNG file, its spectrogram


@dataclass(frozen=True)
class Listening:
    """A row and the cards of one of its records."""

    row: Row
    cards: tuple[Card, ...]


def listening_html(groups: Sequence[Listening], left_out: int) -> str:
    """The section, its first group open; `left_out` clips did not fit. Nothing where there are no groups."""
    if not groups:
        return ""
    more = f" {left_out} more clips did not fit on this page: see the folders clips of the runs." if left_out else ""
    parts = "".join(group_html(group, opened=group is groups[0]) for group in groups)
    return (
        "<section><h2>Listen</h2><p>Test clips of the classes that the best head of a model knows best and worst, by "
        "average precision in percent, with the classes that it finds most likely (✓: the clip has it). A long clip is "
        f"cut.{more}</p>{parts}</section>"
    )


def group_html(group: Listening, opened: bool) -> str:
    """The cards of one model on one data set, folded up or not."""
    row = group.row
    return (
        f'<details data-data="{escape(row.data)}" data-head="{escape(row.kind)}"{" open" if opened else ""}>'
        f"<summary>{escape(row.model)}, {escape(row.head)}, {escape(row.data)}</summary>"
        f"<div class=clips>{''.join(map(card_html, group.cards))}</div></details>"
    )


def card_html(card: Card) -> str:
    """A card: class, spectrogram, player, labels and predictions."""
    clip = card.clip
    guesses = "".join(
        f"<li{' class=hit' if label in clip.labels else ''}><span>{escape(plain(label))}</span>"
        f'<meter min="0" max="1" value="{p:.3f}"></meter><b>{p:.2f}</b></li>'
        for label, p in clip.predictions
    )
    labels = ", ".join(map(plain, clip.labels)) or "none"
    return (
        f"<article><p><b>{escape(plain(clip.label))}</b>, one of the {clip.side}: {100 * clip.average_precision:.1f}"
        f"<br><span class=why>The clip {escape(clip.why)}.</span></p>"
        f'<img src="{data_uri("image/png", card.picture)}" alt="Spectrogram of {escape(clip.key)}">'
        f'<audio controls preload="none" src="{data_uri("audio/wav", card.sound)}"></audio>'
        f"<p>Labels: {escape(labels)}</p><ol>{guesses}</ol></article>"
    )
