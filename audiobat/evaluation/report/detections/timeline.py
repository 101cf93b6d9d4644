"""Recordings with truth, detections and scores on a line of time: HTML whose script is timeline.js.

The recordings with the most mistakes are shown, an hour in all; of a long one the stretch with the most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from audiobat.engine.progress import Progress
from audiobat.errors import AudiobatError
from audiobat.evaluation.report.detections.evaluation import Evaluation, Event
from audiobat.evaluation.report.detections.score_tracks import ScoreTrack, read_tracks
from audiobat.evaluation.report.detections.sounds import Sound, write_sound
from audiobat.evaluation.report.web.html import data_html, readable, section_html

FOLDER = "recordings"  # beside the page
RECORDINGS = 12  # at most
ALL_SECONDS = 3600.0  # of all recordings together
LONG = 6  # so many long recordings share them evenly
RULES = {
    "overlap": "shares time with one of its class",
    "onset": "begins with one of its class",
    "event": "begins and ends with one of its class",
}
INTRO = (
    "The recordings with the most mistakes. In each line the upper bars are the truth: filled where it was detected, "
    "hollow where it was missed. The lower bars are detections: green where they are right, orange where they are "
    "false alarms. The shade behind is the score, where scores were kept. Click to hear that place; move the threshold "
    "to see what changes. Ctrl and the wheel, or + and -, zoom; n and p go to the next mistake and the one before."
)
CONTROLS = """
<div class=controls><label>Recording <select data-part=recording>{names}</select></label>
<label>Class <select data-part=class></select></label><label>A hit <select data-part=rule>{rules}</select></label></div>
{slider}
<p class=counts data-part=counts aria-live=polite></p>
<div class=controls><button type=button data-part=in aria-label="Zoom in">+</button>
<button type=button data-part=out aria-label="Zoom out">−</button><button type=button data-part=all>All</button>
<button type=button data-part=previous>◀ mistake</button><button type=button data-part=next>mistake ▶</button></div>
<canvas class=overview data-part=overview aria-label="The whole recording"></canvas>
<div class=tape data-part=scroll tabindex=0><div data-part=sheet><canvas data-part=canvas></canvas></div></div>
<p class=said data-part=said aria-live=polite></p><audio data-part=audio controls preload=none></audio>
"""
SLIDER = """
<div class=controls><label class=slider>Threshold <input type=range min=1 max=99 value={start} data-part=threshold>
<output data-part=value>as given</output></label><button type=button data-part=given>Back to as given</button></div>
"""


def timeline_html(found: Evaluation, out: Path) -> str:
    """The section, whose sounds are written into OUT/recordings; "" where no event has a time."""
    classes = list(found.plain["classes"])
    chosen = choose(found) if found.events else []
    if not chosen:
        return ""
    tracks = read_tracks(found, {row["file"]: (start, seconds) for row, start, seconds in chosen})
    recordings = []
    with Progress("recordings", total=len(chosen), unit="recording") as bar:
        for number, (row, start, seconds) in enumerate(chosen):
            sound, note = sound_of(row["audio"], out, number, start, seconds)
            plain = recording_plain(found, row, start, seconds, tracks.get(row["file"]))
            recordings.append({**plain, **sound_plain(sound), "note": note})
            bar.advance()
    convention = found.plain["convention"]
    onset = {"onset": convention["onset_collar"], "slack": convention["slack"]}
    data = {
        "classes": list(map(readable, classes)),
        "rules": {
            "overlap": None,
            "onset": onset | {"offset": None, "share": 0},
            "event": onset | {"offset": convention["offset_collar"], "share": convention["offset_share"]},
        },
        "recordings": recordings,
    }
    scored = any(
        one["scores"] or any(e[2] is not None for lane in one["lanes"] for e in lane["found"]) for one in recordings
    )
    names = "".join(f'<option value="{i}">{escape(one["name"])}</option>' for i, one in enumerate(recordings))
    rules = "".join(f'<option value="{name}">{escape(text)}</option>' for name, text in RULES.items())
    slider = SLIDER.format(start=slider_start(found.plain["threshold"])) if scored else ""
    return section_html(
        "Timeline",
        f"<p>{escape(INTRO)}</p><div id=timeline>{CONTROLS.format(names=names, rules=rules, slider=slider)}"
        f"{data_html(data)}</div>",
    )


def slider_start(threshold: str | None) -> int:
    """Hundredths at which the slider stands before it is moved; 50 if there was no threshold, or a file of several."""
    try:
        return min(99, max(1, round(100 * float(threshold or 0.5))))
    except (ValueError, OverflowError):  # a file's name, or not finite
        return 50


def choose(found: Evaluation) -> list[tuple[Mapping[str, Any], float, float]]:
    """The recordings to show, the most mistakes first, with the start and the length of the stretch."""
    rows = [(mistakes_of(found.events.get(row["file"], [])), row) for row in found.plain["per_recording"]]
    rows.sort(key=lambda pair: -len(pair[0]))
    chosen: list[tuple[Mapping[str, Any], float, float]] = []
    left = ALL_SECONDS
    most = left / min(LONG, max(1, sum(bool(mistakes) for mistakes, _ in rows)))
    for mistakes, row in rows[:RECORDINGS]:
        last = max((event.end for event in found.events.get(row["file"], [])), default=0.0)
        whole = max(row["seconds"] or 0.0, last)
        seconds = min(whole, most, left)
        if seconds <= 0 or (chosen and seconds < min(whole, 60.0)):
            continue
        start = 0.0 if seconds == whole else busiest([event.start for event in mistakes], seconds, whole)
        chosen.append((row, start, seconds))
        left -= seconds
    return chosen


def mistakes_of(events: Sequence[Event]) -> list[Event]:
    """Misses and false alarms."""
    return [event for event in events if not event.is_right]


def busiest(times: Sequence[float], seconds: float, whole: float) -> float:
    """The start of the stretch that holds the most of the times, a second before the first of them."""
    times = sorted(times)
    best, most, behind = 0.0, 0, 0
    for first, time in enumerate(times):
        while behind < len(times) and times[behind] < time - 1 + seconds:
            behind += 1
        if behind - first > most:
            best, most = time - 1, behind - first
    return float(math.floor(max(0.0, min(best, whole - seconds))))


def recording_plain(
    found: Evaluation, row: Mapping[str, Any], start: float, seconds: float, track: ScoreTrack | None
) -> dict[str, Any]:
    """A stretch of a recording as timeline.js reads it, without its sound."""
    file, classes = row["file"], list(found.plain["classes"])
    events = [e for e in found.events.get(file, []) if e.end > start and e.start < start + seconds]
    heard = {event.label for event in events} | set(track.heard() if track else ())
    labels = [label for label in classes if label in heard]
    shown = [] if track is None else [label for label in labels if label in track.classes]
    place = {label: i for i, label in enumerate(classes)}
    whole, wrong = row["seconds"], len(mistakes_of(events))
    part = f" ({span_text(start, seconds)})" if start or (whole and seconds < whole - 1) else ""
    return {
        "name": f"{file}{part}: {wrong} mistake{'' if wrong == 1 else 's'}",
        "start": start,
        "seconds": seconds,
        "lanes": [
            {
                "place": place[label],
                "truth": [at(e, start) for e in events if e.is_truth and e.label == label],
                "found": [[*at(e, start), e.score] for e in events if not e.is_truth and e.label == label],
            }
            for label in labels
        ],
        "scores": track.plain(shown, [place[label] for label in shown]) if track and shown else None,
    }


def sound_plain(sound: Sound | None) -> dict[str, Any]:
    """What of a recording is heard and seen, as timeline.js reads it."""
    if sound is None:
        return {"audio": None, "tiles": [], "ticks": []}
    strips = [[f"{FOLDER}/{name}", begin, end] for name, begin, end in sound.strips]
    return {"audio": f"{FOLDER}/{sound.audio}", "tiles": strips, "ticks": list(sound.ticks)}


def at(event: Event, start: float) -> list[float]:
    """Start and end of an event in a stretch."""
    return [round(event.start - start, 4), round(event.end - start, 4)]


def span_text(start: float, seconds: float) -> str:
    """`from 12:00 to 42:00`."""
    ends = (f"{int(time // 60)}:{int(time % 60):02}" for time in (start, start + seconds))
    return "from {} to {}".format(*ends)


def sound_of(audio: str | None, out: Path, number: int, start: float, seconds: float) -> tuple[Sound | None, str]:
    """The sound of a stretch, or why there is none."""
    if audio is None:
        return None, "The recording was not there when this page was made."
    try:
        return write_sound(Path(audio), out / FOLDER, str(number), start, seconds), ""
    except AudiobatError as error:
        return None, f"The recording cannot be read: {error}"
