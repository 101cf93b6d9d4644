"""A map of sounds, which `audiobat atlas INDEX` wrote, to a page: points to point at and to play.

map.json has lists of one entry for each of n points, which lie near each other where sounds are alike:

    format              "audiobat-map-1"
    points              [n][2] x and y, of any scale
    cluster             [n] numbers from 0; -1: none
    label               [n] texts or null
    file, start, end    [n] the recording, and seconds
    clip                [n] a sound's path below the folder, or null
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from audiobat.engine.files import read_json, replacing
from audiobat.errors import AudiobatError
from audiobat.evaluation.report.listening.clips import file_beside
from audiobat.evaluation.report.web.html import data_html, readable, section_html, write_html

FILE = "map.json"
FORMAT = "audiobat-map-1"
COLUMNS = ("points", "cluster", "label", "file", "start", "end", "clip")
CLIPS = "clips"  # beside the page, where it lies outside of the map's folder
INTRO = (
    "Points are near each other where the model finds sounds alike. Point at one to see what it is; click a larger one "
    "to hear it, the others have no sound here. Click a name below to see its points alone. Ctrl and the wheel, or + "
    "and -, zoom."
)
CONTROLS = """
<div class=controls><label>Colour <select data-part=by>{choices}</select></label>
<label>Find <input type=search data-part=search placeholder="part of a file or label"></label>
<button type=button data-part=in aria-label="Zoom in">+</button>
<button type=button data-part=out aria-label="Zoom out">−</button><button type=button data-part=all>All</button></div>
<div class=field><canvas data-part=canvas tabindex=0 aria-label="Map of sounds"></canvas></div>
<p class=said data-part=said aria-live=polite></p><audio data-part=audio controls preload=none></audio>
<div class=legend data-part=legend></div>
"""


def map_folder(source: Path) -> Path | None:
    """The folder, if `source` is that of a map, or its map.json; else None."""
    if source.name == FILE:
        return source.parent
    return source if (source / FILE).is_file() else None


def write_map_page(folder: Path, out: Path) -> Path:
    """Write OUT/index.html from the map in `folder`, and return its path.

    A page inside the map's folder plays the clips there; for one elsewhere they are copied to OUT/clips.

    Raises:
        AudiobatError: a map that is missing or damaged, or that names a file outside of its folder.
    """
    plain = read_map(folder)
    labels = sorted({label for label in plain["label"] if label is not None})
    numbers = sorted({cluster for cluster in plain["cluster"] if cluster >= 0})
    places = {number: place for place, number in enumerate(numbers)}
    data = {
        "points": unit_square(plain["points"]),
        "cluster": [places.get(number, -1) for number in plain["cluster"]],
        "clusters": [cluster_name(number, plain) for number in numbers],
        "label": [-1 if label is None else labels.index(label) for label in plain["label"]],
        "labels": list(map(readable, labels)),
        "file": plain["file"],
        "start": plain["start"],
        "end": plain["end"],
        "clip": [None if name is None else clip_beside(folder, name, out) for name in plain["clip"]],
    }
    choices = "<option value=cluster>by cluster</option>" if numbers else ""
    choices += "<option value=label>by label</option>" if labels or not numbers else ""
    count = len(plain["points"])
    section = section_html(
        "Map",
        f"<p>{escape(INTRO)}</p><div id=map>{CONTROLS.format(choices=choices)}{data_html(data)}</div>",
    )
    lead = f"{count:,} sounds in {len(numbers)} clusters. Keep what lies beside this page: it plays the clips there."
    return write_html(out / "index.html", "Map of sounds", lead, [section], scripts=["map.js"], beside=True)


def read_map(folder: Path) -> dict[str, Any]:
    """The content of map.json, checked."""
    path = folder / FILE
    plain = read_json(path, "make the map again")
    if plain.get("format") != FORMAT:
        raise AudiobatError(f"{path} is no map of format {FORMAT}: make it again with this version.")
    try:
        columns = {name: list(plain[name]) for name in COLUMNS}
        if len({len(column) for column in columns.values()}) != 1 or not columns["points"]:
            raise ValueError("its lists are empty, or of different lengths")
        points = np.array(columns["points"], np.float64)
        if points.shape != (len(points), 2) or not np.isfinite(points).all():
            raise ValueError("points are not pairs of numbers")
        columns["cluster"] = list(map(int, columns["cluster"]))
        for name in ("start", "end"):
            columns[name] = [round(float(value), 3) for value in columns[name]]
        for name in ("label", "file", "clip"):
            if not all(value is None or isinstance(value, str) for value in columns[name]):
                raise ValueError(f"{name} holds something else than text")
    except (KeyError, TypeError, ValueError) as error:
        raise AudiobatError(f"{path} is a damaged map ({error}): make the map again.") from None
    return columns


def unit_square(points: list[list[float]]) -> list[list[float]]:
    """Points moved and scaled, alike in x and y, to lie between 0 and 1."""
    values = np.array(points, np.float64)
    low, high = values.min(0), values.max(0)
    scaled = (values - (low + high) / 2) / max(float((high - low).max()), 1e-12) + 0.5
    return [list(map(float, point)) for point in scaled.round(5)]


def cluster_name(number: int, plain: dict[str, Any]) -> str:
    """`3`, or with the label that most of its points have, `3: goat`."""
    own = [label for cluster, label in zip(plain["cluster"], plain["label"], strict=True) if cluster == number]
    known = Counter(label for label in own if label is not None)
    return f"{number}: {readable(known.most_common(1)[0][0])}" if known else f"cluster {number}"


def clip_beside(folder: Path, name: str, out: Path) -> str:
    """The address of a clip from the page's folder, where it is copied to if need be."""
    source = file_beside(folder / FILE, name).resolve()
    if out.resolve().is_relative_to(folder.resolve()):
        target = source
    else:
        target = out.resolve() / CLIPS / Path(*source.relative_to(folder.resolve()).parts)
        if source.exists():
            with replacing(target) as beside:
                shutil.copyfile(source, beside)
    return address(Path(os.path.relpath(target, out.resolve())))


def address(path: Path) -> str:
    """A relative path as a URL."""
    return "/".join(quote(part) for part in path.parts)
