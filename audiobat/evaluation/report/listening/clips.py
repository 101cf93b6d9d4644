"""The folder clips/ of a run: test clips of the classes that a head knows best and worst, for pages to play.

clips/clips.json lists the clips; beside it lie their sounds, KEY.wav.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from audiobat.config import from_dict
from audiobat.engine.files import read_json
from audiobat.errors import AudiobatError

FORMAT = "audiobat-heard-1"  # as folders of earlier versions have it
FOLDER, LIST = "clips", "clips.json"


@dataclass(frozen=True)
class SavedClip:
    """A test clip with a head's predictions for it."""

    record: str  # name of the head's record file, without .json
    file: str  # KEY of KEY.wav
    key: str  # of the clip
    label: str  # the class that the clip is shown for
    side: Literal["best", "worst"]  # of the classes
    average_precision: float  # of that class
    why: str  # the reason to choose this clip, such as "has the class, surest of it"
    labels: tuple[str, ...]
    predictions: tuple[tuple[str, float], ...]  # the likeliest classes and their probabilities


def clips_folder(record: Path) -> Path:
    """Where the clips of the record RUN/results/NAME.json are: RUN/clips."""
    return record.parent.parent / FOLDER


def file_beside(listing: Path, name: str) -> Path:
    """The file that a listing names, in the listing's folder or below.

    Raises:
        AudiobatError: a name that leads out of the folder, as a listing from elsewhere might.
    """
    path = listing.parent / name
    if not path.resolve().is_relative_to(listing.parent.resolve()):
        raise AudiobatError(f"{listing} names the file {name!r}: it must lie in the folder itself.")
    return path


def read_saved_clips(folder: Path) -> tuple[SavedClip, ...]:
    """The list of a clips folder; empty where there is none.

    Raises:
        AudiobatError: a list that is damaged, or that names a file outside of its folder.
    """
    path = folder / LIST
    if not path.exists():
        return ()
    try:
        plain = read_json(path)
        if plain["format"] != FORMAT:
            raise ValueError(f"its format is {plain['format']!r}")
        clips = tuple(from_dict(SavedClip, clip) for clip in plain["clips"])
    except (ValueError, TypeError, KeyError) as error:
        raise AudiobatError(f"{path} is no list of clips ({error}): remove {folder} or run the probe again.") from None
    for clip in clips:
        if Path(clip.file).name != clip.file:  # a run from elsewhere must not read files of this machine
            raise AudiobatError(f"{path} names the file {clip.file!r}: it must lie in the folder itself.")
    return clips


def clips_json(clips: tuple[SavedClip, ...]) -> str:
    """The content of clips.json."""
    plain = {"format": FORMAT, "clips": [dataclasses.asdict(clip) for clip in clips]}
    return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
