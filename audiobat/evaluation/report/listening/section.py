"""Test clips to the part of the page that plays them: each with its spectrogram, labels and a model's predictions.

They come from the folders clips/ of probe runs: clips of the classes that a model's best head knows best and worst.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import torch
from torch import Tensor

from audiobat.audio.frontends.mel_db import MelFrontend
from audiobat.audio.read import load_audio
from audiobat.config import FrontendConfig
from audiobat.evaluation.report.collect import Collection
from audiobat.evaluation.report.figures import thumbnail
from audiobat.evaluation.report.listening.clips import SavedClip, clips_folder, read_saved_clips
from audiobat.evaluation.report.rows import Row, ranked
from audiobat.evaluation.report.style import png
from audiobat.evaluation.report.web.html import data_uri, readable, section_html

PAGE_BYTES = 16_000_000  # of sounds and pictures on one page, as base64
INTRO = (
    "Test clips of the classes that the best head of a model knows best and worst, by average precision in percent, "
    "with the classes that it finds most likely (✓: the clip has it). A long clip is cut."
)


@dataclass(frozen=True)
class Card:
    """One clip of the page."""

    name: str  # of the clip
    title: str  # what it is shown for, in bold: a class, or the clip's name
    subtitle: str  # HTML after the title
    labels: Sequence[str]
    predictions: Sequence[tuple[str, float]]  # the likeliest classes and their probabilities
    sound: bytes  # a WAV file
    picture: bytes  # a PNG file, its spectrogram

    @property
    def size(self) -> int:
        """Bytes that it takes on the page, as base64."""
        return (len(self.sound) + len(self.picture)) * 4 // 3


@dataclass(frozen=True)
class CardGroup:
    """The clips of one model on one data set, which the page shows and hides together."""

    heading: str
    cards: tuple[Card, ...]
    data: str = ""
    head: str = ""  # kind of the head whose predictions they show


def gather(found: Collection) -> tuple[list[CardGroup], int]:
    """The groups of the run folders, as many clips as the page can carry, and how many clips it cannot.

    Raises:
        AudiobatError: a list of clips that is damaged, or names a clip that is not there.
    """
    mel = MelFrontend(FrontendConfig())
    groups, left_out, room = [], 0, PAGE_BYTES
    for row, folder, clips in saved_clips(found):
        cards = []
        for clip in clips:
            card = card_of(folder, clip, mel)
            if card.size > room:
                left_out += 1
                continue
            room -= card.size
            cards.append(card)
        if cards:
            heading = f"{row.model}, {row.head}, {row.data}"
            groups.append(CardGroup(heading, tuple(cards), row.data, row.kind))
    return groups, left_out


def saved_clips(found: Collection) -> Iterator[tuple[Row, Path, list[SavedClip]]]:
    """Of each model on each data set the best row whose run kept clips, with those of its first such seed."""
    done = set()
    for row in (row for data in found.data_sets for row in ranked([r for r in found.rows if r.data == data])):
        for path, _ in row.loaded:
            folder = clips_folder(path)
            clips = [clip for clip in read_saved_clips(folder) if clip.record == path.stem]
            if clips and (row.data, row.model) not in done:
                done.add((row.data, row.model))
                yield row, folder, clips


def card_of(folder: Path, clip: SavedClip, mel: MelFrontend) -> Card:
    """A clip of a run folder as a card."""
    path = folder / f"{clip.file}.wav"
    waveform = torch.from_numpy(load_audio(path, mel.config.sample_rate))
    subtitle = (
        f", one of the {clip.side}: {100 * clip.average_precision:.1f}"
        f"<br><span class=why>The clip {escape(clip.why)}.</span>"
    )
    title = readable(clip.label)
    picture = spectrogram_png(waveform, mel)
    return Card(clip.key, title, subtitle, clip.labels, clip.predictions, path.read_bytes(), picture)


def spectrogram_png(waveform: Tensor, mel: MelFrontend) -> bytes:
    """The spectrogram of a clip [S] as a small picture."""
    return png(thumbnail(mel(waveform[None])[0][0].numpy(), mel))


def listening_html(groups: Sequence[CardGroup], left_out: int = 0, intro: str = INTRO) -> str:
    """The section, its first group open; "" without groups. `left_out` clips did not fit."""
    if not groups:
        return ""
    more = f" {left_out} more clips did not fit on this page: see the folders clips of the runs." if left_out else ""
    parts = ""
    for group in groups:
        about = f' data-data="{escape(group.data)}" data-head="{escape(group.head)}"' if group.data else ""
        opened = " open" if group is groups[0] else ""
        cards = "".join(map(card_html, group.cards))
        summary = f"<summary>{escape(group.heading)}</summary>"
        parts += f"<details{about}{opened}>{summary}<div class=clips>{cards}</div></details>"
    return section_html("Listen", f"<p>{escape(intro + more)}</p>{parts}")


def card_html(card: Card) -> str:
    """A card: title, spectrogram, player, labels and predictions."""
    guesses = "".join(
        f"<li{' class=hit' if label in card.labels else ''}><span>{escape(readable(label))}</span>"
        f'<meter min="0" max="1" value="{p:.3f}"></meter><b>{p:.2f}</b></li>'
        for label, p in card.predictions
    )
    labels = ", ".join(map(readable, card.labels)) or "none"
    return (
        f"<article><p><b>{escape(card.title)}</b>{card.subtitle}</p>"
        f'<img src="{data_uri("image/png", card.picture)}" alt="Spectrogram of {escape(card.name)}">'
        f'<audio controls preload="none" src="{data_uri("audio/wav", card.sound)}"></audio>'
        f"<p>Labels: {escape(labels)}</p><ol>{guesses}</ol></article>"
    )
