"""A folder of recordings, or of one folder per class, to a clip table; the files below a folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from audiobat.audio.read import AUDIO_EXTENSIONS
from audiobat.data.build import clip_table, label_column
from audiobat.data.clip_table import SPLITS, ClipTable
from audiobat.errors import AudiobatError


class NoLabels(AudiobatError):
    """A source says nothing of what is in its clips: no annotations, no column of labels, no class folders."""


def read_folder(folder: Path, files: Sequence[str], refused: Iterable[str] = ()) -> ClipTable:
    """All audio files among `files`, those at any depth below `folder`, sorted by path.

    A folder that cannot be listed, one of `refused`, is a clip, `name/`, that cannot be read, so that it is told of
    wherever those are.
    """
    keys = sorted([*filter(is_audio, files), *refused])
    if not keys:
        searched = " ".join(sorted(AUDIO_EXTENSIONS))
        raise AudiobatError(f"Folder {folder} has no audio files: put some there, of type {searched}.")
    return clip_table(folder, keys)


def label_by_folder(table: ClipTable, folder: Path) -> ClipTable:
    """The table of `folder` with each clip's class, and its split if the top folders are `train` and `test`.

    Prepared shards keep the path that a clip had before in column `source`, and so do tars the path inside them.

    Raises:
        NoLabels: audio outside the class folders.
        AudiobatError: a class folder that cannot be listed.
    """
    paths = list(table.columns.get("source", table.keys))
    parts = [path.rstrip("/").split("/") for path in paths]
    top = {p[0] for p in parts if len(p) > 1}
    has_splits = {"train", "test"} <= top <= set(SPLITS)
    depth = 1 if has_splits else 0  # of the class in the path
    for path, p in zip(paths, parts, strict=True):
        if len(p) < depth + 2:
            stray = folder.joinpath(*p)
            if path.endswith("/"):
                raise AudiobatError(f"{stray} cannot be listed, as folders of classes must be: look who may read it.")
            if table.sample_rates is None and table.offsets is not None:
                raise NoLabels(
                    f"{stray} has no label, and lies in no class folder of its tar: add a .json with `label` or a .cls."
                )
            raise NoLabels(
                f"{stray} lies in no class folder, and no annotations are beside the recordings: move it into the "
                "folder of its class, or put a selection table or label track beside each (docs/data.md has the forms)."
            )
    labels, classes = label_column([[p[depth]] for p in parts])
    splits = np.array([p[0] for p in parts]) if has_splits else None
    return replace(table, labels=labels, classes=classes, splits=splits)


def files_below(folder: Path) -> list[str]:
    """Sorted paths, relative to `folder` with `/`, of all files below it; linked folders count, hidden names do not.

    Raises:
        AudiobatError: a folder that cannot be listed, or a name that is not UTF-8, which no table can hold.
    """
    files, refused = walk(folder)
    for path, error in refused.items():
        raise _no_listing(folder / path, error)
    return sorted(files)


def walk(folder: Path) -> tuple[list[str], dict[str, OSError]]:
    """The files below a folder, as `files_below` gives them, and the folders `path/` that cannot be listed, with why.

    One listing per folder and nothing per file, so that millions of clips take seconds.
    """
    found: list[str] = []
    refused: dict[str, OSError] = {}
    visited: set[str] = set()  # links may lead in circles
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        path = os.path.join(folder, prefix)
        if (real := os.path.realpath(path)) in visited:
            continue
        visited.add(real)
        try:
            folders, files = _listing(path)
        except OSError as error:
            if not prefix:
                raise _no_listing(folder, error) from None
            refused[prefix] = error
            continue
        found += [prefix + name for name in files]
        waiting += [f"{prefix}{name}/" for name in sorted(folders, reverse=True)]
    for name in (*found, *refused):
        if not name.isascii() and any("\udc80" <= letter <= "\udcff" for letter in name):
            shown = os.fsencode(name).decode(errors="backslashreplace")
            raise AudiobatError(f"{folder}: the name of {shown} is not UTF-8: rename it.")
    return found, refused


def is_audio(name: str) -> bool:
    """Whether a file's name ends as a recording's does."""
    return os.path.splitext(name)[1].lower() in AUDIO_EXTENSIONS


def find_file(folder: Path, name: str) -> Path | None:
    """File `name` in `folder` or in a folder right below it, such as `metadata`; None if it is in neither."""
    if (folder / name).is_file():
        return folder / name
    try:
        inside, _ = _listing(os.fspath(folder))
    except OSError as error:
        raise _no_listing(folder, error) from None
    return next((path for below in sorted(inside) if (path := folder / below / name).is_file()), None)


def _listing(path: str) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, without hidden ones; an OSError if it cannot be listed."""
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                (folders if _is_folder(entry) else files).append(entry.name)
    return folders, files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder; a link to what we may not look at is one unless it has a recording's name."""
    try:
        return entry.is_dir()
    except OSError as error:
        leads_nowhere = error.errno == errno.ELOOP  # a link in a circle
        return not leads_nowhere and not is_audio(entry.name)


def _no_listing(path: Path, error: OSError) -> AudiobatError:
    return AudiobatError(f"{path} cannot be listed ({error.strerror}): name a folder that you may read.")
