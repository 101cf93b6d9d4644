"""Curves against measuring anew what lies above each threshold; average precision against scikit-learn's."""

import numpy as np
import pytest
from event_samples import pair_of, some_events, some_pair
from sklearn.metrics import average_precision_score

from audiobat.evaluation.detections.conventions import find_convention
from audiobat.evaluation.detections.curves import average_precision, curve_of, thresholds_of
from audiobat.evaluation.detections.event_list import EventList
from audiobat.evaluation.detections.levels import PREDICTED, RIGHT, TRUTH, Rows, clip_level, touch
from audiobat.evaluation.detections.measures import counted_classes, macro, ratios
from audiobat.evaluation.detections.run import all_levels, evaluate_pair
from audiobat.evaluation.detections.units import units_of

OURS = find_convention("ours")
LENGTHS = np.array([6.0, 6.0, 6.0])


@pytest.mark.parametrize("seed", range(8))
def test_a_curve_is_what_detections_above_each_threshold_give(seed):
    pair = some_pair(seed)
    units = units_of(LENGTHS)
    levels = all_levels(pair, LENGTHS, units, OURS, touch(pair.truth, pair.found))
    curves = [curve_of(level, level.rows, OURS, 0)[0] for level in levels]
    for threshold in (0.0, 0.2, 0.35, 0.5, 0.7, 0.9):
        left = pair.found.take(pair.found.score > threshold)
        anew = all_levels(pair_of(pair.truth, left), LENGTHS, units, OURS, touch(pair.truth, left))
        for level, curve in zip(anew, curves, strict=True):
            at = int(np.flatnonzero(curve.thresholds == threshold)[0])
            sums = level.counts.sum(0)
            np.testing.assert_allclose(curve.micro[at], ratios(sums.sum(0), OURS))
            np.testing.assert_allclose(curve.classes[:, at], ratios(sums, OURS))
            wanted = macro(ratios(sums, OURS), counted_classes(level, OURS))
            np.testing.assert_allclose(curve.macro[at], wanted)


@pytest.mark.parametrize("seed", range(8))
def test_average_precision_is_scikit_learns_times_the_share_that_is_ever_found(seed):
    pair = some_pair(seed)
    for level in all_levels(pair, LENGTHS, units_of(LENGTHS), OURS, touch(pair.truth, pair.found)):
        if level.name == "overlap":  # what is found is not what is right there
            continue
        _, metric, each = curve_of(level, level.rows, OURS, 0)
        sums = level.counts.sum(0)
        for label in range(3):
            score, _, right = level.rows.of(label)
            assert (right.sum(), len(right)) == (sums[label, RIGHT], sums[label, PREDICTED])
            share = right.sum() / sums[label, TRUTH]
            wanted = average_precision_score(right, score) * share if right.any() else 0
            assert each[label].value == pytest.approx(wanted)
            assert each[label].low <= each[label].value <= each[label].high
        assert metric.value == pytest.approx(np.mean([value.value for value in each]))
        assert metric.low <= metric.value <= metric.high


@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_of_a_label_is_the_middle_one_of_those_with_the_highest_f1_of_segments(seed):
    pair = some_pair(seed)
    words = {"predictions": "p", "truth": "t", "threshold": None, "audio": [None] * 3, "notes": []}
    result = evaluate_pair(pair, LENGTHS, OURS, 0, sweep=None, **words)
    curve = result.levels["segment"].curve
    for label, name in enumerate(pair.classes):
        f1 = curve.classes[label, :, 0].round(9)
        best = curve.thresholds[f1 == f1.max()]
        assert result.plain(0)["thresholds"][name] == best[len(best) // 2]


def test_average_precision_of_overlaps_by_hand():
    scores, right = np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, True, False, True])
    # Above 0.8 is one detection, which finds one of four; above 0.1 three with two right, which find two; then three.
    wanted = 1 / 4 * 1 + 1 / 4 * 2 / 3 + 1 / 4 * 3 / 4
    assert average_precision(scores, right, np.array([0.9, 0.8, 0.1]), 4) == pytest.approx(wanted)


def test_scores_of_another_range_get_thresholds_of_their_own():
    logits = np.random.default_rng(0).normal(0, 5, 1000)
    rows = Rows(1).add(np.zeros(1000, np.int64), logits, np.zeros(1000, np.int64), logits > 0)
    thresholds = thresholds_of(rows)
    assert len(thresholds) == 100
    assert thresholds[0] == logits.min()
    assert (np.diff(thresholds) > 0).all()


def test_intervals_of_average_precision_narrow_with_the_number_of_recordings():
    widths = []
    for recordings in (25, 400):
        rng = np.random.default_rng(1)
        truth = some_events(rng, recordings * 2, recordings, 1, scored=False)
        kept = truth.take(rng.random(len(truth)) < 0.6)
        score = np.concatenate([rng.beta(3, 2, len(kept)), rng.beta(2, 3, len(kept))])
        more = some_events(rng, len(kept), recordings, 1)
        found = EventList(
            *(np.concatenate([getattr(kept, n), getattr(more, n)]) for n in ("recording", "label", "onset", "offset")),
            score,
        )
        level = clip_level(truth, found, units_of(np.full(recordings, 6.0)), recordings, 1)
        _, metric, _ = curve_of(level, level.rows, OURS, 0)
        widths.append(metric.high - metric.low)
    assert widths[1] < widths[0] / 2
