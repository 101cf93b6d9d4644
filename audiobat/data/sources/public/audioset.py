"""AudioSet (Gemmeke et al., 2017) to a clip table: the listed clips that are here, and how many of each class are not.

Clips are audio files by name, or rows of Parquet files. Videos disappear one by one, so that everybody has other clips.
Classes are in the order of class_labels_indices.csv, as everywhere but in heads of BAT's release, whose classes are
sorted by display name.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiobat.data.build import clip_table
from audiobat.data.clip_table import ClipTable
from audiobat.data.sources.catalog import DataSet
from audiobat.data.sources.folders import files_below, find_file, is_audio
from audiobat.data.sources.parquet import open_parquet
from audiobat.data.sources.public.text_files import read_rows
from audiobat.errors import AudiobatError

CLASSES_SHOWN = 10
ONTOLOGY = "class_labels_indices.csv"
LISTS = {
    "balanced": "balanced_train_segments.csv",
    "unbalanced": "unbalanced_train_segments.csv",
    "eval": "eval_segments.csv",
}
SUBSETS = tuple(LISTS)
WHERE = "research.google.com/audioset/download.html"
# [Y]ID[_START[_END]]. An ID has 11 characters, Y - _ among them. No name reads two ways: without a start its length
# tells whether Y is a prefix; with one, a separator before a digit stands after the ID, at the 12th place or the 13th.
NAME = re.compile(r"Y?([\w-]{11})(?:[_-](\d+(?:\.\d+)?)(?:[_-]\d+(?:\.\d+)?)?)?", re.ASCII)
SUBSET_WORDS = {"eval": r"(?<![a-z])(eval|test)", "balanced": r"(?<![a-z])bal", "unbalanced": r"(?<![a-z])unbal"}


class Segment(NamedTuple):
    """A listed clip."""

    subset: str
    video: str
    start: int  # ms into the video
    labels: tuple[str, ...]  # display names


class FoundClip(NamedTuple):
    """A listed clip that is here."""

    key: str
    segment: Segment
    path: str  # relative to the data set's folder
    row: int | None  # of a Parquet file


def read_ontology(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """MIDs and display names of the 527 classes in the official order, from class_labels_indices.csv."""
    path = find_file(folder, ONTOLOGY)
    if path is None:
        raise AudiobatError(
            f"{folder} has no {ONTOLOGY}, which gives the classes and their order: put it there, or into a folder "
            f"`metadata` in it; it is on {WHERE}."
        )
    rows = read_rows(path, ("index", "mid", "display_name"))
    for place, row in enumerate(rows):
        if row["index"] != str(place):
            raise AudiobatError(f"{path}, row {place + 2}, is not class {place}: get the whole file from {WHERE}.")
    mids, names = tuple(row["mid"] for row in rows), tuple(row["display_name"] for row in rows)
    if len(set(mids)) < len(rows) or len(set(names)) < len(rows):
        raise AudiobatError(f"{path} lists a class twice: get the file from {WHERE}.")
    return mids, names


def read_segments(folder: Path, subsets: Sequence[str]) -> list[Segment]:
    """The clips that the official lists of `subsets` name."""
    name_of = dict(zip(*read_ontology(folder), strict=True))
    return [segment for subset in subsets for segment in _read_list(folder, subset, name_of)]


def segment_keys(segments: Sequence[Segment]) -> list[str]:
    """The video's ID, with the start in ms for videos that are listed more than once."""
    count = Counter(segment.video for segment in segments)
    return [s.video if count[s.video] == 1 else f"{s.video}_{s.start}" for s in segments]


def clips_here(folder: Path, subsets: Sequence[str]) -> tuple[list[FoundClip], int]:
    """The clips of `subsets` that are here, and how many audio files (or Parquet rows) are no listed clip, or a copy.

    Audio comes in the order of the lists, Parquet in its own, so that reading in order reads each row group once.
    """
    files = files_below(folder)
    audio = [path for path in files if is_audio(path)]
    parquet = [path for path in files if path.endswith(".parquet")]
    if not audio and not parquet:
        raise AudiobatError(
            f"{folder} has no audio files and no Parquet: `audiobat prepare audioset` says what to put there."
        )
    clips, others = _in_files(folder, audio, subsets) if audio else _in_parquet(folder, parquet, subsets)
    if not clips:
        raise AudiobatError(
            f"{folder}: none of its {len(audio or parquet):,} {'audio' if audio else 'Parquet'} files, such as "
            f"{(audio or parquet)[0]}, has a clip of {', '.join(subsets)}: name audio by video ID (YTID.wav, YYTID.wav "
            "or YTID_START.wav), Parquet by subset (bal_train, unbal_train, eval)."
        )
    return clips, others


