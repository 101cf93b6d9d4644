"""How much of AudioSet is here: listed clips, clips that are here and missing ones, per subset and per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiobat.data.files import find_file
from audiobat.data.sources.public.audioset import (
    LISTS,
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


@dataclass(frozen=True, eq=False)
class SubsetCoverage:
    """One list against what is here."""

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
    """The subsets whose lists are here."""

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
