"""The worst misses and false alarms of an evaluation, each with its spectrogram and a player."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from audiobat.engine.files import replacing, write_atomic
from audiobat.errors import AudiobatError
from audiobat.evaluation.report.detections.evaluation import Evaluation
from audiobat.evaluation.report.detections.sounds import decibels, frontend, picture, read_stretch
from audiobat.evaluation.report.web.html import readable, section_html

FOLDER = "clips"  # beside the page
INTRO = "In the frame is the event that was missed, or detected where there is none of its class. The worst come first."
KINDS = {"miss": "Missed", "false alarm": "False alarms"}


def mistakes_html(found: Evaluation, out: Path) -> str:
    """The section, its clips copied to OUT/clips; "" where there are no mistakes."""
    parts = ""
    for kind, title in KINDS.items():
        errors = [error for error in found.plain["errors"] if error["kind"] == kind]
        cards = "".join(card_html(found, error, out, f"{kind.split()[0]}_{i}") for i, error in enumerate(errors))
        if cards:
            opened = " open" if kind == "miss" or not parts else ""
            parts += (
                f"<details{opened}><summary>{title} ({len(errors)})</summary><div class=clips>{cards}</div></details>"
            )
    return section_html("Worst mistakes", f"<p>{INTRO}</p>{parts}") if parts else ""


def card_html(found: Evaluation, error: Mapping[str, Any], out: Path, name: str) -> str:
    """A mistake: its class, what it was taken for, where it is, and its sound."""
    score = "" if error["score"] is None else f", score {error['score']:.2f}"
    other = error["confused_with"]
    words = {"miss": "taken for {}", "false alarm": "in truth {}"}[error["kind"]]
    taken = f"<br><span class=why>{escape(words.format(readable(other)))}</span>" if other else ""
    times = f"{clock(error['start'])} to {clock(error['end'])}{score}"
    return (
        f"<article><p><b>{escape(readable(error['label']))}</b>{taken}</p>{sound_html(found, error, out, name)}"
        f"<p class=why>{escape(error['file'])}<br>{times}</p></article>"
    )


def sound_html(found: Evaluation, error: Mapping[str, Any], out: Path, name: str) -> str:
    """The clip's picture with the event framed, and its player; a sentence where it is missing."""
    if error["clip"] is None:
        return "<p class=why>The recording was not there.</p>"
    source = found.file(error["clip"])
    try:
        samples, rate = read_stretch(source, 0.0, None)
    except AudiobatError as problem:
        return f"<p class=why>{escape(str(problem))}</p>"
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    levels = decibels(samples, frontend(rate))
    write_atomic(folder / f"{name}.webp", picture(levels, float(levels.max()) - 60, float(levels.max())))
    sound = f"{name}{source.suffix}"
    if source.resolve() != (folder / sound).resolve():
        with replacing(folder / sound) as beside:
            shutil.copyfile(source, beside)
    seconds = len(samples) / rate
    begin = 100 * (error["start"] - error["clip_start"]) / seconds
    left, right = (
        min(max(end, 0.0), 100.0) for end in (begin, begin + 100 * (error["end"] - error["start"]) / seconds)
    )
    return (
        f'<div class=framed><img src="{FOLDER}/{name}.webp" loading=lazy alt="Spectrogram of the clip">'
        f'<i style="left:{left:.1f}%;width:{max(right - left, 1):.1f}%"></i></div>'
        f'<audio controls preload=none src="{FOLDER}/{escape(sound)}"></audio>'
    )


def clock(seconds: float) -> str:
    """`1:02:03.4`, `2:03.4`."""
    tenths = round(10 * seconds)
    hours, minutes, rest = tenths // 36000, tenths // 600 % 60, tenths % 600 / 10
    return f"{hours}:{minutes:02}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
