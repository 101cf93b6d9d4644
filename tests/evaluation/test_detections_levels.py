"""Counts of every level against plain loops, in whatever batches and units; ratios and how sure they are."""

import math

import numpy as np
import pytest
from event_samples import pair_of, some_events, some_pair

from audiobat.errors import AudiobatError
from audiobat.evaluation.detections import levels as levels_module
from audiobat.evaluation.detections.conventions import find_convention
from audiobat.evaluation.detections.event_list import EventList
from audiobat.evaluation.detections.levels import (
    FOUND,
    PREDICTED,
    RIGHT,
    TRUTH,
    clip_level,
    matched_level,
    overlap_level,
    segment_level,
    touch,
)
from audiobat.evaluation.detections.measures import measure, ratios
from audiobat.evaluation.detections.run import all_levels, doubled
from audiobat.evaluation.detections.units import units_of

OURS = find_convention("ours")
LENGTHS = np.array([6.0, 6.0, 6.0])


def tally(cells_true, cells_found):
    """[C, 4] of two sets of cells whose last entry is the label."""
    counts = np.zeros((3, 4))
    for column, cells in (
        (TRUTH, cells_true),
        (PREDICTED, cells_found),
        (FOUND, cells_true & cells_found),
        (RIGHT, cells_true & cells_found),
    ):
        for *_, label in cells:
            counts[label, column] += 1
    return counts


def segments_of(events, step):
    """The (recording, segment, label) that events touch, in whole tenths of a second."""
    tenths = round(step * 10)
    return {
        (r, s, c)
        for r, c, a, b in zip(events.recording, events.label, events.onset, events.offset, strict=True)
        for s in range(100)
        if round(a * 10) < (s + 1) * tenths and round(b * 10) > s * tenths and s * step < 6
    }


@pytest.mark.parametrize("step", [1.0, 0.3, 0.1])
@pytest.mark.parametrize("seed", range(10))
def test_segments_are_those_that_events_touch(seed, step, monkeypatch):
    pair = some_pair(seed)
    convention = find_convention("ours", segment_seconds=step)
    units = units_of(LENGTHS)
    level = segment_level(pair.truth, pair.found, LENGTHS, units, 3, convention)
    true, found = segments_of(pair.truth, step), segments_of(pair.found, step)
    assert np.array_equal(level.counts.sum(0), tally(true, found))
    for r in range(3):
        own = tally({c for c in true if c[0] == r}, {c for c in found if c[0] == r})
        assert np.array_equal(level.by_recording[r], own.sum(0))
    swapped = 0
    for cell in {cell[:2] for cell in true | found}:
        t, f = ({c[2] for c in cells if c[:2] == cell} for cells in (true, found))
        swapped += min(len(t), len(f)) - len(t & f)
    assert level.substitutions.sum() == swapped
    monkeypatch.setattr(levels_module, "CELLS", 7)  # two segments at once
    again = segment_level(pair.truth, pair.found, LENGTHS, units, 3, convention)
    assert np.array_equal(again.counts, level.counts)
    assert np.array_equal(again.substitutions, level.substitutions)
    for label in range(3):
        for a, b in zip(again.rows.of(label), level.rows.of(label), strict=True):
            assert np.array_equal(np.sort(a), np.sort(b))


@pytest.mark.parametrize("seed", range(10))
def test_clips_and_overlaps_are_those_of_plain_loops(seed):
    pair = some_pair(seed)
    truth, found = pair.truth, pair.found
    units = units_of(LENGTHS)
    cells = [set(zip(side.recording.tolist(), side.label.tolist(), strict=True)) for side in (truth, found)]
    assert np.array_equal(clip_level(truth, found, units, 3, 3).counts.sum(0), tally(*cells))
    may = np.array(
        [
            [
                truth.recording[e] == found.recording[d]
                and truth.label[e] == found.label[d]
                and min(truth.offset[e], found.offset[d]) - max(truth.onset[e], found.onset[d]) > 1e-6
                for d in range(len(found))
            ]
            for e in range(len(truth))
        ]
    )
    wanted = np.zeros((3, 4))
    for column, labels in (
        (TRUTH, truth.label),
        (FOUND, truth.label[may.any(1)]),
        (PREDICTED, found.label),
        (RIGHT, found.label[may.any(0)]),
    ):
        wanted[:, column] = np.bincount(labels, minlength=3)
    level = overlap_level(truth, found, touch(truth, found), units, 3, 3)
    assert np.array_equal(level.counts.sum(0), wanted)


def test_counts_do_not_depend_on_the_units_that_intervals_resample():
    rng = np.random.default_rng(0)
    truth = some_events(rng, 200, recordings=25, scored=False)
    pair = pair_of(truth, some_events(rng, 200, recordings=25), recordings=25)
    lengths = np.full(25, 6.0)
    touched = touch(pair.truth, pair.found)
    sums = []
    for units in (units_of(lengths), units_of(lengths * 0 + 6.0, whole=True), units_of(np.array([6.0]))):
        if units.count == 1:  # everything in one unit
            units = type(units)(1, "all", np.zeros(25, np.int64), np.ones(25, np.int64), np.inf)
        sums.append([level.counts.sum(0) for level in all_levels(pair, lengths, units, OURS, touched)])
    for other in sums[1:]:
        for a, b in zip(sums[0], other, strict=True):
            assert np.array_equal(a, b)


