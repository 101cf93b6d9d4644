"""A folder of recordings, or of one folder per class, to a clip table; the files below a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from audiobat.audio.read import AUDIO_EXTENSIONS
from audiobat.data.build import clip_table, label_column
from audiobat.data.clip_table import SPLITS, ClipTable
from audiobat.errors import AudiobatError


def read_folder(folder: Path, files: Sequence[str]) -> ClipTable:
    """All audio files among `files`, those at any depth below `folder`."""
    keys = [path for path in files if is_audio(path)]
    if not keys:
        searched = " ".join(sorted(AUDIO_EXTENSIONS))
        raise AudiobatError(f"Folder {folder} has no audio files: put some there, of type {searched}.")
    return clip_table(folder, keys)


def label_by_folder(table: ClipTable, folder: Path) -> ClipTable:
    """The table of `folder` with each clip's class, and its split if the top folders are `train` and `test`.

    Prepared shards keep the path that a clip had before in column `source`, and so do tars the path inside them.

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
            if table.sample_rates is None and table.offsets is not None:
                raise AudiobatError(
                    f"{stray} has no label, and lies in no class folder of its tar: add a .json with `label` or a .cls."
                )
            raise AudiobatError(f"{stray} lies in no class folder: move it into the folder of its class.")
    labels, classes = label_column([[p[depth]] for p in parts])
    splits = np.array([p[0] for p in parts]) if has_splits else None
    return replace(table, labels=labels, classes=classes, splits=splits)


def files_below(folder: Path) -> list[str]:
    """Sorted paths, relative to `folder` with `/`, of all files below it; linked folders count, hidden names do not.

    One listing per folder and nothing per file, so that millions of clips take seconds.

    Raises:
        AudiobatError: a folder that cannot be read, or a name that is not UTF-8, which no table can hold.
    """
    found: list[str] = []
    visited: set[str] = set()  # links may lead in circles
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        path = os.path.join(folder, prefix)
        if (real := os.path.realpath(path)) in visited:
            continue
        visited.add(real)
        folders, files = _listing(path)
        found += [prefix + name for name in files]
        waiting += [f"{prefix}{name}/" for name in sorted(folders, reverse=True)]
    for name in found:
        if not name.isascii() and any("\udc80" <= letter <= "\udcff" for letter in name):
            shown = os.fsencode(name).decode(errors="backslashreplace")
            raise AudiobatError(f"{folder}: the name of {shown} is not UTF-8: rename it.")
    return sorted(found)


def is_audio(name: str) -> bool:
    """Whether a file's name ends as a recording's does."""
    return os.path.splitext(name)[1].lower() in AUDIO_EXTENSIONS


def find_file(folder: Path, name: str) -> Path | None:
    """File `name` in `folder` or in a folder right below it, such as `metadata`; None if it is in neither."""
    if (folder / name).is_file():
        return folder / name
    inside, _ = _listing(os.fspath(folder))
    return next((path for below in sorted(inside) if (path := folder / below / name).is_file()), None)


def _listing(path: str) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, without hidden ones."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise AudiobatError(f"{path} cannot be listed ({error.strerror}): name a folder that you may read.") from None
    return folders, files
