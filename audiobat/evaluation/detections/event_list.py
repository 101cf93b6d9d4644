"""Events of many recordings as flat arrays, and the pairs of events that are near each other or overlap.

All pairs come from sorting and binary search, so that millions of events take seconds; a pair is judged by the exact
times of its two events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audiobat.errors import AudiobatError

MOST_PAIRS = 30_000_000  # 0.5 GB
NONE = -1  # index of no event, no label, no recording
TOUCHING = 1e-6  # seconds; events that share no more only touch, but for rounding

Floats = NDArray[np.float64]
Scores = NDArray[np.float32]  # of models
Whole = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class EventList:
    """E events, in any order."""

    recording: Whole  # [E] counted from 0
    label: Whole  # [E] index of the class
    onset: Floats  # [E] seconds
    offset: Floats  # [E] seconds
    score: Floats | None = None  # [E]; None: the events have none

    def __len__(self) -> int:
        return len(self.onset)

    def take(self, chosen: Whole | Bools) -> EventList:
        """Some of the events, by index or mask."""
        score = None if self.score is None else self.score[chosen]
        return EventList(self.recording[chosen], self.label[chosen], self.onset[chosen], self.offset[chosen], score)


def near_pairs(a: EventList, b: EventList, seconds: float, *, same_label: bool) -> tuple[Whole, Whole]:
    """All pairs of one recording whose onsets are at most `seconds` apart, or a bit more: indices into `a` and `b`.

    With `same_label` their labels are the same, too.
    """
    group_a, group_b = _groups(a, b, same_label)
    key_a, key_b = _keys(group_a, group_b, a.onset, b.onset, seconds)
    order = np.argsort(key_b, kind="stable")
    reach = seconds + _rounding(key_a, key_b)
    first = np.searchsorted(key_b[order], key_a - reach)
    last = np.searchsorted(key_b[order], key_a + reach, side="right")
    which, at = _spread(first, last)
    return which, order[at]


def overlapping_pairs(a: EventList, b: EventList, *, same_label: bool) -> tuple[Whole, Whole]:
    """All pairs of one recording that share time, more than rounding makes: indices into `a` and `b`.

    With `same_label` their labels are the same, too.
    """
    found = []
    for one, other, turned in ((a, b, False), (b, a, True)):
        # Pairs of which `other` begins while `one` lasts; those that begin at once are found the first way round.
        group_one, group_other = _groups(one, other, same_label)
        key_one, key_other = _keys(group_one, group_other, one.onset, other.onset, float(_longest(one)))
        order = np.argsort(key_other, kind="stable")
        wider = _rounding(key_one, key_other)
        first = np.searchsorted(key_other[order], key_one - wider)
        last = np.searchsorted(key_other[order], key_one + (one.offset - one.onset) + wider, side="right")
        which, at = _spread(first, last)
        at = order[at]
        begins = other.onset[at] > one.onset[which] if turned else other.onset[at] >= one.onset[which]
        shared = np.minimum(one.offset[which], other.offset[at]) - np.maximum(one.onset[which], other.onset[at])
        kept = begins & (shared > TOUCHING)
        which, at = which[kept], at[kept]
        found.append((at, which) if turned else (which, at))
    return np.concatenate([found[0][0], found[1][0]]), np.concatenate([found[0][1], found[1][1]])


def _longest(events: EventList) -> float:
    return float((events.offset - events.onset).max(initial=0.0))


def _groups(a: EventList, b: EventList, same_label: bool) -> tuple[Whole, Whole]:
    if not same_label:
        return a.recording, b.recording
    labels = 1 + max(a.label.max(initial=0), b.label.max(initial=0))
    return a.recording * labels + a.label, b.recording * labels + b.label


def _keys(group_a: Whole, group_b: Whole, time_a: Floats, time_b: Floats, reach: float) -> tuple[Floats, Floats]:
    """Times on one line, group after group, so far apart that a search by `reach` never gets into the next group."""
    _, group = np.unique(np.concatenate([group_a, group_b]), return_inverse=True)  # few and small: floats stay fine
    latest = max(time_a.max(initial=0.0), time_b.max(initial=0.0))
    step = np.ceil(latest + 2 * reach + 1)
    return group[: len(group_a)] * step + time_a, group[len(group_a) :] * step + time_b


def _rounding(*keys: Floats) -> float:
    """Seconds by which a search in keys must reach too far; the exact times of pairs decide afterwards."""
    return max(1e-3, *(4 * float(np.spacing(key.max(initial=0.0))) for key in keys))


def _spread(first: Whole, last: Whole) -> tuple[Whole, Whole]:
    """Ranges first[i]:last[i] one after another: the i and the place of each entry."""
    counts = np.maximum(last - first, 0)
    if counts.sum() > MOST_PAIRS:
        raise AudiobatError(
            f"More than {MOST_PAIRS:,} pairs of events lie close together: look for rows that a table has many times, "
            "or narrow --onset-collar."
        )
    which = np.repeat(np.arange(len(counts)), counts)
    start = np.cumsum(counts) - counts
    return which, np.arange(len(which)) - start[which] + first[which]
