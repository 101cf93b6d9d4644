"""Names of recordings and labels of two tables brought together, or refused."""

import numpy as np
import pytest

from audiobat.errors import AudiobatError
from audiobat.evaluation.detections.align import Side, align, match_names
from audiobat.evaluation.detections.event_list import EventList


def side(events, keys=None, classes=None, **more):
    """A side of events (recording, label, onset, offset)."""
    keys = list(dict.fromkeys(event[0] for event in events)) if keys is None else keys
    classes = sorted({event[1] for event in events}) if classes is None else classes
    rows = [(keys.index(r), classes.index(c), a, b) for r, c, a, b in events]
    recording, label, onset, offset = zip(*rows, strict=True) if rows else ((), (), (), ())
    whole = (np.array(column, np.int64) for column in (recording, label))
    return Side(keys, classes, EventList(*whole, np.array(onset, float), np.array(offset, float)), **more)


@pytest.mark.parametrize(
    ("truth", "predicted", "wanted"),
    [
        (["site/a.wav", "site/b.wav"], ["b.wav", "a.wav"], [1, 0]),
        (["a.wav"], ["/data/site/a.wav"], [0]),
        (["s1/a.wav", "s2/a.wav"], ["s2/a.wav", "x/s1/a.wav"], [1, 0]),
        (["a.wav", "s1/a.wav"], ["s1/a.wav"], [1]),  # the one that shares more
        (["s1/a.wav"], ["s2/a.wav"], [-1]),  # another recording
        (["a.flac"], ["a.wav", "b.wav"], [0, -1]),
        (["a.flac", "a.wav"], ["a.wav"], [1]),  # the ending decides where it can
        (["night"], ["rec/night.wav"], [0]),
        (["site\\a.wav"], ["site/a.wav"], [0]),
        (["./a.wav"], ["a.wav"], [0]),
        (["a.wav"], ["A.wav"], [-1]),
        (["a.1.wav"], ["a.2.wav"], [-1]),
    ],
)
def test_names_are_matched_from_the_end(truth, predicted, wanted):
    assert match_names(truth, predicted) == wanted


@pytest.mark.parametrize(
    ("truth", "predicted", "says"),
    [
        (
            ["s1/a.wav", "s2/a.wav"],
            ["a.wav"],
            r"a\.wav, which may be s1/a\.wav or s2/a\.wav of the truth: name the folders",
        ),
        (["a.wav"], ["s1/a.wav", "s2/a.wav"], r"s1/a\.wav and s2/a\.wav, and both may mean a\.wav"),
        (["a.flac", "a.ogg"], ["a.wav"], r"a\.wav, which may be a\.flac or a\.ogg"),
    ],
)
def test_a_name_that_may_mean_several_is_refused(truth, predicted, says):
    with pytest.raises(AudiobatError, match=says):
        match_names(truth, predicted)


def test_both_sides_get_the_recordings_of_the_truth_and_the_labels_of_both():
    truth = side([("b.wav", "dog", 0, 1), ("a.wav", "cat", 2, 3)], keys=["b.wav", "a.wav", "silent.wav"])
    found = side([("x/a.wav", "cat", 2, 3), ("x/a.wav", "owl", 4, 5), ("x/z.wav", "cat", 0, 1)])
    pair = align(truth, found)
    assert pair.keys == ["a.wav", "b.wav", "silent.wav"]
    assert pair.classes == ["cat", "dog", "owl"]
    assert pair.predicted_ids.tolist() == [0, -1, -1]
    assert pair.left_out == ["x/z.wav"]
    assert pair.only_predicted == {"owl": 1}
    assert pair.only_true == {"dog": 1}
    assert sorted(zip(pair.truth.recording.tolist(), pair.truth.label.tolist(), strict=True)) == [(0, 0), (1, 1)]
    assert sorted(zip(pair.found.recording.tolist(), pair.found.label.tolist(), strict=True)) == [(0, 0), (0, 2)]
    few = align(truth, found, labels=["cat"])
    assert few.classes == ["cat"]
    assert (len(few.truth), len(few.found)) == (1, 1)


def test_a_model_says_all_of_its_classes_and_they_count():
    truth = side([("a.wav", "dog", 0, 1)])
    pair = align(truth, side([("a.wav", "dog", 0, 1)], classes=["cat", "dog"], every_class=True))
    assert pair.classes == ["cat", "dog"]


def test_predictions_without_a_row_are_of_a_system_that_detects_nothing():
    pair = align(side([("a.wav", "dog", 0, 1)]), side([], keys=["table"]))
    assert len(pair.found) == 0
    assert pair.predicted_ids.tolist() == [-1]


@pytest.mark.parametrize(
    ("truth", "found", "labels", "says"),
    [
        (
            [("a.wav", "dog", 0, 1)],
            [("b.wav", "dog", 0, 1)],
            None,
            r"no recording in common: predictions name b\.wav; the truth",
        ),
        (
            [("a.wav", "dog", 0, 1)],
            [("a.wav", "Dog", 0, 1)],
            None,
            r"no label in common: predictions have Dog; the truth dog\. --map",
        ),
        (
            [("a.wav", "dog", 0, 1)],
            [("a.wav", "dog", 0, 1)],
            ["dgo"],
            r"--labels dgo: neither side has it \(did you mean dog\?\): the labels are dog\.",
        ),
        ([], [("a.wav", "dog", 0, 1)], None, "no event of any label: there is nothing to find"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(truth, found, labels, says):
    with pytest.raises(AudiobatError, match=says):
        align(side(truth, keys=["a.wav"]), side(found), labels)
