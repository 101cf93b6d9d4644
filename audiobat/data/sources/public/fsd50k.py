"""FSD50K (Fonseca et al., 2022) to a clip table: 51,197 clips of Freesound, 200 classes, several to a clip.

Classes are in the order of vocabulary.csv; `train` and `valid` come from dev.csv, `test` from eval.csv.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from audiobat.data.build import clip_table
from audiobat.data.clip_table import ClipTable
from audiobat.data.sources.catalog import DataSet
from audiobat.data.sources.folders import files_below, is_audio
from audiobat.data.sources.public.text_files import AGAIN, check_some_there, read_rows, read_text
from audiobat.errors import AudiobatError

# As unpacked from Zenodo, or with the names that copies of it give the folders.
TRUTH = ("FSD50K.ground_truth", "ground_truth", "labels")
AUDIO = {
    "dev": ("FSD50K.dev_audio", "dev_audio", "clips/dev"),
    "eval": ("FSD50K.eval_audio", "eval_audio", "clips/eval"),
}
COLUMNS = {"dev": ("fname", "labels", "mids", "split"), "eval": ("fname", "labels", "mids")}
SPLIT_NAMES = {"train": "train", "val": "valid", "test": "test"}


def read_fsd50k(folder: Path) -> ClipTable:
    """All listed clips; keys are the numbers that Freesound gives them."""
    truth = folder / _find(folder, TRUTH)
    classes = read_vocabulary(truth / "vocabulary.csv")
    known = frozenset(classes)
    keys: list[str] = []
    paths: list[str] = []
    labels: list[list[str]] = []
    splits: list[str] = []
    for part, columns in COLUMNS.items():
        audio = _find(folder, AUDIO[part])
        file_of = {os.path.splitext(name)[0]: name for name in files_below(folder / audio) if is_audio(name)}
        source = truth / f"{part}.csv"
        for number, row in enumerate(read_rows(source, columns), start=2):
            name = row["fname"].removesuffix(".wav")
            keys.append(name)
            paths.append(f"{audio}/{file_of.get(name, f'{name}.wav')}")
            labels.append(row["labels"].split(","))
            for label in labels[-1]:
                if label not in known:
                    raise AudiobatError(
                        f"{source}, row {number}: label {label!r} of clip {row['fname']} is none of the {len(known)} "
                        f"in vocabulary.csv: {AGAIN}."
                    )
            split = row["split"] if part == "dev" else "test"
            if part == "dev" and split not in ("train", "val"):
                raise AudiobatError(f"{source}, row {number}: split is {split!r}, not train or val: {AGAIN}.")
            splits.append(SPLIT_NAMES[split])
    table = clip_table(folder, paths, keys=keys, labels=labels, classes=classes, splits=splits)
    return check_some_there(table, truth)


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Class names in their official order, from rows `index,name,mid` without a header."""
    try:
        rows = [row for row in csv.reader(io.StringIO(read_text(path)), strict=True) if row]
    except csv.Error as error:
        raise AudiobatError(f"{path} is not valid CSV ({error}): {AGAIN}.") from error
    for index, row in enumerate(rows):
        if len(row) != 3 or row[0] != str(index):
            raise AudiobatError(f"{path}, row {index + 1}, is not `{index},name,mid`: {AGAIN}.")
    names = tuple(row[1] for row in rows)
    if len(set(names)) < len(names) or not names:
        raise AudiobatError(f"{path} lists a class twice, or none: {AGAIN}.")
    return names


def _find(folder: Path, names: Sequence[str]) -> str:
    """The one of `names` that is a folder in `folder`."""
    found = next((name for name in names if (folder / name).is_dir()), None)
    if found is None:
        raise AudiobatError(
            f"{folder} has no folder {names[0]} (or {', '.join(names[1:])}): name the folder into which FSD50K was "
            "unpacked, and unpack all its archives there."
        )
    return found


DATA_SETS: tuple[DataSet, ...] = (
    DataSet(
        name="fsd50k",
        title="FSD50K: 36,796 clips to train, 4,170 to validate, 10,231 to test; 200 classes, several to a clip",
        where="zenodo.org/records/4060432 (DOI 10.5281/zenodo.4060432)",
        licence="CC BY 4.0 as a whole; each clip has its own: CC0, CC BY, CC BY-NC or CC Sampling+",
        layout="FSD50K.dev_audio/*.wav, FSD50K.eval_audio/*.wav, FSD50K.ground_truth/{dev,eval,vocabulary}.csv",
        read=read_fsd50k,
    ),
)