def test_a_hit_counts_where_its_true_event_begins():
    truth = EventList(*(np.zeros(1, np.int64) for _ in range(2)), np.array([60.05]), np.array([61.0]))
    found = EventList(*(np.zeros(1, np.int64) for _ in range(2)), np.array([59.95]), np.array([61.0]))
    level = matched_level("event", truth, found, units_of(np.array([120.0])), 1, 1, OURS)
    assert level.counts[1, 0].tolist() == [1, 1, 1, 1]


def test_few_recordings_are_cut_into_stretches_and_very_many_are_taken_together():
    few = units_of(np.array([150.0, 30.0]))
    assert (few.count, few.name) == (4, "stretches of 60 s")
    assert few.of(np.array([0, 0, 0, 1, 1]), np.array([0.0, 60.0, 200.0, 0.0, 29.0])).tolist() == [0, 1, 2, 3, 3]
    assert units_of(np.full(20, 1e4)).name == "recordings"
    many = units_of(np.ones(2500))
    assert many.count == 1000
    assert np.bincount(many.of(np.arange(2500), np.zeros(2500))).max() == 3
    long = units_of(np.array([1e6]))  # stretches get longer, not more
    assert long.count == 1000


def test_ratios_by_hand():
    counts = np.zeros((5, 4))
    counts[0] = [2, 4, 3, 6]  # found, truth, right, predicted
    counts[1] = [0, 4, 0, 0]  # nothing predicted
    counts[2] = [0, 0, 0, 5]  # nothing true
    counts[4] = [0, 4, 0, 5]
    f1, precision, recall = ratios(counts, OURS).T
    assert f1[0] == precision[0] == recall[0] == 0.5
    assert (f1[1], precision[1], recall[1]) == (0, 0, 0)
    assert precision[2] == 0
    assert np.isnan([f1[2], recall[2], f1[3], precision[3], recall[3]]).all()
    assert f1[4] == 0
    assert np.isnan(ratios(counts, find_convention("sed_eval"))[1, :2]).all()


def test_macro_is_over_the_classes_that_truth_has_and_an_interval_knows_how_few_events_are_behind_it():
    truth = EventList(np.arange(30) % 30, np.zeros(30, np.int64), np.ones(30), np.full(30, 2.0))
    extra = EventList(np.array([3, 4]), np.array([1, 1]), np.ones(2), np.full(2, 2.0))
    both = EventList(
        *(np.concatenate([getattr(a, n) for a in (truth, extra)]) for n in ("recording", "label", "onset", "offset"))
    )
    alarm = EventList(np.array([5]), np.array([2]), np.ones(1), np.full(1, 2.0))
    found = EventList(
        *(np.concatenate([getattr(a, n) for a in (both, alarm)]) for n in ("recording", "label", "onset", "offset"))
    )
    pair = pair_of(both, found, recordings=30)
    units = units_of(np.full(30, 6.0))
    metrics, classes = measure(
        overlap_level(pair.truth, pair.found, touch(pair.truth, pair.found), units, 30, 3), OURS, 0
    )
    assert metrics["f1_macro"].value == 1
    assert metrics["precision_micro"].value == pytest.approx(32 / 33)
    many, few, none = (values[2] for values in classes)  # recall
    assert many.value == few.value == 1
    assert many.low > 0.85
    assert few.low < 0.4  # two events in two recordings say little
    assert math.isnan(none.value)


def test_an_error_rate_without_truth_is_undefined_or_sed_evals_great_number():
    truth = EventList(*(np.zeros(0, np.int64) for _ in range(2)), np.zeros(0), np.zeros(0))
    found = EventList(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1), np.ones(1))
    rates = {}
    for name in ("ours", "sed_eval"):
        convention = find_convention(name)
        level = segment_level(truth, found, np.ones(1), units_of(np.ones(1)), 1, convention)
        rates[name] = measure(level, convention, 0)[0]["error_rate"].value
    assert math.isnan(rates["ours"])
    assert rates["sed_eval"] == pytest.approx(4.5e15, rel=0.01)


def test_more_segments_than_memory_holds_are_refused():
    late = EventList(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1), np.full(1, 6e7))
    with pytest.raises(AudiobatError, match=r"60,000,000 segments of 1 s: raise --segment-seconds"):
        segment_level(late, late, np.array([6e7]), units_of(np.array([6e7])), 1, OURS)


def test_true_events_that_begin_while_one_of_their_label_lasts_are_counted():
    onset = np.array([0.0, 1.0, 1.5, 3.0, 0.5, 0.5])
    truth = EventList(np.array([0, 0, 0, 0, 0, 1]), np.array([0, 0, 0, 0, 1, 0]), onset, onset + 2)
    assert doubled(pair_of(truth, truth)) == 3
