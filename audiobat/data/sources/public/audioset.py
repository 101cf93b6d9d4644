"""AudioSet (Gemmeke et al., 2017) to a clip table: the listed clips that are here, and how many of each class are not.

`audioset_lists` reads the official lists and finds the clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
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


def coverage(folder: Path) -> str:
    """How many of the listed clips are here, for the lists that are here, in a few lines.

    A line for each subset; both sizes of AS-2M's training set; files (or rows of Parquet) that are no listed clip, or a
    copy of one; the classes that lost most.
    """
    names = [name for name in SUBSETS if find_file(folder, LISTS[name])]
    if not names:
        return f"coverage: not known without {', '.join(LISTS.values())}"
    clips, others = clips_here(folder, names)
    segments = read_segments(folder, names)
    found = {clip.key for clip in clips}
    present = [s for key, s in zip(segment_keys(segments), segments, strict=True) if key in found]
    classes = read_ontology(folder)[1]
    listed, here = _class_counts(segments, names, classes), _class_counts(present, names, classes)  # [subsets, C]
    all_clips, clips_found = (Counter(segment.subset for segment in some) for some in (segments, present))
    lines = [
        f"{name}: {clips_found[name]:,} of {all_clips[name]:,} listed clips are here "
        f"({100 * clips_found[name] / max(1, all_clips[name]):.1f}%); classes without a clip: {lost}"
        for name, lost in zip(names, ((here == 0) & (listed > 0)).sum(1), strict=True)
    ]
    if {"balanced", "unbalanced"} <= set(names):
        unbalanced, both = clips_found["unbalanced"], clips_found["unbalanced"] + clips_found["balanced"]
        lines.append(f"to train on AS-2M: {unbalanced:,} unbalanced, {both:,} with the balanced")
    if others:
        lines.append(f"others: {others:,} that are not listed, or copies")
    listed, here = listed.sum(0), here.sum(0)
    order = np.argsort(here / np.maximum(1, listed), kind="stable")
    least = [f"{classes[c]} {here[c]:,} of {listed[c]:,}" for c in order if here[c] < listed[c]][:CLASSES_SHOWN]
    return "\n".join([*lines, f"least covered classes: {'; '.join(least)}"] if least else lines)


def _class_counts(segments: Iterable[Segment], subsets: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Clips of each subset and class, [subsets, C]."""
    count = Counter((segment.subset, name) for segment in segments for name in segment.labels)
    return np.array([[count[subset, name] for name in classes] for subset in subsets], np.int64)


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
        report=coverage,
    )


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
