"""Paths and formats inside a prepared folder, and its clip table."""

from __future__ import annotations

import os
from pathlib import Path

from audiobat.data.index import ClipTable, open_table
from audiobat.errors import AudiobatError

PLAN, CLIPS = "prepared.json", "clips"


def is_prepared(source: str | Path) -> bool:
    """Whether `source` is a folder that `audiobat prepare` wrote to."""
    return (Path(source) / PLAN).is_file()


def open_prepared(folder: str | Path) -> ClipTable:
    """The clip table of a prepared folder."""
    if not (Path(folder) / CLIPS).is_dir():
        raise AudiobatError(f"{folder} is not finished: run the same `audiobat prepare` command again.")
    return open_table(Path(folder) / CLIPS, os.path.abspath(folder))
