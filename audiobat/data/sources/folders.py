"""A folder of recordings, or of one folder per class, to a clip table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from audiobat.audio.read import AUDIO_EXTENSIONS
from audiobat.data.build import clip_table, label_column
from audiobat.data.clip_table import SPLITS, ClipTable
from audiobat.data.files import files_below, is_audio
from audiobat.errors import AudiobatError


def read_folder(folder: Path) -> ClipTable:
    """All audio files at any depth below `folder`, sorted by path; what is hidden is no clip."""
    keys = [path for path in files_below(folder) if is_audio(path)]
    if not keys:
        searched = " ".join(sorted(AUDIO_EXTENSIONS))
        raise AudiobatError(f"Folder {folder} has no audio files: put some there, of type {searched}.")
    return clip_table(folder, keys)


def label_by_folder(table: ClipTable, folder: Path) -> ClipTable:
    """The table of `folder` with each clip's class, and its split if the top folders are `train` and `test`.

    Shards say in column `source` where a clip lay.

    Raises:
        AudiobatError: audio outside the class folders.
    """
    parts = [path.split("/") for path in table.columns.get("source", table.keys)]
    top = {p[0] for p in parts if len(p) > 1}
    has_splits = {"train", "test"} <= top <= set(SPLITS)
    depth = 1 if has_splits else 0  # of the class in the path
    for p in parts:
        if len(p) < depth + 2:
            stray = folder.joinpath(*p)
            raise AudiobatError(f"{stray} lies in no class folder: move it into the folder of its class.")
    labels, classes = label_column([[p[depth]] for p in parts])
    splits = np.array([p[0] for p in parts]) if has_splits else None
    return replace(table, labels=labels, classes=classes, splits=splits)
