"""The clips that run folders keep, to what the page of a report plays and shows: one group for each model and data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from audiobat.audio.frontend import MelFrontend
from audiobat.audio.read import load_audio
from audiobat.config import FrontendConfig
from audiobat.evaluation.report import figures
from audiobat.evaluation.report.clips import HeardClip, clips_folder, read_heard
from audiobat.evaluation.report.collect import Collection
from audiobat.evaluation.report.listening import Card, Listening
from audiobat.evaluation.report.rows import Row, ranked

PAGE_BYTES = 16_000_000  # of sounds and pictures on one page, as base64


def gather(found: Collection) -> tuple[list[Listening], int]:
    """Groups of cards, as many as the page can carry, and how many clips it cannot.

    Raises:
        AudiobatError: a list of clips that is damaged, or names a clip that is not there.
    """
    mel = MelFrontend(FrontendConfig())
    groups, left_out, room = [], 0, PAGE_BYTES
    for row, folder, clips in heard(found):
        cards = []
        for clip in clips:
            card = card_of(folder, clip, mel)
            size = (len(card.sound) + len(card.picture)) * 4 // 3
            if size > room:
                left_out += 1
                continue
            room -= size
            cards.append(card)
        if cards:
            groups.append(Listening(row, tuple(cards)))
    return groups, left_out


def heard(found: Collection) -> Iterator[tuple[Row, Path, list[HeardClip]]]:
    """Of each model on each data set the best row that has clips, with those of its first such seed."""
    done = set()
    for row in (row for data in found.data_sets for row in ranked([r for r in found.rows if r.data == data])):
        for path, _ in row.loaded:
            folder = clips_folder(path)
            clips = [clip for clip in read_heard(folder) if clip.record == path.stem]
            if clips and (row.data, row.model) not in done:
                done.add((row.data, row.model))
                yield row, folder, clips


def card_of(folder: Path, clip: HeardClip, mel: MelFrontend) -> Card:
    """A clip's sound and its spectrogram."""
    path = folder / f"{clip.file}.wav"
    waveform = torch.from_numpy(load_audio(path, mel.config.sample_rate))
    spectrogram = mel(waveform[None])[0][0].numpy()  # [T, F]
    return Card(clip, path.read_bytes(), figures.png(figures.thumbnail(spectrogram, mel)))
