"""A labelled clip table to the clips that train, validate and test: by its splits, its folds, or a hash."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from audiobat.config import SelectConfig
from audiobat.data.clip_table import ClipTable
from audiobat.errors import AudiobatError

TEST_SHARE = 0.2  # of clips that come without splits or folds
VALID_SHARE = 0.15  # of the training clips under `select.held_out: null`


@dataclass(frozen=True)
class Split:
    """The clips of one training, as ids of the clip table."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]
    valid: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    fold: str | None = None  # name of the fold that tests, where every fold does so in turn
    drawn: bool = False  # whether the test clips are none that somebody has marked


def splits_of(table: ClipTable, test_fold: int | None) -> list[Split]:
    """One split; but where clips have folds, no split column and no `test_fold`, one for each fold, which tests."""
    if table.folds is None or table.splits is not None or test_fold is not None:
        drawn = table.folds is None and table.splits is None
        return [Split(*split_for_probe(table, test_fold), drawn=drawn)]
    folds = sorted(set(table.folds.tolist()))
    return [Split(*split_for_probe(table, fold), fold=str(fold)) for fold in folds]


def test_alone(table: ClipTable, test_fold: int | None) -> Split:
    """The clips to test where nothing trains: those of the fold, those marked test, or all, where clips have no split.

    Raises AudiobatError if there is no such fold, or no clip is marked.
    """
    test = np.ones(len(table), bool)
    if test_fold is not None:
        test = table.folds == test_fold if table.folds is not None else ~test
    elif table.splits is not None:
        test = table.splits == "test"
    if not test.any():
        missing = "no clip is marked test" if test_fold is None else f"there is no test fold {test_fold}"
        raise AudiobatError(f"Of {len(table)} clips none tests, as {missing}: check the columns split and fold.")
    return Split(np.zeros(0, np.int64), np.flatnonzero(test), drawn=test_fold is None and table.splits is None)


