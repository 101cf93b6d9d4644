"""Public data sets by name: where a user gets each, and which file of `public/` reads its layout.

Nothing is downloaded: `NAME:FOLDER` reads what is there, and `audiobat prepare NAME` prints where it comes from.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiobat.data.clip_table import ClipTable
from audiobat.errors import AudiobatError, did_you_mean

MODULES = ("audioset", "esc50", "speech_commands", "dcase2016", "beans", "birdset", "fsd50k", "librispeech")


@dataclass(frozen=True)
class DataSet:
    """A public data set, or one named task on it; each module of MODULES lists its own as DATA_SETS."""

    name: str  # as in NAME:FOLDER
    title: str
    where: str  # address from which a user gets it
    licence: str
    layout: str  # what FOLDER must hold
    # A table of all listed clips, also of those whose file is not there (see its `missing()`); an AudiobatError if a
    # part of the layout is missing or damaged, or none of the files is there.
    read: Callable[[Path], ClipTable]
    report: Callable[[Path], str] | None = None  # how much of it is in FOLDER, for a dry run

    def about(self) -> str:
        """Its title, address, licence, layout and how to name it on the command line, in a few lines."""
        return (
            f"{self.name}: {self.title}\n  get it: {self.where}\n  licence: {self.licence}\n"
            f"  layout: {self.layout}\n  then:   --data {self.name}:FOLDER"
        )


def data_sets() -> dict[str, DataSet]:
    """All named data sets."""
    return {data_set.name: data_set for module in _modules() for data_set in module.DATA_SETS}


def ambiguous_names() -> dict[str, str]:
    """Names under which several incompatible tasks are known, each with the sentence that explains them."""
    return {name: why for module in _modules() for name, why in getattr(module, "AMBIGUOUS", {}).items()}


def _modules() -> list[Any]:
    return [importlib.import_module(f"audiobat.data.sources.public.{module}") for module in MODULES]


def find_data_set(source: str) -> tuple[DataSet, Path] | None:
    """The data set and the folder of `NAME:FOLDER`; None if `source` is no such pair.

    Raises:
        AudiobatError: a NAME that is ambiguous or not known, no FOLDER, or one that is not there.
    """
    name, colon, folder = source.partition(":")
    if os.path.exists(source) or folder.startswith("//") or len(name) == 1:  # a path, a URL, a drive
        return None
    if name in (ambiguous := ambiguous_names()):
        raise AudiobatError(ambiguous[name])
    known = data_sets()
    if name not in known:
        if not colon:
            return None
        raise AudiobatError(f"No data set {name!r}{did_you_mean(name, known)}: choose one of {', '.join(known)}.")
    if not folder:
        raise AudiobatError(
            f"{name} needs the folder where it lies: {name}:FOLDER; `audiobat prepare {name}` says where to get it."
        )
    if not Path(folder).exists():
        raise AudiobatError(f"There is no folder {folder} with {name}: `audiobat prepare {name}` says where to get it.")
    return known[name], Path(folder).absolute()
