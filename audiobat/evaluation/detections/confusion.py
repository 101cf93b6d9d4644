"""Which labels are taken for which, and the misses and false alarms that are most worth a look.

All by overlap in time: a true event that a detection of its label touches is found. A missed event and a false alarm of
another label that share time are one confusion, those that share most first, each event and each alarm in one at most.
What is left over is a miss against the background, or a false alarm out of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audiobat.evaluation.detections.event_list import NONE, Bools, EventList, Floats, Whole, overlapping_pairs
from audiobat.evaluation.detections.levels import Touch


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts, and the other label of each error."""

    counts: Whole  # [C + 1, C + 1] true label by predicted label; the last row and column are the background
    taken_for: Whole  # [T] the label that a missed event was taken for; -1: none, or it was found
    really: Whole  # [E] the true label of a false alarm; -1: none, or it is right


def confuse(truth: EventList, found: EventList, touched: Touch, classes: int) -> Confusion:
    """The confusion matrix of events."""
    missed, wrong = np.flatnonzero(~touched.detected), np.flatnonzero(~touched.right)
    a, b = overlapping_pairs(truth.take(missed), found.take(wrong), same_label=False)
    event, detection = missed[a], wrong[b]
    shared = np.minimum(truth.offset[event], found.offset[detection])
    shared -= np.maximum(truth.onset[event], found.onset[detection])
    taken_for, really = np.full(len(truth), NONE), np.full(len(found), NONE)
    ties = (found.label[detection], found.onset[detection], truth.label[event], truth.onset[event])
    for pair in np.lexsort((*ties, -shared.round(6))).tolist():
        e, d = event[pair], detection[pair]
        if taken_for[e] == NONE and really[d] == NONE:
            taken_for[e], really[d] = found.label[d], truth.label[e]
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    hits = truth.label[touched.detected]
    np.add.at(counts, (hits, hits), 1)
    np.add.at(counts, (truth.label[missed], taken_for[missed]), 1)  # -1 is the last column: the background
    alarms = found.label[wrong[really[wrong] == NONE]]
    np.add.at(counts, (np.full(len(alarms), classes), alarms), 1)
    return Confusion(counts, taken_for, really)


def worst(events: EventList, wrong: Bools, badness: Floats) -> Whole:
    """The wrong ones of E events, worst first: of every class its worst, then of every class its second, and so on."""
    chosen = np.flatnonzero(wrong)
    chosen = chosen[np.argsort(-badness[chosen], kind="stable")]
    by_label = np.argsort(events.label[chosen], kind="stable")
    label = events.label[chosen][by_label]
    rank = np.empty(len(chosen), np.int64)  # among those of the same class
    rank[by_label] = np.arange(len(chosen)) - np.searchsorted(label, label)
    return chosen[np.argsort(rank, kind="stable")]