def _in_files(folder: Path, audio: Sequence[str], subsets: Sequence[str]) -> tuple[list[FoundClip], int]:
    segments = read_segments(folder, subsets)
    places: dict[str, list[int]] = {}
    for place, segment in enumerate(segments):
        places.setdefault(segment.video, []).append(place)
    found: dict[int, str] = {}  # the file of each segment, by its place in the lists
    for path in audio:
        named = NAME.fullmatch(os.path.splitext(os.path.basename(path))[0])
        fits = places.get(named[1], []) if named else []
        if named and named[2]:  # seconds, or milliseconds
            starts = {round(float(named[2]) * 1000), round(float(named[2]))}
            fits = [place for place in fits if segments[place].start in starts]
        if len(fits) > 1:
            raise AudiobatError(
                f"{folder / path} may be any of {len(fits)} listed clips of its video: add the start in seconds to its "
                "name (YTID_START)."
            )
        for place in fits:
            found.setdefault(place, path)
    keys = segment_keys(segments)
    return [FoundClip(keys[i], segments[i], found[i], None) for i in sorted(found)], len(audio) - len(found)


def _in_parquet(folder: Path, files: Sequence[str], subsets: Sequence[str]) -> tuple[list[FoundClip], int]:
    name_of = dict(zip(*read_ontology(folder), strict=True))
    listed: dict[str, str] = {}  # subset of each video, read when a file's name does not tell
    found: dict[str, FoundClip] = {}
    rows = 0
    for path in files:
        subset = _subset_in_name(path)
        if subset is not None and subset not in subsets:
            continue
        if subset is None and not listed:
            listed = {segment.video: segment.subset for segment in read_segments(folder, subsets)}
        for row, (video, mids) in enumerate(_parquet_rows(folder / path)):
            rows += 1
            own = subset or listed.get(video)
            if own is None or video in found:
                continue
            labels = _names(mids, name_of, f"{folder / path}, row {row} ({video})")
            found[video] = FoundClip(video, Segment(own, video, 0, labels), path, row)
    return list(found.values()), rows - len(found)


def _subset_in_name(path: str) -> str | None:
    """The subset that a file is named after, or else the folder next to it, as `bal_train` and `balanced/test` are."""
    parts = reversed(path.lower().split("/"))
    return next((subset for part in parts for subset, word in SUBSET_WORDS.items() if re.search(word, part)), None)


def _parquet_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Video and MIDs of each row, as agkphysics/AudioSet on Hugging Face has them."""
    file = open_parquet(path)
    if not {"video_id", "audio", "labels"} <= set(file.schema_arrow.names):
        has = ", ".join(file.schema_arrow.names)
        raise AudiobatError(f"{path} has the columns {has}: AudioSet's Parquet has video_id, audio and labels (MIDs).")
    data = file.read(columns=["video_id", "labels"])
    return zip(data.column("video_id").to_pylist(), data.column("labels").to_pylist(), strict=True)


def _read_list(folder: Path, subset: str, name_of: dict[str, str]) -> Iterator[Segment]:
    """An official list: three lines of comment, then `YTID, start_seconds, end_seconds, "MID,MID"`."""
    path = find_file(folder, LISTS[subset])
    if path is None:
        instead = "" if subset != "unbalanced" else ", or name the data audioset-20k, which does without"
        raise AudiobatError(
            f"{folder} has no {LISTS[subset]}, the list of the {subset} clips: put it there, or into a folder "
            f"`metadata` in it; it is on {WHERE}{instead}."
        )
    known: dict[str, tuple[str, ...]] = {}  # many clips have the same labels
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            for row in reader:
                if not row or row[0].startswith("#") or row[0] == "YTID":
                    continue
                video, start, _, mids = row
                if mids not in known:
                    known[mids] = _names(mids.split(","), name_of, f"{path}, line {reader.line_num} ({video})")
                yield Segment(subset, video, round(float(start) * 1000), known[mids])
        if not known:
            raise AudiobatError(f"{path} lists no clips: get it from {WHERE}.")
    except AudiobatError:
        raise
    except UnicodeDecodeError as error:
        raise AudiobatError(f"{path} is not UTF-8 text (byte {error.start}): get it from {WHERE}.") from error
    except (csv.Error, ValueError) as error:
        raise AudiobatError(
            f'{path}, line {reader.line_num}, is not `YTID, start, end, "MID,MID"`: get the list from {WHERE}.'
        ) from error


def _names(mids: Sequence[str] | None, name_of: dict[str, str], where: str) -> tuple[str, ...]:
    """Display names of MIDs."""
    for mid in mids or ():
        if mid not in name_of:
            raise AudiobatError(
                f"{where}: label {mid!r} is none of the {len(name_of)} in {ONTOLOGY}: get both from {WHERE}."
            )
    return tuple(name_of[mid] for mid in mids or ())


def read_audioset(folder: Path, subsets: Sequence[str] = SUBSETS) -> ClipTable:
    """The clips of `subsets` that are here: audio files at any depth or, if there are none, the rows of Parquet files.

    Keys are as in `segment_keys`, groups are videos; column `subset` says which list a clip is of; balanced and
    unbalanced are split `train`, eval is `test`. Of copies of a clip the first by path is taken. Clips, and subsets,
    that are not here are not in the table.
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
