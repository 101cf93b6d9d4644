"""True events and detections to one-to-one hits, as sed_eval defines them, for every threshold at once.

A detection can be the hit of a true event of its label whose onset, and offset, lie within the collars. The largest
matching counts (`optimal`, sed_eval's default). Detections are taken from the highest score down, and each is matched
if it can be without giving up an earlier one, moving those if need be. So among the detections above any threshold as
many are hits as the largest matching of those alone has.
"""

from __future__ import annotations

import numpy as np

from audiobat.evaluation.detections.conventions import Convention
from audiobat.evaluation.detections.event_list import NONE, Bools, EventList, Whole, near_pairs


def match(truth: EventList, found: EventList, convention: Convention, *, offsets: bool) -> Whole:
    """The true event that each detection hits, [E] indices into `truth`; -1: none.

    Args:
        truth: the true events.
        found: the detections.
        convention: which collars count.
        offsets: whether offsets count, too.
    """
    detection, event = near_pairs(found, truth, convention.onset_collar, same_label=True)
    kept = within(truth, found, event, detection, convention, offsets)
    return largest_matching(detection[kept], event[kept], falling(found), len(truth))


def within(
    truth: EventList, found: EventList, event: Whole, detection: Whole, convention: Convention, offsets: bool
) -> Bools:
    """Whether the two events of each pair lie within the collars, [P]."""
    slack = convention.slack
    near = np.abs(truth.onset[event] - found.onset[detection]) <= convention.onset_collar + slack
    if offsets:
        length = truth.offset[event] - truth.onset[event]
        collar = np.maximum(convention.offset_collar, convention.offset_share * length)
        near &= np.abs(truth.offset[event] - found.offset[detection]) <= collar + slack
    return near


def hit_events(matched: Whole, events: int) -> Bools:
    """Which of so many true events are hit, by the match of each detection [E]."""
    hit = np.zeros(events, bool)
    hit[matched[matched >= 0]] = True
    return hit


def falling(found: EventList) -> Whole:
    """Detections from the highest score down; without scores in the order of their table, as sed_eval takes them."""
    return np.arange(len(found)) if found.score is None else np.argsort(-found.score, kind="stable")


def largest_matching(detection: Whole, event: Whole, order: Whole, events: int) -> Whole:
    """The event of each detection in a largest one-to-one matching, [len(order)]; -1: none.

    Args:
        detection: [P] and
        event: [P] the pairs that may match.
        order: [E] all detections, those that come first being matched before others.
        events: how many there are.
    """
    matched = np.full(len(order), NONE)
    alone = (np.bincount(detection, minlength=len(order))[detection] == 1) & (
        np.bincount(event, minlength=events)[event] == 1
    )
    matched[detection[alone]] = event[alone]
    detection, event = detection[~alone], event[~alone]
    by_detection = np.argsort(detection, kind="stable")
    detection, event = detection[by_detection], event[by_detection]
    ends = np.searchsorted(detection, np.arange(len(order) + 1))
    choices = {d: event[ends[d] : ends[d + 1]].tolist() for d in order[np.diff(ends)[order] > 0].tolist()}
    holder: dict[int, int] = {}  # of an event: its detection
    held: dict[int, int] = {}  # of a detection: its event
    dead: set[int] = set()  # events that no longer can be freed: a failed search has seen all that they could lead to
    for begin in choices:
        _augment(begin, choices, holder, held, dead)
    matched[list(held.keys())] = list(held.values())
    return matched


def _augment(
    begin: int, choices: dict[int, list[int]], holder: dict[int, int], held: dict[int, int], dead: set[int]
) -> None:
    """Match the detection `begin`, moving others to further events of theirs if need be; nothing if that fails."""
    reached_by: dict[int, int] = {}  # event: the detection that the search came from
    waiting = [begin]
    while waiting:
        current = waiting.pop()
        for choice in choices[current]:
            if choice in reached_by or choice in dead:
                continue
            reached_by[choice] = current
            if choice in holder:
                waiting.append(holder[choice])
                continue
            event = choice
            while True:  # hand events on, along the way back to the beginning, which has none to give
                giver = reached_by[event]
                given_up = held.get(giver)
                holder[event], held[giver] = giver, event
                if given_up is None:
                    return
                event = given_up
    dead.update(reached_by)


def substitutions(
    truth: EventList, found: EventList, matched: Whole, convention: Convention, *, offsets: bool
) -> Whole:
    """The missed events that have a false alarm of another label within the collars, each one of its own.

    Pairs are taken as sed_eval does: in the order of the true events, each with the first detection that is left.
    """
    missed, wrong = np.flatnonzero(~hit_events(matched, len(truth))), np.flatnonzero(matched < 0)
    a, b = near_pairs(truth.take(missed), found.take(wrong), convention.onset_collar, same_label=False)
    event, detection = missed[a], wrong[b]
    kept = within(truth, found, event, detection, convention, offsets)
    event, detection = event[kept], detection[kept]
    order = np.lexsort((detection, event))
    swapped: set[int] = set()
    used: set[int] = set()
    for e, d in zip(event[order].tolist(), detection[order].tolist(), strict=True):
        if e not in swapped and d not in used:
            swapped.add(e)
            used.add(d)
    return np.array(sorted(swapped), np.int64)
