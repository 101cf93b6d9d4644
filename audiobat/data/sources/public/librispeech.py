"""LibriSpeech (Panayotov et al., ICASSP 2015) as its archives unpack, to a clip table with the words of each utterance.

SUBSET/SPEAKER/CHAPTER/ holds SPEAKER-CHAPTER-NUMBER.flac and SPEAKER-CHAPTER.trans.txt, a line an utterance: its name,
a space, its words in capitals. Subsets that begin with train- train, with dev- validate, with test- test.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from audiobat.data.build import clip_table
from audiobat.data.clip_table import SPLITS, ClipTable
from audiobat.data.sources.catalog import DataSet
from audiobat.data.sources.public.text_files import AGAIN, check_some_there, read_lines
from audiobat.errors import AudiobatError, counted

SUBSETS = (
    *("train-clean-100", "train-clean-360", "train-other-500"),
    *("dev-clean", "dev-other", "test-clean", "test-other"),
)
SPLIT_OF = dict(zip(("train", "dev", "test"), SPLITS, strict=True))
UTTERANCE = re.compile(r"(\d+)-(\d+)-\d+")


def read_librispeech(subsets: tuple[str, ...], folder: Path) -> ClipTable:
    """The utterances of those of `subsets` that are in `folder`, or in the folder LibriSpeech in it.

    Column `text` has the words, `group` the speaker, `subset` the subset.
    """
    root = next((place for place in (folder, folder / "LibriSpeech") if _there(place, SUBSETS)), folder)
    found = _there(root, subsets)
    if not found:
        raise AudiobatError(
            f"{folder} has none of the folders {', '.join(subsets)}: name the folder LibriSpeech, or {AGAIN}."
        )
    paths, texts, speakers, of = [], [], [], []
    for subset in found:
        lists = sorted((root / subset).glob("*/*/*.trans.txt"))
        if not lists:
            raise AudiobatError(f"{root / subset} has no SPEAKER/CHAPTER/*.trans.txt: {AGAIN}.")
        for path in lists:
            for line in read_lines(path):
                name, _, text = line.partition(" ")
                parts = UTTERANCE.fullmatch(name)
                if parts is None or parts.groups() != (path.parts[-3], path.parts[-2]) or not text.strip():
                    raise AudiobatError(
                        f"{path}: {line[:40]!r} is no utterance of this chapter and its words: {AGAIN}."
                    )
                paths.append(f"{subset}/{parts[1]}/{parts[2]}/{name}.flac")
                texts.append(text.strip())
                speakers.append(parts[1])
                of.append(subset)
        silent = {file.stem for file in (root / subset).glob("*/*/*.flac")} - {Path(path).stem for path in paths}
        if silent:
            raise AudiobatError(
                f"{root / subset} has {counted(len(silent), 'recording')} without words, such as {min(silent)}.flac (a "
                f"*.trans.txt is missing or cut): {AGAIN}."
            )
    table = clip_table(
        root,
        paths,
        splits=[SPLIT_OF[subset.partition("-")[0]] for subset in of],
        columns={"text": texts, "group": speakers, "subset": of},
    )
    return check_some_there(table, root)


def _there(root: Path, subsets: tuple[str, ...]) -> list[str]:
    """Those of the subsets that have a folder."""
    return [subset for subset in subsets if (root / subset).is_dir()]


def _data_set(name: str, what: str, subsets: tuple[str, ...]) -> DataSet:
    return DataSet(
        name=name,
        title=f"LibriSpeech: English read aloud, with its words; {what}",
        where="https://www.openslr.org/12, archives of the subsets unpacked into one folder",
        licence="CC BY 4.0",
        layout="SUBSET/SPEAKER/CHAPTER/*.flac and *.trans.txt, or the folder that holds LibriSpeech; subsets "
        + ", ".join(subsets),
        read=partial(read_librispeech, subsets),
    )


TRAIN = SUBSETS[:3]
DATA_SETS: tuple[DataSet, ...] = (
    _data_set("librispeech", "all subsets that are there, test-clean and test-other in one", SUBSETS),
    _data_set("librispeech-clean", "all that trains, dev-clean, test-clean", (*TRAIN, "dev-clean", "test-clean")),
    _data_set("librispeech-other", "all that trains, dev-other, test-other", (*TRAIN, "dev-other", "test-other")),
    _data_set("librispeech-100", "as SUPERB has it", ("train-clean-100", "dev-clean", "test-clean")),
)
