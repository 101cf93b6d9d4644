"""`evaluate` on the file of `predict --scores`: the numbers of the tables that predict makes of it at thresholds."""

import csv
import json

import numpy as np
import pytest
import soundfile
from sklearn.metrics import average_precision_score
from small_tagger import CLASSES, RATE, make_tagger, sound

from audiobat.errors import AudiobatError
from audiobat.evaluation.detections import sweep
from audiobat.evaluation.detections.sweep import THRESHOLDS
from audiobat.evaluation.score_file import read_scores
from audiobat.inference.evaluate import evaluate
from audiobat.inference.predict import predict

SECONDS = (4.0, 3.1, 1.7)


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """Recordings and true events that begin and end on tenths of a second."""
    rng = np.random.default_rng(1)
    folder = tmp_path_factory.mktemp("field")
    rows = [("path", "label", "onset", "offset")]
    for i, seconds in enumerate(SECONDS):
        soundfile.write(folder / f"{i}.wav", sound(rng, seconds, RATE), RATE)
        for _ in range(8):
            onset = rng.integers(0, seconds * 10 - 3) / 10
            rows.append((f"{i}.wav", CLASSES[rng.integers(4)], onset, min(seconds, onset + rng.integers(2, 9) / 10)))
    with (folder / "events.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module", params=["frames", "windows", "one of several"])
def kept(request, field, tmp_path_factory):
    """Scores of a tagger of frames, of windows, or of windows whose classes exclude each other."""
    place = tmp_path_factory.mktemp("kept")
    tagger = make_tagger(
        "frame" if request.param == "frames" else "clip", multi_label=request.param != "one of several"
    )
    predict(tagger, field, place / "out.csv", scores=place / "kept.npz", window_seconds=0.5, hop_seconds=0.3)
    return place / "kept.npz"


def counts_of(result):
    return {
        name: {label: (own.truth, own.predicted, own.found, own.right) for label, own in level.per_class.items()}
        for name, level in result.levels.items()
    }


def test_the_detections_are_those_that_predict_writes(kept, field, tmp_path):
    for number, threshold in enumerate((None, 0.45, 0.7)):
        table = predict(None, kept, tmp_path / f"{number}.csv", threshold=threshold)
        wanted = evaluate(table, field / "events.csv", tmp_path / f"table{number}", clips=0)
        result = evaluate(kept, field / "events.csv", tmp_path / f"kept{number}", threshold=threshold, clips=0)
        assert counts_of(result) == counts_of(wanted)
        assert result.confusion is not None
        assert np.array_equal(result.confusion.counts, wanted.confusion.counts)


def test_every_curve_is_what_a_table_of_that_threshold_gives(kept, field, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "CELLS", 7)  # a segment at a time
    curves = evaluate(kept, field / "events.csv", tmp_path / "kept", clips=0).levels
    for number, threshold in enumerate((0.3, 0.5, 0.8)):
        table = predict(None, kept, tmp_path / f"{number}.csv", threshold=threshold)
        at_it = evaluate(table, field / "events.csv", tmp_path / f"table{number}", clips=0).levels
        for name, level in at_it.items():
            curve = curves[name].curve
            place = int(np.flatnonzero(np.isclose(curve.thresholds, threshold))[0])
            for column, part in enumerate(("f1", "precision", "recall")):
                assert curve.micro[place, column] == pytest.approx(level.metrics[f"{part}_micro"].value), (name, part)
                assert curve.macro[place, column] == pytest.approx(level.metrics[f"{part}_macro"].value)
    assert np.array_equal(curves["event"].curve.thresholds, THRESHOLDS)


def test_predict_takes_the_file_for_the_threshold_at_which_each_label_has_its_highest_f1(kept, field, tmp_path):
    level = evaluate(kept, field / "events.csv", tmp_path / "kept", clips=0).levels["segment"]
    table = predict(None, kept, tmp_path / "tuned.csv", threshold=tmp_path / "kept" / "evaluation.json")
    tuned = evaluate(table, field / "events.csv", tmp_path / "tuned", clips=0).levels["segment"]
    best = np.nan_to_num(level.curve.classes[:, :, 0]).max(1)
    labels = json.loads((tmp_path / "kept" / "evaluation.json").read_text())["classes"]
    assert best.max() > 0
    for label, value in zip(labels, best, strict=True):
        if value > 0:
            assert tuned.per_class[label].f1.value == pytest.approx(value)


def test_average_precision_of_clips_is_scikit_learns(kept, field, tmp_path):
    result = evaluate(kept, field / "events.csv", tmp_path / "out", clips=0)
    best = {stretch.recording: stretch.scores for stretch in read_scores(kept).stretches(None)}
    if read_scores(kept).about.kind == "frames" or not read_scores(kept).about.multi_label:
        best = {}  # what is smoothed, or the best of several, is another number
    for at, label in enumerate(result.pair.classes if best else ()):
        scores = [best[r][:, CLASSES.index(label)].max() for r in range(3)]
        true = [bool(((result.pair.truth.recording == r) & (result.pair.truth.label == at)).any()) for r in range(3)]
        own = result.levels["clip"].per_class[label].average_precision
        assert own.value == pytest.approx(average_precision_score(true, scores))


def test_a_miss_tells_the_highest_score_of_its_label_while_it_lasted(kept, field, tmp_path):
    result = evaluate(kept, field / "events.csv", tmp_path / "out", threshold=0.6, clips=3)
    scores = read_scores(kept)
    if scores.about.kind == "windows" and scores.about.multi_label:
        stretches = list(scores.stretches(None))
        for error in [error for error in result.errors if error.kind == "miss"]:
            stretch = stretches[int(error.file[0])]
            inside = (stretch.spans[:, 0] < error.end - 1e-6) & (stretch.spans[:, 1] > error.start + 1e-6)
            own = stretch.scores[inside, CLASSES.index(error.label)]
            assert error.score == pytest.approx(own.max(), abs=1e-6)
    plain = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert len([error for error in plain["errors"] if error["kind"] == "miss"]) <= 3


def test_hear_ends_an_event_where_its_last_frame_begins(field, tmp_path):
    predict(make_tagger("frame"), field, tmp_path / "out.csv", scores=tmp_path / "kept.npz")
    ours = evaluate(tmp_path / "kept.npz", field / "events.csv", tmp_path / "ours", threshold=0.5).pair.found
    hear = evaluate(
        tmp_path / "kept.npz", field / "events.csv", tmp_path / "hear", threshold=0.5, convention="hear"
    ).pair.found
    assert np.array_equal(ours.onset, hear.onset)
    spans = next(read_scores(tmp_path / "kept.npz").stretches(None)).spans
    np.testing.assert_allclose((ours.offset - hear.offset)[ours.recording == 0].max(), spans[0, 1] - spans[0, 0])
    assert (hear.offset >= hear.onset).all()


def test_classes_that_are_renamed_to_one_share_their_scores(kept, field, tmp_path):
    names = tmp_path / "names.csv"
    names.write_text('from,to\ndog,animal\n"cat, black",animal\nrain,\n')
    result = evaluate(kept, field / "events.csv", tmp_path / "out", map=names)
    assert result.pair.classes == ['a "bell"', "animal"]
    curve = result.levels["clip"].curve
    assert curve.classes.shape[0] == 2


def test_a_file_of_other_arrays_is_refused(field, tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(AudiobatError, match=r"other\.npz is no file of scores"):
        evaluate(tmp_path / "other.npz", field / "events.csv", tmp_path / "out")
