"""Test clips of the classes that a head knows best and worst, as a run folder keeps them in clips/, for pages to play.

clips/clips.json lists them; beside it lie KEY.wav, what one hears.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from audiobat.errors import AudiobatError

FORMAT = "audiobat-heard-1"
FOLDER, LIST = "clips", "clips.json"


@dataclass(frozen=True)
class HeardClip:
    """A test clip and what a head says to it."""

    record: str  # name of the head's record file, without .json
    file: str  # KEY of KEY.wav
    key: str  # of the clip
    label: str  # the class it is shown for
    side: Literal["best", "worst"]  # of the classes
    average_precision: float  # of that class
    why: str  # this clip of all
    labels: tuple[str, ...]
    predictions: tuple[tuple[str, float], ...]  # the likeliest classes and their probabilities


def clips_folder(record: Path) -> Path:
    """Where the clips of the record RUN/results/NAME.json are: RUN/clips."""
    return record.parent.parent / FOLDER


def read_heard(folder: Path) -> tuple[HeardClip, ...]:
    """The list of a clips folder; empty where there is none.

    Raises:
        AudiobatError: a list that is damaged, or that names a file outside of its folder.
    """
    path = folder / LIST
    if not path.exists():
        return ()
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain["format"] != FORMAT:
            raise ValueError(f"its format is {plain['format']!r}")
        clips = tuple(heard_clip(clip) for clip in plain["clips"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise AudiobatError(f"{path} is no list of clips ({error}): remove {folder} or run the probe again.") from None
    for clip in clips:
        if Path(clip.file).name != clip.file:
            raise AudiobatError(f"{path} names the file {clip.file!r}: it must lie in the folder itself.")
    return clips


def heard_clip(plain: dict[str, Any]) -> HeardClip:
    """One entry of the list."""
    predictions = tuple((str(label), float(p)) for label, p in plain["predictions"])
    words = {name: str(plain[name]) for name in ("record", "file", "key", "label", "side", "why")}
    labels = tuple(map(str, plain["labels"]))
    ap = float(plain["average_precision"])
    return HeardClip(**words, average_precision=ap, labels=labels, predictions=predictions)  # type: ignore[arg-type]


def listed(clips: tuple[HeardClip, ...]) -> str:
    """The list as JSON."""
    plain = {"format": FORMAT, "clips": [dataclasses.asdict(clip) for clip in clips]}
    return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
