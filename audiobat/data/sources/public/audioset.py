"""AudioSet (Gemmeke et al., 2017) to a clip table: the listed clips that are here, and how many of each class are not.

`audioset_lists` reads the official lists and finds the clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiobat.data.build import clip_table
from audiobat.data.clip_table import ClipTable
from audiobat.data.sources.catalog import DataSet
from audiobat.data.sources.folders import find_file
from audiobat.data.sources.public.audioset_lists import (
    LISTS,
    ONTOLOGY,
    SUBSETS,
    WHERE,
    Segment,
    clips_here,
    read_ontology,
    read_segments,
    segment_keys,
)
from audiobat.errors import AudiobatError

CLASSES_SHOWN = 10


def read_audioset(folder: Path, subsets: Sequence[str] = SUBSETS) -> ClipTable:
    """The clips of `subsets` that are here: audio files at any depth or, if there are none, the rows of Parquet files.

    Keys are as in `segment_keys`, groups are videos; column `subset` says which list a clip is of; balanced and
    unbalanced are split `train`, eval is `test`. Of copies of a clip the first by path is taken. A subset of which no
    clip is here is not in the table.

    Raises:
        AudiobatError: no ontology, no list of a subset, no clip, a label that the ontology does not have.
    """
    clips, _ = clips_here(folder, subsets)
    table = clip_table(
        folder,
        [clip.path for clip in clips],
        keys=[clip.key for clip in clips],
        labels=[clip.segment.labels for clip in clips],
        classes=read_ontology(folder)[1],
        splits=["test" if clip.segment.subset == "eval" else "train" for clip in clips],
        columns={
            "subset": [clip.segment.subset for clip in clips],
            "group": [clip.segment.video for clip in clips],
        },
    )
    rows = [clip.row for clip in clips]
    return table if rows[0] is None else replace(table, offsets=np.array(rows, np.int64))


@dataclass(frozen=True, eq=False)
class SubsetCoverage:
    """How many clips of one list are here."""

    listed: int  # clips
    here: int
    class_listed: NDArray[np.int64]  # [C] clips of each class
    class_here: NDArray[np.int64]  # [C]
    missing: tuple[str, ...]  # keys

    def text(self) -> str:
        """Clips here, and classes of which none is."""
        lost = int(((self.class_here == 0) & (self.class_listed > 0)).sum())
        share = 100 * self.here / max(1, self.listed)
        return f"{self.here:,} of {self.listed:,} listed clips are here ({share:.1f}%); classes without a clip: {lost}"


@dataclass(frozen=True)
class Coverage:
    """How much of AudioSet is here, for the subsets whose lists are here."""

    classes: tuple[str, ...]  # C display names in the official order
    subsets: dict[str, SubsetCoverage]
    others: int  # audio files, or rows of Parquet, that are no listed clip, or a copy of one

    def text(self) -> str:
        """A few lines: each subset, both sizes of AS-2M's training set, the classes that lost most."""
        lines = [f"{name}: {subset.text()}" for name, subset in self.subsets.items()]
        if {"balanced", "unbalanced"} <= set(self.subsets):
            balanced, unbalanced = self.subsets["balanced"].here, self.subsets["unbalanced"].here
            lines.append(f"to train on AS-2M: {unbalanced:,} unbalanced, {unbalanced + balanced:,} with the balanced")
        if self.others:
            lines.append(f"others: {self.others:,} that are not listed, or copies")
        listed = np.sum([subset.class_listed for subset in self.subsets.values()], axis=0)
        here = np.sum([subset.class_here for subset in self.subsets.values()], axis=0)
        order = np.argsort(here / np.maximum(1, listed), kind="stable")
        least = [c for c in order if here[c] < listed[c]][:CLASSES_SHOWN]
        shown = "; ".join(f"{self.classes[c]} {here[c]:,} of {listed[c]:,}" for c in least)
        return "\n".join([*lines, f"least covered classes: {shown}"] if least else lines)


def coverage(folder: Path) -> Coverage:
    """Compare the clips that are here with the lists that are here.

    Raises:
        AudiobatError: as for `read_audioset`, or none of the lists is here.
    """
    names = [name for name in SUBSETS if find_file(folder, LISTS[name])]
    if not names:
        raise AudiobatError(f"{folder} has none of {', '.join(LISTS.values())}: put them there; they are on {WHERE}.")
    clips, others = clips_here(folder, names)
    segments = read_segments(folder, names)
    listed = list(zip(segment_keys(segments), segments, strict=True))
    classes = read_ontology(folder)[1]
    found = {clip.key for clip in clips}
    return Coverage(classes, {name: _subset(name, listed, found, classes) for name in names}, others)


def _subset(
    name: str, listed: Iterable[tuple[str, Segment]], found: set[str], classes: Sequence[str]
) -> SubsetCoverage:
    own = [(key, segment) for key, segment in listed if segment.subset == name]
    here = [segment for key, segment in own if key in found]
    missing = tuple(key for key, _ in own if key not in found)
    everything = [segment for _, segment in own]
    return SubsetCoverage(len(own), len(here), _counts(everything, classes), _counts(here, classes), missing)


def _counts(segments: Iterable[Segment], classes: Sequence[str]) -> NDArray[np.int64]:
    """Clips of each class, [C]."""
    count = Counter(name for segment in segments for name in segment.labels)
    return np.array([count[name] for name in classes], np.int64)


def _task(name: str, title: str, subsets: Sequence[str]) -> DataSet:
    lists = ", ".join(LISTS[subset] for subset in subsets)
    return DataSet(
        name=name,
        title=title,
        where=f"lists: {WHERE}; audio: YouTube, or agkphysics/AudioSet on Hugging Face (Parquet)",
        licence="labels CC BY 4.0, ontology CC BY-SA 4.0 (Google); the audio is its uploaders'",
        layout=(
            f"{ONTOLOGY}, {lists} in FOLDER or a folder in it; audio at any depth, named by video ID (YTID.wav, "
            "YYTID.flac, YTID_30.m4a, YTID_30000_40000.opus). Or Parquet in place of segment lists and audio, with "
            "video_id, audio, labels, named by subset (bal_train/00.parquet, unbal_train00.parquet, eval/00.parquet)"
        ),
        read=partial(read_audioset, subsets=tuple(subsets)),
        report=_report,
    )


def _report(folder: Path) -> str:
    """How many of the listed clips are here, where the lists are."""
    if not any(find_file(folder, name) for name in LISTS.values()):
        return f"coverage: not known without {', '.join(LISTS.values())}"
    return coverage(folder).text()


DATA_SETS: tuple[DataSet, ...] = (
    _task("audioset-20k", "AudioSet, 22,160 balanced clips to train, 20,371 to test, as listed", ("balanced", "eval")),
    _task(
        "audioset-2m",
        "AudioSet, 2,063,949 clips to train: 2,041,789 unbalanced and 22,160 balanced (some papers train on the "
        "unbalanced alone: column `subset` tells them apart); 20,371 to test, as listed",
        SUBSETS,
    ),
    _task("audioset", "AudioSet, all that is here; column `subset` says balanced, unbalanced or eval", SUBSETS),
)