def split_for_probe(table: ClipTable, test_fold: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """clip_ids of the clips that train a probe, and of those that test it.

    With `test_fold`: that fold tests, all others train. Else by the split column (valid clips are left out). A table
    with neither splits nor folds is cut 80 to 20 by `hashed_share`, which leaves recordings whole.

    Raises:
        AudiobatError: no labels, no such fold, folds without `test_fold`, an empty split, a split whose clips all have
            the same labels.
    """
    if table.labels is None:
        raise AudiobatError("The clips have no labels: a probe needs a CSV with a `label` column or class folders.")
    folds = [] if table.folds is None else sorted(set(table.folds.tolist()))
    listed = ", ".join(map(str, folds))
    if test_fold is not None:
        if table.folds is None or test_fold not in folds:
            there = f"the folds are {listed}" if folds else "the clips have no `fold` column"
            raise AudiobatError(f"There is no test fold {test_fold}: {there}.")
        train, test = table.folds != test_fold, table.folds == test_fold
    elif table.splits is not None:
        train, test = table.splits == "train", table.splits == "test"
    elif folds:
        raise AudiobatError(f"The clips have folds but no splits: choose a test fold, {listed}.")
    else:
        test = hashed_share(table, TEST_SHARE)
        train = ~test
    for name, mask in (("train", train), ("test", test)):
        if not mask.any():
            groups = len(set(groups_of(table)))
            drawn = test_fold is None and table.splits is None
            few = drawn and (groups < len(table) or groups == 1)
            one = " as each class is in one recording alone" if few else ""
            hint = f"mark some of the {len(table)} clips as {name}" if len(table) > 1 else "annotate a second recording"
            raise AudiobatError(f"Split {name} has no clips{one}: {hint}.")
        sets = {tuple(table.labels.row(i).tolist()) for i in np.flatnonzero(mask).tolist()}
        # Where there are events, their times tell clips apart; where there are no classes, nobody asks for one.
        if len(sets) == 1 and table.classes and table.events is None:
            names = ";".join(table.classes[c] for c in sets.pop()) or "no label"
            raise AudiobatError(
                f"All {mask.sum()} clips of split {name} have the same label ({names}): "
                "a probe needs at least two classes in each split."
            )
    return np.flatnonzero(train), np.flatnonzero(test)


def with_valid(table: ClipTable, split: Split, select: SelectConfig) -> Split:
    """The split with clips that validate: those marked `valid`; else the share `select.held_out` of those that train.

    The share is taken by the hash of the clips' groups. Raises AudiobatError if no clips validate and the best weights
    are to be kept.
    """
    marked = np.zeros(0, np.int64) if table.splits is None else np.flatnonzero(table.splits == "valid")
    # Where a fold tests, clips marked valid may train or test: marks count for the split column alone.
    split = replace(split, valid=np.setdiff1d(marked, np.concatenate([split.train, split.test])))
    share = select.held_out
    if share is None:
        share = 0.0 if split.drawn and select.which == "last" else VALID_SHARE
    if not len(split.valid) and share > 0:
        held = hashed_share(table.select(split.train), share)
        split = replace(split, train=split.train[~held], valid=split.train[held])
    if select.which == "best" and not len(split.valid):
        raise AudiobatError(
            "select.which is best, but no clips validate: mark some as split valid, or set select.held_out, say to 0.1."
        )
    return split


def hashed_share(table: ClipTable, share: float) -> NDArray[np.bool_]:
    """Mark a share of the groups of `groups_of`, chosen by the hash of their names.

    Of clips with labels it is a share of each class's groups, at least one of two or more; a group's class is the first
    one of its first clip. A recording with events has many classes: of those it is a share of all, at least one of two
    or more, and every class of theirs is in others as well, unless there are no such recordings.
    """
    groups = groups_of(table)
    chosen = pick_of_each_class(table, groups, share) if table.events is None else pick_of_all(table, groups, share)
    return np.array([group in chosen for group in groups])


def groups_of(table: ClipTable) -> list[str]:
    """What no split may divide, a name for each clip: its column `group`, else its recording, else the clip itself.

    The recording is known where clips are cut from recordings, and so it is once `prepare` has made files of them.
    """
    if "group" in table.columns:
        return table.columns["group"].tolist()
    recordings = None
    if table.offsets is None and table.begins is not None:
        files = table.files.tolist()
        recordings = [files[file_id] for file_id in table.file_ids.tolist()]
    elif "start" in table.columns and "source" in table.columns:  # of what `prepare` cut
        recordings = table.columns["source"].tolist()
    if recordings is None or len(set(recordings)) == len(recordings):
        return table.keys.tolist()
    return recordings


def pick_of_each_class(table: ClipTable, groups: Sequence[str], share: float) -> set[str]:
    """A share of each class's groups."""
    assert table.labels is not None
    members: dict[int, list[str]] = defaultdict(list)  # first class of a group's first clip -> its groups
    seen: set[str] = set()
    for clip_id, group in enumerate(groups):
        if group not in seen:
            seen.add(group)
            labels = table.labels.row(clip_id).tolist()
            members[labels[0] if labels else 0].append(group)
    return {name for names in members.values() for name in by_hash(names)[: share_of(len(names), share)]}


def pick_of_all(table: ClipTable, groups: Sequence[str], share: float) -> set[str]:
    """A share of all groups that leaves others for each of their classes, if there is any."""
    assert table.labels is not None
    classes: dict[str, set[int]] = defaultdict(set)
    for clip_id, group in enumerate(groups):
        classes[group].update(table.labels.row(clip_id).tolist())
    left = Counter(label for own in classes.values() for label in own)  # groups of each class that are not picked
    wanted, picked = share_of(len(classes), share), set[str]()
    for group in by_hash(classes):
        if len(picked) < wanted and all(left[label] > 1 for label in classes[group]):
            picked.add(group)
            left.subtract(classes[group])
    return picked or set(by_hash(classes)[:wanted])


def share_of(count: int, share: float) -> int:
    """How many of `count` groups are a share of them: at least one of two or more."""
    return max(round(share * count), int(count > 1))


def by_hash(names: Iterable[str]) -> list[str]:
    """Names in an order that looks random and is always the same."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
