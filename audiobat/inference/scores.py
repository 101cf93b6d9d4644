"""The file of scores that `predict --scores` writes: `evaluation/score_file.py` says what is in it, and reads it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from audiobat.data.columns import Strings
from audiobat.errors import AudiobatError
from audiobat.evaluation.score_file import DTYPES, LONG, SHORT, About
from audiobat.inference.journal import CLIP_ID, Rows

ENDING = ".npz"


def scores_in(data: str | Path | Sequence[str | Path]) -> str | Path | None:
    """The file of scores that `data` names, by its ending; None if it names recordings.

    Raises:
        AudiobatError: one of several names is of a file of scores.
    """
    sources = [data] if isinstance(data, str | Path) else list(data)
    files = [source for source in sources if Path(source).suffix.lower() == ENDING]
    if files and len(sources) > 1:
        raise AudiobatError(f"--data {files[0]} is a file of scores: give it alone.")
    return files[0] if files else None


def write_scores(
    path: Path, read: Callable[[Sequence[str]], Iterator[Rows]], keys: Strings | Sequence[str], about: About
) -> None:
    """Write the rows of a journal.

    Args:
        path: the file, which is written in place.
        read: columns to the rows in chunks: row, rate, start, end, scores.
        keys: the names of all recordings by their clip ids; those without a row could not be read, and are left out.
        about: what the scores are of.
    """
    counts, rates = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
    for rows in read(["rate"]):
        np.add.at(counts, rows[CLIP_ID], 1)
        rates[rows[CLIP_ID]] = rows["rate"]
    there = np.flatnonzero(counts)
    short = {
        "keys": np.array([keys[clip_id] for clip_id in there.tolist()], np.str_),
        "counts": counts[there],
        "rates": rates[there],
        **{name: np.array(value) for name, value in vars(about).items()},
    }
    total, width = int(counts.sum()), len(about.classes)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in SHORT:
            with member(archive, name) as stream:
                np.lib.format.write_array(stream, short[name], version=(1, 0), allow_pickle=False)
        for name, column in LONG.items():
            shape = (total, width) if name == "scores" else (total,)
            header = {"descr": DTYPES[name], "fortran_order": False, "shape": shape}
            with member(archive, name) as stream:
                np.lib.format.write_array_header_1_0(stream, header)
                for rows in read([column]):
                    stream.write(np.ascontiguousarray(rows[column], DTYPES[name]).tobytes())


def member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """Open an array of the file to write it; its date is the oldest one of zip files: same scores, same bytes."""
    info = zipfile.ZipInfo(f"{name}.npy")
    info.compress_type = zipfile.ZIP_DEFLATED
    return archive.open(info, "w", force_zip64=True)
