"""The confusion matrix and the order of errors, by hand and by what must hold for any events."""

import numpy as np
import pytest
from event_samples import pair_of, some_pair

from audiobat.evaluation.detections.confusion import confuse, worst
from audiobat.evaluation.detections.event_list import EventList
from audiobat.evaluation.detections.levels import touch
from audiobat.evaluation.detections.run import errors_of

A, B, C = range(3)


def events(*rows, scores=None):
    """Events (label, onset, offset) of one recording."""
    label, onset, offset = zip(*rows, strict=True)
    zeros = np.zeros(len(rows), np.int64)
    score = None if scores is None else np.array(scores)
    return EventList(zeros, np.array(label, np.int64), np.array(onset, float), np.array(offset, float), score)


def test_a_miss_is_taken_for_the_false_alarm_that_shares_most_time():
    truth = events((A, 0, 4), (A, 10, 12), (B, 20, 22), (C, 30, 31))
    found = events((B, 0, 1), (C, 0.5, 3.5), (A, 10, 11), (A, 11, 12), (A, 21, 25), (C, 40, 41))
    pair = pair_of(truth, found, 1)
    touched = touch(pair.truth, pair.found)
    confusion = confuse(pair.truth, pair.found, touched, 3)
    wanted = np.zeros((4, 4), int)
    wanted[A, C] = 1  # the long alarm, not the short one of B, which comes out of the background
    wanted[3, B] = 1
    wanted[A, A] = 1  # one true event in two detections is found once
    wanted[B, A] = 1
    wanted[C, 3] = 1
    wanted[3, C] = 1
    assert np.array_equal(confusion.counts, wanted)
    kinds = [(error.kind, error.label, error.confused_with) for error in errors_of(pair, touched, confusion)]
    assert kinds == [
        *(("miss", "a", "c"), ("miss", "b", "a"), ("miss", "c", None)),
        *(("false alarm", "a", "b"), ("false alarm", "c", "a"), ("false alarm", "b", None), ("false alarm", "c", None)),
    ]


@pytest.mark.parametrize("seed", range(10))
def test_every_true_event_and_every_false_alarm_is_counted_once(seed):
    pair = some_pair(seed, 30)
    touched = touch(pair.truth, pair.found)
    confusion = confuse(pair.truth, pair.found, touched, 3)
    counts = confusion.counts
    assert np.array_equal(counts[:3].sum(1), np.bincount(pair.truth.label, minlength=3))
    alarms = np.bincount(pair.found.label[~touched.right], minlength=3)
    assert np.array_equal(counts[:, :3].sum(0) - np.diag(counts)[:3], alarms)
    assert np.array_equal(np.diag(counts)[:3], np.bincount(pair.truth.label[touched.detected], minlength=3))


def test_the_worst_errors_come_class_by_class():
    found = events((A, 0, 1), (A, 2, 3), (A, 4, 5), (B, 6, 7), (B, 8, 9))
    badness = np.array([0.1, 0.9, 0.8, 0.3, 0.2])
    wrong = np.array([True, True, True, True, True])
    assert worst(found, wrong, badness).tolist() == [1, 3, 2, 4, 0]
    wrong[1] = False
    assert worst(found, wrong, badness).tolist() == [2, 3, 4, 0]  # 0.2 of b goes before 0.1 of a
